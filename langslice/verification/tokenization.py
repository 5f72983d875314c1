"""Compare two tokenizers on text: the source's and the slice's.

Text is split into pieces as for counting, so that each distinct one is encoded once; the first lines of every text are
encoded whole as well, as a check on the splitting itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langslice.counting import distinct_chunks
from langslice.planning.plan import SlicePlan
from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.absent import ABSENT
from langslice.tokenizer.surface import byte_value
from langslice.verification.check import MAX_EXAMPLES, Check
from langslice.verification.tokenizer_parts import new_ids

_WHOLE_LINES = 256
# Lines that feed the models: how many for each text, their least and most length.
_SAMPLES = 4
_SAMPLE_CHARACTERS = 40
_SAMPLE_LEAST = 8
_SAMPLE_TOKENS = 64


@dataclass(frozen=True)
class TextComparison:
    """How one text is tokenised before and after.

    covered       share of the source's token occurrences that are kept
    identical     pieces of text that use kept tokens only, and encode to the same tokens
    extended      pieces of text that use kept tokens only, and encode to new tokens among others
    differing     pieces that use kept tokens only and encode otherwise: must be 0
    growth        tokens after divided by tokens before, over the whole text
    unknown_*     occurrences of the unknown token
    respelled     WordPiece only: pieces with a word that was unknown as a whole and is now spelled
    round_trip    pieces outside the kept tokens whose decoded text is no longer the source's
    """

    name: str
    units: int
    tokens_before: int
    tokens_after: int
    covered: float
    identical: int
    differing: int
    unknown_before: int
    unknown_after: int
    round_trip: int
    respelled: int = 0
    extended: int = 0
    examples: tuple[str, ...] = ()

    @property
    def growth(self) -> float:
        """Tokens after divided by tokens before."""
        return self.tokens_after / self.tokens_before if self.tokens_before else 1.0


@dataclass(frozen=True)
class Sample:
    """A line of text that uses kept tokens only, and its first tokens by their new ids.

    extended  new tokens are among them, and all its tokens are here
    """

    text: str
    ids: list[int]
    extended: bool = False


def compare_tokenisation(
    name: str, source: SourceTokenizer, result: SourceTokenizer, plan: SlicePlan, units: Iterable[str]
) -> tuple[TextComparison, list[Sample]]:
    """Encode text with both tokenizers, each distinct piece once, and its first lines whole.

    Returns  verification, and the first four covered lines of some length, with their new ids, to feed the models; and the first
             four with new tokens in them
    """
    spelled = _spelled(source, plan)
    new_of = new_ids(plan, len(source.tokens))
    count: Counter[str] = Counter()
    examples: list[str] = []
    first: list[str] = []

    def noting() -> Iterator[str]:
        for unit in units:
            count["units"] += 1
            if len(first) < _WHOLE_LINES:
                first.append(unit)
            yield unit

    for batch in distinct_chunks(source, noting()):
        count.update(_compare(source, result, new_of, batch, spelled, examples))
    whole = _compare(source, result, new_of, [(line, 1) for line in first], spelled, examples)
    comparison = TextComparison(
        name=name,
        units=count["units"],
        tokens_before=count["before"],
        tokens_after=count["after"],
        covered=count["kept"] / count["before"] if count["before"] else 1.0,
        identical=count["identical"],
        differing=count["differing"] + whole["differing"],
        unknown_before=count["unknown before"],
        unknown_after=count["unknown after"],
        round_trip=count["round trip"] + whole["round trip"],
        respelled=count["respelled"],
        extended=count["extended"],
        examples=tuple(examples[:MAX_EXAMPLES]),
    )
    return comparison, _covered_samples(source, result, new_of, first, size=len(plan.kept))


def _spelled(source: SourceTokenizer, plan: SlicePlan) -> dict[int, list[int] | None]:
    """New token's id -> ids of its pieces; None where a new token may be in the place of others (tokenizer/extension.py)."""
    new_of = {old: new for new, old in enumerate(plan.kept.tolist())}
    exact = source.kind.endswith("bpe")
    made = enumerate(plan.extension, len(plan.kept))
    return {row: [new_of[old] for old in one.pieces] if exact else None for row, one in made}


def _outcome(mapped: list[int], new: list[int], spelled: Mapping[int, list[int] | None]) -> str:
    """What happened to a text that uses kept tokens only: it is as it was, or new tokens are in the place of their pieces."""
    if mapped == new:
        return "identical"
    found = [spelled.get(one, [one]) for one in new]
    if spelled.keys().isdisjoint(new):
        return "differing"
    if None in found:
        return "extended"
    return "extended" if [one for part in found for one in part or ()] == mapped else "differing"


def _compare(
    source: SourceTokenizer,
    result: SourceTokenizer,
    new_of: np.ndarray,
    batch: Sequence[tuple[str, int]],
    spelled: Mapping[int, list[int] | None],
    examples: list[str],
) -> Counter[str]:
    """Encode weighted pieces with both tokenizers and count what happened to them; differences go to `examples`."""
    count: Counter[str] = Counter()
    texts = [text for text, _ in batch]
    for (text, weight), old, new in zip(batch, source.encode(texts), result.encode(texts), strict=True):
        mapped = new_of[old].tolist() if old else []
        kept = sum(one >= 0 for one in mapped)
        count["before"] += weight * len(old)
        count["after"] += weight * len(new)
        count["kept"] += weight * kept
        count["unknown before"] += weight * old.count(source.unknown_id) if source.unknown_id is not None else 0
        count["unknown after"] += weight * new.count(result.unknown_id) if result.unknown_id is not None else 0
        if kept == len(old):
            outcome = _outcome(mapped, list(new), spelled)
            # Greedy matching may succeed where the source's longer piece led into a dead end.
            if outcome == "differing" and source.kind == "wordpiece" and source.unknown_id in old:
                outcome = "respelled"
            count[outcome] += weight
            if outcome == "differing":
                shown = [source.tokens[one] for one in old], [result.tokens[one] for one in new]
                examples.append(f"{text!r}: was {shown[0]}, is {shown[1]}")
        elif source.unknown_id not in old and source.decode(old) != result.decode(new):
            count["round trip"] += weight
            examples.append(f"{text!r}: decodes to {result.decode(new)!r}, was {source.decode(old)!r}")
        del examples[MAX_EXAMPLES:]
    return count


def _covered_samples(
    source: SourceTokenizer, result: SourceTokenizer, new_of: np.ndarray, lines: Sequence[str], *, size: int
) -> list[Sample]:
    """The first lines of some length that use kept tokens only, and apart from them those that have new tokens now.

    size  kept tokens
    """
    samples: list[Sample] = []
    extended: list[Sample] = []
    long = [line for line in lines if len(line) >= _SAMPLE_CHARACTERS]
    for line, ids, now in zip(long, source.encode(long), result.encode(long), strict=True):
        mapped = new_of[ids]
        if len(ids) < _SAMPLE_LEAST or (mapped < 0).any():
            continue
        if max(now) >= size:
            extended.append(Sample(line, list(now), extended=True))
        elif len(samples) < _SAMPLES:
            samples.append(Sample(line, mapped[:_SAMPLE_TOKENS].tolist()))
    return [*samples, *extended[:_SAMPLES]]


def summarise_texts(comparisons: Sequence[TextComparison], source: SourceTokenizer) -> Check:
    """Covered text must encode alike; where bytes are in the vocabulary, all text must survive."""
    if source.kind == ABSENT:
        why = "not run: the source has no tokenizer, so that what is run is run on random ids alone"
        return Check("tokenisation", None, why)
    if not any(comparison.units for comparison in comparisons):
        return Check("tokenisation", None, "no text was given")
    if not any(comparison.identical or comparison.extended or comparison.differing for comparison in comparisons):
        return Check("tokenisation", None, "no text uses kept tokens only; give some with --text")
    lossless = spells_bytes(source)
    failed = [
        comparison
        for comparison in comparisons
        if comparison.differing
        or (lossless and (comparison.round_trip or comparison.unknown_after > comparison.unknown_before))
    ]
    identical = sum(comparison.identical for comparison in comparisons)
    extended = sum(comparison.extended for comparison in comparisons)
    new = f", {extended:,} more with new tokens" if extended else ""
    detail = f"{identical:,} pieces of covered text{new}, in {len(comparisons)} texts"
    examples = [f"{comparison.name}: {example}" for comparison in failed for example in _examples(comparison)]
    warning = "" if lossless else _lost_text(comparisons)
    return Check("tokenisation", not failed, detail, tuple(examples[:MAX_EXAMPLES]), warning)


def spells_bytes(source: SourceTokenizer) -> bool:
    """Whether a vocabulary has a token for every byte, whatever kind of tokenizer it is of."""
    if source.byte_ids:
        return True
    spelled = (byte_value(token) for token in source.tokens if token is not None and token.startswith("<0x"))
    return len({byte for byte in spelled if byte is not None}) == 256


def _examples(comparison: TextComparison) -> Sequence[str]:
    lost = f"{comparison.unknown_before:,} unknowns became {comparison.unknown_after:,}"
    return comparison.examples or (lost,)


def _lost_text(comparisons: Sequence[TextComparison]) -> str:
    """One sentence on text that the source reads and the slice does not; "" where there is none."""
    risen = [comparison for comparison in comparisons if comparison.unknown_after and not comparison.unknown_before]
    if not risen:
        return ""
    named = ", ".join(f"{comparison.name} 0 → {comparison.unknown_after:,}" for comparison in risen)
    return f"text that the source reads becomes unknown: {named}; the vocabulary has no bytes to spell it with"


def check_prompts(source: SourceTokenizer, result: SourceTokenizer, plan: SlicePlan, prompts: Sequence[str]) -> Check:
    """What the model is always called with is encoded as in the source: every token of it is kept.

    prompts  as the folder's configuration gives them; a digit follows, so that a space at their end counts
    """
    texts = [f"{prompt}1" for prompt in prompts]
    new_of = new_ids(plan, len(source.tokens))
    wrong: list[str] = []
    for text, old, new in zip(texts, source.encode(texts), result.encode(texts), strict=True):
        if new_of[old].tolist() != list(new):
            spelled = [source.tokens[one] for one in old], [result.tokens[one] for one in new]
            wrong.append(f"{text!r}: was {spelled[0]}, is {spelled[1]}")
    detail = f"{len(prompts)} prompts that the configuration names are encoded as in the source"
    if wrong and plan.request.get("only_tokens"):  # whoever names every token decides over these as well
        return Check("prompts", True, detail, warning=f"prompts are encoded otherwise than in the source: {wrong[0]}")
    return Check("prompts", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))
