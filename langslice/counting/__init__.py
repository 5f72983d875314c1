"""Count how often each token occurs in text, encoding each distinct chunk once."""

from __future__ import annotations

from langslice.counting.count import count_tokens, distinct_chunks
from langslice.counting.counts import TokenCounts, load_counts, merge_counts, token_fingerprint

__all__ = ["TokenCounts", "count_tokens", "distinct_chunks", "load_counts", "merge_counts", "token_fingerprint"]
