"""What the class of a model type has: names and shapes of its tensors, read from the class itself on the meta device.

No weight is loaded. The class is transformers' own, or that of a folder whose code the user trusts (remote_code.py). Every
reading is of one configuration; comparing the readings of two that differ in one field says along which axes tensors run
(derivation.py).
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from inspect import getsource, signature
from typing import Any

Path = tuple[str, ...]
"""Keys that lead to a field of config.json."""
Shapes = dict[str, tuple[int, ...]]
# Name of a class -> the class, for those that are in the code of folders which the user trusts.
TRUSTED: dict[str, Any] = {}


def named_class(name: str) -> Any:
    """The model class of this name: transformers' own, or one of trusted code; None where there is none."""
    import transformers

    return getattr(transformers, name, None) or TRUSTED.get(name)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' warnings and progress bars off the user's terminal."""
    import transformers

    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


class UnreadableClassError(Exception):
    """A class that does not say clearly along which axes its tensors run, or that cannot be built from a configuration."""


class NoClassError(UnreadableClassError):
    """A model type that the installed transformers does not have."""


@dataclass(frozen=True)
class ClassShapes:
    """One reading of a class.

    kind      name of the class
    stored    tensor, as the class calls it -> shape; two names of one table are both there
    on_disk   the same under the names that transformers writes
    passing   buffers that no checkpoint holds -> shape
    tables    names of the input embedding, as the class calls it
    lists     path of a list of modules -> how many there are
    text_only whether token ids are all that it reads
    numbers   module -> attribute -> what it remembers as a whole number
    strided   tensors of modules whose code takes every second entry: fused gate and up projections that alternate
    offset    whether positions are counted from behind the padding token: their table has a row for it, and is no longer for that
    """

    kind: str
    stored: Shapes
    on_disk: Shapes
    passing: Shapes
    tables: tuple[str, ...]
    lists: dict[str, int]
    text_only: bool
    strided: frozenset[str] = frozenset()
    numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    offset: bool = False


def read_class(config: Mapping[str, Any], changes: Mapping[Path, Any] | None = None) -> ClassShapes:
    """Build the class of a config.json on the meta device, and read it.

    changes   field -> value, in place of what the configuration says
    Raises    UnreadableClassError with what is against it
    """
    document = changed(config, changes or {})
    with quiet_transformers():
        try:
            return _read(_empty(document))
        except UnreadableClassError:
            raise
        except Exception as error:  # constructors raise anything, from KeyError to ImportError
            raise UnreadableClassError(f"{type(error).__name__}: {_in_a_line(error)}") from error


def changed(config: Mapping[str, Any], changes: Mapping[Path, Any]) -> dict[str, Any]:
    """A copy of a document with other values at some paths."""
    document = copy.deepcopy(dict(config))
    for path, value in changes.items():
        holder = document
        for key in path[:-1]:
            holder = holder.setdefault(key, {})
        holder[path[-1]] = value
    return document


def full_document(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with the defaults of its class, nested configurations included; raises UnreadableClassError."""
    with quiet_transformers():
        try:
            found: dict[str, Any] = _known_config(config).to_dict()
        except UnreadableClassError:
            raise
        except Exception as error:
            raise UnreadableClassError(f"{type(error).__name__}: {_in_a_line(error)}") from error
    return found


def stock_config(document: Mapping[str, Any]) -> Any:
    """An object of the unmodified configuration class; raises what that class raises, and ValueError where there is none."""
    import transformers

    plain = {key: value for key, value in copy.deepcopy(dict(document)).items() if key != "auto_map"}
    base = getattr(transformers, "PreTrainedConfig", None)
    decode = getattr(base, "_decode_special_floats", None)  # infinity has a form of its own in config.json
    return transformers.AutoConfig.for_model(**(plain if decode is None else decode(plain)))


def _known_config(document: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    if document.get("model_type") not in CONFIG_MAPPING:
        raise NoClassError(document.get("model_type"))
    return stock_config(document)


def _empty(document: Mapping[str, Any]) -> Any:
    """The class that the document names, without weights."""
    import torch

    config = _known_config(document)
    found = [one for name in document.get("architectures") or () if (one := named_class(name)) is not None]
    if not found:
        raise UnreadableClassError(f"`architectures` {document.get('architectures')} names no class of transformers")
    with torch.device("meta"):
        return found[0](config)


def _read(model: Any) -> ClassShapes:
    import torch

    state = dict(model.state_dict(keep_vars=True).items())
    buffers = {name: tuple(one.shape) for name, one in model.named_buffers() if name not in state}
    table = input_table(model)
    same = {id(one) for one in _parameters(table)}
    lists = {
        path: len(module)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module)
    }
    return ClassShapes(
        type(model).__name__,
        {name: tuple(one.shape) for name, one in state.items()},
        _as_written(model, state),
        buffers,
        tuple(name for name, one in state.items() if id(one) in same),
        lists,
        model.main_input_name == "input_ids" and not reads_more(model),
        frozenset(_strided(model)),
        {path: _numbers(module) for path, module in model.named_modules()},
        any(_is_offset(path, module, model.config) for path, module in model.named_modules()),
    )


def input_table(model: Any) -> Any:
    """The table that ids of text are looked up in; where the class does not say, that of the one text model inside.

    Returns  a module, a parameter, or None
    """
    import torch

    try:
        return model.get_input_embeddings()
    except NotImplementedError:  # two towers, such as CLIP's
        inside = [part for path, part in model.named_modules() if path and hasattr(part, "get_input_embeddings")]
    found: dict[int, Any] = {}
    for part in inside:
        try:
            table = part.get_input_embeddings()
        except NotImplementedError:
            continue
        if isinstance(table, torch.nn.Embedding):  # pictures are cut into patches by a convolution
            found[id(table)] = table
    if len(found) > 1:
        raise UnreadableClassError(f"{len(found)} models inside of {type(model).__name__} read ids: which is meant?")
    return next(iter(found.values()), None)


def _parameters(table: Any) -> list[Any]:
    """What a table of embeddings is made of: a module, a parameter, or nothing."""
    if table is None or not hasattr(table, "parameters"):
        return [] if table is None else [table]
    return list(table.parameters(recurse=False))


def _numbers(module: Any) -> dict[str, int]:
    return {name: value for name, value in vars(module).items() if type(value) is int and not name.startswith("_")}


def _is_offset(path: str, module: Any, config: Any) -> bool:
    """Whether a table of positions is RoBERTa's: its padding row has the id of the padding token."""
    padding = getattr(module, "padding_idx", None)
    rows = getattr(config, "max_position_embeddings", None)
    return (
        "position" in path
        and padding is not None
        and padding == getattr(config, "pad_token_id", None)
        and getattr(module, "num_embeddings", None) == rows
    )


def _strided(model: Any) -> Iterator[str]:
    for path, module in model.named_modules():
        kind: Any = type(module)
        if _takes_every_second(kind):
            yield from (f"{path}.{name}" for name, _ in module.named_parameters(recurse=False))


@cache
def _takes_every_second(kind: type) -> bool:
    """Whether the code of a class does; finding it parses its whole file, so that it is looked up once, and only where need be."""
    if not kind.__module__.startswith("transformers"):
        return False
    return "::2]" in getsource(sys.modules[kind.__module__]) and "::2]" in getsource(kind)


def reads_more(model: Any) -> bool:
    """Whether the class reads pictures or sound too."""
    others = ("pixel_values", "input_features", "input_values", "image_embeds")
    return any(name.startswith(others) for name in signature(model.forward).parameters)


def _as_written(model: Any, state: Mapping[str, Any]) -> Shapes:
    """Shapes under the names that transformers gives tensors as it saves them; version 5 renames, splits and joins some."""
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # version 4 saves what it has
        written: Mapping[str, Any] = state
    else:
        written = revert_weight_conversion(model, {name: one.detach() for name, one in state.items()})
    return {name: tuple(one.shape) for name, one in written.items()}


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
