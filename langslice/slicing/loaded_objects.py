"""Models and tokenizers in memory: a slice loaded, and loaded objects sliced.

Objects go through a temporary folder: they are saved as their classes save them, sliced and verified as any checkpoint is, and
loaded again. The disk must hold the model and its slice for that time.
"""

from __future__ import annotations

import os
from functools import wraps
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langslice.errors import OptionError
from langslice.model.transformers_classes import dtype_option
from langslice.options import build
from langslice.slicing import main as job
from langslice.slicing.loaded_slice import load_objects
from langslice.slicing.options import SliceOptions


@wraps(job.slice)
def slice(model: Any, *arguments: Any, **given: Any) -> Any:
    """See `langslice.slicing.main.slice`, which is given names and folders; objects are sliced by `slice_objects`."""
    if isinstance(model, str | os.PathLike):
        return job.slice(model, *arguments, **given)
    return slice_objects(model, *arguments, **given)


slice.__signature__ = signature(job.slice)  # type: ignore[attr-defined]


def slice_objects(model: Any, tokenizer: Any, **given: Any) -> tuple[Any, Any]:
    """Slice a loaded model and tokenizer of transformers; both stay as they are.

    model      a PreTrainedModel whose weights lie in memory
    tokenizer  its tokenizer
    given      options as of `slice`; `out` and `overwrite` have no meaning
    Returns    a new model, of the same class, type of weights, device and mode, and a new tokenizer
    Raises     OptionError for objects of another kind, and what `slice` raises
    """
    for thing, name in ((model, "model"), (tokenizer, "tokenizer")):
        if not callable(getattr(thing, "save_pretrained", None)):
            raise OptionError(
                f"`{name}` must be of transformers, or `model` a name or folder and `out` a folder, found {type(thing).__name__}",
                "slice(model, tokenizer, languages=...) or slice(name, folder, languages=...)",
            )
    if "out" in given or "overwrite" in given:
        raise OptionError(
            "loaded objects are sliced in memory, so `out` has no meaning", "save what comes back yourself"
        )
    # Before anything is saved.
    build(SliceOptions, {name: value for name, value in given.items() if name not in ("plan", "report", "options")},
          beside=("plan", "report"))  # fmt: skip
    with TemporaryDirectory(prefix="langslice-") as folder:
        return slice_in(Path(folder), model, tokenizer, **given)


def slice_in(folder: Path, model: Any, tokenizer: Any, **given: Any) -> tuple[Any, Any]:
    """Slice loaded objects by way of a folder: `folder/source` is what they are saved as, `folder/slice` their slice.

    Returns  as `slice_objects`; the folder may go
    """
    _save(model, tokenizer, folder / "source")
    result = job.slice(folder / "source", folder / "slice", **given)
    made, new_tokenizer = load_objects(result.out, **dtype_option("auto"))
    made = made.to(device=model.device)
    for parameter in made.parameters():  # read from the files before they go
        parameter.data = parameter.data.clone()
    made.train(model.training)
    for thing in (made, made.config, new_tokenizer):
        _rename(thing, getattr(model, "name_or_path", ""))
    return made, new_tokenizer


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save both as their classes do, and put back what saving writes into the model's configuration."""
    configs = [each for each in (model.config, getattr(model, "generation_config", None)) if each is not None]
    before = [dict(vars(config)) for config in configs]
    try:
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
    finally:
        for config, values in zip(configs, before, strict=True):
            vars(config).clear()
            vars(config).update(values)


def _rename(thing: Any, name: str) -> None:
    """Call an object as the model was called, and not by a folder that is gone."""
    for attribute in ("name_or_path", "_name_or_path"):
        if hasattr(thing, attribute):
            setattr(thing, attribute, name)
