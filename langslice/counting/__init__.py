"""Count how often each token occurs in text, encoding each distinct chunk once."""

from __future__ import annotations

from langslice.counting.count import count_tokens as count_tokens
from langslice.counting.count import distinct_chunks as distinct_chunks
from langslice.counting.counts import TokenCounts, load_counts, merge_counts
from langslice.counting.counts import token_fingerprint as token_fingerprint

__all__ = ["TokenCounts", "load_counts", "merge_counts"]
