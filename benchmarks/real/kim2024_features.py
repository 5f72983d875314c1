"""Are there dimensions in gemma-3-270m that are large only while it reads translations, and does translation need them?

    python benchmarks/real/kim2024_features.py

Sets: four languages alone, and three with their translation into English, from the last lines of NTREX-128 in the layout of arXiv
2409.16911. Dimensions that stand out in a pair are zeroed after every layer; so are as many other large ones, and as many at
random. Measured on the first lines: bits per byte of the reference translation, and of each language alone. Writes
results/real/kim2024_features.md.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from common import machine, models, ntrex, step, table, write_page

PAGE, MODEL = "kim2024_features", "gemma-3-270m"
PAIRS = ("fr-en", "zh-en", "es-en")
LANGUAGES = ("en", "fr", "zh", "es")
ABLATED = ("fr-en", "zh-en")
DEMONSTRATIONS, SHARE, STAND_OUT = 8, 0.4, 5
SEEDS = (0, 1, 2)
LINES, PLAIN = 12, 8
# Demonstrations are laid out of these lines of NTREX-128; measured are its first ones.
FIRST = 1000


def sets() -> dict[str, list[Any]]:
    """Demonstrations of every set by name."""
    from langslice.demonstrations import Layout, parallel_demonstrations, text_demonstrations

    layout = Layout(shots=4, count=DEMONSTRATIONS, separator="{eos}", order="shuffled")
    text = {code: ntrex(code)[FIRST:] for code in LANGUAGES}
    made: dict[str, list[Any]] = {code: text_demonstrations(text[code], code, layout) for code in LANGUAGES}
    for pair in PAIRS:
        source, target = pair.split("-")
        both = list(zip(text[source], text[target], strict=True))
        made[pair] = parallel_demonstrations(both, (source, target), layout)
    return made


def magnitudes() -> dict[str, Any]:
    """What `measure_magnitudes` finds, as plain data."""
    from langslice.features import measure_magnitudes

    found = measure_magnitudes(models() / MODEL, sets())
    return {
        "conditions": found.conditions,
        "layers": found.layers,
        "values": found.values.tolist(),
        "prompts": found.prompts,
    }


def as_magnitudes(data: dict[str, Any]) -> Any:
    """The magnitudes again."""
    from langslice.features import Magnitudes

    return Magnitudes(
        tuple(data["conditions"]), tuple(data["layers"]), np.array(data["values"]), tuple(data["prompts"])
    )


def cases_of(measured: Any, pair: str) -> dict[str, Any]:
    """What is zeroed for a pair, by name: nothing, what stands out, and the controls of each seed."""
    from langslice.features import standing_out
    from langslice.features.ablation import cases

    marks = standing_out(measured, pair, pair.split("-"), STAND_OUT, SHARE)
    marks[0] = False  # the embeddings are not zeroed
    return {
        kind if seed is None else f"{kind}, seed {seed}": zeroed
        for kind, seed, zeroed in cases(measured, pair, marks, SHARE, SEEDS)
    }


@cache
def loaded() -> Any:
    """The model, loaded once."""
    from langslice.evaluation.loaded_model import load_model

    return load_model(models() / MODEL, device="cpu")


def measure(measured: Any, pair: str, marks: Any) -> dict[str, Any]:
    """Bits and bytes of each line: of the pair's references, and of each of its languages alone."""
    from langslice.evaluation.parallel import ParallelText
    from langslice.evaluation.perplexity import measure_perplexity
    from langslice.evaluation.translation import make_pair
    from langslice.evaluation.translation_loss import measure_translation_loss
    from langslice.features.ablation import zeroed

    source, target = pair.split("-")
    text = ParallelText("NTREX-128", {code: ntrex(code)[:FIRST] for code in (source, target)}, {})
    asked = make_pair(text, source, target, shots=4, limit=LINES)
    found = {}
    with zeroed(loaded().model, measured.layers, marks):
        (translation,) = measure_translation_loss(loaded(), asked)
        found[pair] = translation.items.tolist()
        for code in (source, target):
            *_, bits = measure_perplexity(loaded(), code, ntrex(code)[100 : 100 + 20 * PLAIN : 20])
            found[code] = bits.items.tolist()
    return found


def main() -> None:
    """Measure, and write the page."""
    document: dict[str, Any] = {"cases": {}, "counts": {}}
    data = step(PAGE, "magnitudes", magnitudes)
    if data:
        measured = as_magnitudes(data)
        document["overlap"], document["outstanding"] = overlaps(measured), outstanding(measured)
        for pair in ABLATED:
            for name, marks in cases_of(measured, pair).items():
                key = f"{pair} {name}"
                document["counts"][key] = int(marks.sum())
                document["cases"][key] = step(
                    PAGE, key.replace(", ", "-").replace(" ", "-"), lambda m=measured, p=pair, z=marks: measure(m, p, z)
                )
        draw(measured)
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def overlaps(measured: Any) -> list[list[Any]]:
    """By pair: dimensions that are large in it and small in its source, in English, in other languages, in other pairs."""
    from langslice.features import overlap, particular_dimensions

    means = overlap(measured, SHARE).mean(axis=2)
    place = {name: number for number, name in enumerate(measured.conditions)}
    rows: list[list[Any]] = []
    for pair in PAIRS:
        source = pair.split("-")[0]
        others = [code for code in LANGUAGES if code not in (source, "en")]
        shares = [
            means[place[pair], place[source]], means[place[pair], place["en"]],
            np.mean([means[place[pair], place[code]] for code in others]),
            np.mean([means[place[pair], place[other]] for other in PAIRS if other != pair]),
            # As a yardstick: what is large in one of the two languages alone and small in the other.
            means[place[source], place["en"]],
        ]  # fmt: skip
        particular = particular_dimensions(measured, pair, [source, "en"], SHARE)[1:]
        rows.append([pair, *[float(share) for share in shares], int(particular.sum()), int(particular.size)])
    return rows


def outstanding(measured: Any) -> list[list[Any]]:
    """By pair: how many times larger the dimensions that stand out are in it than in either language alone."""
    from langslice.features import prominence, standing_out

    rows: list[list[Any]] = []
    for pair in PAIRS:
        source = pair.split("-")[0]
        marks = standing_out(measured, pair, [source, "en"], STAND_OUT, SHARE)
        marks[0] = False
        ratios = prominence(measured, pair, [source, "en"])
        # The same question of a language alone, where no translation can be the answer.
        alone = standing_out(measured, source, [pair, "en"], STAND_OUT, SHARE)
        alone[0] = False
        control = prominence(measured, source, [pair, "en"])[alone]
        shared = standing_out(measured, other_pair(pair), [*other_pair(pair).split("-")], STAND_OUT, SHARE)
        shared[0] = False
        rows.append([
            pair, float(np.median(ratios[marks])), float(ratios[marks].max()), float(np.median(control)),
            float(control.max()), int((marks & shared).sum()), int(marks.sum()),
        ])  # fmt: skip
    return rows


def other_pair(pair: str) -> str:
    """A pair to compare with."""
    return PAIRS[(PAIRS.index(pair) + 1) % len(PAIRS)]


def draw(measured: Any) -> None:
    """The map of overlaps, next to the page."""
    from common import RESULTS

    from langslice.features import overlap, pictures

    pictures.draw_overlap(measured, overlap(measured, SHARE), RESULTS / f"{PAGE}-overlap.png", share=SHARE)


def compared(first: Any, second: Any) -> Any:
    """Paired bootstrap of bits per byte, second minus first."""
    from langslice.evaluation.statistics import difference

    return difference("ratio", np.array(first), np.array(second))


def shown(change: Any) -> str:
    """A change with its interval."""
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def overlap_table(document: dict[str, Any]) -> str:
    """Shares of the dimensions that are large in a pair and small elsewhere."""
    rows = [[pair, *[f"{share:.3f}" for share in shares], f"{one} of {of}"]
            for pair, *shares, one, of in document["overlap"]]  # fmt: skip
    head = ["large in", "small in its source", "in English", "in other languages", "in other pairs"]
    return table([*head, "large in its source, small in English", "particular"], rows)


def outstanding_table(document: dict[str, Any]) -> str:
    """By how much the dimensions that stand out do so, next to those that stand out in a language alone."""
    rows = [
        [pair, f"{middle:.2f}", f"{most:.2f}", f"{control:.2f}", f"{control_most:.2f}", f"{shared} of {of}"]
        for pair, middle, most, control, control_most, shared, of in document["outstanding"]
    ]
    head = [
        "pair",
        "times larger, median",
        "most",
        "of its source alone, median",
        "most",
        "stand out in the next pair too",
    ]
    return table(head, rows)


def rises(document: dict[str, Any], pair: str, column: str) -> dict[str, list[Any]]:
    """By kind of what was zeroed: the change from nothing zeroed, of each seed."""
    found: dict[str, list[Any]] = {}
    base = (document["cases"].get(f"{pair} nothing") or {}).get(column)
    for key, items in document["cases"].items():
        kind = key.removeprefix(f"{pair} ").split(",")[0]
        if key.startswith(f"{pair} ") and kind != "nothing" and items and base:
            found.setdefault(kind, []).append(compared(base, items[column]))
    return found


def ablation_table(document: dict[str, Any], pair: str) -> str:
    """Rise of the bits per byte of each text with each set zeroed."""
    columns = (pair, *pair.split("-"))
    rows = []
    for key, items in document["cases"].items():
        if not key.startswith(f"{pair} ") or not items:
            continue
        name = key.removeprefix(f"{pair} ")
        base = document["cases"][f"{pair} nothing"]
        cells = [
            f"{np.sum(items[column], axis=0)[0] / np.sum(items[column], axis=0)[1]:.3f}" if name == "nothing"
            else shown(compared(base[column], items[column]))
            for column in columns
        ]  # fmt: skip
        rows.append([name.replace("particular", "what stands out"), str(document["counts"][key]), *cells])
    if not rows:
        return "Not measured yet.\n"
    return table(["zeroed", "dimensions", f"reference of {pair}", *[f"{code} alone" for code in columns[1:]]], rows)


def verdict(low: float, high: float) -> str:
    """What an interval says of a rise that the paper leads one to expect."""
    return "holds" if low > 0 else "does not hold, less" if high < 0 else "not seen: the interval holds zero"


def control_text(document: dict[str, Any], pair: str) -> list[str]:
    """Does zeroing what stands out cost translation more than zeroing the controls, and more than it costs plain text?"""
    own = (document["cases"].get(f"{pair} particular") or {}).get(pair)
    lines = []
    for kind in ("other large", "random"):
        seeds = [items[pair] for key, items in document["cases"].items() if key.startswith(f"{pair} {kind}") and items]
        if not own or not seeds:
            lines.append(
                f"- Zeroing what stands out in {pair} costs its translation more than zeroing {kind} ones → "
                "**cannot be told here: not measured**"
            )
            continue
        changes = [compared(each, own) for each in seeds]
        mean = compared(np.mean(seeds, axis=0), own)
        more = sum(each.low > 0 for each in changes)
        costs = f"{shown(mean)} bits per byte against the mean of {len(seeds)} draws; more for sure in {more} of {len(seeds)}"
        lines.append(
            f"- Zeroing what stands out in {pair} costs its translation more than zeroing {kind} ones → "
            f"**{verdict(mean.low, mean.high)}** ({costs})"
        )
        beyond, low, high = selective(document, pair, kind)
        lines.append(
            f"- Zeroing what stands out in {pair} falls on translation, and less on plain text, more than zeroing {kind} ones → "
            f"**{verdict(low, high)}** ({beyond:+.3f} [{low:+.3f}, {high:+.3f}] bits per "
            "byte of the reference beyond those of plain text)"
        )
    return lines


def selective(document: dict[str, Any], pair: str, kind: str) -> tuple[float, float, float]:
    """How much more than the controls what stands out costs translation beyond what it costs plain text.

    Returns  (rise of the reference - mean rise of both languages alone), minus the same of the mean control, with its 95% interval;
             lines of each text are resampled by themselves, since they are not the same lines
    """
    base = document["cases"][f"{pair} nothing"]
    own = document["cases"][f"{pair} particular"]
    controls = [items for key, items in document["cases"].items() if key.startswith(f"{pair} {kind}") and items]
    rng = np.random.default_rng(0)

    def beyond(draw: bool) -> float:
        rises = {}
        for column in (pair, *pair.split("-")):
            lines = np.array(base[column])
            rows = rng.integers(0, len(lines), len(lines)) if draw else np.arange(len(lines))
            both = [np.array(own[column])[rows], np.mean([np.array(each[column]) for each in controls], axis=0)[rows]]
            # The bytes are the same in both, so that the difference of sums is that of the two rises.
            rises[column] = (both[0][:, 0].sum() - both[1][:, 0].sum()) / lines[rows, 1].sum()
        source, target = pair.split("-")
        return float(rises[pair] - (rises[source] + rises[target]) / 2)

    low, high = np.percentile([beyond(True) for _ in range(1000)], [2.5, 97.5])
    return beyond(False), float(low), float(high)


def findings(document: dict[str, Any]) -> str:
    """Each finding of the paper, what became of it here, and the figure."""
    lines = []
    if document.get("overlap"):
        count = {pair: (one, of) for pair, *_, one, of in document["overlap"]}
        said = ", ".join(f"{pair} {one} of {of}" for pair, (one, of) in count.items())
        anywhere = sum(one for one, _ in count.values())
        share = anywhere / max(sum(of for _, of in count.values()), 1)
        sure = "holds for very few" if 0 < share < 0.01 else "holds" if anywhere else "does not hold"
        lines.append(
            f"- There are dimensions among the largest {SHARE:.0%} in translation and among the smallest {SHARE:.0%} in both its "
            f"languages alone → **{sure}** ({said}; chance alone, were they independent, would give {SHARE**3:.1%})"
        )
    for pair in ABLATED:
        lines += control_text(document, pair)
    return "\n".join(lines)


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    if not document.get("overlap"):
        return "# Features of translation in gemma-3-270m\n\nNot measured yet."
    ablations = "\n".join(f"### {pair}\n{ablation_table(document, pair)}" for pair in ABLATED)
    return f"""# Features of translation in gemma-3-270m

`benchmarks/real/kim2024_features.py`, after sections 3 and 4 of Kim et al. 2024 (arXiv 2409.16911): {DEMONSTRATIONS} demonstrations
of four shots per set, from line {FIRST + 1:,} of NTREX-128 on. The magnitude of a dimension is its norm over the tokens of a
demonstration, the mean over demonstrations; large and small are the {SHARE:.0%} at either end, of 640, in each layer.
{document["machine"]}

## Findings of the paper
{findings(document)}

## Overlap
Share of the dimensions that are large in the pair and small elsewhere, mean over the embeddings and 18 layers. Particular: small in
both its languages alone, layers together.

{overlap_table(document)}
![large in the row, small in the column](kim2024_features-overlap.png)

## What stands out
The {STAND_OUT} dimensions of each layer, of the large ones, that are most times larger in the pair than in either of its languages
alone, relative to the norm of the layer. Next to it the same question of the source language against the pair and English.

{outstanding_table(document)}
## Ablation
Zeroed after every layer: these {STAND_OUT} of each layer; as many other large ones; as many random ones. Bits per byte with nothing
zeroed, then the rise with its interval: of {LINES} reference translations after four shots, and of {PLAIN} lines of each language
by itself. The dimensions were picked on other lines. What stands out need not be translation itself: two languages in turn are
also what tells these prompts from text in one language. Some other large dimensions are ones that every text needs.

{ablations}"""


if __name__ == "__main__":
    main()
