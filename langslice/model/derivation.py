"""A row of the table of families, read off the class of a model type that has none.

The class is built on the meta device, and again with a vocabulary that is larger by a number that no other size has. Tensors in
which exactly one dimension grew by exactly that run along the vocabulary there; all others do not, whatever their length.
What is ambiguous refuses by name. A derived row is only a proposal: outputs compared with the source decide
(verification/derived.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from langslice.errors import CheckpointError
from langslice.model.axes import VOCABULARY_AXES, Family, LiveRows, Rule, describe_tensor
from langslice.model.class_shapes import ClassShapes, Path, Shapes, UnreadableClassError, full_document, read_class
from langslice.model.token_id_fields import find_sizes

# Rows by which the vocabulary grows; no size of a model is a multiple of both.
_STEPS = (41, 128)
_PER_LAYER = "vocab_size_per_layer_input"


def derive_family(config: Mapping[str, Any]) -> Family:
    """The row of a model type, from its class and one configuration.

    config   config.json, or a configuration's `to_dict`; `architectures` names the class
    Raises   UnreadableClassError with what stays ambiguous
    """
    return _derived(json.dumps(dict(config), sort_keys=True, default=str))


@lru_cache(maxsize=32)
def _derived(text: str) -> Family:
    config: dict[str, Any] = json.loads(text)
    before = read_class(config)
    return family_from(str(config.get("model_type")), before, vocabulary_axes(config, before))


def vocabulary_axes(config: Mapping[str, Any], before: ClassShapes) -> dict[str, tuple[int, str]]:
    """Tensor -> the dimension that runs along a vocabulary, and its axis; names of memory and disk alike.

    Raises   UnreadableClassError where anything else changes, or nothing does
    """
    rows = _rows_of_table(before)
    full = full_document(config)
    fields = [(path, path[-1]) for path, size, _ in find_sizes(full, rows=rows, per_layer_rows=rows)]
    own = [path for path, name in fields if name != _PER_LAYER and _at(full, path) == rows]
    found = _grown(config, before, own, "vocab")
    if not any(name in found for name in before.tables):
        raise UnreadableClassError(
            f"its input embedding has {rows} rows, and {_listing(own) or 'no field that is known'} does not change them"
        )
    per_layer = [path for path, name in fields if name == _PER_LAYER]
    if per_layer:
        found |= _grown(config, before, per_layer, "per_layer_vocab")
    return found


def _rows_of_table(read: ClassShapes) -> int:
    if not read.tables:
        raise UnreadableClassError(f"{read.kind} has no input embedding")
    return read.stored[read.tables[0]][0]


def _at(document: Any, path: Path) -> Any:
    for key in path:
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def _grown(config: Mapping[str, Any], before: ClassShapes, fields: list[Path], axis: str) -> dict[str, tuple[int, str]]:
    """Tensors in which one dimension grows with fields, as much as these do."""
    if not fields:
        return {}
    full = full_document(config)
    for at, step in enumerate(_STEPS):
        try:
            after = read_class(config, {path: _at(full, path) + step for path in fields})
            return _compare(before, after, step, axis)
        except UnreadableClassError:
            if at == len(_STEPS) - 1:
                raise
    return {}


def _compare(before: ClassShapes, after: ClassShapes, step: int, axis: str) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for old, new in ((before.stored, after.stored), (before.on_disk, after.on_disk)):
        if old.keys() != new.keys():
            name = sorted(old.keys() ^ new.keys())[0]
            raise UnreadableClassError(f"{name} comes or goes with the size of the vocabulary")
        for name, shape in old.items():
            dim = _grown_dimension(name, shape, new[name], step)
            if dim is not None:
                found[name] = (dim, axis)
    for name, shape in before.passing.items():
        if after.passing.get(name) != shape:
            raise UnreadableClassError(
                f"{name} changes with the vocabulary, and is in no checkpoint: it cannot be sliced"
            )
    return found


def _grown_dimension(name: str, old: tuple[int, ...], new: tuple[int, ...], step: int) -> int | None:
    """The one dimension that grew by the step; None where none changed."""
    if old == new:
        return None
    grown = [dim for dim, (one, other) in enumerate(zip(old, new, strict=False)) if one != other]
    if len(old) != len(new) or len(grown) != 1 or new[grown[0]] - old[grown[0]] != step:
        raise UnreadableClassError(f"{name} changes from {old} to {new} where the vocabulary grows by {step} rows")
    return grown[0]


def family_from(model_type: str, read: ClassShapes, along: Mapping[str, tuple[int, str]]) -> Family:
    """The row that says of every tensor of a class what was measured, with as few rules as the common ones leave to say."""
    live = None if read.text_only else LiveRows("what the model reads next to text")
    rules: list[Rule] = []
    shapes = {**read.stored, **read.on_disk}
    rows = frozenset({read.stored[read.tables[0]][0]})
    for name, shape in shapes.items():
        family = Family((model_type,), tuple(rules))
        if _said(family, name, shape, rows) != along.get(name):
            rules.insert(0, _rule(name, shapes, along))
    family = Family((model_type,), tuple(rules), live)
    for name, shape in shapes.items():
        if _said(family, name, shape, rows) != along.get(name):
            raise UnreadableClassError(f"no rule can say of {name}, shape {shape}, along which axes it runs")
    return family


def _said(family: Family, name: str, shape: tuple[int, ...], rows: frozenset[int]) -> tuple[int, str] | str | None:
    """Dimension and axis of the vocabulary that a row gives a tensor; "refused" where it stops the job."""
    try:
        axes = describe_tensor(family, name, shape, rows).axes
    except CheckpointError:
        return "refused"
    return next(((dim, axis) for dim, axis in enumerate(axes or ()) if axis in VOCABULARY_AXES), None)


def _rule(name: str, shapes: Shapes, along: Mapping[str, tuple[int, str]]) -> Rule:
    """A rule for one tensor, and all that are called and run alike."""
    module, _, leaf = name.rpartition(".")
    dims = len(shapes[name])
    whole = leaf not in ("weight", "bias") or (leaf == "weight" and dims != 2) or name not in along
    others = [other for other in shapes if (along.get(other), len(shapes[other])) != (along.get(name), dims)]
    if not whole:  # the layout says what the rule means for the other one of weight and bias
        others = [other.rpartition(".")[0] for other in others if other.rpartition(".")[2] == leaf]
    pattern = next(
        end
        for end in _ends(name if whole else module)
        if not any(re.fullmatch(rf"(?:.*\.)?(?:{end})", other) for other in others)
    )
    if name not in along:
        return Rule("other", pattern, (), "opaque")
    dim, axis = along[name]
    axes = tuple(axis if at == dim else "hidden" for at in range(dims))
    layout = "raw" if whole else "bias" if leaf == "bias" else "linear" if dim == 0 else "conv1d"
    return Rule("vocabulary", pattern, axes, layout)


def _ends(name: str) -> Iterator[str]:
    """Ends of a name, shortest first, with any number where it has one; at last the name itself."""
    parts = [r"\d+" if step.isdigit() else re.escape(step) for step in name.split(".")]
    shortest = len(parts) - (2 if parts[-1] in ("weight", "bias") else 1)
    for start in range(max(shortest, 0), -1, -1):
        yield r"\.".join(parts[start:])
    yield re.escape(name)


def _listing(paths: list[Path]) -> str:
    return ", ".join("`" + ".".join(path) + "`" for path in paths)
