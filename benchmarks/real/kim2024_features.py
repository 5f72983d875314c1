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
from common import ONLY_KEPT, machine, models, ntrex, step, table, write_page

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
    if not ONLY_KEPT and data:
        draw(as_magnitudes(data))
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


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    return str(document)


if __name__ == "__main__":
    main()
