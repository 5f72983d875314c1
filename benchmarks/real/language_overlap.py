"""Language neurons and heads of gemma-3-270m in eight languages: where they are, which are shared, and what removing them does.

    python benchmarks/real/language_overlap.py

LAPE of neurons and LAHIS of heads on NTREX-128. Then each language's parts are removed, and the loss is measured on other lines of
every language; next to it as many parts of the same layers at random. Losses are those of a slice that has the tokens of these
eight languages, which has the same hidden states. Writes results/real/language_overlap.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from common import ONLY_KEPT, SEED, WORK, machine, ntrex, sliced, step, table, write_page
from scores import Opened, opened, total

PAGE, MODEL = "language_overlap", "gemma-3-270m"
LANGUAGES = ("en", "de", "fr", "es", "ru", "zh", "ja", "ko")
SAMPLES = {"neurons": 64, "heads": 12}
METHODS = {"neurons": "lape", "heads": "lahis"}
NAMES = {"neurons": "Neurons (LAPE, lowest 1% of entropy)", "heads": "Heads (LAHIS, highest 10%)"}
HEADS = 0.1
LINES, LONGEST, DRAWS = 12, 32, (0, 1, 2)
Parts = dict[str, dict[int, list[int]]]


def lines(*, scored: bool) -> dict[str, list[str]]:
    """Lines to score on, or those to measure on; none is both."""
    return {
        code: ntrex(code)[0:1280:10] if scored else ntrex(code)[1400 : 1400 + 40 * LINES : 40] for code in LANGUAGES
    }


@cache
def model() -> Opened:
    """The model with the tokens of the eight languages, in memory."""
    corpus = WORK / PAGE / "lines.txt"
    corpus.parent.mkdir(parents=True, exist_ok=True)
    corpus.write_text("\n".join(line for code in LANGUAGES for line in ntrex(code)) + "\n")
    out, _ = sliced(PAGE, "eight", MODEL, "--corpus", corpus)
    return opened(str(Path(out).resolve()))


def parts(kind: str) -> dict[str, Any]:
    """Each language's parts, and how many there are in each layer."""
    from langslice.scoring import ScoreSettings, compute, language_heads, language_neurons

    settings = ScoreSettings(seeds=(SEED,), samples=SAMPLES[kind])
    scores = compute(model().checkpoint, kind, METHODS[kind], lines(scored=True), settings=settings)
    anatomy = model().anatomy
    found = language_neurons(scores, anatomy) if kind == "neurons" else language_heads(scores, anatomy, high=HEADS)
    ((_, layers),) = (anatomy.neurons if kind == "neurons" else anatomy.heads).items()
    sizes = [size if kind == "neurons" else size.query for size in layers.values()]
    return {"parts": found, "sizes": sizes}


def measured_parts(kind: str) -> Any:
    """Each language's parts, measured now or kept; None where they were never made, with --kept."""
    return step(PAGE, f"parts-{kind}", partial(parts, kind), only_kept=ONLY_KEPT)


def arranged(found: Any) -> Parts:
    """Parts as they were before JSON made text of the numbers of layers."""
    return {place: {int(layer): list(gone) for layer, gone in layers.items()} for place, layers in found.items()}


@cache
def batches() -> Any:
    """Lines to measure on, laid out."""
    from dataclasses import replace

    this = model()
    reader = replace(this.running.reader, max_tokens=LONGEST)
    return Opened(this.checkpoint, this.anatomy, replace(this.running, reader=reader)).laid_out(lines(scored=False))


def losses(kind: str = "neurons", gone: Parts | None = None, texts: Sequence[str] = LANGUAGES) -> dict[str, Any]:
    """Language -> [nats, tokens] of each line, without some parts."""
    given, references = batches()
    hooks = model().without(**{kind: gone}) if gone else []
    return model().measure({code: given[code] for code in texts}, references, hooks)


def compared(code: str) -> list[str]:
    """A language, and the two others on which random parts are tried."""
    at = LANGUAGES.index(code)
    return [LANGUAGES[(at + step) % len(LANGUAGES)] for step in (0, 1, 3)]


def random_losses(kind: str, code: str, gone: Parts, seed: int) -> dict[str, Any]:
    """Losses without as many parts of the same layers at random."""
    from langslice.scoring import random_control

    return losses(kind, random_control(gone, model().anatomy, seed), compared(code))


def measured() -> dict[str, Any]:
    """Every step; None for what was not made yet, with --kept."""
    make = partial(step, PAGE, only_kept=ONLY_KEPT)
    found: dict[str, Any] = {kind: measured_parts(kind) for kind in METHODS}
    found["whole"] = make("whole", losses)
    for kind in METHODS:
        removed: dict[str, Any] = {"chosen": {}, "random": {}}
        for code in LANGUAGES if found[kind] else ():
            gone = arranged(found[kind]["parts"][code])
            removed["chosen"][code] = make(f"{kind}-{code}", partial(losses, kind, gone))
            drawn = [make(f"{kind}-{code}-{seed}", partial(random_losses, kind, code, gone, seed)) for seed in DRAWS]
            removed["random"][code] = [one for one in drawn if one]
        found[f"{kind} removed"] = removed
    found["rows"] = step(PAGE, "eight-slice", dict, only_kept=True)
    return found


def removed_in(document: dict[str, Any], kind: str) -> list[str]:
    """Languages whose parts were removed, and compared with random ones."""
    removed = document[f"{kind} removed"]
    return [code for code in LANGUAGES if removed["chosen"].get(code) and len(removed["random"][code]) == len(DRAWS)]


def flat(found: Any) -> set[tuple[int, int]]:
    """(layer, number) of parts."""
    return {(layer, at) for layers in arranged(found).values() for layer, gone in layers.items() for at in gone}


def overlaps(found: dict[str, Any]) -> np.ndarray:
    """(languages, languages) share of the parts of either language that are parts of both."""
    sets = [flat(found["parts"][code]) for code in LANGUAGES]
    return np.array([[len(one & other) / max(len(one | other), 1) for other in sets] for one in sets])


def thirds(found: dict[str, Any]) -> list[float]:
    """Mean over languages of the share of a language's parts in the first, the middle and the last third of the layers."""
    count = len(found["sizes"])
    shares = []
    for code in LANGUAGES:
        layers = np.array([layer for layer, _ in flat(found["parts"][code])])
        shares.append(np.bincount(layers * 3 // count, minlength=3) / len(layers))
    return [float(share) for share in np.mean(shares, axis=0)]


def rise(before: Any, after: Any) -> tuple[float, float, float]:
    """A rise of the loss, with its interval over lines."""
    from langslice.evaluation.statistics import difference

    found = difference("ratio", np.array(before), np.array(after))
    return found.value, found.low, found.high


def said(found: tuple[float, float, float]) -> str:
    """A rise in writing."""
    return f"{found[0]:+.3f} [{found[1]:+.3f}, {found[2]:+.3f}]"


def rises(document: dict[str, Any], kind: str) -> np.ndarray:
    """(removed, text) rise of the loss."""
    chosen, whole = document[f"{kind} removed"]["chosen"], document["whole"]
    return np.array(
        [[total(chosen[gone][text]) - total(whole[text]) for text in LANGUAGES] for gone in removed_in(document, kind)]
    )


def against_random(document: dict[str, Any], kind: str) -> tuple[list[list[str]], int, int]:
    """Rows on each language's own parts; how many cost their language more than random ones, and more than any other language."""
    matrix, whole, removed = rises(document, kind), document["whole"], document[f"{kind} removed"]
    rows, dearer, dearest = [], 0, 0
    for row, code in zip(matrix, removed_in(document, kind), strict=True):
        number = LANGUAGES.index(code)
        chosen, drawn = removed["chosen"][code], removed["random"][code]
        random = [list(map(float, line)) for line in np.mean([one[code] for one in drawn], axis=0)]
        more = rise(random, chosen[code])
        each = [total(one[code]) - total(whole[code]) for one in drawn]
        others = compared(code)[1:]
        foreign = np.mean([total(one[text]) - total(whole[text]) for one in drawn for text in others])
        dearer += more[1] > 0
        dearest += bool(row[number] > np.delete(row, number).max())
        rows.append([
            code, str(len(flat(document[kind]["parts"][code]))), said(rise(whole[code], chosen[code])),
            f"{np.mean(each):+.3f} ({min(each):+.3f} to {max(each):+.3f})", said(more),
            f"{np.mean([total(chosen[text]) - total(whole[text]) for text in others]):+.3f}", f"{foreign:+.3f}",
            ", ".join(others),
        ])  # fmt: skip
    return rows, dearer, dearest


def section(document: dict[str, Any], kind: str) -> str:
    """What was measured of neurons, or of heads."""
    shares = overlaps(document[kind])
    layers = ", ".join(f"{share:.0%}" for share in thirds(document[kind]))
    shared = [[code, *(f"{value:.2f}" for value in row)] for code, row in zip(LANGUAGES, shares, strict=True)]
    return f"""## {NAMES[kind]}
In the first, middle and last third of the layers, mean over languages: {layers}.

Overlap: parts of both languages over parts of either.

{table(["", *LANGUAGES], shared)}
{costs(document, kind) if removed_in(document, kind) else ""}
"""


def costs(document: dict[str, Any], kind: str) -> str:
    """What removing them does."""
    matrix = rises(document, kind)
    rows, _, _ = against_random(document, kind)
    each = [
        [code, *(f"{value:+.3f}" for value in row)]
        for code, row in zip(removed_in(document, kind), matrix, strict=True)
    ]
    head = [
        "removed",
        "parts",
        "rise, own text",
        "random, own text",
        "chosen - random",
        "rise, others",
        "random, others",
        "others",
    ]
    return f"""Rise of the loss on each language's text (columns) without a language's parts (rows), nats per token:

{table(["removed", *LANGUAGES], each)}
Against as many parts of the same layers at random, {len(DRAWS)} draws (mean and range; chosen - random against their mean); the
last columns are means over two other languages:

{table(head, rows)}"""


def related(document: dict[str, Any], kind: str) -> tuple[float, float]:
    """Mean overlap of languages that share a script, and of the others."""
    scripts = {"ru": "Cyrl", "zh": "Hani", "ja": "Hani", "ko": "Hang"}
    shares = overlaps(document[kind])
    found: dict[bool, list[float]] = {True: [], False: []}
    for (at, one), (beside, other) in combinations(enumerate(LANGUAGES), 2):
        found[scripts.get(one, "Latn") == scripts.get(other, "Latn")].append(shares[at, beside])
    return float(np.mean(found[True])), float(np.mean(found[False]))


def verdict(count: int, of: int) -> str:
    """What a count of so many languages says."""
    if count in (0, of):
        return "holds" if count else "does not hold"
    return "holds in part" if 2 * count >= of else "does not hold for most"


def removal_claims(document: dict[str, Any], kind: str, source: str) -> str:
    """What removal says of a claim that a language's parts serve it alone."""
    count = len(removed_in(document, kind))
    _, dearer, dearest = against_random(document, kind)
    if not count:
        return f"- {source}: removing a language's {kind} costs it more than others → **cannot be told here**: not measured\n"
    return f"""- {source}: removing a language's {kind} costs its own text more than random {kind} do →
  **{verdict(dearer, count)}**: {dearer} of {count} languages (interval above 0)
- {source}: it costs its own text more than any other language's → **{verdict(dearest, count)}**: {dearest} of {count}
"""


def claims(document: dict[str, Any]) -> str:
    """Claims of the papers, and what is found here."""
    low, middle, high = thirds(document["neurons"])
    ends = "holds" if low > 1 / 3 and high > 1 / 3 else "does not hold"
    later = "holds" if high > max(low, middle) else "does not hold"
    close, apart = related(document, "neurons")
    heads_close, heads_apart = related(document, "heads")
    parts = (
        removal_claims(document, "neurons", "LAPE (2402.16438)"),
        f"- LAPE: language neurons gather in the bottom and top layers → **{ends}**:\n"
        f"  {low:.0%}, {middle:.0%}, {high:.0%} in the thirds\n",
        f"- Language-specific neurons lie in later layers (2601.08331) → **{later}**: {high:.0%} in the last third\n",
        removal_claims(document, "heads", "LAHIS (2511.07498)"),
        f"- Languages of one script share more neurons → **{'holds' if close > apart else 'does not hold'}**:\n"
        f"  {close:.2f} against {apart:.2f} of either's parts; heads {heads_close:.2f} against {heads_apart:.2f}\n",
    )
    return "".join(parts)


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    rows = document["rows"]["after"]["rows"] if document.get("rows") else 0
    kinds = [kind for kind in METHODS if document[kind]]
    left = [f"{kind} of {code}" for kind in METHODS for code in LANGUAGES if code not in removed_in(document, kind)]
    return f"""# Language neurons and heads in eight languages

`benchmarks/real/language_overlap.py`: gemma-3-270m with the {rows:,} tokens that NTREX-128 needs in {", ".join(LANGUAGES)}
(a verified slice: the same hidden states, a softmax over fewer tokens). LAPE on {SAMPLES["neurons"]} lines of each language, LAHIS
on {SAMPLES["heads"]}; losses on {LINES} other lines of each, of at most {LONGEST} tokens. Intervals are over lines.
{document["machine"]}

{"".join(section(document, kind) for kind in kinds)}## Claims
{claims(document) if len(kinds) == len(METHODS) else "Not measured yet."}
{f"Not removed yet: {', '.join(left)}." if left else ""}
"""


def main() -> None:
    """Measure, and write the page."""
    document = measured()
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


if __name__ == "__main__":
    main()
