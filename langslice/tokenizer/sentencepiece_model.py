"""SentencePiece `.model` files: remove pieces, keep every other byte.

The file is a protocol buffer. Only the wire format is needed: fields that are not about pieces or sizes are copied as
the bytes they are, so normalisation tables and fields of later versions survive.

Source: sentencepiece_model.proto of SentencePiece 0.2 (field numbers below) and the protocol buffer wire format.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from langslice.errors import TokenizerError

# Types of a piece (ModelProto.SentencePiece.Type)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Kinds of a model (TrainerSpec.ModelType)
UNIGRAM, BPE = 1, 2

_PIECES, _TRAINER, _SELF_TEST = 1, 2, 4  # fields of ModelProto
_PIECE, _SCORE, _TYPE = 1, 2, 3  # fields of SentencePiece
_MODEL_TYPE, _VOCAB_SIZE = 3, 4  # fields of TrainerSpec
_ID_FIELDS = {40: 0, 41: 1, 42: 2, 43: -1}  # unk_id, bos_id, eos_id, pad_id and their defaults
_SAMPLE, _EXPECTED = 1, 2  # fields of SelfTestData and its Sample
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_TEXT_TAG, _SCORE_TAG = _PIECE << 3 | _BYTES, _SCORE << 3 | _FIXED32
_FLOAT = struct.Struct("<f")


@dataclass(frozen=True)
class SentencePieceModel:
    """A `.model` file.

    raw         the file's bytes
    texts       (pieces,) string of each piece; a piece's position is its id in SentencePiece
    scores      (pieces,) float32: log probability, or minus the rank for BPE
    types       (pieces,) NORMAL (1) to BYTE (6)
    model_type  UNIGRAM (1), BPE (2), word (3) or char (4)
    """

    raw: bytes
    texts: tuple[str, ...]
    scores: array[float]
    types: bytes
    model_type: int


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a `.model` or `.spm` file. Raises TokenizerError when it is not one."""
    raw = path.read_bytes()
    texts, scores, types, model_type = [], array("f"), bytearray(), UNIGRAM
    try:
        for field, wire, start, end, _ in fields(raw):
            if field == _PIECES and wire == _BYTES:
                text, score, kind = _piece(raw, start, end)
                texts.append(text)
                scores.append(score)
                types.append(kind)
            elif field == _TRAINER and wire == _BYTES:
                numbers = {number: value for number, _, _, _, value in fields(raw[start:end])}
                model_type = numbers.get(_MODEL_TYPE, UNIGRAM)
    except (ValueError, IndexError, struct.error) as error:
        raise TokenizerError(f"{path} is not a SentencePiece model: {error}", hint="download the file again") from error
    if not texts:
        raise TokenizerError(f"{path} is not a SentencePiece model: it holds no pieces")
    return SentencePieceModel(raw, tuple(texts), scores, bytes(types), model_type)


def without_pieces(model: SentencePieceModel, kept: Collection[int]) -> Iterator[bytes]:
    """The file's bytes with only the kept pieces (by position), as parts to be joined.

    Type, score and order of pieces stay. The trainer's vocabulary size and special ids are adjusted; samples of the
    built-in self test that use removed pieces go, since loading would fail on them.
    """
    positions = sorted(kept)
    new_position = {old: new for new, old in enumerate(positions)}
    place, opened = 0, 0
    for field, wire, start, end, _ in fields(model.raw):
        if field == _PIECES and wire == _BYTES:
            if place in new_position:
                yield model.raw[opened:end]
            place += 1
        elif field == _TRAINER and wire == _BYTES:
            yield message(_TRAINER, _adjusted_trainer(model.raw[start:end], new_position))
        elif field == _SELF_TEST and wire == _BYTES:
            removed = {text for old, text in enumerate(model.texts) if old not in new_position}
            yield message(_SELF_TEST, _covered_samples(model.raw[start:end], removed))
        else:
            yield model.raw[opened:end]
        opened = end


def fields(raw: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(field number, wire type, start and end of the value's bytes, value where it is a varint) of a message.

    For a varint field, start and end span the varint itself.
    Raises  ValueError or IndexError where the bytes are not a message
    """
    position, size = 0, len(raw)
    while position < size:
        # Most tags and lengths are one byte; a call for each would double the time of a quarter million pieces.
        tag, position = (raw[position], position + 1) if raw[position] < 0x80 else _varint(raw, position)
        wire, start, value = tag & 7, position, 0
        if wire == _BYTES:
            length, start = (raw[position], position + 1) if raw[position] < 0x80 else _varint(raw, position)
            position = start + length
        elif wire == _VARINT:
            value, position = _varint(raw, position)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if position > size or not tag >> 3:
            raise ValueError(f"field {tag >> 3} at byte {start} does not fit the file")
        yield tag >> 3, wire, start, position, value


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number that never ends at byte {position}")


def encode_varint(value: int) -> bytes:
    """A number in the wire format; negative ones as 64-bit two's complement, like the reference implementation."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def message(field: int, content: bytes) -> bytes:
    """A field that holds bytes: strings and nested messages."""
    return encode_varint(field << 3 | _BYTES) + encode_varint(len(content)) + content


def _piece(file: bytes, start: int, end: int) -> tuple[str, float, int]:
    """String, score and type of the piece between two positions of a file."""
    raw = file[start:end]
    # Nearly every piece is a string of less than 128 bytes and a score, in this order and nothing else.
    after = raw[1] + 2 if end - start >= 7 and raw[0] == _TEXT_TAG and raw[1] < 0x80 else 0
    if after + 5 == end - start and raw[after] == _SCORE_TAG:
        return raw[2:after].decode(), _FLOAT.unpack_from(raw, after + 1)[0], NORMAL
    text, score, kind = "", 0.0, NORMAL
    for field, wire, start, end, value in fields(raw):
        if field == _PIECE and wire == _BYTES:
            text = raw[start:end].decode()
        elif field == _SCORE and wire == _FIXED32:
            (score,) = _FLOAT.unpack_from(raw, start)
        elif field == _TYPE and wire == _VARINT:
            kind = value
    return text, score, kind


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _adjusted_trainer(raw: bytes, new_position: dict[int, int]) -> bytes:
    """TrainerSpec with the new vocabulary size and special ids; a default id that moved is written out."""
    parts: list[bytes] = []
    opened, seen = 0, set()
    for field, wire, _, end, value in fields(raw):
        content = raw[opened:end]
        if wire == _VARINT and field == _VOCAB_SIZE:
            content = encode_varint(field << 3) + encode_varint(len(new_position))
        elif wire == _VARINT and field in _ID_FIELDS:
            seen.add(field)
            content = encode_varint(field << 3) + encode_varint(_moved(_signed(value), new_position))
        parts.append(content)
        opened = end
    for field, default in _ID_FIELDS.items():
        if field not in seen and _moved(default, new_position) != default:
            parts.append(encode_varint(field << 3) + encode_varint(_moved(default, new_position)))
    return b"".join(parts)


def _moved(old: int, new_position: dict[int, int]) -> int:
    return new_position.get(old, -1) if old >= 0 else old


def _covered_samples(raw: bytes, removed: Collection[str]) -> bytes:
    parts: list[bytes] = []
    opened = 0
    for field, wire, start, end, _ in fields(raw):
        expected = ""
        if field == _SAMPLE and wire == _BYTES:
            sample = raw[start:end]
            expected = "".join(sample[s:e].decode() for number, _, s, e, _ in fields(sample) if number == _EXPECTED)
        if not any(piece in removed for piece in expected.split(" ")):
            parts.append(raw[opened:end])
        opened = end
    return b"".join(parts)


def kept_positions(model: SentencePieceModel, keeps: Callable[[str], bool]) -> Sequence[int]:
    """Positions that stay: control, unknown and byte pieces always, others where `keeps(text)` says so."""
    return [
        position
        for position, (text, kind) in enumerate(zip(model.texts, model.types, strict=True))
        if kind in (UNKNOWN, CONTROL, BYTE) or keeps(text)
    ]
