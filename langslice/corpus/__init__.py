"""Text from files, folders, globs and hub datasets, one unit at a time.

A unit is what is encoded at once: a line of a text file (without its line end), or a whole field of a jsonl or
parquet record. Empty units are passed over: they have no tokens.
"""

from __future__ import annotations

from langslice.corpus.selection import corpus_units as corpus_units
from langslice.corpus.sources import CorpusFile as CorpusFile
from langslice.corpus.sources import HubDataset as HubDataset
from langslice.corpus.sources import find_corpora as find_corpora
from langslice.corpus.units import read_texts as read_texts

__all__: list[str] = []
