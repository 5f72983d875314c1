"""Calibration data by language: M-Wanda's criterion and shares by layer against Wanda, on gemma-3-270m.

    python benchmarks/real/mwanda.py

Weights go at a sparsity of 0.5 and at 2:4 by calibration data of several languages, of English, of Korean and of translations,
and by M-Wanda with each of its parts alone. Measured: bits per byte of NTREX-128 lines that calibrated nothing, XCOPA and KorNLI.
Writes results/real/mwanda.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import CHOSEN_FROM, SEED, machine, table, write_page
from mwanda_runs import (
    BY_LANGUAGE,
    CONDITIONS,
    GROUPS,
    HALF,
    LINES,
    LONGEST,
    MIXED,
    PAGE,
    RUNS,
    SEEDS,
    TASKS,
    UNSEEN,
    collect,
)

from langslice.evaluation.statistics import spearman


def bits(found: dict[str, Any], languages: tuple[str, ...], lines: Any = slice(None)) -> Any:
    """Mean over languages of bits per byte.

    lines    (..., n) numbers of the lines that count, the same of each language
    Returns  (...)
    """
    each = []
    for code in languages:
        items = np.array(found[code])[lines]  # (..., n, 2)
        each.append(items[..., 0].sum(-1) / items[..., 1].sum(-1))
    return np.mean(each, axis=0)


def credit(found: dict[str, Any], score: str) -> Any:
    """(questions,) 1 where the right label has the highest score."""
    rows = np.array(found[score])
    return (rows[:, :-1].argmax(axis=1) == rows[:, -1]).astype(float)


def margin(found: dict[str, Any], score: str) -> Any:
    """(questions,) score of the right label over the best other."""
    rows, at = np.array(found[score]), np.arange(len(found[score]))
    scores, answers = rows[:, :-1].copy(), rows[:, -1].astype(int)
    right = scores[at, answers].copy()
    scores[at, answers] = -np.inf
    return right - scores.max(axis=1)


SCORE = {"halves-ko": "sum", "kornli": "paper", "xcopa-id": "sum", "xcopa-zh": "sum"}
LANGUAGE = {"halves-ko": "ko", "kornli": "ko", "xcopa-id": "id"}
CHANCE = {"halves-ko": 1 / 4, "kornli": 1 / 3, "xcopa-id": 1 / 2, "xcopa-zh": 1 / 2}


def drawn(count: int) -> Any:
    """(1000, count) resamples of items; the same for the same count."""
    return np.random.default_rng(SEED).integers(0, count, (1000, count))


@dataclass(frozen=True)
class Change:
    """Second minus first, with the 95% interval of paired resamples."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def says(self, *, lower: bool) -> str:
        """Whether the second is better."""
        signed = (self.low, self.high) if lower else (-self.high, -self.low)
        return HOLDS if signed[1] < 0 else FAILS if signed[0] > 0 else NOT_SEEN


# The third is an interval that holds zero, the last what was not measured.
HOLDS, FAILS, NOT_SEEN, UNTOLD = "holds", "does not hold", "not seen", "cannot be told here"


def change_of_bits(first: Any, second: Any, languages: tuple[str, ...]) -> Change:
    """Of the mean over languages of bits per byte; lines are resampled, with all their languages."""
    lines = drawn(LINES)
    found = bits(second, languages, lines) - bits(first, languages, lines)
    return Change(float(bits(second, languages) - bits(first, languages)), *np.percentile(found, [2.5, 97.5]))


def change_of_items(first: Any, second: Any) -> Change:
    """Of a mean over questions."""
    apart = second - first
    return Change(float(apart.mean()), *np.percentile(apart[drawn(len(apart))].mean(axis=1), [2.5, 97.5]))


def by_condition(document: dict[str, Any], pattern: str, seed: int, kind: str) -> dict[str, Any]:
    """Name -> what was measured, of the conditions that it was measured of."""
    found = {name: document["conditions"].get(f"{name} {pattern} {seed}", {}).get(kind) for name in CONDITIONS}
    return {name: each for name, each in found.items() if each}


SHOWN = {
    "magnitude": "magnitude", "wanda-mixed": "Wanda, six languages", "wanda-en": "Wanda, English", "wanda-ko": "Wanda, Korean",
    "wanda-mt": "Wanda, translations", "mwanda": "M-Wanda, criterion and shares by layer",
    "criterion": "M-Wanda's criterion alone", "by-layer": "Wanda, M-Wanda's shares by layer",
    "reversed": "Wanda, these shares the other way round", "outliers": "Wanda, OWL's shares",
    "variation": "criterion without activity", "activity": "criterion without variation",
}  # fmt: skip


def bytes_rows(document: dict[str, Any], pattern: str) -> list[list[str]]:
    """Bits per byte by language, and the difference from Wanda on the same six languages."""
    measured_ = by_condition(document, pattern, 0, "bytes")
    dense, base = document["dense"]["bytes"], measured_.get("wanda-mixed")
    rows = [
        [
            "nothing pruned",
            *(f"{bits(dense, (code,)):.3f}" for code in (*MIXED, *UNSEEN)),
            f"{bits(dense, MIXED):.3f}",
            "–",
            "–",
        ]
    ]
    for name, found in measured_.items():
        apart = ["–", "–"]
        if base and name != "wanda-mixed":
            apart = [str(change_of_bits(base, found, languages)) for languages in (MIXED, UNSEEN)]
        rows.append(
            [
                SHOWN[name],
                *(f"{bits(found, (code,)):.3f}" for code in (*MIXED, *UNSEEN)),
                f"{bits(found, MIXED):.3f}",
                *apart,
            ]
        )
    return rows


def tasks_rows(document: dict[str, Any]) -> list[list[str]]:
    """Accuracy and margin of each condition, and the difference from Wanda on six languages."""
    rows = []
    for task in TASKS:
        found = {"nothing pruned": document["dense"][task]}
        found |= {SHOWN[name]: each for name, each in by_condition(document, HALF, 0, task).items()}
        base = found.get(SHOWN["wanda-mixed"])
        for name, each in found.items():
            right, clear = credit(each, SCORE[task]), margin(each, SCORE[task])
            apart = ["–", "–"]
            if base and each is not base:
                apart = [
                    str(change_of_items(credit(base, SCORE[task]), right)), str(change_of_items(margin(base, SCORE[task]), clear))
                ]  # fmt: skip
            rows.append(
                [task, name, str(len(right)), f"{right.mean():.3f}", apart[0], f"{clear.mean():+.3f}", apart[1]]
            )
    return rows


def parting(document: dict[str, Any], task: str) -> tuple[int, float, float, float] | None:
    """Conditions, and the rank correlation over them of bits per byte in the task's language and accuracy, with its interval.

    Lines and questions are resampled; the conditions are those that there are.
    """
    lines_, asked = by_condition(document, HALF, 0, "bytes"), by_condition(document, HALF, 0, task)
    names = [name for name in lines_ if name in asked]
    if len(names) < 3:
        return None
    right = np.stack([credit(asked[name], SCORE[task]) for name in names])  # (conditions, questions)
    every = drawn(LINES)
    one = np.stack([bits(lines_[name], (LANGUAGE[task],), every) for name in names], axis=1)  # (1000, conditions)
    other = right[:, drawn(right.shape[1])].mean(axis=2).T
    found = spearman(np.stack([one, other], axis=-1))
    told = float(
        spearman(np.stack([[bits(lines_[name], (LANGUAGE[task],)) for name in names], right.mean(axis=1)], axis=-1))
    )
    return len(names), told, *(float(each) for each in np.nanpercentile(found, [2.5, 97.5]))


def seeds_rows(document: dict[str, Any]) -> list[list[str]]:
    """M-Wanda less Wanda by seed of the calibration lines."""
    rows = []
    for seed in SEEDS:
        found = by_condition(document, HALF, seed, "bytes")
        if {"wanda-mixed", "mwanda"} <= found.keys():
            pair = found["wanda-mixed"], found["mwanda"]
            rows.append([str(seed), *(f"{bits(one, MIXED):.3f}" for one in pair), str(change_of_bits(*pair, MIXED))])
    return rows


def shares_rows(document: dict[str, Any]) -> list[list[str]]:
    """What goes of each block by each allocation."""
    rows = []
    for name in ("mwanda", "outliers"):
        done = document["conditions"].get(f"{name} {HALF} 0", {}).get("pruned")
        if done:
            rows.append([SHOWN[name], *(f"{share * 100:.0f}" for share in done["shares"].values())])
    return rows


def harm(document: dict[str, Any]) -> Change | None:
    """How much more the other calibrated languages lose under Wanda than English: of the logarithm of bits per byte."""
    found, dense = by_condition(document, HALF, 0, "bytes").get("wanda-mixed"), document["dense"]["bytes"]
    if not found:
        return None

    def apart(lines: Any = slice(None)) -> Any:
        rise = {code: np.log(bits(found, (code,), lines) / bits(dense, (code,), lines)) for code in MIXED}
        return np.mean([rise[code] for code in MIXED if code != "en"], axis=0) - rise["en"]

    return Change(float(apart()), *np.percentile(apart(drawn(LINES)), [2.5, 97.5]))


@dataclass(frozen=True)
class Claim:
    """A paper's claim, two conditions that it is about, and what they are compared on."""

    paper: str
    says: str
    first: str
    second: str
    pattern: str = HALF
    on: tuple[str, ...] | str = MIXED


CLAIMS = (
    Claim("M-Wanda", "better than Wanda on the same data, at 0.5", "wanda-mixed", "mwanda"),
    Claim("M-Wanda", "its criterion helps alone, at 0.5", "wanda-mixed", "criterion"),
    Claim("M-Wanda", "its shares by layer help alone, at 0.5", "wanda-mixed", "by-layer"),
    Claim("M-Wanda", "its shares by layer are better than the same ones reversed, at 0.5", "reversed", "by-layer"),
    Claim("M-Wanda", "the variation helps alone, at 0.5", "wanda-mixed", "variation"),
    Claim("M-Wanda", "the activity helps alone, at 0.5", "wanda-mixed", "activity"),
    Claim("M-Wanda", "better on languages that calibrated nothing, at 0.5", "wanda-mixed", "mwanda", on=UNSEEN),
    Claim("M-Wanda", "its criterion is better at 2:4", "wanda-mixed", "criterion", GROUPS),
    Claim("M-Wanda", "better answers (second halves of Korean lines), at 0.5", "wanda-mixed", "mwanda", on="halves-ko"),
    Claim("M-Wanda", "better answers (KorNLI), at 0.5", "wanda-mixed", "mwanda", on="kornli"),
    Claim("M-Wanda", "better answers (XCOPA id), at 0.5", "wanda-mixed", "mwanda", on="xcopa-id"),
    Claim("Kurz et al.", "Korean data keeps Korean text better than English data, at 0.5", "wanda-en", "wanda-ko", on=("ko",)),
    Claim("Kurz et al.", "the same at 2:4", "wanda-en", "wanda-ko", GROUPS, on=("ko",)),
    Claim("Kurz et al.", "Korean data helps Korean answers (paper: not reliably; second halves)", "wanda-en", "wanda-ko",
          on="halves-ko"),
    Claim("Kurz et al.", "Korean data helps Korean answers (paper: not reliably; KorNLI)", "wanda-en", "wanda-ko", on="kornli"),
)  # fmt: skip


def verdicts(document: dict[str, Any]) -> list[list[str]]:
    """Rows of the list at the end: paper, claim, verdict, figure."""
    rows = []
    more = harm(document)
    if more:
        says = "pruning harms other languages more than English (Wanda, 0.5)"
        figure = f"log of bits per byte, five other languages less English: {more}"
        rows.append(["M-Wanda", says, more.says(lower=False), figure])
    for one in CLAIMS:
        kind = "bytes" if isinstance(one.on, tuple) else one.on
        found = by_condition(document, one.pattern, 0, kind)
        if not {one.first, one.second} <= found.keys():
            if isinstance(one.on, tuple):
                continue
            said = unanswered(document, one.on)
        elif isinstance(one.on, tuple):
            apart = change_of_bits(found[one.first], found[one.second], one.on)
            said = apart.says(lower=True), f"bits per byte {apart}"
        else:
            apart, clear = (
                change_of_items(*(of(found[name], SCORE[one.on]) for name in (one.first, one.second)))
                for of in (credit, margin)
            )
            count = len(found[one.first][SCORE[one.on]])
            said = apart.says(lower=False), f"accuracy {apart}, margin {clear} nats, n = {count}"
        rows.append([one.paper, one.says, *said])
    return rows + [["Kurz et al.", f"perplexity and {task} part", *parted(document, task)] for task in TASKS]


def parted(document: dict[str, Any], task: str) -> tuple[str, str]:
    """Whether bits per byte and a task's accuracy part over the conditions, and the figure."""
    part = parting(document, task)
    if part is None:
        return unanswered(document, task)
    count, told, low, high = part
    said = FAILS if high < 0 else HOLDS if low > -0.5 else NOT_SEEN
    return (
        said,
        f"rank correlation of bits per byte and accuracy {told:+.2f} [{low:+.2f}, {high:+.2f}], {count} conditions",
    )


def unanswered(document: dict[str, Any], task: str) -> tuple[str, str]:
    """Verdict and figure of a task that was not asked of the pruned models."""
    return UNTOLD, f"asked of the whole model only, {chance(document, task)}"


def chance(document: dict[str, Any], task: str) -> str:
    """How far the model as it is stands above chance."""
    right = credit(document["dense"][task], SCORE[task])
    low, high = np.percentile(right[drawn(len(right))].mean(axis=1), [2.5, 97.5])
    return f"{task} {right.mean():.3f} [{low:.3f}, {high:.3f}] against {CHANCE[task]:.3f} by chance (n = {len(right)})"


def figures(measured_: dict[str, Any]) -> dict[str, Any]:
    """What the page says, from the items that were measured."""
    runs = measured_["conditions"]
    missing = [
        f"{SHOWN[name]} ({pattern}, seed {seed}, {kind})"
        for name, pattern, seed, kind in RUNS
        if not runs.get(f"{name} {pattern} {seed}", {}).get(kind)
    ]
    tokens = {
        SHOWN[key.removesuffix(" 0.5 0")]: sum(one["pruned"]["tokens"].values())
        for key, one in runs.items()
        if key.endswith(" 0.5 0") and one.get("pruned") and one["pruned"]["tokens"]
    }
    return {
        "rows": measured_["slice"]["after"]["rows"],
        "tokens": {
            name: count for name, count in tokens.items() if name.startswith("Wanda, ") and "shares" not in name
        },
        "bytes": {pattern: bytes_rows(measured_, pattern) for pattern in (HALF, GROUPS)},
        "seeds": seeds_rows(measured_),
        "shares": shares_rows(measured_),
        "chance": [chance(measured_, task) for task in SCORE],
        "tasks": tasks_rows(measured_),
        "verdicts": verdicts(measured_),
        "missing": missing,
        "machine": machine(),
    }


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    rows = [f"- {paper}: {says} → **{said}**: {figure}" for paper, says, said, figure in document["verdicts"]]
    apart = "less Wanda on six"
    bytes_head = ["", *MIXED, *UNSEEN, "mean of six", apart, f"the same, {' and '.join(UNSEEN)}"]
    halves, groups = (table(bytes_head, document["bytes"][pattern]) for pattern in (HALF, GROUPS))
    seeds_head = ["calibration lines by seed", "Wanda", "M-Wanda", "M-Wanda less Wanda"]
    tasks_head = ["task", "", "n", "accuracy", apart, "margin, nats", apart]
    return f"""# Calibration data by language: gemma-3-270m

`benchmarks/real/mwanda.py`. {document["machine"]}

M-Wanda is Choenni and Titov 2025 (arXiv 2505.21171) **as we read its description**: its formulas and code were not at hand,
and what the description leaves open is settled in `langslice/sparsity/language_statistics.py`. What holds or does not hold here
is said of that reading, on a model of 270 million parameters, and not of the paper's method on its models. "Kurz et al." is
arXiv 2408.14398.

The model's vocabulary is first sliced to the {document["rows"]:,} tokens of all text used here, which leaves its blocks as they
are. Calibration: {BY_LANGUAGE} lines of NTREX-128 in each of {", ".join(MIXED)}, the same lines in all; or as many lines in all
({BY_LANGUAGE * len(MIXED)}) of one language; or 20 pairs of English and another of these as translation demonstrations.
Tokens: {"; ".join(f"{name} {count:,}" for name, count in document["tokens"].items())}. Lines to measure on are others, parallel:
{LINES} in each language, at most {LONGEST} bytes in English. Intervals are 95% of 1,000 paired resamples, of lines with all their
languages or of questions; they do not cover the choice of calibration lines, which the seeds show.

## Bits per byte at a sparsity of 0.5
{halves}
## Bits per byte at 2:4
{groups}
A pattern fixes the share of every layer: M-Wanda at 2:4 is its criterion alone.

## Other calibration lines
{table(seeds_head, document["seeds"])}
## Sparsity by layer
Blocks whose inputs languages use more alike keep more: so we read the description, which does not say it in so many words. The
control turns each share around 50%, so that these blocks lose more.

{table(["% of the weights, block", *map(str, range(18))], document["shares"])}
## Tasks at a sparsity of 0.5
Before any weight goes: {"; ".join(document["chance"])}. A task that the whole model does not do above chance cannot tell what
pruning costs it: hence *halves*, ours, which of {CHOSEN_FROM} second halves of NTREX-128 lines, about as long, goes on from a
first. The margin is the log probability of the right label less that of the best other, for KorNLI per token.

{table(tasks_head, document["tasks"], text_columns=2)}
## What holds
{chr(10).join(rows)}

"M-Wanda" above is our reading of it. {"Not measured: " + "; ".join(document["missing"]) + "." if document["missing"] else ""}
"""


def main() -> None:
    """Measure, and write the page."""
    found = collect()
    # Five digits of every item are enough to read, and half of the file.
    items = json.loads(json.dumps(found), parse_float=lambda number: round(float(number), 5))
    document = {**figures(found), "measured": items}
    write_page(PAGE, document, page(document))


if __name__ == "__main__":
    main()
