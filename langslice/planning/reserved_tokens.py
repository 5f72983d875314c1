"""Tokens that a vocabulary holds in reserve: what refers to them after all, how many there are, and what they weigh."""

from __future__ import annotations

from collections.abc import Collection

from langslice.formatting import bytes_text
from langslice.planning.source import Source
from langslice.tokenizer import SourceTokenizer

# Files of a model that may name a token: processors and their code, configuration, templates.
_NAMING = (".json", ".py", ".jinja", ".yaml", ".yml")


def unused_reserved(source: Source, protected: Collection[int]) -> frozenset[int]:
    """Reserved tokens that no id field, chat template, processor, settings or other file of the model names.

    protected  rows that the configuration names
    """
    tokenizer = source.tokenizer
    candidates = tokenizer.reserved_ids - set(protected)
    if not candidates:
        return frozenset()
    paths = [source.checkpoint.folder / file.name for file in source.files if file.action != "leave out"]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths if path.suffix in _NAMING]
    naming = "\n".join([*texts, *source.templates.values()])
    return frozenset(old for old in candidates if str(tokenizer.tokens[old]) not in naming)


def reserved_note(tokenizer: SourceTokenizer, unused: Collection[int], kept: Collection[int], row_bytes: int) -> str:
    """How many reserved tokens there are, what they weigh, and what happens to them; "" where there are none.

    unused     those that nothing refers to
    kept       rows that the plan keeps
    row_bytes  of one row of all vocabulary tensors; 0 for a tokenizer alone
    """
    reserved = tokenizer.reserved_ids
    if not reserved:
        return ""
    dropped = len(reserved) - len(reserved.intersection(kept))
    some = f"such as {tokenizer.tokens[min(reserved)]}"
    weigh = f"; {bytes_text(len(reserved) * row_bytes)}" if row_bytes else ""
    all_of_them = f"{len(reserved):,} reserved tokens ({some}{weigh})"
    if dropped:
        rest = f", {len(reserved) - dropped:,} stay, as something refers to them" if dropped < len(reserved) else ""
        return f"{all_of_them}: {dropped:,} dropped{rest}"
    return f"{all_of_them} stay; --drop-reserved drops the {len(unused):,} that nothing refers to" if unused else ""
