"""What a teacher is worth when a fitted slice is trained: the quality that is reached in so much time, with it and without.

    python benchmarks/real/distil.py

Two slices of fit.py, which runs first: gemma-3-270m at 150 MB and multilingual-e5-small at 60 MB. Each way trains in stages of a
few steps, each from the result of the one before, at one learning rate; after every stage the quality is measured on documents
that no training reads, as in healing.py, whose text this is. Writes results/real/distil.md.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, machine, models, ntrex, step, table, write_page
from healing import E5, GEMMA, LINES, documents, quality, text_file

PAGE = "distil"
SLICES = {GEMMA: "150MB", E5: "60MB"}
STAGES = {GEMMA: 4, E5: 3}
_SHARED = {
    "dtype": "bfloat16",
    "device": "cpu",
    "heldout": 0.01,
    "schedule": "constant",
    "warmup": 0.0,
    "overwrite": True,
}
_GEMMA = {**_SHARED, "steps": 10, "batch_size": 8, "seq_length": 64, "learning_rate": 2e-4}
_E5 = {**_SHARED, "steps": 20, "batch_size": 32, "seq_length": 96, "learning_rate": 1e-4}
# Model -> way -> options; a weight of the teacher's loss says that there is a teacher.
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    GEMMA: {
        "text alone": {**_GEMMA},
        "text and teacher": {**_GEMMA, "alpha": 0.5},
        "teacher alone": {**_GEMMA, "alpha": 1.0},
        "text, teacher and hidden states": {**_GEMMA, "alpha": 0.5, "hidden": 1.0},
    },
    E5: {
        "pairs alone": {**_E5, "objective": "contrastive"},
        "teacher's embeddings": {**_E5, "objective": "mse"},
    },
}


def fitted(model: str) -> Path:
    """The slice of fit.py."""
    folder = WORK / "fit" / f"{model}-{SLICES[model]}" / "slice"
    if not (folder / "slice.json").is_file():
        raise SystemExit(f"{folder} is missing: run fit.py first")
    return folder


def pairs_file() -> Path:
    """Korean and English lines that say the same, but for those that quality is measured on."""
    path = WORK / PAGE / "ko-en.tsv"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        apart = {line for lines in documents()[1].values() for line in lines}
        both = zip(ntrex("ko"), ntrex("en"), strict=True)
        rows = [
            f"{one}\t{other}"
            for one, other in both
            if one not in apart and other not in apart and "\t" not in one + other
        ]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def stage(model: str, way: str, number: int) -> dict[str, Any]:
    """Train one stage further: CPU seconds, and the quality afterwards."""
    from langslice import heal

    options = dict(WAYS[model][way])
    before = fitted(model) if number == 1 else folder(model, way, number - 1)
    text: dict[str, Any] = {"corpus": [str(text_file(model))]}
    if options.get("objective") == "contrastive":
        text = {"parallel": [str(pairs_file())]}
    if "alpha" in options or options.get("objective") == "mse":
        text["teacher"] = str(models() / model)
    started = time.process_time()
    found = heal(before, folder(model, way, number), seed=number, **text, **options)
    cpu = time.process_time() - started
    return {"cpu_seconds": cpu, "seconds": found.seconds}


def worth(model: str, place: Path) -> dict[str, list[list[float]]]:
    """Language -> items: bits and bytes of its lines; of e5 whether another line than its translation is the nearest one.

    Not the distance from the original's embeddings, as in healing.py: pairs alone may lead elsewhere, and be as good.
    """
    if model == GEMMA:
        return quality(model, place)
    from langslice.evaluation.embedding import embed, load_encoder

    encoder = load_encoder(place, device="cpu")
    korean, english = (embed(encoder, documents()[1][language][: LINES[E5]]) for language in ("ko", "en"))
    near = korean @ english.T
    right = np.arange(len(near))
    return {"ko": (near.argmax(1) != right)[:, None].tolist(), "en": (near.argmax(0) != right)[:, None].tolist()}


def folder(model: str, way: str, number: int) -> Path:
    """Where a stage's result is kept."""
    return WORK / PAGE / f"{model}-{way.replace(' ', '-').replace(',', '')}-{number}"


def mean(items: list[list[float]]) -> float:
    """Bits per byte of (bits, bytes) a line, or the mean of one number a line."""
    values = np.array(items)
    return float(values[:, 0].sum() / values[:, 1].sum()) if values.shape[1] == 2 else float(values.mean())


def main() -> None:
    """Measure, and write the page."""
    document: dict[str, Any] = {"machine": machine()}
    for model, ways in WAYS.items():
        found = {
            "original": step(PAGE, f"{model}-original-worth", lambda model=model: worth(model, models() / model)),
            "slice": step(PAGE, f"{model}-slice-worth", lambda model=model: worth(model, fitted(model))),
            "ways": {},
        }
        for way in ways:
            found["ways"][way] = [trained(model, way, number) for number in range(1, STAGES[model] + 1)]
        document[model] = {**found, "original": means(found["original"]), "slice": means(found["slice"])}
    write_page(PAGE, document, page(document))


def trained(model: str, way: str, number: int) -> dict[str, float] | None:
    """CPU seconds of a stage, and what its result is worth."""
    place = folder(model, way, number)
    took = step(PAGE, place.name, lambda: stage(model, way, number))
    found = step(PAGE, f"{place.name}-worth", lambda: worth(model, place))
    return took and found and {"cpu_seconds": took["cpu_seconds"], **means(found)}


def means(found: dict[str, list[list[float]]] | None) -> dict[str, float]:
    """Language -> quality."""
    return {} if found is None else {language: mean(items) for language, items in found.items()}


def section(model: str, found: dict[str, Any]) -> str:
    """A table of ways and stages, and the time to the quality that every way reaches."""
    what = (
        "Bits per byte"
        if model == GEMMA
        else f"Share of {LINES[E5]} lines whose nearest line of the other language is not their translation"
    )
    rows = [
        [name, "0", "0", *(f"{found[name][one]:.4f}" for one in ("ko", "en"))]
        for name in ("original", "slice")
        if found[name]
    ]
    steps = int(next(iter(WAYS[model].values()))["steps"])
    for way, stages in found["ways"].items():
        spent = 0.0
        for number, one in enumerate(filter(None, stages), 1):
            spent += one["cpu_seconds"]
            rows.append([way, str(number * steps), f"{spent:.0f}", f"{one['ko']:.4f}", f"{one['en']:.4f}"])
    return f"""## {model} at {SLICES[model]}
{what}; less is better.

{table(["way", "steps", "CPU s", "ko", "en"], rows)}
{reached(found)}
"""


def reached(found: dict[str, Any]) -> str:
    """CPU seconds in which each way reaches the worst end of all, on straight lines between stages."""
    lines = []
    for language in ("ko", "en"):
        if not all(all(stages) for stages in found["ways"].values()):
            return "Not measured yet: all ways."
        ends = [stages[-1][language] for stages in found["ways"].values()]
        target = max(ends)
        times = [
            f"{way} {seconds_to(found['slice'][language], stages, language, target):.0f} s"
            for way, stages in found["ways"].items()
        ]
        lines.append(f"To {target:.4f} in {language}, the worst end of all: {', '.join(times)}.")
    return "\n".join(lines)


def seconds_to(start: float, stages: list[dict[str, float]], language: str, target: float) -> float:
    """CPU seconds to a quality, on straight lines between stages."""
    spent, before = 0.0, start
    if start <= target:
        return spent
    for one in stages:
        after = one[language]
        if after <= target:
            return spent + one["cpu_seconds"] * (before - target) / (before - after)
        spent, before = spent + one["cpu_seconds"], after
    return spent


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    parts = "\n".join(section(model, document[model]) for model in WAYS)
    return f"""# What a teacher is worth

`benchmarks/real/distil.py`: slices that `langslice fit` made, trained in stages, each at one learning rate, matrix products in
bfloat16. CPU seconds include loading, and the teacher's forward passes where there is one. One seed. {document["machine"]}

{parts}
"""


if __name__ == "__main__":
    main()
