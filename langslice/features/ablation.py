"""Zero dimensions of the residual stream and see what it costs, so that a claim of cause can be checked.

Three sets of the same size in every layer: the dimensions that are particular to a condition, other dimensions that are
among the largest in it, and dimensions at random. If the first cost no more than the second, being particular means nothing.
The model is loaded whole, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langslice.demonstrations.demonstration import Demonstration
from langslice.demonstrations.tokens import Prompt, load_prompts
from langslice.errors import CheckpointError, PlanError
from langslice.features.magnitudes import Magnitudes
from langslice.features.overlaps import Marks, largest
from langslice.model.transformers_classes import model_class, quiet_transformers
from langslice.progress import Report, silent


@dataclass(frozen=True)
class Ablation:
    """One measured row.

    zeroed      "nothing", "particular", "other large" or "random"
    seed        of the choice, None where there is none to make
    dimensions  zeroed in all layers together
    condition   set of demonstrations
    loss        mean over tokens, in nats
    answer_loss the same over the tokens of the last part alone, given all before; None where there is no answer
    """

    zeroed: str
    seed: int | None
    dimensions: int
    condition: str
    loss: float
    answer_loss: float | None


def ablate(
    folder: Path,
    magnitudes: Magnitudes,
    conditions: Mapping[str, Sequence[str | Path | Demonstration]],
    wanted: str,
    particular: Marks,
    *,
    share: float = 0.4,
    seeds: Sequence[int] = (0, 1, 2),
    limit: int = 20,
    max_tokens: int = 512,
    report: Report = silent,
) -> list[Ablation]:
    """Measure a model's loss with dimensions zeroed after every layer.

    conditions  as they were measured; the first `limit` demonstrations of each are used
    wanted      the condition that `particular` belongs to
    particular  bool (layers, hidden), see `particular_dimensions` and `standing_out`; layer 0, the embeddings, is not zeroed
    share       of the dimensions that count as large
    Raises      PlanError when nothing is marked; CheckpointError for a model without logits
    """
    particular = check_marked(particular, wanted)
    model = _load(folder)
    prompts = [
        (prompt, answer)
        for name, given in conditions.items()
        for prompt, answer in _with_answers(folder, name, given, max_tokens)[:limit]
    ]
    rows: list[Ablation] = []
    chosen = list(cases(magnitudes, wanted, particular, share, seeds))
    for number, (kind, seed, marks) in enumerate(chosen):
        report(f"zeroing {kind}", number, len(chosen))
        with zeroed(model, magnitudes.layers, marks):
            for condition in conditions:
                losses = [_losses(model, prompt, answer) for prompt, answer in prompts if prompt.condition == condition]
                rows.append(_row(kind, seed, int(marks.sum()), condition, losses))
    return rows


def check_marked(particular: Marks, wanted: str) -> Marks:
    """A copy without the embeddings, which are not zeroed. Raises PlanError when nothing else is marked.

    particular, result  (layers, dimensions) bool; layer 0 is the embeddings
    """
    particular = particular.copy()
    particular[0] = False
    if not particular.any():
        raise PlanError(
            f"no dimension after a layer is large in {wanted} and small in every other set, so that there is nothing to zero",
            hint="pass --stand-out 5 to zero the five of each layer that stand out most, or a larger --share",
        )
    return particular


def cases(
    magnitudes: Magnitudes, wanted: str, particular: Marks, share: float, seeds: Sequence[int]
) -> Iterator[tuple[str, int | None, Marks]]:
    """What is zeroed in turn: (kind, seed, bool (layers, hidden)), beginning with nothing."""
    yield "nothing", None, np.zeros_like(particular)
    yield "particular", None, particular
    large = largest(magnitudes.of(wanted), share) & ~particular
    everything = np.ones_like(particular)
    for seed in seeds:
        yield "other large", seed, _chosen(large, particular, seed)
        yield "random", seed, _chosen(everything, particular, seed)


def _chosen(allowed: Marks, like: Marks, seed: int) -> Marks:
    """As many marks in each layer as `like` has, chosen among the allowed ones; fewer where there are fewer."""
    rng = np.random.default_rng(seed)
    marks = np.zeros_like(like)
    for layer in range(like.shape[0]):
        candidates = np.flatnonzero(allowed[layer])
        count = min(int(like[layer].sum()), candidates.size)
        marks[layer, rng.choice(candidates, count, replace=False)] = True
    return marks


def _row(
    kind: str, seed: int | None, dimensions: int, condition: str, losses: Sequence[tuple[float, int, float, int]]
) -> Ablation:
    total, tokens, answer, answer_tokens = (sum(column) for column in zip(*losses, strict=True))
    return Ablation(
        kind, seed, dimensions, condition, total / max(tokens, 1), answer / answer_tokens if answer_tokens else None
    )


def _load(folder: Path) -> Any:
    import torch
    import transformers

    stock = model_class(folder)
    if stock is None:
        raise CheckpointError(f"transformers {transformers.__version__} has no class for this model\n  {folder}")
    with quiet_transformers():
        model = stock.from_pretrained(folder)
    if model.get_output_embeddings() is None:
        raise CheckpointError(
            f"{stock.__name__} has no output head, and so no loss to compare", "leave --ablate out for this model"
        )
    return model.to(torch.float32).eval()


def _with_answers(
    folder: Path, name: str, given: Sequence[str | Path | Demonstration], max_tokens: int
) -> list[tuple[Prompt, int]]:
    """Prompts with the number of tokens before the answer; 0 where there is no answer, or it was truncated."""
    from langslice.demonstrations.demonstration import read_demonstrations

    found: list[Demonstration] = []
    for item in given:
        found += [item] if isinstance(item, Demonstration) else read_demonstrations(item)
    whole = load_prompts(folder, {name: found}, max_tokens=max_tokens)
    asked = [
        Demonstration(one.condition, one.parts[:-1], one.separator, one.languages)
        if one.answer and len(one.parts) > 1
        else None
        for one in found
    ]
    before = load_prompts(folder, {name: [one for one in asked if one is not None]}, max_tokens=max_tokens)
    lengths = iter(before)
    result = []
    for prompt, question in zip(whole, asked, strict=True):
        start = 0
        if prompt.decoder_ids is not None:
            start = 1
        if question is not None:
            shorter = next(lengths)
            if prompt.decoder_ids is None:
                # The last token of the question alone may be an end that the tokenizer adds, or join with the answer.
                start = _common(prompt.ids, shorter.ids)
                start = start if len(shorter.ids) - 1 <= start < len(prompt.ids) else 0
        result.append((prompt, start))
    return result


def _common(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(left), len(right)))


def _losses(model: Any, prompt: Prompt, answer: int) -> tuple[float, int, float, int]:
    """Summed loss and tokens of a prompt, and of its answer."""
    import torch

    ids = prompt.ids if prompt.decoder_ids is None else prompt.decoder_ids
    with torch.inference_mode():
        logits = model(**prompt.inputs()).logits[0, :-1].float()
    targets = torch.tensor(ids[1:])
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double()
    of_answer = losses[max(answer - 1, 0) :] if answer else losses[:0]
    return float(losses.sum()), losses.numel(), float(of_answer.sum()), of_answer.numel()


@contextmanager
def zeroed(model: Any, layers: Sequence[str], marks: Marks) -> Iterator[None]:
    """Zero dimensions of what each block returns, while within; the embeddings stay as they are.

    layers  names of the model's blocks, or `embeddings`
    marks   bool (layers, hidden)
    """
    import torch

    handles = []
    for layer, name in enumerate(layers):
        if name == "embeddings" or not marks[layer].any():
            continue
        keep = torch.from_numpy(~marks[layer]).to(torch.float32)

        def hook(_: Any, __: Any, output: Any, keep: Any = keep) -> Any:
            return (output[0] * keep, *output[1:]) if isinstance(output, tuple) else output * keep

        handles.append(model.get_submodule(name).register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
