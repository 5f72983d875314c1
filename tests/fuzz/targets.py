"""What is fuzzed: for each kind of file a valid example, how it is made wrong, and the work that reads it.

A target is given the folder of its own copy of the example; it may end well, or raise a LangsliceError that names the file.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from langslice import job
from langslice.checkpoint import open_checkpoint
from langslice.errors import LangsliceError
from langslice.record import read_record
from tests.fuzz.mutating import damage, wrong_json, wrong_safetensors
from tests.tokenizer_samples import byte_level_folder, wordpiece, write_tokenizer_json
from tests.zoo import add_tokenizer, build

Wrong = Callable[[bytes, random.Random], bytes]
LETTERS = [chr(97 + number) for number in range(26)]
RECIPE = """\
model: mini
slice: {languages: "ko,en", coverage: [0.9, 0.99]}
sparsify: {sparsity: [0.3, 0.5], keep: {kind: mt, languages: "fr,en", count: 20}}
evaluate: {tasks: perplexity, languages: "ko,en", limit: 50}
"""


@dataclass(frozen=True)
class Target:
    """A kind of file.

    file    below the folder
    wrong   makes the file's bytes wrong
    work    reads the folder
    name    what a message must name one of
    """

    name: str
    file: str
    wrong: Wrong
    work: Callable[[Path], None]
    names: tuple[str, ...] = ()


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


def slice_by_plan(folder: Path) -> None:
    job.slice(folder / "model", folder / "out", plan=folder / "plan.json", verify=False)


def slice_by_tokens(folder: Path) -> None:
    job.slice(folder / "model", folder / "out", keep_tokens=str(folder / "keep.txt"), verify=False)


def plan_structure(folder: Path) -> None:
    job.plan(folder / "model", keep_tokens=str(folder / "keep.txt"), drop_layers="0", drop_neurons="1:0-3")


def read_slice(folder: Path) -> None:
    made = read_record(folder / "out")
    from langslice.job import _fingerprint, _side_files, _tokenizer
    from langslice.slice_plan import check_source, tensor_edits

    checkpoint = open_checkpoint(folder / "model")
    tokenizer = _tokenizer(checkpoint)
    check_source(made, checkpoint, _fingerprint(checkpoint, tokenizer))
    tensor_edits(made, checkpoint)
    _side_files(checkpoint, tokenizer, made)


def slice_again(folder: Path) -> None:
    """A slice of a slice, whose record becomes part of the new one."""
    job.slice(folder / "out", folder / "again", keep_tokens=str(folder / "keep.txt"), verify=False)


def read_recipe(folder: Path) -> None:
    from langslice.sweep.recipe import expand, load_recipe

    expand(load_recipe(folder / "sweep.yaml"), place=str(folder / "sweep.yaml"))


def plan_by_counts(folder: Path) -> None:
    job.plan(folder / "model", counts=str(folder / "counts.parquet"), coverage=0.9)


def plan_by_scores(folder: Path) -> None:
    job.plan(folder / "model", drop_layers_by=f"{folder / 'layers.parquet'}:1")


def read_prompts(folder: Path) -> None:
    from langslice.demonstrations.tokens import load_prompts

    load_prompts(folder / "model", {"keep": [folder / "mt.jsonl"]}, max_tokens=32)


def open_sharded(folder: Path) -> None:
    open_checkpoint(folder / "sharded")


TARGETS = (
    Target("header", "model/model.safetensors", wrong_safetensors, slice_by_tokens),
    Target("index", "sharded/model.safetensors.index.json", wrong_json, open_sharded, ("index.json", "model-0", "sharded")),
    Target("config", "model/config.json", wrong_json, slice_by_tokens),
    Target("config, structure", "model/config.json", wrong_json, plan_structure),
    Target("generation config", "model/generation_config.json", wrong_json, slice_by_tokens),
    Target("tokenizer, BPE", "model/tokenizer.json", wrong_json, slice_by_tokens),
    Target("tokenizer, Unigram", "unigram/tokenizer.json", wrong_json, lambda f: _sliced(f, "unigram")),
    Target("tokenizer, WordPiece", "wordpiece/tokenizer.json", wrong_json, lambda f: _sliced(f, "wordpiece")),
    Target("tokenizer config", "model/tokenizer_config.json", wrong_json, slice_by_tokens),
    Target("plan", "plan.json", wrong_json, slice_by_plan),
    Target("record", "out/slice.json", wrong_json, read_slice),
    Target("record of an earlier slice", "out/slice.json", wrong_json, slice_again),
    Target("recipe of a sweep", "sweep.yaml", wrong_yaml, read_recipe, ("sweep.yaml",)),
    Target("counts", "counts.parquet", wrong_parquet, plan_by_counts, ("counts.parquet",)),
    Target("scores", "layers.parquet", wrong_parquet, plan_by_scores, ("layers",)),
    Target("demonstrations", "mt.jsonl", wrong_lines, read_prompts, ("mt.jsonl", "demonstration")),
)  # fmt: skip


def _sliced(folder: Path, kind: str) -> None:
    job.slice(folder / kind, folder / "out2", keep_tokens=str(folder / "keep.txt"), verify=False)


def make_example(folder: Path) -> Path:
    """Write every valid file."""
    import torch

    from langslice.demonstrations import Demonstration, write_demonstrations
    from langslice.scores import Settings, compute
    from langslice.slice_plan import save_plan

    torch.set_num_threads(1)
    add_tokenizer(build("llama", folder / "unigram"))
    model = build("llama", folder / "model", vocab_size=300)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *["##" + letter for letter in LETTERS], "ab", "##cd"]
    write_tokenizer_json(build("llama", folder / "wordpiece", vocab_size=64), wordpiece(words))
    byte_level_folder(model, [("a", "b"), ("ab", "c"), ("d", "e"), ("Ġ", "a")], ("<s>", "</s>"))
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}')
    (folder / "keep.txt").write_text("a\nb\n", encoding="utf-8")
    save_plan(job.plan(model, keep_tokens=str(folder / "keep.txt")), folder / "plan.json")
    job.slice(model, folder / "out", plan=folder / "plan.json", verify=False)
    checkpoint = open_checkpoint(model)
    _shard(checkpoint, folder / "sharded")
    (folder / "text.txt").write_text("a bad cab\n" * 50, encoding="utf-8")
    job.count(model, [str(folder / "text.txt")]).save(folder / "counts.parquet")
    settings = Settings((0,), 4, 16)
    compute(checkpoint, "layers", "block-influence", [str(folder / "text.txt")], settings=settings).save(
        folder / "layers.parquet"
    )
    write_demonstrations([Demonstration("mt", ("a b", "c d"), "\n", ("fr", "en"))] * 3, folder / "mt.jsonl")
    (folder / "sweep.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


def _shard(checkpoint, folder: Path) -> None:
    """The same model in two shards with an index."""
    folder.mkdir()
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint.shards[0].path)
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    shutil.copy(checkpoint.folder / "config.json", folder)


@contextmanager
def wronged(example: Path, target: Target, choose: random.Random) -> Iterator[bytes]:
    """Put wrong bytes in a target's file, and give them; afterwards the example is as it was."""
    path = example / target.file
    right = path.read_bytes()
    wrong = target.wrong(right, choose)
    path.write_bytes(wrong)
    try:
        yield wrong
    finally:
        path.write_bytes(right)


def attempt(example: Path, target: Target) -> str:
    """Do a target's work; gives "" where it ended well, else its message.

    Raises  AssertionError for an output that stands although the work failed, and whatever is no LangsliceError
    """
    outputs = [example / name for name in ("out2", "again")] + (
        [] if target.file.startswith("out/") else [example / "out"]
    )
    hidden = example / ".kept"
    if example / "out" in outputs:
        (example / "out").rename(hidden)
    message = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.work(example)
    except LangsliceError as error:
        message = str(error)
        left = [path.name for path in outputs if path.exists()]
        left += [path.name for path in example.iterdir() if ".partial-" in path.name]
        assert not left, f"left behind: {left}"
        assert message.strip(), "an empty message"
        assert not target.names or any(name in message for name in target.names), f"names no place: {message}"
    finally:
        for path in outputs:
            with suppress(FileNotFoundError):
                shutil.rmtree(path)
        if hidden.exists():
            hidden.rename(example / "out")
    return message
