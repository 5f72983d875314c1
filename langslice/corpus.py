"""Text from files, folders, globs and hub datasets, one unit at a time.

A unit is what is encoded at once: a line of a text file (without its line end), or a whole field of a jsonl or
parquet record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


def read_texts(
    corpora: Sequence[str], *, text_field: str = "text", progress: Callable[[int], None] | None = None
) -> Iterator[str]:
    """Yield the units of every corpus in order; `progress` receives the bytes read from disk."""
    raise NotImplementedError
