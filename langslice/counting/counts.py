"""Counts of tokens: kept in memory, in a file, and added with weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from langslice.errors import CorpusError
from langslice.files.atomic_output import staging_file
from langslice.files.json_forms import check_form
from langslice.tokenizer import SourceTokenizer

FORMAT = "langslice-counts-1"
_FORM = {
    "units": int, "characters": int, "size_bytes": int, "method": str, "note": str, "fingerprint": str, "kind": str,
}  # fmt: skip


@dataclass(frozen=True)
class TokenCounts:
    """How often each token occurs.

    counts       (vocabulary size,) int64; float64 after merging with weights that are not whole numbers
    units        texts that were counted, and their characters and UTF-8 bytes
    method       "chunks" (each distinct chunk encoded once) or "full" (every distinct unit encoded whole)
    note         why "full" was chosen, or how many blocks a self-check sent that way, else empty
    fingerprint  sha256 that ties the counts to a tokenizer's tokens
    tokens       (vocabulary size,) token strings by id, written next to the counts
    kind         kind of the tokenizer
    """

    counts: np.ndarray
    units: int
    characters: int
    size_bytes: int
    method: str
    note: str
    fingerprint: str
    tokens: tuple[str | None, ...] = ()
    kind: str = ""

    def save(self, path: str | Path) -> None:
        """Write as parquet: columns id, token, count; the rest as file metadata under "langslice"."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        facts = {
            "format": FORMAT,
            "units": self.units,
            "characters": self.characters,
            "size_bytes": self.size_bytes,
            "method": self.method,
            "note": self.note,
            "fingerprint": self.fingerprint,
            "kind": self.kind,
        }
        size = len(self.counts)
        tokens = self.tokens or (None,) * size
        table = pa.table(
            {
                "id": pa.array(range(size), pa.int64()),
                "token": pa.array(tokens, pa.string()),
                "count": pa.array(self.counts),
            }
        )
        with staging_file(Path(path)) as partial:
            pq.write_table(table.replace_schema_metadata({"langslice": json.dumps(facts)}), partial, compression="zstd")


def token_fingerprint(tokenizer: SourceTokenizer) -> str:
    """sha256 of a tokenizer's kind and tokens in the order of their ids."""
    return hashlib.sha256(json.dumps([tokenizer.kind, list(tokenizer.tokens)]).encode()).hexdigest()


def load_counts(path: Path, tokenizer: SourceTokenizer) -> TokenCounts:
    """Read counts and check that they belong to this tokenizer.

    Raises  CorpusError when the file is missing, damaged, or counts another tokenizer's tokens
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[b"langslice"])
        order = table["id"].to_numpy()
        counts = table["count"].to_numpy()
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: no such file", "write counts with `langslice count`") from error
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CorpusError(
            f"{path}: not a file of token counts ({error})", "write it again with `langslice count`"
        ) from error
    check_form(facts, {"format": str}, f"{path}, its facts", CorpusError, "write it again with `langslice count`")
    if facts["format"] != FORMAT:
        raise CorpusError(f"{path}: format {facts['format']!r}, expected {FORMAT!r}", "count again with this version")
    check_form(facts, _FORM, f"{path}, its facts", CorpusError, "write it again with `langslice count`")
    expected = token_fingerprint(tokenizer)
    if facts["fingerprint"] != expected:
        raise CorpusError(
            f"{path}: counts of another tokenizer\n"
            f"  counted:  {facts['kind']}, {len(counts):,} tokens, fingerprint {facts['fingerprint'][:16]}\n"
            f"  expected: {tokenizer.kind}, {len(tokenizer.tokens):,} tokens, fingerprint {expected[:16]}",
            "count the corpus with this model's tokenizer",
        )
    numbers = order.dtype.kind == "i" and counts.dtype.kind in "if"
    if not numbers or len(counts) != len(tokenizer.tokens) or (order != np.arange(len(counts))).any():
        raise CorpusError(f"{path}: ids are not 0 to {len(tokenizer.tokens) - 1:,} in order, or counts are no numbers")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise CorpusError(f"{path}: a count is negative, or no number")
    names = ("units", "characters", "size_bytes", "method", "note", "fingerprint", "kind")
    return TokenCounts(counts=counts, tokens=tokenizer.tokens, **{name: facts[name] for name in names})


def merge_counts(parts: Sequence[TokenCounts], weights: Sequence[float]) -> TokenCounts:
    """Add counts, each multiplied by its weight.

    weights  one a part, finite, none negative. Whole numbers keep the counts int64, others make them float64
    Returns  units, characters and bytes added without weights: they say how much was read
    Raises   CorpusError for parts of different tokenizers, or weights that do not fit
    Example  counts [1, 0] and [0, 4] with weights 1 and 0.5 give [1.0, 2.0]
    """
    if not parts or len(parts) != len(weights):
        raise CorpusError(
            f"{len(parts)} counts and {len(weights)} weights: expected one weight a count, and at least one"
        )
    if any(not np.isfinite(weight) or weight < 0 for weight in weights):
        raise CorpusError(f"weights {list(weights)}: expected finite numbers that are not negative")
    first = parts[0]
    for part in parts[1:]:
        if part.fingerprint != first.fingerprint or len(part.counts) != len(first.counts):
            raise CorpusError(
                "counts of different tokenizers cannot be added\n"
                f"  {first.kind}, {len(first.counts):,} tokens, fingerprint {first.fingerprint[:16]}\n"
                f"  {part.kind}, {len(part.counts):,} tokens, fingerprint {part.fingerprint[:16]}",
                "count every corpus with the same model",
            )
    whole = all(float(weight).is_integer() for weight in weights) and all(p.counts.dtype.kind == "i" for p in parts)
    factors = [int(weight) for weight in weights] if whole else list(weights)
    total: np.ndarray = np.zeros(len(first.counts), np.int64 if whole else np.float64)
    for part, factor in zip(parts, factors, strict=True):
        total += part.counts * factor
    return replace(
        first,
        counts=total,
        units=sum(part.units for part in parts),
        characters=sum(part.characters for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        method="chunks" if any(part.method == "chunks" for part in parts) else "full",
        note="; ".join(dict.fromkeys(part.note for part in parts if part.note)),
    )
