"""Which field counts the layers of a class, and where they stand: the class built again with one layer fewer.

The names that go must be those of the last entry of one list of modules, and nothing else may come or change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langslice.model.axes import is_tower
from langslice.model.class_shapes import ClassShapes, Shapes, UnreadableClassError, read_class
from langslice.model.token_id_fields import is_id_field

_COUNTS = re.compile(r".*(?:layer|block|depth).*")
# Lists that may be as long as there are layers, and never hold one entry for each.
_NO_LAYERS = frozenset({"architectures", "pos_att_type", "suppress_tokens", "begin_suppress_tokens", "mrope_section"})


@dataclass(frozen=True)
class Class:
    """A class to be measured.

    config   config.json with the defaults of its class
    section  part of it that describes the text model, "" for the top
    read     its class, built from it
    """

    config: Mapping[str, Any]
    section: str
    read: ClassShapes

    @property
    def fields(self) -> Mapping[str, Any]:
        """Fields of the text model."""
        part: Mapping[str, Any] = self.config[self.section] if self.section else self.config
        return part

    def again(self, changes: Mapping[str, Any]) -> ClassShapes | None:
        """The class with other values of fields of the text model; None where it cannot be built so."""
        prefix = (self.section,) if self.section else ()
        try:
            return read_class(self.config, {(*prefix, name): value for name, value in changes.items()})
        except UnreadableClassError:
            return None


@dataclass(frozen=True)
class Stack:
    """A list of layers.

    name     "layers", "encoder" or "decoder"
    path     of the list, as the class calls it
    field    that counts its layers
    lists    fields with one entry for each of them
    place    what stands before the number of a layer, as a regular expression
    """

    name: str
    path: str
    field: str
    lists: tuple[str, ...]
    place: str

    def tensors(self, shapes: Shapes) -> Iterator[tuple[str, int, str]]:
        """Tensors of its layers: name, number of the layer, what stands behind it."""
        pattern = re.compile(rf"(?:.*?\.)?(?:{self.place})\.(\d+)\.(.+)")
        for name in shapes:
            found = None if is_tower(name) else pattern.fullmatch(name)
            if found is not None:
                yield name, int(found[1]), found[2]


def find_stacks(of: Class) -> tuple[Stack, ...]:
    """The stacks of a class, the encoder's first.

    Raises   UnreadableClassError where no field counts a list of layers, or one counts several
    """
    paths = _outermost(of.read)
    if not paths:
        raise UnreadableClassError(f"{of.read.kind} has no list of layers")
    found: list[Stack] = []
    for path in paths:
        stack = _stack(of, path, [other for other in paths if other != path])
        if stack is not None:
            found.append(stack)
    if not found:
        raise UnreadableClassError(
            f"no field of its configuration takes the last entry of {_or(paths)} away, and nothing else"
        )
    if len(found) > 1:
        found = [_of_side(stack) for stack in found]
        if sorted(stack.name for stack in found) != ["decoder", "encoder"]:
            raise UnreadableClassError(f"its layers stand in {_or([stack.path for stack in found])}: which are meant?")
    if len({stack.field for stack in found}) < len(found):
        raise UnreadableClassError(f"`{found[0].field}` counts {_or([stack.path for stack in found])} together")
    return tuple(sorted(found, key=lambda stack: stack.name, reverse=True))


def _outermost(read: ClassShapes) -> list[str]:
    """Lists of modules with tensors, outside of towers, that stand in no other list."""
    holding = [
        path
        for path, count in read.lists.items()
        if not is_tower(f"{path}.0") and any(name.startswith(f"{path}.{count - 1}.") for name in read.stored)
    ]
    return [path for path in holding if not any(path.startswith(f"{other}.") for other in holding)]


def _stack(of: Class, path: str, others: Sequence[str]) -> Stack | None:
    count = of.read.lists[path]
    names = [
        name for name, value in of.fields.items() if type(value) is int and value == count and _COUNTS.fullmatch(name)
    ]
    side = next((side for side in ("encoder", "decoder") if side in path), "")
    names.sort(key=lambda name: (side not in name, "hidden" not in name, name))
    listed = [
        name
        for name, value in of.fields.items()
        if isinstance(value, list) and len(value) == count and name not in _NO_LAYERS and not is_id_field(name)
    ]
    for name in names:
        for lists in dict.fromkeys((tuple(listed), *((one,) for one in listed), ())):
            after = of.again({name: count - 1, **{one: of.fields[one][:-1] for one in lists}})
            if after is None:
                continue
            place = _place(of.read, after, path, count - 1, others)
            if place:
                return Stack("layers", path, name, lists, place)
    return None


def _place(before: ClassShapes, after: ClassShapes, path: str, last: int, others: Sequence[str]) -> str:
    """What stands before the number of a layer; "" where more or less changed than the last layer of a list."""
    prefixes = set()
    for old, new in ((before.stored, after.stored), (before.on_disk, after.on_disk)):
        gone = old.keys() - new.keys()
        if not gone or new.keys() - old.keys() or any(old[name] != new[name] for name in new):
            return ""
        for name in gone:
            found = re.fullmatch(rf"(.*?)\.{last}\..+", name)
            if found is None:
                return ""
            prefixes.add(found[1])
    if {
        name for name in before.stored if name.startswith(f"{path}.{last}.")
    } != before.stored.keys() - after.stored.keys():
        return ""
    if any(before.passing[name] != shape for name, shape in after.passing.items() if name in before.passing):
        return ""
    return "|".join(sorted({_tail(prefix, others) for prefix in prefixes}))


def _tail(prefix: str, others: Sequence[str]) -> str:
    """The end of a path that no other list of layers has."""
    steps = prefix.split(".")
    for length in range(1, len(steps) + 1):
        tail = ".".join(steps[-length:])
        if not any(f".{other}".endswith(f".{tail}") for other in others):
            return re.escape(tail)
    return re.escape(prefix)


def _of_side(stack: Stack) -> Stack:
    side = next((side for side in ("encoder", "decoder") if side in stack.path), stack.path)
    return Stack(side, stack.path, stack.field, stack.lists, stack.place)


def _or(paths: Sequence[str]) -> str:
    return ", ".join(paths[:3])
