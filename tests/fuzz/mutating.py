"""Valid files made slightly wrong: a JSON-like document at one place, or a file at some bytes.

Every function takes its choices from a `random.Random`, so that a seed, or hypothesis, decides all of them.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

# Values that are wrong almost everywhere, and plausible somewhere.
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 63, 2**31, 2**60, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, float("inf"),
    float("nan"), "", " ", "a", "x" * 5000, "\x00", "\ud800", "\u202e", "\n", "../../x", "/etc/passwd", "ä", "[UNK]", "<0x41>",
    [], {}, [None], [[]], {"": None}, [0, 1], ["a", "b"], {"type": "x"}, {"a": {"b": []}}, -5.5, "NaN", "1",
)  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values below a document; of long lists and mappings only some."""
    found: list[tuple[Any, ...]] = [path] if path else []
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    if len(items) > 24:
        items = items[:12] + items[-12:]
    for key, value in items:
        found += places(value, (*path, key))
    return found


def mutate(document: Any, choose: random.Random, changes: int = 1) -> Any:
    """A copy of a document with so many changes."""
    document = copy.deepcopy(document)
    for _ in range(changes):
        found = places(document)
        if not found:
            return copy.deepcopy(choose.choice(STRANGE))
        # Shallow places as often as deep ones, of which there are more.
        depth = choose.choice(sorted({len(path) for path in found}))
        *way, last = choose.choice([path for path in found if len(path) == depth])
        holder = document
        for key in way:
            holder = holder[key]
        change(holder, last, document, choose)
    return document


def change(holder: Any, key: Any, document: Any, choose: random.Random) -> None:
    """Change one entry of a list or a mapping."""
    value = holder[key]
    kind = choose.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(value))
    elif kind == 1:
        holder[choose.choice(["", "extra", "\n", "__metadata__", f"{key}_", str(key).upper()])] = holder.pop(key)
    elif kind == 2 and isinstance(value, bool | int | float):
        small = value if abs(value) < 2**64 else 7
        holder[key] = choose.choice([value + 1, value - 1, -value, value * 2, float(small), str(small), value + 2**32])
    elif kind == 3 and isinstance(value, str):
        holder[key] = choose.choice([value[:-1], value + "x", value.upper(), value + "\n", value[::-1], value * 2])
    elif kind == 4 and isinstance(value, list):
        choose.shuffle(value)
    elif kind == 5:
        other = choose.choice(places(document))
        found = document
        for step in other:
            found = found[step]
        holder[key] = copy.deepcopy(found)
    elif kind == 6:
        holder[key] = [value]
    else:
        holder[key] = copy.deepcopy(choose.choice(STRANGE))


def damage(raw: bytes, choose: random.Random) -> bytes:
    """Bytes with some flipped, truncated, put in, or repeated."""
    data = bytearray(raw)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(data) + 1)
        kind = choose.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << choose.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = choose.choice(
                [b"\x00", b"\xff\xfe", b"{", b"]", b'"', b"\\u", b"[" * 100_000, b"9" * 5000, b"-"]
            )
        elif kind == 3:
            del data[at : at + choose.randint(1, 9)]
        else:
            data[at:at] = data[max(0, at - 20) : at]
    return bytes(data)


def as_json(document: Any) -> bytes:
    """JSON bytes, also of what JSON should not hold: NaN and lone surrogates, which are escaped."""
    return json.dumps(document).encode()


def wrong_json(raw: bytes, choose: random.Random) -> bytes:
    """A JSON file with changes in its structure, or, one time in five, in its bytes."""
    if choose.randrange(5) == 0:
        return damage(raw, choose)
    return as_json(mutate(json.loads(raw), choose, choose.choice([1, 1, 1, 2, 3])))


def wrong_safetensors(raw: bytes, choose: random.Random) -> bytes:
    """A safetensors file with another header, another length of it, or other bytes."""
    length = struct.unpack("<Q", raw[:8])[0]
    header, data = raw[8 : 8 + length], raw[8 + length :]
    kind = choose.randrange(4)
    if kind == 0:
        claimed = choose.choice([0, 1, length - 1, length + 1, len(raw), 2**31, 2**60, 2**63, 2**64 - 1, 100_000_001])
        return struct.pack("<Q", claimed) + raw[8:]
    if kind == 1:
        return damage(raw, choose)
    header = wrong_json(header, choose)
    return struct.pack("<Q", len(header)) + header + data
