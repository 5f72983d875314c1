"""Write the tokenizer files of a slice and check them: the vocabulary files and the settings next to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from langslice.errors import TokenizerError
from langslice.tokenizer.closure import close_choice
from langslice.tokenizer.document import index_of
from langslice.tokenizer.extension import NewToken, check_extendable
from langslice.tokenizer.m2m100 import write_m2m100
from langslice.tokenizer.marian import write_marian
from langslice.tokenizer.rewrite import TOKENIZER_FILE, check_written, renumbered_parts, write_document, write_json
from langslice.tokenizer.rowless_tokens import document_without, settings_without
from langslice.tokenizer.settings import renumber_settings
from langslice.tokenizer.slow_files import Renumbering, write_slow_files
from langslice.tokenizer.source import Rewrite, SourceTokenizer


def write_files(
    source: SourceTokenizer, kept: Sequence[int], out: Path, *, closed: bool, check: bool, extension: Sequence[NewToken],
    slow: bool,
) -> Rewrite:  # fmt: skip
    """See `langslice.tokenizer.write_tokenizer`."""
    kept = _real_tokens(source, kept)
    missing = {} if closed else close_choice(source, kept).added
    if missing:
        old, reason = next(iter(missing.items()))
        raise TokenizerError(
            f"the kept tokens lack {len(missing)} that they need, first id {old}, {source.tokens[old]!r} ({reason})",
            hint="close the choice first; in an edited plan, add the missing ids",
        )
    if extension:
        check_extendable(source.document, source.kind, str(source.folder))
    if source.kind == "characters":
        return Rewrite({}, {})
    source = _without_reserved(source, kept)
    written = _write_settings(source, kept, out)
    if source.document is None:
        write = write_marian if source.kind == "marian" else write_m2m100
        pieces, left_out = write(source.folder, _renumbering(source, kept), out)
        return Rewrite({**written, **pieces}, left_out)
    written[TOKENIZER_FILE] = write_document(
        source.document, kept, out / TOKENIZER_FILE, where=str(source.folder / TOKENIZER_FILE), extension=extension
    )
    if check:
        tokens = [token for old in kept if (token := source.tokens[old]) is not None]
        check_written(out / TOKENIZER_FILE, [*tokens, *(one.token for one in extension)])
    if not slow:
        return Rewrite(written, {})
    others, left_out = write_slow_files(source.folder, _renumbering(source, kept, extension), out)
    return Rewrite({**written, **others}, left_out)


def _without_reserved(source: SourceTokenizer, kept: Sequence[int]) -> SourceTokenizer:
    """The source as far as it is written: reserved tokens that are not kept are no added tokens any more."""
    contents = {str(source.tokens[old]) for old in source.reserved_ids - set(kept)}
    if not contents or source.document is None:
        return source
    document = document_without(source.document, contents, len(source.tokens))
    return replace(source, document=document, settings=settings_without(source.settings, contents))


def check_renumbering(source: SourceTokenizer, kept: Sequence[int]) -> None:
    """See `langslice.tokenizer.check_renumbering`."""
    source = _without_reserved(source, kept)
    old_to_new = {old: new for new, old in enumerate(_real_tokens(source, kept))}
    for name, content in source.settings.items():
        renumber_settings(name, content, old_to_new, str(source.folder / name))
    if source.document is not None:
        renumbered_parts(source.document, old_to_new, str(source.folder / TOKENIZER_FILE))


def _write_settings(source: SourceTokenizer, kept: Sequence[int], out: Path) -> dict[str, str]:
    old_to_new = {old: new for new, old in enumerate(kept)}
    return {
        name: write_json(out / name, renumber_settings(name, content, old_to_new, str(source.folder / name)))
        for name, content in source.settings.items()
    }


def _renumbering(source: SourceTokenizer, kept: Sequence[int], extension: Sequence[NewToken] = ()) -> Renumbering:
    old_to_new = {old: new for new, old in enumerate(kept)}
    return Renumbering(
        source.tokens, old_to_new, index_of(source.tokens), source.kind, source.surface, tuple(extension)
    )


def _real_tokens(source: SourceTokenizer, kept: Sequence[int]) -> list[int]:
    """The kept ids that have a token; rows without one may only follow them, or every later id would move."""
    kept = [int(old) for old in kept]
    if any(later <= earlier for earlier, later in pairwise(kept)) or (kept and kept[0] < 0):
        raise TokenizerError("kept ids must be ascending, without repetition, and not negative")
    real = [old for old in kept if old < len(source.tokens) and source.tokens[old] is not None]
    if real != kept[: len(real)]:
        hole = next(old for old in kept if old >= len(source.tokens) or source.tokens[old] is None)
        raise TokenizerError(
            f"{source.folder}: id {hole} has no token but is before kept tokens, which would give it one",
            hint="drop the id, or keep it only after all tokens",
        )
    return real
