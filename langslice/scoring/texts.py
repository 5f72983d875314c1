"""Text that scores are measured on: read by language, and sampled by seed. Tokens are made of it in batches.py."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langslice.errors import CorpusError
from langslice.progress import Report, silent
from langslice.scoring.table import OVERALL

_POOL_LINES = 65_536
_NAMED = re.compile(r"(?P<language>[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)=(?P<path>.+)")


def read_score_texts(
    texts: Sequence[str] | Mapping[str, Sequence[str]], *, text_field: str = "text", report: Report = silent
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Read lines by language.

    texts    "FILE", or "ko=FILE" for text of one language; or language -> lines that were read already
    Returns  language -> lines ("" where none was named; of a longer text a sample of 65,536 lines), and the names
    Raises   CorpusError without text, for text that cannot be read, or where only some of the texts have a language
    """
    if isinstance(texts, Mapping):
        lines = {language: [line for line in given if line.strip()] for language, given in texts.items()}
        names = tuple(f"{language}={len(given)} lines" for language, given in lines.items())
    else:
        lines, names = _read_files(texts, text_field, report), tuple(texts)
    if not lines:
        raise CorpusError(
            "this method reads text, and none was given", hint="add --calibration FILE, or --calibration ko=FILE"
        )
    for language, given in lines.items():
        if not given:
            raise CorpusError(f"the text{f' of `{language}`' if language else ''} holds no line with anything in it")
    if OVERALL in lines and len(lines) > 1:
        raise CorpusError(
            "some texts have a language and others have none",
            hint="write --calibration ko=FILE for all of them, or for none",
        )
    return lines, names


def _read_files(texts: Sequence[str], text_field: str, report: Report) -> dict[str, list[str]]:
    from langslice.corpus import corpus_units

    paths: dict[str, list[str]] = {}
    for text in texts:
        named = None if Path(text).exists() else _NAMED.fullmatch(text)
        language, path = (named["language"], named["path"]) if named else (OVERALL, text)
        paths.setdefault(language, []).append(path)
    lines: dict[str, list[str]] = {}
    for language, files in paths.items():
        units = corpus_units(files, text_field=text_field, languages=(), report=report)
        lines[language] = _reservoir(unit for unit in units if unit.strip())
    return lines


def _reservoir(units: Any) -> list[str]:
    """A sample in which every line is as likely as any other, in memory that does not grow with the text."""
    rng = random.Random(0)
    pool: list[str] = []
    for number, unit in enumerate(units):
        if number < _POOL_LINES:
            pool.append(unit)
        elif (at := rng.randrange(number + 1)) < _POOL_LINES:
            pool[at] = unit
    return pool


def sample_lines(lines: Sequence[str], seed: int, samples: int) -> list[str]:
    """Draw the lines of one seed: `samples`, at most half of a text of several lines, so that seeds differ."""
    count = min(samples, (len(lines) + 1) // 2)
    return random.Random(seed).sample(list(lines), count)
