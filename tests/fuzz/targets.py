"""What is fuzzed: for each kind of file a valid example, how it is made wrong, and the work that reads it.

A target is given the folder of its own copy of the example; it may end well, or raise a LangsliceError that names the file.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from langslice.errors import LangsliceError
from langslice.model.checkpoint import open_checkpoint
from langslice.slicing import main as job
from langslice.verification.record import read_record
from tests.fuzz.mutating import wrong_json, wrong_safetensors
from tests.fuzz.wrong_files import wrong_lines, wrong_parquet, wrong_recipe, wrong_tensors, wrong_yaml

Wrong = Callable[[bytes, random.Random], bytes]


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


def slice_by_plan(folder: Path) -> None:
    job.slice(folder / "model", folder / "out", plan=folder / "plan.json", verify=False)


def slice_by_tokens(folder: Path) -> None:
    job.slice(folder / "model", folder / "out", keep_tokens=str(folder / "keep.txt"), verify=False)


def plan_structure(folder: Path) -> None:
    job.plan(folder / "model", keep_tokens=str(folder / "keep.txt"), drop_layers="0", drop_neurons="1:0-3")


def read_slice(folder: Path) -> None:
    made = read_record(folder / "out")
    from langslice.planning.source import settled
    from langslice.planning.tensors import tensor_edits
    from langslice.planning.validate import check_source

    source = settled(open_checkpoint(folder / "model"), made.request, needs_tokenizer=True)
    check_source(made, source)
    tensor_edits(made, source)
    _ = source.files


def slice_again(folder: Path) -> None:
    """A slice of a slice, whose record becomes part of the new one."""
    job.slice(folder / "out", folder / "again", keep_tokens=str(folder / "keep.txt"), verify=False)


def read_recipe(folder: Path) -> None:
    from langslice.sweeps.recipe import expand, load_grid

    expand(load_grid(folder / "sweep.yaml"))


def preview_run(folder: Path) -> None:
    """From a folder of its own, which is home, too: what is in the recipe may name either, or the one above."""
    from langslice.recipes.main import preview

    place, home = Path.cwd(), os.environ.get("HOME")
    here = folder / "here" / "now"
    os.chdir(here)
    os.environ["HOME"] = str(here)
    try:
        preview(folder / "run.yaml", folder / "work")
    finally:
        os.chdir(place)
        os.environ.pop("HOME")
        os.environ.update({} if home is None else {"HOME": home})


def restore_rows(folder: Path) -> None:
    from langslice.restoration import restore

    restore(folder / "trained", folder / "again", base=folder / "model", verify=False)


def restore_everything(folder: Path) -> None:
    from langslice.restoration import restore

    restore(folder / "trained", folder / "again", base=folder / "model", everything=True, verify=False)


def adapter_to_slice(folder: Path) -> None:
    from langslice.restoration import carry_adapter

    carry_adapter(folder / "adapter", folder / "again", plan=folder / "trained")


def adapter_to_original(folder: Path) -> None:
    from langslice.restoration import carry_adapter

    carry_adapter(folder / "carried", folder / "again", plan=folder / "trained" / "slice.json", base=folder / "model")


def adapter_by_plan(folder: Path) -> None:
    from langslice.restoration import carry_adapter

    carry_adapter(folder / "adapter", folder / "again", plan=folder / "trained.json", base=folder / "model", to="slice")


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
    Target("recipe of a run", "run.yaml", wrong_recipe, preview_run),
    Target("record, restored", "trained/slice.json", wrong_json, restore_rows),
    Target("record, everything restored", "trained/slice.json", wrong_json, restore_everything),
    Target("weights, restored", "trained/model.safetensors", wrong_tensors, restore_everything),
    Target("config, restored", "trained/config.json", wrong_json, restore_rows),
    Target("adapter config", "adapter/adapter_config.json", wrong_json, adapter_to_slice),
    Target("adapter config, back", "carried/adapter_config.json", wrong_json, adapter_to_original),
    Target("adapter weights", "adapter/adapter_model.safetensors", wrong_tensors, adapter_to_slice),
    Target("adapter weights, back", "carried/adapter_model.safetensors", wrong_tensors, adapter_to_original),
    Target("adapter weights, by a plan", "adapter/adapter_model.safetensors", wrong_tensors, adapter_by_plan),
    Target("record, of an adapter", "trained/slice.json", wrong_json, adapter_to_slice),
    Target("plan, of an adapter", "trained.json", wrong_json, adapter_by_plan),
    Target("counts", "counts.parquet", wrong_parquet, plan_by_counts, ("counts.parquet",)),
    Target("scores", "layers.parquet", wrong_parquet, plan_by_scores, ("layers",)),
    Target("demonstrations", "mt.jsonl", wrong_lines, read_prompts, ("mt.jsonl", "demonstration")),
)  # fmt: skip


def _sliced(folder: Path, kind: str) -> None:
    job.slice(folder / kind, folder / "out2", keep_tokens=str(folder / "keep.txt"), verify=False)


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

    Raises  AssertionError for an output although the work failed, and whatever is no LangsliceError
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
