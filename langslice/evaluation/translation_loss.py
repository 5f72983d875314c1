"""How well a model predicts the reference translation: bits per byte of the reference after the few-shot prompt, nothing generated.

One forward pass per line instead of one per written token, and a number per line that two models rarely share: it tells models
apart on far fewer lines than BLEU does. It says nothing of when a model stops, nor of what it would write instead.
"""

from __future__ import annotations

from math import log

import numpy as np

from langslice.evaluation.choice_tasks import Example
from langslice.evaluation.label_scores import score_ends
from langslice.evaluation.loaded_model import Loaded
from langslice.evaluation.measurement import Measurement
from langslice.evaluation.translation import Pair, few_shot_texts
from langslice.evaluation.zero_shot import fill_examples

TASK = "translation_loss"
METRIC = "bits per byte of the reference"


def measure_translation_loss(loaded: Loaded, pair: Pair, *, separator: str = "\n") -> list[Measurement]:
    """Bits per byte of a pair's references, each after the prompt that `translate` gives with its source.

    separator  what ends a line of the prompt; the reference is measured without it
    Returns    one measurement; items are (bits, bytes) per line
    """
    prompts = few_shot_texts(pair, separator)
    examples = [
        Example(prompt, (f" {reference}",), 0, "") for prompt, reference in zip(prompts, pair.references, strict=True)
    ]
    filled = fill_examples(loaded, examples)
    scored = score_ends(loaded, [one.groups[0] for one in filled], [one.starts[0] for one in filled])
    bits = [-float(values.sum(dtype=np.float64)) / log(2) for values in scored]
    sizes = [len(reference.encode()) for reference in pair.references]
    details = {"shots": len(pair.shots), "prompts_cut": sum(one.cut > 0 for one in filled)}
    items = np.array([bits, sizes], dtype=np.float64).T  # (lines, 2)
    return [Measurement(TASK, pair.name, METRIC, "ratio", items, "lower", details)]
