"""Every model type that the installed transformers has: what of it can be sliced, and what is refused, with the reason.

    python -m tests.families.sweep                     all types, into record.json (many minutes)
    python -m tests.families.sweep --types mamba,rwkv  these, printed; with --merge into record.json

With --towers: the text model inside of models that read or write pictures or sound next to text, of pairs of towers, text towers.
Each type has a warm process of its own (apart.py), and --jobs of them run at a time.
What was found is noted in build/families*.jsonl: a sweep that was stopped goes on from there with --go-on.
A tiny random model of each class is sliced from the command's own function. What was written is compared with its source once
more, by a few lines that share nothing with verification: "wrong" is what such a comparison finds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

import langslice
from langslice.errors import LangsliceError, PlanError
from langslice.model.anatomy import Anatomy, read_anatomy
from langslice.model.checkpoint import open_checkpoint
from langslice.model.derived_parts import NO_ATTENTION, NO_FEED_FORWARD
from langslice.model.transformers_classes import model_class
from tests.families.apart import ApartError, apart
from tests.families.record import AXES, MIXTURE_AXES, RECORD, Found, lost, merged, read_record
from tests.families.tiny import build

JOURNALS = {"types": Path("build/families.jsonl"), "towers": Path("build/families-towers.jsonl")}
ALL_AXES = (*AXES, *MIXTURE_AXES)
_FEW = 131  # rows where the vocabulary stays, and no tokenizer is needed
# Classes that read the states of another model, and no text.
_NO_TEXT = {
    "gemma4_assistant": "Gemma4AssistantForCausalLM",
    "gemma4_unified_assistant": "Gemma4UnifiedAssistantForCausalLM",
}
_TABLES = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "sequence": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}
# Next to text they read or write pictures or sound.
_TOWER_TABLES = (
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_RETRIEVAL_MAPPING_NAMES",
    "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES",
)
_INSIDE = ("language_model", "text_model", "text_decoder", "text_backbone")  # text models that run alone


class _HasNone(Exception):
    """A model that has no such part at all: it is not refused."""


def pairs() -> Iterator[tuple[str, str]]:
    """Model type and class, of all heads that write text; a class that two heads name once."""
    import transformers
    from transformers.models.auto import modeling_auto

    seen = set(_NO_TEXT.items())
    for table in _TABLES.values():
        for model_type, name in getattr(modeling_auto, table).items():
            for one in [name] if isinstance(name, str) else name:
                inner = transformers.CONFIG_MAPPING[model_type].sub_configs
                if inner and getattr(transformers, one).config_class is not transformers.CONFIG_MAPPING[model_type]:
                    continue  # the text model of a composite one, which has a type of its own
                if (model_type, one) not in seen:
                    seen.add((model_type, one))
                    yield model_type, one


def with_towers() -> Iterator[tuple[str, str]]:
    """Model type and class of what has to do with pictures or sound next to text, and is not among `pairs`; text towers, too."""
    import transformers
    from transformers.models.auto import modeling_auto

    seen = set(pairs())
    text = {model_type for model_type, _ in seen}
    for model_type, name in dict.fromkeys(_tower_classes(modeling_auto, transformers.CONFIG_MAPPING, text)):
        if (model_type, name) not in seen and hasattr(transformers, name):
            yield model_type, name


def _tower_classes(auto: Any, configs: Any, text: set[str]) -> Iterator[tuple[str, str]]:
    """Of every table that names such models; of bodies those that hold, or are, a text model, and write none themselves."""
    named = [pair for table in _TOWER_TABLES for pair in getattr(auto, table).items()]
    yield from named
    known = {*text, *(model_type for model_type, _ in named)}
    for model_type, config in configs.items():
        if model_type in known:
            continue
        if "text_config" in config.sub_configs and isinstance(auto.MODEL_MAPPING_NAMES.get(model_type), str):
            yield model_type, auto.MODEL_MAPPING_NAMES[model_type]
        if model_type.endswith("_text_model"):
            yield model_type, config.__name__.replace("Config", "Model")


def sweep(model_type: str, class_name: str, folder: Path, axes: Sequence[str] = ALL_AXES) -> dict[str, str]:
    """Axis -> "exact", "refused: why", "wrong: how" of one class; all "not built: why" where transformers does not build it."""
    source = folder / "source"
    bare = folder / "bare"
    try:
        build(model_type, class_name, source)
        if list(axes) != ["vocabulary"]:
            build(model_type, class_name, bare, tokens=_FEW)
    except Exception as error:  # noqa: BLE001 - classes raise anything
        return dict.fromkeys(axes, f"not built: {_short(error)}")
    return {axis: _tried(_CUTS[axis], source if axis == "vocabulary" else bare, folder / axis) for axis in axes}


def swept_apart(model_type: str, class_name: str, axes: Sequence[str]) -> dict[str, str]:
    """The same in a process of its own; "failed: how it ended" of every axis where that ended without a result."""
    folder = Path(tempfile.mkdtemp(prefix="langslice-sweep-"))
    try:
        found: dict[str, str] = apart(sweep, model_type, class_name, folder, axes)
    except ApartError as error:
        return dict.fromkeys(axes, f"failed: {error}")
    finally:
        shutil.rmtree(folder)
    return found


def _tried(cut: Callable[[Path, Path], str], source: Path, out: Path) -> str:
    try:
        difference = cut(source, out)
    except _HasNone as error:
        return f"has none: {error}"
    except LangsliceError as error:
        return f"refused: {_short(error)}"
    except Exception as error:  # noqa: BLE001 - classes raise anything
        return f"failed: {type(error).__name__}: {_short(error)}"
    return f"wrong: {difference}" if difference else "exact"


def _vocabulary(source: Path, out: Path) -> str:
    result = langslice.slice(source, out, scripts="Hang")
    return _differs(source, out, result.plan.kept)


def _layers(source: Path, out: Path) -> str:
    """One layer in the middle, the last one, or a pair where kinds of layers alternate."""
    anatomy = read_anatomy(open_checkpoint(source))
    stacks = anatomy.layers
    if not any(anatomy.fields(stack).layers for stack in stacks):
        raise _HasNone("its layers share one set of weights")
    refused: LangsliceError | None = None
    for cut in ("1", "", "0-1"):
        drop = [f"{stack}.{cut or count - 1}" for stack, count in stacks.items()]
        try:
            langslice.slice(source, out, drop_layers=drop, overwrite=True)
        except LangsliceError as error:
            refused = refused or error
        else:
            return ""
    raise refused or AssertionError("no attempt was made")


def _heads(source: Path, out: Path) -> str:
    """The first heads of every attention, a group that shares a key-value head; or two, where their number must be even."""
    anatomy = read_anatomy(open_checkpoint(source))
    refused: LangsliceError | None = None
    for groups in (1, 2):
        heads = [
            f"{place}.{layer}:0-{groups * (found.group if found.key_value > 1 else 1) - 1}"
            for place, rows in anatomy.heads.items()
            for layer, found in rows.items()
        ]
        try:
            return _pruned(source, out, anatomy, "heads", drop_heads=heads)
        except LangsliceError as error:
            refused = refused or error
    raise refused or AssertionError("no attempt was made")


def _neurons(source: Path, out: Path) -> str:
    anatomy = read_anatomy(open_checkpoint(source))
    neurons = [f"{stack}.{layer}:0-7" for stack, rows in anatomy.neurons.items() for layer in rows]
    return _pruned(source, out, anatomy, "neurons", drop_neurons=neurons)


def _experts(source: Path, out: Path) -> str:
    """Of every layer with experts another one, of every group where they stand in groups."""
    checkpoint = open_checkpoint(source)
    if not any("experts" in name or "moe" in name for name in (*checkpoint.tensors, checkpoint.config["model_type"])):
        raise _HasNone("it has no experts that a router chooses from")
    anatomy = read_anatomy(checkpoint)
    gone = [
        f"{stack}.{layer}:{','.join(map(str, _one_of_each(count, anatomy.expert_groups(stack)[0], layer)))}"
        for stack, rows in anatomy.experts.items()
        for layer, count in rows.items()
    ]
    if not gone and "experts" not in anatomy.body.refused:
        raise _HasNone("it has no experts that a router chooses from")
    return _pruned(source, out, anatomy, "experts", drop_experts=gone)


def _one_of_each(count: int, groups: int, layer: int) -> list[int]:
    size = count // groups
    return [size * group + layer % size for group in range(groups)]


def _pruned(source: Path, out: Path, anatomy: Anatomy, kind: str, **choice: list[str]) -> str:
    """Slice; with LANGSLICE_SWEEP_TWICE set, compare with the same parts set to zero on disk, too."""
    if not any(choice.values()):
        why = anatomy.body.refused.get(kind) or f"the model has no {kind}"
        raise _HasNone(why) if why in (NO_ATTENTION, NO_FEED_FORWARD) else PlanError(why)
    langslice.slice(source, out, **choice)
    if kind == "experts" or not os.environ.get("LANGSLICE_SWEEP_TWICE"):  # zeros do not stand for an expert
        return ""
    zeroed = out.with_name(f"{out.name}-zeroed")
    langslice.slice(source, zeroed, output_style="masked", **choice)
    return _differs(zeroed, out, np.arange(_FEW))


def _differs(source: Path, out: Path, kept: np.ndarray) -> str:
    """How the outputs of two folders differ on the same random tokens; "" where they do not."""
    import torch

    ids = np.random.default_rng(1).integers(0, len(kept), (2, 16))
    found = []
    for folder, tokens in ((source, kept[ids]), (out, ids)):
        model = model_class(folder).from_pretrained(folder, attn_implementation="eager").eval()
        if hasattr(model, "get_text_features"):  # two towers: what they are compared by
            with torch.no_grad():
                features = model.get_text_features(input_ids=torch.from_numpy(tokens))
            found.append(features if torch.is_tensor(features) else features.pooler_output)
            continue
        try:
            output = _output(model, tokens)
        except (AttributeError, TypeError, ValueError):  # it does not run on text alone
            inside = (part for path, part in model.named_modules() if path.rpartition(".")[2] in _INSIDE)
            output = _output(next(inside, model), tokens)
        found.append(output.logits if "logits" in output else output[0])
    first = found[0][..., torch.from_numpy(kept)] if found[0].shape[-1] != found[1].shape[-1] else found[0]
    off = float((first - found[1]).abs().max() / first.abs().max().clamp(min=1))
    return "" if off < 1e-5 else f"outputs differ by {off:.1e} of the largest"


def _output(model: Any, tokens: np.ndarray) -> Any:
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    known = signature(model.forward).parameters
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(tokens)}
    if model.config.is_encoder_decoder and "decoder_input_ids" in known:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    if model.main_input_name != "input_ids" and "encoder_outputs" in known:  # it reads sound, or a picture
        width = (getattr(model.config, "encoder", None) or model.config.get_text_config()).hidden_size
        states = BaseModelOutput(last_hidden_state=torch.ones(2, 24, width))
        states.attention_mask = None  # Moonshine's encoder gives one
        inputs = {"decoder_input_ids": inputs["input_ids"], "encoder_outputs": states}
    inputs |= {"use_cache": False} if "use_cache" in known else {}
    with torch.no_grad():
        return model(**inputs)


_CUTS: dict[str, Callable[[Path, Path], str]] = {
    "vocabulary": _vocabulary,
    "layers": _layers,
    "heads": _heads,
    "neurons": _neurons,
    "experts": _experts,
}


def _short(error: Exception) -> str:
    """What an error says, in a line, without the folders of this run."""
    said = " ".join(str(getattr(error, "message", error)).split())
    said = re.sub(r"/\S+ was not written: ", "", said)
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/[^\s:,;)]+", "FOLDER", said)[:300]


def main() -> int:
    """Run the sweep, and print or write what it found."""
    asked = _asked()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    kind = "towers" if asked.towers else "types"
    axes = asked.axes.split(",") if asked.axes else list(ALL_AXES)
    record = _swept(kind, asked.types, axes, go_on=asked.go_on, minutes=asked.minutes, jobs=asked.jobs)
    print(counts_by_axis(record))
    partial = bool(asked.types or asked.axes) or asked.minutes != float("inf")
    if partial and not asked.merge:
        return 0
    whole = read_record()
    known = whole.get(kind, {})
    types = merged(known, record) if asked.merge else record
    worse = lost(known, types)
    for line in worse:
        print(line)
    if (worse and not asked.accept) or counts_of(record, "wrong"):
        print("record.json was not written; pass --accept for what is meant to be refused now")
        return 1
    whole |= {"transformers": transformers.__version__, kind: types}
    RECORD.write_text(json.dumps(whole, indent=1) + "\n")
    JOURNALS[kind].unlink(missing_ok=True)
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="record what is refused now and was exact")
    parser.add_argument("--axes", default="", help="these alone, with commas; nothing is written")
    parser.add_argument("--towers", action="store_true", help="models that read pictures or sound next to text")
    parser.add_argument("--types", default="", help="these alone, with commas; nothing is written")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop then; what may have changed comes first"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="types at a time, each in a process of its own"
    )
    parser.add_argument("--merge", action="store_true", help="write what a part of a sweep found, beside what is known")
    parser.add_argument("--go-on", action="store_true", help="leave out what the journal of a stopped sweep has")
    return parser.parse_args()


def _is_exact(record: Found, model_type: str, name: str, axes: Sequence[str]) -> bool:
    found = record.get(model_type, {}).get(name, {})
    return all(found.get(axis) == "exact" for axis in axes)


def _swept(kind: str, types: str, axes: Sequence[str], *, go_on: bool, minutes: float, jobs: int = 1) -> Found:
    """What was found of all pairs of a kind, or of these types; noted in a journal as it is found."""
    journal = None if types else JOURNALS[kind]
    record: Found = {}
    if journal is not None:
        journal.parent.mkdir(exist_ok=True)
        lines = journal.read_text(encoding="utf-8").splitlines() if go_on and journal.is_file() else []
        journal.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        for model_type, name, found in map(json.loads, lines):
            record.setdefault(model_type, {})[name] = found
    known = read_record().get(kind, {})
    ends = time.monotonic() + 60 * minutes
    todo = sorted(
        (
            (model_type, name)
            for model_type, name in (with_towers() if kind == "towers" else pairs())
            if (not types or model_type in types.split(",")) and name not in record.get(model_type, {})
        ),
        key=lambda pair: _is_exact(known, *pair, axes),  # what may have changed first
    )

    def tried(pair: tuple[str, str]) -> dict[str, str] | None:
        return swept_apart(*pair, axes) if time.monotonic() <= ends else None

    began = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        for (model_type, name), found in zip(todo, pool.map(tried, todo), strict=True):
            if found is None:
                continue
            record.setdefault(model_type, {})[name] = found
            print(f"{time.monotonic() - began:6.1f} s  {model_type} {name} {found}", flush=True)
            if journal is not None:
                with journal.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([model_type, name, found]) + "\n")
    return record


def counts_by_axis(record: Found) -> dict[str, dict[str, int]]:
    """Axis -> word -> how often it was found."""
    counts: dict[str, dict[str, int]] = {axis: {} for axis in ALL_AXES}
    for classes in record.values():
        for found in classes.values():
            for axis, said in found.items():
                word = said.split(":")[0]
                counts[axis][word] = counts[axis].get(word, 0) + 1
    return counts


def counts_of(record: Found, word: str) -> int:
    """How often a word was found."""
    return sum(
        said.startswith(word) for classes in record.values() for axes in classes.values() for said in axes.values()
    )


if __name__ == "__main__":
    sys.exit(main())
