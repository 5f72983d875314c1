"""What a choice says of the vocabulary: the request for its room, and the text that it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import PlanError
from langslice.options import Choice, codes, listed
from langslice.planning.extension import asked_size, extends
from langslice.planning.size_limit import WeightSizes, rows_within
from langslice.progress import Report
from langslice.tokenizer import SourceTokenizer

if TYPE_CHECKING:
    from langslice.counting import TokenCounts
    from langslice.vocabulary.vocabulary import VocabularyRequest


def vocabulary_request(choice: Choice, sizes: WeightSizes, beyond: int) -> VocabularyRequest:
    """The part of a choice that the vocabulary's own room answers.

    sizes   of the weights, for --max-size
    beyond  rows without a token that stay
    """
    from langslice.vocabulary.vocabulary import VocabularyRequest

    fields: dict[str, Any] = {
        "languages": codes(choice.get("languages")),
        "lexicons": tuple(Path(path) for path in listed(choice.get("lexicon"))),
        "scripts": codes(choice.get("scripts")),
        "drop_scripts": codes(choice.get("drop_scripts")),
        "keep_tokens": tuple(Path(path) for path in listed(choice.get("keep_tokens"))),
        "keep_code": bool(choice.get("keep_code")),
        "only_tokens": tuple(Path(path) for path in listed(choice.get("only_tokens"))),
        "keep_all_language_codes": bool(choice.get("keep_all_language_codes")),
    }
    for name in ("coverage", "min_count", "max_vocab", "top_k"):
        fields[name] = choice.get(name)
    limit = choice.get("max_size")
    if limit is not None:
        new = asked_size(choice)[0] or 0 if extends(choice) else 0
        fitting = rows_within(limit, sizes, without_token=beyond + new, multiple=choice.get("pad_to_multiple_of"))
        if fields["max_vocab"] is None or fitting < fields["max_vocab"]:
            fields |= {"max_vocab": fitting, "limited_by": f"--max-size {limit}"}
    return VocabularyRequest(**fields)


def read_criteria(tokenizer: SourceTokenizer, choice: Choice, report: Report) -> TokenCounts | None:
    """Counts of the corpus and of every counts file, added up with their weights; None where neither was given."""
    from langslice.corpus import corpus_units
    from langslice.counting import load_counts, merge_counts

    parts: list[TokenCounts] = []
    weights: list[float] = []
    corpus = listed(choice.get("corpus"))
    if choice.get("language_id") and not (corpus and codes(choice.get("languages"))):
        raise PlanError(
            "--language-id keeps the corpus lines that are in the wanted languages, but "
            + ("--languages names none" if corpus else "there is no --corpus"),
            hint="add --languages ko,en and --corpus PATH, or leave --language-id away",
        )
    if corpus:
        languages = codes(choice.get("languages")) if choice.get("language_id") else ()
        parts += count_sides(
            tokenizer,
            partial(
                corpus_units, corpus, text_field=choice.get("text_field", "text"), languages=languages, report=report
            ),
            processes=choice.get("processes"),
        )
        weights += [1.0] * len(parts)
    for item in listed(choice.get("counts")):
        path, _, weight = item.partition("=")
        try:
            weights.append(float(weight) if weight else 1.0)
        except ValueError as error:
            raise PlanError(f"--counts {item}: {weight!r} is not a weight", hint="write FILE or FILE=0.5") from error
        parts.append(load_counts(Path(path), tokenizer))
    return merge_counts(parts, weights) if parts else None


def count_sides(
    tokenizer: SourceTokenizer, read: Callable[[], Iterable[str]], *, processes: int | None
) -> list[TokenCounts]:
    """Count text as the tokenizer encodes it; for Marian, which does not say what language a text is in, also as target."""
    from langslice.counting import count_tokens

    return [count_tokens(side, read(), processes=processes) for side in tokenizer.sides]
