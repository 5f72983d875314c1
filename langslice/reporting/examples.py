"""A few kept tokens of each language, spelled as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from langslice.planning.plan import SlicePlan
from langslice.reporting.data import Report

if TYPE_CHECKING:
    from langslice.tokenizer import SourceTokenizer

_EXAMPLES = 20
_LEAST_CHARACTERS = 2


def with_examples(report: Report, folder: Path, plan: SlicePlan) -> Report:
    """The report with tokens that are kept for one language alone, evenly spaced among its tokens.

    They are read from the slice's own tokenizer: the plan holds spellings of the vocabulary, which for bytes is no text.
    """
    if report.vocabulary is None or not report.vocabulary.languages or not plan.names_tokens:
        return report
    from langslice.model.checkpoint import open_checkpoint
    from langslice.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(open_checkpoint(folder).model_folder, model_type=plan.model_type)
    by_reason: dict[str, list[int]] = {}
    for new, reason in enumerate(plan.reasons):
        by_reason.setdefault(reason, []).append(new)
    languages = tuple(
        replace(one, examples=_examples(tokenizer, by_reason.get(f"language:{one.tag}", [])))
        for one in report.vocabulary.languages
    )
    return replace(report, vocabulary=replace(report.vocabulary, languages=languages))


def _examples(tokenizer: SourceTokenizer, ids: list[int]) -> tuple[str, ...]:
    texts: list[str] = []
    for new in ids:
        if new < len(tokenizer.tokens) and tokenizer.tokens[new] is not None:
            try:
                text = tokenizer.surface(new).decode().strip()
            except UnicodeDecodeError:
                continue
            if len(text) >= _LEAST_CHARACTERS:
                texts.append(text)
    if len(texts) <= _EXAMPLES:
        return tuple(texts)
    return tuple(texts[number * len(texts) // _EXAMPLES] for number in range(_EXAMPLES))
