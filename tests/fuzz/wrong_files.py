"""Files of other kinds made slightly wrong: YAML, JSON lines, Parquet, recipes by their schema, tensors by name and shape."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.fuzz.mutating import as_json, damage, wrong_json, wrong_safetensors

TEXTS = (
    "", "a", "en", "ko,en", "$model", "$web", "$layers:1", "$mt", "mt=$mt", "$layers=0.5", "2:4", "0.5", "auto", "1:0-3", "no",
    "perplexity", "magnitude", "block-influence", "/", ".", "~", "~x", "..", "**", "*", "[", "\x00", "x" * 5000, "x=y=z", ":", "=",
)  # fmt: skip


def wrong_yaml(raw: bytes, choose: random.Random) -> bytes:
    """YAML with changes in its structure, in its bytes, or with anchors that multiply."""
    if choose.randrange(6) == 0:
        levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
        return choose.choice([b"a0: &a0 [x]\n" + levels.encode(), b"&a [*a]\n", b"model: &m {x: *m}\nevaluate: *m\n"])
    if choose.randrange(3) == 0:
        return damage(raw, choose)
    import yaml

    return wrong_json(json.dumps(yaml.safe_load(raw)).encode(), choose)


def wrong_lines(raw: bytes, choose: random.Random) -> bytes:
    """JSON lines with one of them wrong."""
    lines = raw.splitlines()
    at = choose.randrange(len(lines))
    lines[at] = wrong_json(lines[at], choose)
    return b"\n".join(lines)


def wrong_parquet(raw: bytes, choose: random.Random) -> bytes:
    """Parquet with other bytes, other facts in its metadata, or other columns."""
    if choose.randrange(2):
        return damage(raw, choose)
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(raw))
    metadata = dict(table.schema.metadata or {})
    kind = choose.randrange(4)
    if kind < 2:
        metadata[b"langslice"] = wrong_json(metadata[b"langslice"], choose)
    elif kind == 2:
        table = table.drop_columns([choose.choice(table.column_names)])
    else:
        name = choose.choice(table.column_names)
        strange = choose.choice([[None], ["a"], [-1], [2**62], [0.5], [float("nan")], [[1]], [True]])
        table = table.set_column(table.column_names.index(name), name, pa.array(strange * len(table)))
    out = io.BytesIO()
    pq.write_table(table.slice(0, choose.choice([len(table), len(table), 1, 0])).replace_schema_metadata(metadata), out)
    return out.getvalue()


def wrong_recipe(raw: bytes, choose: random.Random) -> bytes:
    """A recipe of a run, wrong as any YAML, or with entries that its schema knows and values that they may take."""
    if choose.randrange(2):
        return wrong_yaml(raw, choose)
    import yaml

    from langslice.recipes.schema import recipe_schema

    document, known = yaml.safe_load(raw), recipe_schema()["properties"]
    for _ in range(choose.choice([1, 1, 2, 4])):
        name = choose.choice(sorted(known))
        if choose.randrange(6) == 0:
            document.pop(name, None)
            continue
        entries, holder = known[name], document
        if not entries.get("properties") and isinstance(entries.get("additionalProperties"), dict):
            entries = entries["additionalProperties"]
            holder = holder.setdefault(name, {})
            name = choose.choice([*holder, "more"])
        if entries.get("properties"):
            if not isinstance(holder.get(name), dict):
                holder[name] = {}
            holder, name = holder[name], choose.choice(sorted(entries["properties"]))
            entries = entries["properties"][name]
        holder[name] = _value(entries, choose)
    return as_json(document)


def _value(schema: Any, choose: random.Random) -> Any:
    """Something of a type that a schema allows."""
    kind = choose.choice(schema["type"])
    texts = [*TEXTS, *[str(each) for each in schema.get("enum", ())]]
    if kind in ("integer", "number"):
        near = [schema.get("minimum", 0), schema.get("maximum", 1), choose.randint(-2, 9), 2**70]
        return choose.choice(near if kind == "integer" else [*near, choose.random(), float("nan"), float("inf"), 1e308])
    if kind == "array":
        return [choose.choice(texts) for _ in range(choose.randrange(3))]
    return {"string": choose.choice(texts), "boolean": choose.random() < 0.5, "object": {}, "null": None}[kind]


def wrong_tensors(raw: bytes, choose: random.Random) -> bytes:
    """A safetensors file that is wrong as such, or whose tensors have other names, types and shapes, or are others."""
    if choose.randrange(3) == 0:
        return wrong_safetensors(raw, choose)
    import torch
    from safetensors.torch import load, save

    tensors = load(raw)
    for _ in range(choose.choice([1, 1, 2])):
        name = choose.choice(sorted(tensors))
        kind, value = choose.randrange(6), tensors[name]
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            old, new = choose.choice([
                ("layers.1", "layers.0"), ("layers.", "layers.9"), ("lora_A", "lora_B"), (".weight", ".bias"), ("lora_", "lokr_"),
                ("model.", ""), ("q_proj", "down_proj"), ("q_proj", "\n"), ("embed_tokens", "x" * 300),
                (".lora_A.weight", ".weight"),
                (".lora_A.weight", ".lora_magnitude_vector.weight"), ("lora_A.weight", "base_layer.weight"),
            ])  # fmt: skip
            tensors[name.replace(old, new)] = tensors.pop(name)
        elif kind == 2:
            types = [torch.float16, torch.int64, torch.bool, torch.uint8, torch.float64, torch.float8_e4m3fn]
            tensors[name] = value.to(choose.choice(types))
        elif kind == 3:
            shape = choose.choice(
                [(), (0,), (1,), (0, 7), tuple(value.shape[::-1]), (*value.shape, 1), (value.numel(),)]
            )
            tensors[name] = torch.zeros(shape)
        elif kind == 4:
            tensors[name] = torch.full(value.shape, float("nan"))
        else:
            tensors[name] = torch.zeros([max(size + choose.choice([-1, 0, 1, 7]), 0) for size in value.shape])
        if not tensors:
            break
    return save(tensors)
