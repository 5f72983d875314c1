"""Token ids: every configuration field, and every id of the tokenizer, names the same token as in the source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from langslice.errors import LangsliceError
from langslice.files.json_forms import parse_json
from langslice.model.token_id_fields import find_id_fields, is_id_field
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.absent import ABSENT
from langslice.verification.check import MAX_EXAMPLES, Check

# No bound: an id beyond the slice's rows is a difference to report, not a file that cannot be read.
_ANY = 1 << 62
# (path of keys, place among the field's ids) -> id
_Ids = Mapping[tuple[tuple[str, ...], int], int]


def check_ids(origin: Source, out: Path, plan: SlicePlan, result: SourceTokenizer) -> Check:
    """Every configuration field names the same token as before, in the new numbering."""
    source = origin.tokenizer
    wrong: list[str] = []
    count = 0
    for file in origin.files:
        if file.action != "renumber":
            continue
        try:
            before = _ids_of(origin.checkpoint.folder, file.name, plan, plan.rows)
            after = _ids_of(out, file.name, plan, _ANY)
        except FileNotFoundError:
            wrong.append(f"{file.name} is missing")
            continue
        except (ValueError, RecursionError, LangsliceError) as error:
            wrong.append(f"{file.name}: {error}")
            continue
        implied = plan.implied_ids.get(file.name, {})
        before = {**before, **_implied_ids(implied)}
        count += len(before)
        wrong += [
            f"{file.name}: {'.'.join(path)} = {new} is not in the source"
            for (path, at), new in after.items()
            if (path, at) not in before and ".".join(path) not in implied
        ]
        wrong += _moved(file.name, before, after, plan, source, result)
    moved = [
        f"tokenizer: new id {new} is {_token(result, new)!r}, expected {_token(source, int(old))!r}"
        for new, old in enumerate(plan.kept.tolist())
        if _token(source, int(old)) != _token(result, new)
    ]
    moved += [
        f"tokenizer: new id {new} is {_token(result, new)!r}, expected the new token {one.token!r}"
        for new, one in enumerate(plan.extension, len(plan.kept))
        if _token(result, new) != one.token
    ]
    tokens = (
        "no tokenizer" if source.kind == ABSENT else f"{len(plan.kept) + len(plan.extension)} tokens of the tokenizer"
    )
    detail = f"{count} ids in configuration files, {tokens}"
    return Check("ids", not wrong and not moved, detail, tuple((wrong + moved)[:MAX_EXAMPLES]))


def _ids_of(folder: Path, name: str, plan: SlicePlan, rows: int) -> _Ids:
    document = parse_json((folder / name).read_bytes())
    fields = find_id_fields(document, file=name, rows=rows, ignore=frozenset(plan.ignore_fields))
    return {(field.path, at): old for field in fields for at, old in enumerate(field.ids)}


def _implied_ids(implied: Mapping[str, Any]) -> _Ids:
    """Ids that the source leaves to its class's defaults, by their place."""
    found: dict[tuple[tuple[str, ...], int], int] = {}
    for dotted, value in implied.items():
        path = tuple(dotted.split("."))
        if is_id_field(path[-1]):
            ids = [value] if isinstance(value, int) else value
            found |= {(path, at): old for at, old in enumerate(old for old in ids if old >= 0)}
    return found


def _moved(
    name: str, before: _Ids, after: _Ids, plan: SlicePlan, source: SourceTokenizer, result: SourceTokenizer
) -> Collection[str]:
    """Ids of a configuration file that name another token than they did."""
    wrong: list[str] = []
    for place, old in before.items():
        new = after.get(place, -1)
        field = f"{name}: {'.'.join(place[0])}"
        if not 0 <= new < plan.kept.shape[0] or int(plan.kept[new]) != old:
            wrong.append(f"{field}: old id {old} became {new}")
        elif _token(source, old) != _token(result, new):
            wrong.append(f"{field}: {_token(source, old)!r} became {_token(result, new)!r}")
    return wrong


def _token(tokenizer: SourceTokenizer, token_id: int) -> str | None:
    return tokenizer.tokens[token_id] if token_id < len(tokenizer.tokens) else None
