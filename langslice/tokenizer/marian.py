"""Marian: two SentencePiece models and one joint vocab.json, which alone numbers the tokens.

Text is cut into pieces by source.spm (the target language by target.spm) and each piece is looked up in vocab.json; a
piece that it lacks is unknown. Pieces whose token goes are removed from both models, so that their text is cut into
smaller pieces instead; pieces that vocab.json never had stay, so that what was unknown stays unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import TokenizerError
from langslice.tokenizer.document import object_windows
from langslice.tokenizer.rewrite import HashedFile
from langslice.tokenizer.sentencepiece_model import kept_positions, read_sentencepiece, without_pieces
from langslice.tokenizer.settings import declared_tokens
from langslice.tokenizer.slow_files import Renumbering, vocabulary_files
from langslice.tokenizer.source import SourceTokenizer

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE = "source.spm", "target.spm", "vocab.json"
_LANGUAGE_CODE = re.compile(r">>.+<<\Z")


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
    index: dict[str, int] = {}
    for window in object_windows(folder / VOCABULARY_FILE):
        index.update(window)
    tokens: list[str | None] = [None] * (max(index.values(), default=-1) + 1)
    for token, old in index.items():
        if tokens[old] is not None:
            raise TokenizerError(f"{folder / VOCABULARY_FILE}: {tokens[old]!r} and {token!r} share the id {old}")
        tokens[old] = token
    if "<unk>" not in index:
        raise TokenizerError(f"{folder / VOCABULARY_FILE} has no <unk>, which Marian needs")
    special = {
        old for token, old in index.items() if token in ("</s>", "<unk>", "<pad>") or _LANGUAGE_CODE.match(token)
    }
    for content, _, _ in declared_tokens(settings):
        if content not in index:
            raise TokenizerError(f"{folder}: special token {content!r} is not in {VOCABULARY_FILE}")
        special.add(index[content])
    target = _segmenter(folder / TARGET_FILE)
    return SourceTokenizer(
        folder=folder,
        kind="marian",
        tokens=tuple(tokens),
        special_ids=frozenset(special),
        byte_ids=frozenset(),
        unknown_id=index["<unk>"],
        files=(*settings, *vocabulary_files(folder)),
        encode=_encoder(_segmenter(folder / SOURCE_FILE), index),
        decode=lambda ids: str(target().decode_pieces([tokens[old] or "" for old in ids])),
        settings=settings,
        encode_target=_encoder(target, index),
    )


def _segmenter(path: Path) -> Callable[[], SentencePieceProcessor]:
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


def _encoder(
    segmenter: Callable[[], SentencePieceProcessor], index: Mapping[str, int]
) -> Callable[[Sequence[str]], list[list[int]]]:
    unknown = index["<unk>"]

    def encode(texts: Sequence[str]) -> list[list[int]]:
        encoded = []
        for text in texts:
            code = re.match(r">>.*?<<", text)  # a leading >>xx<< chooses the target language and is a token of its own
            head = [code.group()] if code else []
            pieces = segmenter().encode(text[code.end() if code else 0 :], out_type=str)
            encoded.append([index.get(piece, unknown) for piece in (*head, *pieces)])
        return encoded

    return encode


def write_marian(folder: Path, change: Renumbering, out: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Write vocab.json and both models; returns name -> sha256 and name -> reason for what is left out."""
    written = {}
    with HashedFile(out / VOCABULARY_FILE) as file:
        separator = "{\n  "
        for old, new in change.old_to_new.items():
            file.write(f"{separator}{json.dumps(change.tokens[old], ensure_ascii=False)}: {new}")
            separator = ",\n  "
        file.write("\n}\n")
    written[VOCABULARY_FILE] = file.sha256
    for name in (SOURCE_FILE, TARGET_FILE):
        model = read_sentencepiece(folder / name)
        positions = kept_positions(
            model, lambda text: text not in change.index or change.index[text] in change.old_to_new
        )
        with HashedFile(out / name) as file:
            for part in without_pieces(model, positions):
                file.write_bytes(part)
        written[name] = file.sha256
    left_out = {
        name: "it is not among the three files that define a Marian tokenizer"
        for name in vocabulary_files(folder)
        if name not in written
    }
    return written, left_out
