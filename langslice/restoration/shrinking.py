"""Train a slice of a loaded model, and put what was trained back into the model itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langslice.errors import OptionError, PlanError
from langslice.model.transformers_classes import dtype_option
from langslice.options import listed, taking
from langslice.progress import Report, shown
from langslice.restoration.main import restore
from langslice.slicing.loaded_objects import slice_in
from langslice.slicing.options import SliceOptions


@taking(SliceOptions)
def shrink(
    model: Any, tokenizer: Any, *, texts: Iterable[str] = (), options: SliceOptions
) -> AbstractContextManager[tuple[Any, Any]]:
    """Train a slice of a model, and put the trained weights back into the model when the block ends.

    model      a PreTrainedModel whose weights lie in memory; do not change it inside the block
    tokenizer  its tokenizer
    texts      texts whose tokens are kept, in addition to what the options keep
    options    as of `slice`
    Returns    a context manager that gives the slice and its tokenizer, both new objects. At the end, rows that the slice has
               replace the model's, in place; all other rows, layers, heads and neurons stay as they are, bit for bit, and so do
               type of weights, device, mode and ties. The slice goes through a temporary folder, which takes the disk space of
               model, slice and result. If an exception leaves the block, or the slice no longer fits, the model is as it was.
    Raises     OptionError for objects of another kind; what `slice` raises; PlanError for a slice whose shapes have changed
    Example    with shrink(model, tokenizer, texts=texts) as (small, small_tokenizer): trainer.train()
    """
    if isinstance(texts, str):
        raise OptionError("`texts` must be a list of texts, found one", "texts=[text]")
    for thing, name in ((model, "model"), (tokenizer, "tokenizer")):
        if not callable(getattr(thing, "save_pretrained", None)):
            raise OptionError(f"`{name}` must be of transformers, found {type(thing).__name__}", "load it first")
    return _shrunk(model, tokenizer, list(texts), options)


@contextmanager
def _shrunk(model: Any, tokenizer: Any, texts: list[str], options: SliceOptions) -> Iterator[tuple[Any, Any]]:
    with TemporaryDirectory(prefix="langslice-") as folder:
        place = Path(folder)
        if texts:
            file = place / "texts.jsonl"
            file.write_text("".join(json.dumps({options.text_field: text}) + "\n" for text in texts), encoding="utf-8")
            options = replace(options, corpus=(*listed(options.corpus), str(file)))
        with shown() as report:
            small, small_tokenizer = slice_in(place, model, tokenizer, options=options, report=report)
        yield small, small_tokenizer
        with shown() as report:
            _put_back(model, small, place, report)


def _put_back(model: Any, small: Any, place: Path, report: Report) -> None:
    """Merge the trained slice with the saved model, then copy the result into the model's own tensors."""
    small.save_pretrained(place / "trained", safe_serialization=True)
    restore(
        place / "trained", place / "restored", base=place / "source", plan=place / "slice" / "slice.json", everything=True,
        verify=False, report=report,
    )  # fmt: skip
    whole = type(model).from_pretrained(place / "restored", **dtype_option("auto"))
    new, own = whole.state_dict(), model.state_dict()
    if {name: value.shape for name, value in new.items()} != {name: value.shape for name, value in own.items()}:
        raise PlanError("the model has changed inside the block", "change the slice, not the model")
    # In place: optimizers, ties and whoever else holds the tensors see the new values.
    for name, value in own.items():
        value.copy_(new[name])
