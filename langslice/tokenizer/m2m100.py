"""M2M100: one SentencePiece model, vocab.json, and the languages that its class numbers after them.

A piece is looked up in vocab.json, as in Marian. The language tokens are in no file: the class gives the n-th language of
its own list the id n after the last entry of vocab.json. All of them stay, in their order, whatever languages are kept.
Rows after them belong to made-up words, which no text can be split into.

Source: M2M100Tokenizer of transformers 4.50 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langslice.errors import TokenizerError
from langslice.tokenizer.marian import (
    VOCABULARY_FILE,
    byte_tokens,
    piece_encoder,
    read_vocabulary,
    segmenter,
    write_pieces,
)
from langslice.tokenizer.settings import CONFIG_FILE, declared_tokens
from langslice.tokenizer.slow_files import Renumbering, vocabulary_files
from langslice.tokenizer.source import SourceTokenizer

MODEL_FILE = "sentencepiece.bpe.model"
_CLASS, _MODEL_TYPE = "M2M100Tokenizer", "m2m_100"
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def is_m2m100(folder: Path, settings: Mapping[str, Mapping[str, Any]], model_type: str | None) -> bool:
    """Whether a folder holds the two files of an M2M100 tokenizer; NLLB shares its model type, not its files."""
    named = settings.get(CONFIG_FILE, {}).get("tokenizer_class")
    ours = named == _CLASS or (named is None and model_type == _MODEL_TYPE)
    return ours and all((folder / name).is_file() for name in (MODEL_FILE, VOCABULARY_FILE))


def open_m2m100(folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> SourceTokenizer:
    """Read an M2M100 tokenizer.

    Raises  TokenizerError for a damaged file, ids with holes, or a list of languages that transformers does not have
    """
    index, read = read_vocabulary(folder / VOCABULARY_FILE)
    if None in read:
        raise TokenizerError(
            f"{folder / VOCABULARY_FILE}: id {read.index(None)} has no token, so languages and tokens would share ids"
        )
    languages = _languages(folder, settings)
    tokens = (*read, *(token for token in languages if token not in index))
    if len(tokens) != len(read) + len(languages):
        raise TokenizerError(f"{folder / VOCABULARY_FILE} holds language tokens, which its class numbers after it")
    index = {**index, **{token: len(read) + place for place, token in enumerate(languages)}}
    special = {index[token] for token in (*_SPECIAL, *languages) if token in index}
    for content, _, _ in declared_tokens(settings):
        if content not in index:
            raise TokenizerError(f"{folder}: special token {content!r} is not in {VOCABULARY_FILE}")
        special.add(index[content])
    pieces = segmenter(folder / MODEL_FILE)
    return SourceTokenizer(
        folder=folder,
        kind="m2m100",
        tokens=tokens,
        special_ids=frozenset(special),
        byte_ids=byte_tokens(folder / MODEL_FILE, index),
        unknown_id=index["<unk>"],
        files=(*settings, *vocabulary_files(folder)),
        encode=piece_encoder(pieces, index, "|".join(languages)),
        decode=lambda ids: str(pieces().decode_pieces([tokens[old] or "" for old in ids])),
        settings=settings,
    )


def write_m2m100(folder: Path, change: Renumbering, out: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Write vocab.json and the model; returns name -> sha256 and name -> reason for what is left out."""
    written = write_pieces(folder, (MODEL_FILE,), change, out)
    reason = "it is not among the files that define an M2M100 tokenizer"
    return written, {name: reason for name in vocabulary_files(folder) if name not in written}


def _languages(folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The language tokens, in the order in which the class numbers them."""
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    known: Mapping[str, list[str]] = FAIRSEQ_LANGUAGE_CODES
    named = str(settings.get(CONFIG_FILE, {}).get("language_codes", "m2m100"))
    if named not in known:
        raise TokenizerError(
            f"{folder / CONFIG_FILE}: language_codes = {named!r} is not a list that transformers has",
            hint=f"expected one of {', '.join(known)}",
        )
    return [f"__{code}__" for code in known[named]]
