"""What a slice of heads, neurons and experts costs, measured by silencing them, and next to it the same number chosen at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.progress import Report, silent
from langslice.scoring.expert_selection import random_experts
from langslice.scoring.selection import random_control

Dropped = Mapping[str, Mapping[int, Sequence[int]]]


@dataclass(frozen=True)
class Cost:
    """Loss of one language with and without a slice, in nats per token; of a sentence encoder, 1 - cosine to its embeddings.

    language  a code, "" for text without one
    whole     of the whole model
    chosen    rise of the loss by the slice
    control   mean rise by as many heads, neurons and experts of the same layers, chosen at random
    spread    standard deviation of that rise over the seeds; NaN for one seed
    """

    language: str
    whole: float
    chosen: float
    control: float
    spread: float


def pruning_costs(
    checkpoint: Checkpoint,
    texts: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    heads: Dropped | None = None,
    neurons: Dropped | None = None,
    experts: Dropped | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    samples: int = 64,
    max_tokens: int = 128,
    text_field: str = "text",
    report: Report = silent,
) -> tuple[Cost, ...]:
    """Measure a slice on text that its scores should not have seen, one layer's weights in memory at a time.

    texts    as `compute` takes them
    heads    attention -> layer -> heads; neurons and experts stack -> layer -> neurons or experts, as selection.py gives them
    seeds    of the random controls
    Returns  one cost for each language
    Raises   as `compute` does
    """
    from langslice.scoring.batches import make_batches
    from langslice.scoring.mapped_model import one_layer_at_a_time
    from langslice.scoring.model_runs import hooked, open_running, silencing
    from langslice.scoring.routing import closing
    from langslice.scoring.texts import read_score_texts, sample_lines

    lines, _ = read_score_texts(texts, text_field=text_field, report=report)
    anatomy = read_anatomy(checkpoint)
    running = open_running(checkpoint, anatomy, whole=False, max_tokens=max_tokens)
    batches = {
        language: make_batches(running.reader, sample_lines(given, 0, samples), 0, predict=True)
        for language, given in lines.items()
    }
    chosen_ones = (heads or {}, neurons or {}, experts or {})
    cuts: list[tuple[Dropped, Dropped, Dropped]] = [({}, {}, {}), chosen_ones]
    cuts += [
        (random_control(chosen_ones[0], anatomy, seed), random_control(chosen_ones[1], anatomy, seed),
         random_experts(chosen_ones[2], anatomy, seed))
        for seed in seeds
    ]  # fmt: skip
    measured: dict[str, list[float]] = {}
    with one_layer_at_a_time(running.model, running.sites, running.weights):
        references = {language: running.references(given) for language, given in batches.items()}
        for number, cut in enumerate(cuts):
            report(f"measuring the slice and its controls, {number} of {len(cuts)}", 0, 0)
            hooks = silencing(running.sites, running.anatomy, *cut[:2])
            hooks += closing(running.model, running.sites, running.anatomy, cut[2])
            with hooked(hooks):
                for language, given in batches.items():
                    measured.setdefault(language, []).append(running.mean_loss(given, references[language]))
    costs = []
    for language, (whole, chosen, *control) in measured.items():
        rises = np.array(control) - whole
        spread = float(rises.std(ddof=1)) if len(rises) > 1 else float("nan")
        costs.append(Cost(language, whole, chosen - whole, float(rises.mean()), spread))
    return tuple(costs)
