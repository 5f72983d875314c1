"""Which score tells best what a layer, a head or a neuron of a trained model is worth.

    python benchmarks/real/scores.py [MODEL ...]

Each head and each layer of gemma-3-270m and of multilingual-e5-small is left out alone, and what this costs is measured on lines of
NTREX-128: nats a token, or for e5 the distance of its embeddings from the whole model's. The ranks of these true costs are compared
with those of each score (Spearman's correlation), which is measured on other lines. Then the lowest quarter of all heads and of all
neurons goes at once, and a third of the layers, by each score and at random. Writes results/real/scores.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from common import ONLY_KEPT, SEED, machine, models, ntrex, step, table, write_page

PAGE = "scores"
MODELS = ("multilingual-e5-small", "gemma-3-270m")
LANGUAGES = ("ko", "en")
LINES, SAMPLES = 6, 32
METHODS = {"heads": ("l1", "l2", "gradient", "lahis"), "layers": ("block-influence", "angular")}
GROUPS = {"neurons": ("l1", "l2", "activation", "taylor"), "heads": METHODS["heads"], "layers": METHODS["layers"]}
SHARE, LAYERS = 0.25, {"multilingual-e5-small": 4, "gemma-3-270m": 6}
GROUP_LINES, RANDOM = 8, (0, 1, 2)
FORMS = {"anywhere": False, "in each layer": True}


def texts(*, scored: bool) -> dict[str, list[str]]:
    """Lines by language, those to score on or those to measure on; none is both."""
    return {code: ntrex(code)[1:640:10] if scored else ntrex(code)[700 : 700 + 100 * LINES : 100] for code in LANGUAGES}


@dataclass(frozen=True)
class Opened:
    """A model in memory, ready to leave parts out and to be measured."""

    checkpoint: Any
    anatomy: Any
    running: Any

    def measure(self, batches: dict[str, Any], references: dict[str, Any], hooks: Sequence[Any] = ()) -> dict[str, Any]:
        """Language -> [loss, what it is of] of each line: nats and predicted tokens, or 1 - cosine and 1."""
        import torch

        from langslice.scoring.model_runs import hooked

        found: dict[str, list[list[float]]] = {}
        with hooked(hooks), torch.no_grad():
            for code, given in batches.items():
                for at, batch in enumerate(given):
                    if batch.labels is None:
                        losses = 1 - (self.running.embed(batch) * references[code][at]).sum(-1)
                        counts = torch.ones(len(losses))
                    else:
                        losses, counts = self.running.line_losses(batch)
                    found.setdefault(code, []).extend(map(list, zip(losses.tolist(), counts.tolist(), strict=True)))
        return found

    def laid_out(self, lines: dict[str, list[str]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Batches by language, and what the whole model gives for them."""
        from langslice.scoring.batches import make_batches

        batches = {code: make_batches(self.running.reader, each, SEED, predict=True) for code, each in lines.items()}
        return batches, {code: self.running.references(each) for code, each in batches.items()}

    def without(self, heads: Any = None, neurons: Any = None, layers: Any = None) -> list[Any]:
        """Hooks that leave heads, neurons or layers out."""
        from langslice.scoring.model_runs import silencing, skipping_layers

        if layers is not None:
            return skipping_layers(self.running.sites, layers)
        return silencing(self.running.sites, self.anatomy, heads or {}, neurons or {})


@cache
def opened(model: str) -> Opened:
    """Load a model, once."""
    from langslice.model.anatomy import read_anatomy
    from langslice.model.checkpoint import open_checkpoint
    from langslice.scoring.model_runs import open_running

    checkpoint = open_checkpoint(models() / model)
    anatomy = read_anatomy(checkpoint)
    return Opened(checkpoint, anatomy, open_running(checkpoint, anatomy, whole=True))


def total(lines: list[list[float]]) -> float:
    """Loss of lines together."""
    items = np.array(lines)
    return float(items[:, 0].sum() / items[:, 1].sum())


def removals(model: str) -> dict[str, Any]:
    """What leaving out each layer, and each head, costs, by language: kind -> "layer" or "layer:head" -> costs."""
    this = opened(model)
    batches, references = this.laid_out(texts(scored=False))

    def losses(hooks: list[Any]) -> Any:
        return np.array([total(each) for each in this.measure(batches, references, hooks).values()])

    whole = losses([])
    ((stack, layers),) = this.anatomy.layers.items()
    ((place, heads),) = this.anatomy.heads.items()
    found: dict[str, Any] = {"whole": whole.tolist(), "layers": {}, "heads": {}}
    for layer in range(layers):
        found["layers"][str(layer)] = (losses(this.without(layers={stack: [layer]})) - whole).tolist()
        for head in range(heads[layer].query):
            hooks = this.without(heads={place: {layer: [head]}})
            found["heads"][f"{layer}:{head}"] = (losses(hooks) - whole).tolist()
    return found


def computed(model: str, kind: str, method: str, run: int = 1) -> Any:
    """Scores of a method, on the lines to score on."""
    from langslice.scoring import ScoreSettings, compute

    given = {} if method in ("l1", "l2") else texts(scored=True)
    settings = ScoreSettings(seeds=(SEED,), samples=SAMPLES, run=run)
    return compute(opened(model).checkpoint, kind, method, given, settings=settings)


def scored(model: str, kind: str, method: str) -> dict[str, Any]:
    """Scores by "layer" or "layer:head", and the CPU seconds that they took."""
    started = time.process_time()
    ((_, layers),) = computed(model, kind, method).values().items()
    seconds = time.process_time() - started
    scores = {
        str(layer) if kind == "layers" else f"{layer}:{at}": float(value)
        for layer, row in layers.items()
        for at, value in enumerate(row)
    }
    return {"seconds": seconds, "scores": scores}


def table_of(model: str, kind: str, method: str, values: dict[tuple[int, int], float]) -> Any:
    """Scores as the product holds them, from (layer, index) -> score."""
    from langslice.scoring.table import Scores

    anatomy = opened(model).anatomy
    ((place, _),) = (anatomy.heads if kind == "heads" else anatomy.neurons).items()
    rows = sorted(values)
    return Scores(
        kind, method, np.array([place] * len(rows)), np.array([layer for layer, _ in rows], np.int32),
        np.array([at for _, at in rows], np.int32), np.array([""] * len(rows)), np.array([values[row] for row in rows]),
        np.zeros(len(rows)), model, "",
    )  # fmt: skip


def chosen(model: str, kind: str, method: str, even: bool, kept: dict[str, Any] | None) -> dict[str, Any]:
    """What a score chooses to leave out, as arguments of `without`; `random-N` chooses at random.

    kept  scores that were measured already, by "layer:head"
    """
    from langslice.scoring.selection import heads_to_drop, layers_to_drop, neurons_to_drop

    anatomy = opened(model).anatomy
    name, _, seed = method.partition("-") if method.startswith("random") else (method, "", "")
    rng = np.random.default_rng(int(seed or 0))
    if kind == "layers":
        ((stack, number),) = anatomy.layers.items()
        if name == "random":
            return {"layers": {stack: rng.permutation(number)[: LAYERS[model]].tolist()}}
        scores = computed(model, kind, method, LAYERS[model] if method == "angular" else 1)
        return {"layers": {stack: layers_to_drop(scores, anatomy, LAYERS[model])}}
    if name == "random":
        ((_, sizes),) = (anatomy.heads if kind == "heads" else anatomy.neurons).items()
        drawn = {
            (layer, at): float(rng.random())
            for layer, size in sizes.items()
            for at in range(size.query if kind == "heads" else size)
        }
        scores = table_of(model, kind, name, drawn)
    elif kept is not None:
        places = {tuple(map(int, place.split(":"))): value for place, value in kept["scores"].items()}
        scores = table_of(model, kind, name, places)  # type: ignore[arg-type]
    else:
        scores = computed(model, kind, method)
    if kind == "heads":
        return {"heads": heads_to_drop(scores, anatomy, SHARE, even)}
    return {"neurons": neurons_to_drop(scores, anatomy, SHARE, even)}


@cache
def group_text(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Further lines, on which groups are measured, and what the whole model gives for them."""
    return opened(model).laid_out({code: ntrex(code)[701 : 701 + 100 * GROUP_LINES : 100] for code in LANGUAGES})


def group(model: str, kind: str, method: str, kept: dict[str, Any] | None) -> dict[str, Any]:
    """Lines' losses once the parts with the lowest scores are left out together: form -> language -> lines."""
    this = opened(model)
    batches, references = group_text(model)
    if method == "whole":
        return {"anywhere": this.measure(batches, references)}
    forms = FORMS if kind != "layers" and not method.startswith("random") else {"anywhere": False}
    return {
        form: this.measure(batches, references, this.without(**chosen(model, kind, method, even, kept)))
        for form, even in forms.items()
    }


def correlation(
    costs: dict[str, list[float]], scores: dict[str, float], resamples: int = 1000
) -> tuple[float, float, float]:
    """Spearman's correlation of the mean cost with a score, and the bounds of its bootstrap interval over the parts."""
    from langslice.evaluation.statistics import STATISTICS, interval

    items = np.array([[float(np.mean(costs[name])), scores[name]] for name in costs])
    bounds = interval("spearman", items, resamples=resamples)
    return float(STATISTICS["spearman"](items[None])[0]), bounds.low, bounds.high


def measured(model: str, only_kept: bool) -> dict[str, Any]:
    """Every step of a model."""
    make = partial(step, PAGE, only_kept=only_kept)
    found: dict[str, Any] = {"removals": make(f"{model}-removals", lambda: removals(model))}
    for kind in METHODS:
        for method in METHODS[kind]:
            found[f"{kind} {method}"] = make(f"{model}-{kind}-{method}", partial(scored, model, kind, method))
    found["groups"] = {"whole": make(f"{model}-group-whole", lambda: group(model, "", "whole", None))}
    for kind in GROUPS:
        for method in [*GROUPS[kind], *(f"random-{seed}" for seed in RANDOM)]:
            kept = found.get(f"heads {method}") if kind == "heads" else None
            found["groups"][f"{kind} {method}"] = make(
                f"{model}-group-{kind}-{method}", partial(group, model, kind, method, kept)
            )
    return found


def main() -> None:
    """Measure, and write the page of all that was ever measured."""
    asked = [name for name in sys.argv[1:] if name in MODELS] or MODELS
    for model in asked:
        measured(model, ONLY_KEPT)
    document: dict[str, Any] = {model: found for model in MODELS if (found := measured(model, True))["removals"]}
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def of_models(document: dict[str, Any]) -> dict[str, Any]:
    """What was measured, by model."""
    return {model: document[model] for model in MODELS if model in document}


def spread_rows(document: dict[str, Any]) -> list[list[str]]:
    """True costs of single parts."""
    rows = []
    for model, found in of_models(document).items():
        for kind in METHODS:
            means = np.array([np.mean(one) for one in found["removals"][kind].values()])
            rows.append(
                [model, kind, str(len(means)), f"{means.min():+.4f}", f"{np.median(means):+.4f}", f"{means.max():+.4f}"]
            )
    return rows


def correlation_rows(document: dict[str, Any]) -> list[list[str]]:
    """Rank correlations of scores with true costs."""
    rows = []
    for model, found in of_models(document).items():
        for kind, methods in METHODS.items():
            costs = found["removals"][kind]
            for method in methods:
                one = found.get(f"{kind} {method}")
                if one is None:
                    continue
                value, low, high = correlation(costs, one["scores"])
                said = f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
                rows.append([model, kind, method, str(len(costs)), said, f"{one['seconds']:.0f}"])
    return rows


def contrast_rows(document: dict[str, Any], resamples: int = 1000) -> list[list[str]]:
    """How much better one score of heads ranks them than another, on the same resamples of heads."""
    from langslice.evaluation.statistics import STATISTICS

    rows = []
    for model, found in of_models(document).items():
        costs = found["removals"]["heads"]
        for one, other in (("lahis", "gradient"), ("l1", "l2")):
            both = [
                np.array([[float(np.mean(costs[name])), found[f"heads {method}"]["scores"][name]] for name in costs])
                for method in (one, other)
            ]
            drawn = np.random.default_rng(SEED).integers(0, len(costs), (resamples, len(costs)))
            values = [STATISTICS["spearman"](items[None])[0] for items in both]
            low, high = np.percentile(
                np.subtract(*(STATISTICS["spearman"](items[drawn]) for items in both)), [2.5, 97.5]
            )
            rows.append([model, f"{one} - {other}", f"{values[0] - values[1]:+.3f} [{low:+.3f}, {high:+.3f}]"])
    return rows


def rises(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Rise of the loss in each language, with its interval."""
    from langslice.evaluation.statistics import difference

    found = []
    for code in LANGUAGES:
        change = difference("ratio", np.array(before[code]), np.array(after[code]))
        found.append(f"{change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]")
    return found


def group_rows(document: dict[str, Any]) -> list[list[str]]:
    """What leaving a share out costs, by each score and at random."""
    rows = []
    for model, found in of_models(document).items():
        groups = found.get("groups") or {}
        whole = groups.get("whole")
        for kind, methods in GROUPS.items():
            what = f"{LAYERS[model]} layers" if kind == "layers" else f"{SHARE:.0%} of {kind}"
            for method in methods:
                for form, lines in (groups.get(f"{kind} {method}") or {}).items():
                    rows.append([model, what, method, form, *rises(whole["anywhere"], lines)])
            drawn = [one["anywhere"] for seed in RANDOM if (one := groups.get(f"{kind} random-{seed}"))]
            if drawn:
                changes = [[total(one[code]) - total(whole["anywhere"][code]) for one in drawn] for code in LANGUAGES]
                said = [f"{np.mean(each):+.4f} ({min(each):+.4f} to {max(each):+.4f})" for each in changes]
                rows.append([model, what, f"random, {len(drawn)} draws", "anywhere", *said])
    return rows


def missing(document: dict[str, Any]) -> str:
    """What was not measured."""
    left = [
        "`perplexity` of layers, which is the true cost itself",
        "`lape`, which compares languages (language_parts.md)",
    ]
    for model in MODELS:
        found = document.get(model)
        if found is None:
            left.append(model)
            continue
        wanted = [f"{kind} {method}" for kind in METHODS for method in METHODS[kind]]
        left += [f"{model}, {name}" for name in wanted if not found.get(name)]
        groups = [f"{kind} {method}" for kind in GROUPS for method in GROUPS[kind]]
        left += [f"{model}, {name} together" for name in groups if not (found.get("groups") or {}).get(name)]
    return "; ".join(left)


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    head = ["model", "left out", "score", "chosen", *(f"rise, {code} [95%]" for code in LANGUAGES)]
    return f"""# What scores say of layers, heads and neurons of trained models

`benchmarks/real/scores.py`: each part left out alone; true cost on {LINES} lines of NTREX-128 in Korean and as many in
English (nats a token; for e5, which has no head, 1 - cosine to the whole model's embeddings), scores on {SAMPLES} other lines of
each language, one seed. {document["machine"]}

## True cost of one part
{table(["model", "parts", "n", "least", "median", "most"], spread_rows(document), text_columns=2)}
## Rank correlation of true cost and score
{table(["model", "parts", "score", "n", "Spearman [95%]", "CPU s"], correlation_rows(document), text_columns=3)}
{table(["model", "scores of heads", "difference [95%]"], contrast_rows(document), text_columns=2)}
## Many parts at once
The lowest by each score left out together, as `--heads-sparsity`, `--neurons-sparsity` and `--drop-layers-by` choose them:
anywhere, or as many in each layer (`--uniform`). Rise of the loss on {GROUP_LINES} further lines of each language; of random
choices, the mean and the range.

{table(head, group_rows(document), text_columns=4)}
Not measured here: {missing(document)}.
"""


if __name__ == "__main__":
    main()
