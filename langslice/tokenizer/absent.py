"""A model folder without a tokenizer: what is in its place for jobs that leave all tokens as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langslice.errors import TokenizerError
from langslice.tokenizer.settings import read_settings
from langslice.tokenizer.source import SourceTokenizer

# Kind of a tokenizer that is not there.
ABSENT = "absent"
NOTE = "the source has no tokenizer: its rows are named by number alone"


def absent_tokenizer(folder: Path) -> SourceTokenizer:
    """A tokenizer without tokens, which refuses to encode; settings that lie in the folder all the same are its files."""

    def refuse(_: Any) -> Any:
        raise TokenizerError(f"{folder} holds no tokenizer, so that no text can be read")

    return SourceTokenizer(
        folder=folder,
        kind=ABSENT,
        tokens=(),
        special_ids=frozenset(),
        byte_ids=frozenset(),
        unknown_id=None,
        files=tuple(read_settings(folder)),
        encode=refuse,
        decode=refuse,
        notes=(NOTE,),
    )
