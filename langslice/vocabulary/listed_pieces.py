"""New tokens that a user lists: how the vocabulary would spell each, and whether text could ever reach it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langslice.errors import PlanError
from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.document import index_of
from langslice.tokenizer.source import remembered
from langslice.tokenizer.surface import byte_alphabet
from langslice.vocabulary.always_kept import lines_of_list

_SPACE = {"byte-bpe": "Ġ", "spm-bpe": "▁", "unigram": "▁"}
_SHOWN = 10


def spelled_entries(tokenizer: SourceTokenizer, path: Path) -> dict[str, tuple[int, ...]]:
    """Spelling of every token in a file -> the pieces that spell it now, in the order of the file.

    tokenizer  to which they are added
    Raises     CorpusError for a file that cannot be read; PlanError for a token that is there already, that the tokenizer splits
               or changes before its model sees it, or that holds a character it does not know
    """
    found: dict[str, tuple[int, ...]] = {}
    known = set(tokenizer.tokens)
    faults: list[str] = []
    for entry in lines_of_list(path):
        token = _spelling(tokenizer, entry)
        pieces = () if token in known else pieces_of(tokenizer, token)
        fault = "it is a token already" if token in known else _fault(tokenizer, token, pieces)
        if fault:
            faults.append(f"{entry!r}: {fault}")
        found[token] = pieces
    if faults:
        raise PlanError(
            f"{path}: {len(faults):,} of {len(found):,} entries cannot become tokens\n  "
            + "\n  ".join(faults[:_SHOWN]),
            hint="write one word or part of a word per line; a space in front, or the vocabulary's own mark, says that it "
            "begins a word",
        )
    return found


def _spelling(tokenizer: SourceTokenizer, entry: str) -> str:
    """An entry as the vocabulary would spell it: its leading mark may stand there, or a space; the rest is text."""
    space = _SPACE.get(tokenizer.kind, "")
    opens = bool(space) and entry.startswith((space, " ", "▁"))
    text = entry[1:] if opens else entry
    if tokenizer.kind == "byte-bpe":
        symbols = {value: symbol for symbol, value in byte_alphabet().items()}
        text = "".join(symbols[value] for value in text.encode())
    elif space:
        text = text.replace(" ", space)
    return (space if opens else "") + text


def pieces_of(tokenizer: SourceTokenizer, token: str) -> tuple[int, ...]:
    """The pieces that a tokenizer's model spells a string in."""
    if tokenizer.kind == "wordpiece":
        return _longest_matches(tokenizer, token)
    model = tokenizer.backend.model if tokenizer.backend is not None else None
    return () if model is None else tuple(one.id for one in model.tokenize(token))


def _longest_matches(tokenizer: SourceTokenizer, token: str) -> tuple[int, ...]:
    """WordPiece, for pieces inside words as well, which its model takes for words; empty where a character has no piece."""
    prefix, index = _affixes(tokenizer)[0], _index(tokenizer)
    inside = bool(prefix) and token.startswith(prefix)
    text, at, found = token.removeprefix(prefix), 0, []
    while at < len(text):
        mark = prefix if at or inside else ""
        end = next((end for end in range(len(text), at, -1) if mark + text[at:end] in index), None)
        if end is None:
            return ()
        found.append(index[mark + text[at:end]])
        at = end
    return tuple(found)


@remembered
def _index(tokenizer: SourceTokenizer) -> dict[str, int]:
    return index_of(tokenizer.tokens)


def _affixes(tokenizer: SourceTokenizer) -> tuple[str, str]:
    model = tokenizer.document.skeleton["model"] if tokenizer.document else {}
    return model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""


def _fault(tokenizer: SourceTokenizer, token: str, pieces: Sequence[int]) -> str:
    """Why text can never reach a token; "" where it can."""
    if not pieces or tokenizer.unknown_id in pieces:
        return "it holds a character that the vocabulary does not have; keep it first, with --scripts or -l"
    spelled = "".join(tokenizer.tokens[one] or "" for one in pieces)
    parts = _words(tokenizer, tokenizer.spelled(token).decode("utf-8", "replace"))
    bare = token.removeprefix(_affixes(tokenizer)[0]).removesuffix(_affixes(tokenizer)[1])
    if any(bare in word for words in parts for word in words):
        return ""
    shown = " | ".join(parts[0]) or spelled
    return f"the tokenizer makes {shown!r} of it before its model sees it"


def _words(tokenizer: SourceTokenizer, text: str) -> list[list[str]]:
    """What normalizer and pre-tokenizer make of a text, alone, after a word, and inside one."""
    found = []
    for context in ("", "a ", "a"):
        backend, whole = tokenizer.backend, context + text
        if backend is not None and backend.normalizer is not None:
            whole = backend.normalizer.normalize_str(whole)
        split = backend.pre_tokenizer.pre_tokenize_str(whole) if backend is not None and backend.pre_tokenizer else ()
        found.append([word for word, _ in split] or [whole])
    return found
