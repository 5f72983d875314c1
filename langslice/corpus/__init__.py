"""Text from files, folders, globs and hub datasets, one unit at a time.

A unit is what is encoded at once: a line of a text file (without its line end), or a whole field of a jsonl or
parquet record. Empty units are passed over: they have no tokens.
"""

from __future__ import annotations

from langslice.corpus.selection import corpus_units
from langslice.corpus.sources import CorpusFile, HubDataset, find_corpora
from langslice.corpus.units import read_texts

__all__ = ["CorpusFile", "HubDataset", "corpus_units", "find_corpora", "read_texts"]
