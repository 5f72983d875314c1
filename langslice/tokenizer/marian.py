"""Marian: two SentencePiece models and one joint vocab.json, which alone numbers the tokens.

Text is split into pieces by source.spm (the target language by target.spm) and each piece is looked up in vocab.json; a
piece that it lacks is unknown. Pieces whose token goes are removed from both models, so that their text is split into
smaller pieces instead; pieces that vocab.json never had stay, so that what was unknown stays unknown. m2m100.py reads and
writes its one model and vocab.json in the same way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import TokenizerError
from langslice.tokenizer.document import object_windows
from langslice.tokenizer.rewrite import TOKENIZER_FILE, HashedFile
from langslice.tokenizer.sentencepiece_model import BYTE, kept_positions, read_sentencepiece, without_pieces
from langslice.tokenizer.settings import declared_tokens
from langslice.tokenizer.slow_files import Renumbering, vocabulary_files
from langslice.tokenizer.source import SourceTokenizer

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE = "source.spm", "target.spm", "vocab.json"
_LANGUAGE_CODE = re.compile(r">>.+<<\Z")
_LEADING = r">>.*?<<"


def is_marian(folder: Path) -> bool:
    """Whether a folder holds the three files of a Marian tokenizer."""
    return all((folder / name).is_file() for name in (SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE))


def open_marian(folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> SourceTokenizer:
    """Read a Marian tokenizer.

    Raises  TokenizerError for two separate vocabularies, a damaged file, or ids that are used twice
    """
    if (folder / "target_vocab.json").is_file():
        raise TokenizerError(
            f"{folder}: separate vocabularies (target_vocab.json) are not understood, only a joint one"
        )
    index, tokens = read_vocabulary(folder / VOCABULARY_FILE)
    special = {
        old for token, old in index.items() if token in ("</s>", "<unk>", "<pad>") or _LANGUAGE_CODE.match(token)
    }
    for content, _, _ in declared_tokens(settings):
        if content not in index:
            raise TokenizerError(f"{folder}: special token {content!r} is not in {VOCABULARY_FILE}")
        special.add(index[content])
    target = segmenter(folder / TARGET_FILE)
    also = [TOKENIZER_FILE] if (folder / TOKENIZER_FILE).is_file() else []
    return SourceTokenizer(
        folder=folder,
        kind="marian",
        tokens=tuple(tokens),
        special_ids=frozenset(special),
        byte_ids=frozenset().union(*(byte_tokens(folder / name, index) for name in (SOURCE_FILE, TARGET_FILE))),
        unknown_id=index["<unk>"],
        files=(*also, *settings, *vocabulary_files(folder)),
        encode=piece_encoder(segmenter(folder / SOURCE_FILE), index, _LEADING),
        decode=lambda ids: str(target().decode_pieces([tokens[old] or "" for old in ids])),
        settings=settings,
        encode_target=piece_encoder(target, index, _LEADING),
    )


def read_vocabulary(path: Path) -> tuple[dict[str, int], list[str | None]]:
    """A vocab.json: token -> id, and the token of each id, None where there is none.

    Raises  TokenizerError for a damaged file, ids that are used twice, or one without <unk>
    """
    index: dict[str, int] = {}
    for window in object_windows(path):
        index.update(window)
    tokens: list[str | None] = [None] * (max(index.values(), default=-1) + 1)
    for token, old in index.items():
        if tokens[old] is not None:
            raise TokenizerError(f"{path}: {tokens[old]!r} and {token!r} share the id {old}")
        tokens[old] = token
    if "<unk>" not in index:
        raise TokenizerError(f"{path} has no <unk>, which its tokenizer needs")
    return index, tokens


def byte_tokens(path: Path, index: Mapping[str, int]) -> frozenset[int]:
    """Ids of a SentencePiece model's byte pieces."""
    model = read_sentencepiece(path)
    return frozenset(
        index[text] for text, kind in zip(model.texts, model.types, strict=True) if kind == BYTE and text in index
    )


def segmenter(path: Path) -> Callable[[], SentencePieceProcessor]:
    """A function that loads a SentencePiece model on its first call."""

    @cache
    def load() -> SentencePieceProcessor:
        try:
            import sentencepiece
        except ImportError as error:
            raise TokenizerError(
                f"{path.parent} needs the sentencepiece library to encode text",
                hint='pip install "langslice[sentencepiece]"',
            ) from error
        loaded = sentencepiece.SentencePieceProcessor()
        loaded.Load(str(path))
        return loaded

    return load


def piece_encoder(
    segmenter: Callable[[], SentencePieceProcessor], index: Mapping[str, int], leading: str
) -> Callable[[Sequence[str]], list[list[int]]]:
    """A function from texts to ids: pieces are looked up, those that `index` lacks are <unk>.

    leading  pattern of a language token, which is a token of its own where a text begins with it
    """
    unknown = index["<unk>"]

    def encode(texts: Sequence[str]) -> list[list[int]]:
        encoded = []
        for text in texts:
            code = re.match(leading, text)
            head = [code.group()] if code else []
            pieces = segmenter().encode(text[code.end() if code else 0 :], out_type=str)
            encoded.append([index.get(piece, unknown) for piece in (*head, *pieces)])
        return encoded

    return encode


def write_marian(folder: Path, change: Renumbering, out: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Write vocab.json and both models; returns name -> sha256 and name -> reason for what is left out."""
    written = write_pieces(folder, (SOURCE_FILE, TARGET_FILE), change, out)
    reason = "it is not among the three files that define a Marian tokenizer"
    others = [name for name in (TOKENIZER_FILE,) if (folder / name).is_file()] + vocabulary_files(folder)
    return written, {name: reason for name in others if name not in written}


def write_pieces(folder: Path, models: Sequence[str], change: Renumbering, out: Path) -> dict[str, str]:
    """Write vocab.json and the SentencePiece models whose pieces are looked up in it; returns name -> sha256."""
    written = {}
    with HashedFile(out / VOCABULARY_FILE) as file:
        separator = "{\n  "
        for token, new in _kept_entries(folder / VOCABULARY_FILE, change):
            file.write(f"{separator}{json.dumps(token, ensure_ascii=False)}: {new}")
            separator = ",\n  "
        file.write("\n}\n")
    written[VOCABULARY_FILE] = file.sha256
    for name in models:
        model = read_sentencepiece(folder / name)
        positions = kept_positions(
            model, lambda text: text not in change.index or change.index[text] in change.old_to_new
        )
        with HashedFile(out / name) as file:
            for part in without_pieces(model, positions):
                file.write_bytes(part)
        written[name] = file.sha256
    return written


def _kept_entries(path: Path, change: Renumbering) -> Iterator[tuple[str, int]]:
    """(token, new id) of the kept entries of vocab.json, by ascending id."""
    _, tokens = read_vocabulary(path)
    for old, new in change.old_to_new.items():
        if old < len(tokens) and (token := tokens[old]) is not None:
            yield token, new
