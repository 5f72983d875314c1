"""The vocabulary files that slow tokenizers and other runtimes read, rewritten next to tokenizer.json.

vocab.txt; vocab.json with merges.txt; SentencePiece models; tiktoken rank files; tekken.json. Each is rewritten from itself, and
only where it agrees with the tokenizer id by id; otherwise it is left out, with the reason. None of them is trusted
to say what the tokenizer is: that is tokenizer.json, or what transformers makes of these files where there is none.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import TokenizerError
from langslice.files.json_forms import check_form, read_json
from langslice.tokenizer.document import object_windows
from langslice.tokenizer.extension import NewToken
from langslice.tokenizer.rewrite import HashedFile, quote
from langslice.tokenizer.sentencepiece_model import (
    NORMAL,
    SentencePieceModel,
    kept_positions,
    read_sentencepiece,
    without_pieces,
)

TEKKEN_FILE = "tekken.json"
# Files that hold a vocabulary in some form; those that no function below rewrites are left out, never copied.
_VOCABULARY_FILE = re.compile(
    r".*\.(model|spm|tiktoken|vocab|bpe|codes)|vocab\.(txt|json)|merges\.txt|(source|target)_vocab\.json|tekken\.json"
    r"|encoder\.json|dict(\.\w+)?\.txt|emoji\.json|bpe\.codes|spiece\.\w+|entity_vocab\.json|target\.vocab"
)

_TEKKEN = {
    "config": {"default_vocab_size": int, "default_num_special_tokens": int},
    "vocab": [{"rank": int, "token_bytes": str}],
    "special_tokens": [{"rank": int, "token_str": str}],
}


class _Unfaithful(Exception):  # a reason to leave a file out, not an error
    """A file that cannot be rewritten faithfully; its text is the reason."""


@dataclass(frozen=True)
class Renumbering:
    """What rewriting a vocabulary file needs to know.

    tokens      (size,) token strings by old id, None where an id has no token
    old_to_new  kept old id -> new id
    index       token string -> old id
    kind        kind of the tokenizer, see SourceTokenizer
    surface     old id -> bytes of text
    extension   tokens that follow the kept ones
    """

    tokens: Sequence[str | None]
    old_to_new: Mapping[int, int]
    index: Mapping[str, int]
    kind: str
    surface: Callable[[int], bytes]
    extension: Sequence[NewToken] = ()

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Id and spelling of the new tokens."""
        return enumerate((one.token for one in self.extension), len(self.old_to_new))


def vocabulary_files(folder: Path) -> list[str]:
    """Names of the files in a folder that hold a vocabulary, tokenizer.json apart."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and _VOCABULARY_FILE.fullmatch(path.name))


def write_slow_files(folder: Path, change: Renumbering, out: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Rewrite every vocabulary file of `folder` into `out`.

    Returns  name -> sha256 of what was written, name -> reason of what was left out
    """
    written: dict[str, str] = {}
    left_out: dict[str, str] = {}
    names = vocabulary_files(folder)
    for name in names:
        try:
            parts = _rewriting(name, names, folder, change)
            with HashedFile(out / name) as file:
                for part in parts:
                    file.write_bytes(part)
            written[name] = file.sha256
        except (_Unfaithful, TokenizerError, binascii.Error) as reason:
            (out / name).unlink(missing_ok=True)
            left_out[name] = str(reason)
    for name, other in (("merges.txt", "vocab.json"), ("vocab.json", "merges.txt")):
        if name in written and other in left_out:  # one without the other is no tokenizer
            (out / name).unlink()
            left_out[name] = f"belongs to {other}, which is left out"
            del written[name]
    return written, left_out


def _rewriting(name: str, names: Collection[str], folder: Path, change: Renumbering) -> Iterator[bytes]:
    path = folder / name
    if name == "vocab.txt" and change.kind == "wordpiece":
        return _vocab_lines(path, change)
    if name == "vocab.json" and "merges.txt" in names and change.kind.endswith("bpe"):
        return _vocab_entries(path, change)
    if name == "merges.txt" and "vocab.json" in names and change.kind.endswith("bpe"):
        return _merge_lines(path, change)
    if (
        change.extension
    ):  # SentencePiece and rank files join any two neighbours that spell a piece, not listed pairs alone
        raise _Unfaithful("its format cannot say how new tokens come about")
    if name == TEKKEN_FILE and change.kind == "byte-bpe":
        return _tekken(path, change)
    if name.endswith((".tiktoken", ".model", ".spm")) and is_rank_file(path):
        return _rank_lines(path, change)
    if name.endswith((".model", ".spm")):
        return _pieces(read_sentencepiece(path), change)
    raise _Unfaithful(f"its format is not understood for a {change.kind} tokenizer")


def _vocab_lines(path: Path, change: Renumbering) -> Iterator[bytes]:
    """vocab.txt: the line number is the id."""
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1] == "":
        lines.pop()
    for old, line in enumerate(lines):
        if old >= len(change.tokens) or change.tokens[old] != line:
            found = change.tokens[old] if old < len(change.tokens) else None
            raise _Unfaithful(f"line {old + 1} is {line!r}, but id {old} of the tokenizer is {found!r}")
    kept = [line for old, line in enumerate(lines) if old in change.old_to_new]
    _require_first([old for old in range(len(lines)) if old in change.old_to_new], change)
    if change.extension and len(kept) != len(change.old_to_new):
        raise _Unfaithful("tokens that are not in it would follow the new ones")
    yield "".join(f"{line}\n" for line in (*kept, *(token for _, token in change.numbered()))).encode()


def _require_first(old_ids: Sequence[int], change: Renumbering) -> None:
    """A file that numbers its tokens by position must hold the first new ids without a gap."""
    for position, old in enumerate(old_ids):
        if change.old_to_new[old] != position:
            raise _Unfaithful(
                f"{change.tokens[old]!r} would be at position {position} but has the id {change.old_to_new[old]}"
            )


def _vocab_entries(path: Path, change: Renumbering) -> Iterator[bytes]:
    kept: list[tuple[int, str]] = []
    for window in object_windows(path):
        for token, old in window.items():
            if old >= len(change.tokens) or change.tokens[old] != token:
                raise _Unfaithful(f"{token!r} has the id {old}, but the tokenizer disagrees")
            if old in change.old_to_new:
                kept.append((change.old_to_new[old], token))
    kept = [*sorted(kept), *change.numbered()]
    yield b"{"
    for place, (new, token) in enumerate(kept):
        yield f"{',' if place else ''}{quote(token)}:{new}".encode()
    yield b"}\n"


def _merge_lines(path: Path, change: Renumbering) -> Iterator[bytes]:
    """merges.txt: the pairs whose parts and product are kept, in their order."""
    with path.open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream):
            if number == 0 and line.startswith("#version"):
                yield line.encode()
                continue
            pair = line.rstrip("\r\n").split(" ")
            if pair == [""]:
                continue
            if len(pair) != 2:
                raise _Unfaithful(f"line {number + 1} is not a pair: {line!r}")
            olds = [change.index.get(token) for token in (*pair, "".join(pair))]
            if None in olds:
                raise _Unfaithful(f"line {number + 1}, {' '.join(pair)!r}: its parts or their product are no tokens")
            if all(old in change.old_to_new for old in olds):
                yield line.rstrip("\r\n").encode() + b"\n" if change.extension else line.encode()
    for one in change.extension:
        if one.parts:
            yield (" ".join(one.parts) + "\n").encode()


def sentencepiece_models(folder: Path) -> Iterator[SentencePieceModel]:
    """Every SentencePiece model in a folder, read, in the order of their names."""
    for path in sorted(folder.glob("*")):
        if path.suffix in (".model", ".spm") and not is_rank_file(path):
            yield read_sentencepiece(path)


def is_rank_file(path: Path) -> bool:
    """Whether a file is a tiktoken rank file: lines of base64, a space, a number."""
    with path.open("rb") as stream:
        return re.fullmatch(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n?", stream.readline(4096)) is not None


def read_ranks(path: Path) -> Iterator[tuple[bytes, int]]:
    """(token bytes, rank) of each line of a tiktoken rank file."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                encoded, rank = line.split()
                yield base64.b64decode(encoded, validate=True), int(rank)
            except (ValueError, binascii.Error) as error:
                raise TokenizerError(
                    f"{path}, line {number}: expected base64 and a rank, found {line[:40]!r}"
                ) from error


def _rank_lines(path: Path, change: Renumbering) -> Iterator[bytes]:
    """Rank file: kept tokens in their order, ranks without gaps; two neighbours that spell a token still join."""
    if change.kind != "byte-bpe":
        raise _Unfaithful(f"it is a rank file, but the tokenizer is {change.kind}")
    kept: list[tuple[int, bytes]] = []
    for content, rank in read_ranks(path):
        if rank >= len(change.tokens) or change.tokens[rank] is None or change.surface(rank) != content:
            raise _Unfaithful(f"rank {rank} is {content!r}, but the tokenizer disagrees")
        if rank in change.old_to_new:
            kept.append((rank, content))
    kept.sort()
    _require_first([rank for rank, _ in kept], change)
    for new, (_, content) in enumerate(kept):
        yield base64.b64encode(content) + b" %d\n" % new


def _tekken(path: Path, change: Renumbering) -> Iterator[bytes]:
    """tekken.json: special tokens have the first ids and all stay; kept tokens follow in their order, ranks without gaps.

    Entries beyond the size that its configuration gives are not part of the tokenizer, and go.
    """
    document = read_json(path, TokenizerError)
    check_form(document, _TEKKEN, str(path), TokenizerError)
    config = document["config"]
    first = config["default_num_special_tokens"]
    for entry in document["special_tokens"]:
        old = entry["rank"]
        if old >= len(change.tokens) or change.tokens[old] != entry["token_str"]:
            raise _Unfaithful(f"special token {entry['token_str']!r} has the id {old}, but the tokenizer disagrees")
    kept: list[int] = [old for old in range(first) if old in change.old_to_new]
    entries: list[dict[str, Any]] = []
    for entry in document["vocab"][: config["default_vocab_size"] - first]:
        old, content = first + entry["rank"], base64.b64decode(entry["token_bytes"])
        if old >= len(change.tokens) or change.tokens[old] is None or change.surface(old) != content:
            raise _Unfaithful(f"rank {entry['rank']} is {content!r}, but the tokenizer disagrees")
        if old in change.old_to_new:
            kept.append(old)
            entries.append({**entry, "rank": len(entries)})
    if len(kept) - len(entries) != first:
        raise _Unfaithful("special tokens are dropped, after which it counts")
    _require_first(kept, change)
    sizes = {"num_vocab_tokens": len(entries), "default_vocab_size": len(kept)}
    written = {**document, "config": {**config, **sizes}, "vocab": entries}
    yield json.dumps(written, ensure_ascii=False, indent=1).encode()


def _pieces(model: SentencePieceModel, change: Renumbering) -> Iterator[bytes]:
    """SentencePiece model: pieces whose token is kept, found by string (frameworks put tokens of their own first).

    Tokenizers that add a constant to SentencePiece's ids (fairseq: one) must find the same constant afterwards.
    """
    kept = kept_positions(model, lambda text: change.index.get(text) in change.old_to_new)
    offsets_before: set[int] = set()
    for position, text in enumerate(model.texts):
        if model.types[position] == NORMAL and text not in change.index:
            raise _Unfaithful(f"piece {position}, {text!r}, is not in the tokenizer")
        if model.types[position] == NORMAL:
            offsets_before.add(change.index[text] - position)
    offsets_after = {
        change.old_to_new[change.index[model.texts[old]]] - position
        for position, old in enumerate(kept)
        if model.types[old] == NORMAL
    }
    if len(offsets_before) == 1 and offsets_after - offsets_before:
        raise _Unfaithful(
            f"its ids are {min(offsets_before):+d} from the tokenizer's; after removal they would be "
            f"{', '.join(f'{offset:+d}' for offset in sorted(offsets_after))}"
        )
    return without_pieces(model, kept)
