"""Which score tells best what a head or a layer of a trained model is worth.

    python benchmarks/real/scores.py [MODEL ...]

Each head and each layer of gemma-3-270m and of multilingual-e5-small is left out alone, and what this costs is measured on lines of
NTREX-128: nats a token, or for e5 the distance of its embeddings from the whole model's. The ranks of these true costs are compared
with those of each score (Spearman's correlation), which is measured on other lines. Writes results/real/scores.md.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from common import machine, models, ntrex, step, table, write_page

PAGE = "scores"
MODELS = ("multilingual-e5-small", "gemma-3-270m")
LANGUAGES = ("ko", "en")
LINES, SAMPLES = 6, 32
METHODS = {"heads": ("l1", "l2", "gradient", "lahis"), "layers": ("block-influence", "angular")}


def texts(*, scored: bool) -> dict[str, list[str]]:
    """Lines by language, those to score on or those to measure on; none is both."""
    return {code: ntrex(code)[1:640:10] if scored else ntrex(code)[700 : 700 + 100 * LINES : 100] for code in LANGUAGES}


def removals(model: str) -> dict[str, Any]:
    """What leaving out each layer, and each head, costs, by language: kind -> "layer" or "layer:head" -> costs."""
    from langslice.model.anatomy import read_anatomy
    from langslice.model.checkpoint import open_checkpoint
    from langslice.scoring.batches import make_batches
    from langslice.scoring.model_runs import hooked, open_running, silencing, skipping_layers

    checkpoint = open_checkpoint(models() / model)
    anatomy = read_anatomy(checkpoint)
    running = open_running(checkpoint, anatomy, whole=True)
    batches = {
        code: make_batches(running.reader, lines, 0, predict=True) for code, lines in texts(scored=False).items()
    }
    references = {code: running.references(each) for code, each in batches.items()}

    def losses(hooks: list[Any]) -> list[float]:
        with hooked(hooks):
            return [running.mean_loss(each, references[code]) for code, each in batches.items()]

    whole = np.array(losses([]))
    ((stack, layers),) = anatomy.layers.items()
    ((place, heads),) = anatomy.heads.items()
    number = len(layers) if hasattr(layers, "__len__") else int(layers)
    found: dict[str, Any] = {"whole": whole.tolist(), "layers": {}, "heads": {}}
    for layer in range(number):
        hooks = skipping_layers(running.sites, {stack: [layer]})
        found["layers"][str(layer)] = (np.array(losses(hooks)) - whole).tolist()
        for head in range(heads[layer].query):
            hooks = silencing(running.sites, anatomy, {place: {layer: [head]}})
            found["heads"][f"{layer}:{head}"] = (np.array(losses(hooks)) - whole).tolist()
    return found


def scored(model: str, kind: str, method: str) -> dict[str, Any]:
    """Scores by "layer" or "layer:head", and the CPU seconds that they took."""
    from langslice.model.checkpoint import open_checkpoint
    from langslice.scoring import ScoreSettings, compute

    started = time.process_time()
    given = {} if method in ("l1", "l2") else texts(scored=True)
    settings = ScoreSettings(seeds=(0,), samples=SAMPLES)
    made = compute(open_checkpoint(models() / model), kind, method, given, settings=settings)
    tables = [made.values(language) for language in (made.languages or ("",))]
    found: dict[str, list[float]] = {}
    for each in tables:
        ((_, layers),) = each.items()
        for layer, row in layers.items():
            for at, value in enumerate(row):
                found.setdefault(str(layer) if kind == "layers" else f"{layer}:{at}", []).append(float(value))
    return {
        "seconds": time.process_time() - started,
        "scores": {name: float(np.mean(one)) for name, one in found.items()},
    }


def correlation(
    costs: dict[str, list[float]], scores: dict[str, float], resamples: int = 1000
) -> tuple[float, float, float]:
    """Spearman's correlation of the mean cost with a score, and the bounds of its bootstrap interval over the parts."""
    from langslice.evaluation.statistics import STATISTICS, interval

    items = np.array([[float(np.mean(costs[name])), scores[name]] for name in costs])
    bounds = interval("spearman", items, resamples=resamples)
    return float(STATISTICS["spearman"](items[None])[0]), bounds.low, bounds.high


def main() -> None:
    """Measure, and write the page of all models that were measured."""
    document: dict[str, Any] = {}
    for model in sys.argv[1:] or MODELS:
        document[model] = {"removals": step(PAGE, f"{model}-removals", lambda model=model: removals(model))}
        for kind, methods in METHODS.items():
            for method in methods:
                document[model][f"{kind} {method}"] = step(
                    PAGE,
                    f"{model}-{kind}-{method}",
                    lambda model=model, kind=kind, method=method: scored(model, kind, method),
                )
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def of_models(document: dict[str, Any]) -> dict[str, Any]:
    """What was measured, by model."""
    return {model: document[model] for model in MODELS if model in document}


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    rows, spreads = [], []
    for model, found in of_models(document).items():
        for kind, methods in METHODS.items():
            costs = found["removals"][kind]
            means = np.array([np.mean(one) for one in costs.values()])
            spreads.append(
                [model, kind, str(len(costs)), f"{means.min():+.4f}", f"{np.median(means):+.4f}", f"{means.max():+.4f}"]
            )
            for method in methods:
                one = found[f"{kind} {method}"]
                value, low, high = correlation(costs, one["scores"])
                rows.append(
                    [
                        model,
                        kind,
                        method,
                        str(len(costs)),
                        f"{value:+.3f} [{low:+.3f}, {high:+.3f}]",
                        f"{one['seconds']:.0f}",
                    ]
                )
    return f"""# What scores say of heads and layers of trained models

`benchmarks/real/scores.py`: each part left out alone; true cost on {LINES} lines of NTREX-128 in Korean and as many in
English (nats a token; for e5, which has no head, 1 - cosine to the whole model's embeddings), scores on {SAMPLES} other lines of
each language, one seed. {document["machine"]}

## True cost of one part
{table(["model", "parts", "n", "least", "median", "most"], spreads, text_columns=2)}
## Rank correlation of true cost and score
{table(["model", "parts", "score", "n", "Spearman [95%]", "CPU s"], rows, text_columns=3)}
Not measured here: `perplexity` of layers, which is the true cost itself; `gates`, which trains.
"""


if __name__ == "__main__":
    main()
