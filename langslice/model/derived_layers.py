"""Which field counts the layers of a class, and where they stand: the class built again with one layer fewer, or one more.

The names that go must be those of the last entry of one list of modules, and nothing else may come or change; where something
does, layers stay, and their heads and neurons can be found all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langslice.model.axes import is_tower
from langslice.model.class_shapes import ClassShapes, Shapes, UnreadableClassError, read_class
from langslice.model.token_id_fields import is_id_field

LAYER_COUNTS = re.compile(r".*(?:layer|block|depth).*")
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
    field    that counts its layers, or the first of `lists` where its length does
    lists    fields with one entry for each of them, or for some of them by number
    place    what stands before the number of a layer, as a regular expression
    refused  why no layer can go, "" where they can
    tables   tensors outside of the layers that hold an equal part for each of them -> the dimension
    """

    name: str
    path: str
    field: str
    lists: tuple[str, ...]
    place: str
    refused: str = ""
    tables: tuple[tuple[str, int], ...] = ()

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
    found = [
        stack for path in paths if (stack := _stack(of, path, [other for other in paths if other != path])) is not None
    ]
    if not found:
        raise UnreadableClassError(
            f"no field of its configuration takes the last entry of {_or(paths)} away, and nothing else"
        )
    clean = [stack for stack in found if not stack.refused]
    counted = [stack for stack in clean if stack.field not in stack.lists]  # Funnel's list of blocks counts no layers
    found = counted or clean or _together(found)
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


def _together(found: list[Stack]) -> list[Stack]:
    """Lists that stand side by side, of which each holds a part of every layer, as one."""
    beside = {(stack.path.rpartition(".")[0], stack.field) for stack in found}
    if len(found) == 1 or len(beside) > 1:
        return found
    paths = [stack.path for stack in found]
    place = "|".join(stack.place for stack in found)
    return [replace(found[0], place=place, refused=f"each of its layers stands in several lists: {_or(paths)}")]


def _stack(of: Class, path: str, others: Sequence[str]) -> Stack | None:
    count = of.read.lists[path]
    names = [
        name
        for name, value in of.fields.items()
        if type(value) is int and value == count and LAYER_COUNTS.fullmatch(name)
    ]
    side = next((side for side in ("encoder", "decoder") if side in path), "")
    names.sort(key=lambda name: (side not in name, "hidden" not in name, name))
    listed = [name for name, value in of.fields.items() if _is_by_layer(name, value, count)]
    tried = [
        (name, lists)
        for name in (*names, "")
        for lists in dict.fromkeys((tuple(listed), *((one,) for one in listed), ()))
        if name or (lists and isinstance(of.fields[lists[0]], list))
    ]
    loose: Stack | None = None
    for more in (False, True):
        for name, lists in tried:
            last = count if more else count - 1
            after = of.again({**({name: last + more} if name else {}), **_resized(of.fields, lists, last, more=more)})
            if after is None:
                continue
            full, short = (after, of.read) if more else (of.read, after)
            place = _place(full, short, path, last, others)
            if not place:
                continue
            other, tables = _other_changes(full, short, path, last)
            found = Stack("layers", path, name or lists[0], lists, place, tables=tuple(sorted(tables.items())))
            if not other:
                return found
            if name and loose is None:
                loose = replace(found, refused=f"with their number {other} changes, too")
    return loose


def _is_by_layer(name: str, value: Any, count: int) -> bool:
    """Whether a field may hold one entry for each layer: a list as long, or a map whose keys are numbers of layers."""
    if name in _NO_LAYERS or is_id_field(name):
        return False
    if isinstance(value, Mapping):
        return is_by_number(value) and all(int(key) < count for key in value)
    return isinstance(value, list) and len(value) == count


def is_by_number(value: Mapping[Any, Any]) -> bool:
    """Whether the keys of a map are numbers, and its entries configurations: so of layers, not of labels."""
    return (
        bool(value)
        and all(str(key).isdigit() for key in value)
        and all(isinstance(one, Mapping) for one in value.values())
    )


def _resized(fields: Mapping[str, Any], lists: Sequence[str], last: int, *, more: bool) -> dict[str, Any]:
    """Lists and maps without their entry for the last layer; with `more` one layer more, like the last."""
    found: dict[str, Any] = {}
    for name in lists:
        value = fields[name]
        if isinstance(value, list):
            found[name] = [*value, value[-1]] if more else value[:-1]
        else:
            found[name] = {key: one for key, one in value.items() if int(key) != last}
            if more and str(last - 1) in {str(key) for key in value}:
                found[name][str(last)] = next(one for key, one in value.items() if int(key) == last - 1)
    return found


def _place(before: ClassShapes, after: ClassShapes, path: str, last: int, others: Sequence[str]) -> str:
    """What stands before the number of a layer; "" where the last layer of a list does not go, all of it."""
    own = {name for name in before.stored if name.startswith(f"{path}.{last}.")}
    if not own or own & after.stored.keys():
        return ""
    gone = own | (before.on_disk.keys() - after.on_disk.keys())
    prefixes = {found[1] for name in gone if (found := re.fullmatch(rf"(.*?)\.{last}\..+", name)) is not None}
    numbered = [
        found[1]
        for name in (*before.stored, *before.on_disk)
        if not is_tower(name) and (found := re.fullmatch(r"(.*?)\.\d+\..+", name)) is not None
    ]
    others = [*others, *(prefix for prefix in dict.fromkeys(numbered) if prefix not in prefixes)]
    return "|".join(sorted({_tail(prefix, others) for prefix in prefixes}))


def _other_changes(before: ClassShapes, after: ClassShapes, path: str, last: int) -> tuple[str, dict[str, int]]:
    """The first other thing that comes, goes or changes with the last layer, "" for none; and tables by layer, as in Stack.

    A table must stand beside the list of layers, whose code reads it, so that outputs show the order of its parts.
    """
    own = {name for name in before.stored if name.startswith(f"{path}.{last}.")}
    other = {name for name, shape in after.passing.items() if before.passing.get(name, shape) != shape}
    other |= before.stored.keys() - after.stored.keys() - own
    other |= {name for name in before.on_disk.keys() - after.on_disk.keys() if f".{last}." not in name}
    tables: dict[str, int] = {}
    for old, new in ((before.stored, after.stored), (before.on_disk, after.on_disk)):
        other |= new.keys() - old.keys()
        for name in new.keys() & old.keys():
            dims = [dim for dim, (a, b) in enumerate(zip(old[name], new[name], strict=False)) if a != b]
            if not dims and len(old[name]) == len(new[name]):
                continue
            tail = re.escape(".".join(name.split(".")[-2:]))
            beside = name.startswith(f"{path.rpartition('.')[0]}.") if old is before.stored else tail in tables
            if beside and len(dims) == 1 and old[name][dims[0]] * last == new[name][dims[0]] * (last + 1):
                tables[tail] = dims[0]
            else:
                other.add(name)
    return min(other, default=""), tables


def _tail(prefix: str, others: Sequence[str]) -> str:
    """The end of a path that no other list of layers has."""
    steps = prefix.split(".")
    for length in range(1, len(steps) + 1):
        tail = ".".join(steps[-length:])
        if not any(f".{other}".endswith(f".{tail}") for other in others):
            return re.escape(tail)
    return rf"(?<!.){re.escape(prefix)}"  # it is the end of another itself


def _of_side(stack: Stack) -> Stack:
    side = next((side for side in ("encoder", "decoder") if side in stack.path), stack.path)
    return replace(stack, name=side)


def _or(paths: Sequence[str]) -> str:
    return ", ".join(paths[:3])
