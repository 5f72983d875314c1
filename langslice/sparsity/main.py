"""The main flow of weight pruning: for each block, count what its layers read, choose, journal, write, go on.

Pruning is sequential: a block is pruned, and the next one is scored on what the pruned one makes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from langslice.demonstrations.tokens import Prompt, load_prompts
from langslice.errors import CheckpointError, PlanError
from langslice.progress import Report, silent
from langslice.sparsity.activations import PREFIX
from langslice.sparsity.allocation import choose_linears, language_shares, outlier_shares, uniform_shares
from langslice.sparsity.block_pass import Visit, walk
from langslice.sparsity.blocks import Block, Linear
from langslice.sparsity.cluster_calibration import check_spreadable, spread_visits
from langslice.sparsity.direction_proof import prove_directions
from langslice.sparsity.input_statistics import AVOID, KEEP, InputStatistics
from langslice.sparsity.journal import Edit, Journal
from langslice.sparsity.language_statistics import by_language, mwanda_factors
from langslice.sparsity.masks import lowest_of_groups, lowest_of_matrix, lowest_of_rows
from langslice.sparsity.pruned_tensors import make_report
from langslice.sparsity.report import SparsityReport, TensorSparsity
from langslice.sparsity.request import CALIBRATED, LANGUAGES, SparsityRequest, check_request
from langslice.sparsity.scores import Vector, input_weights, random_scores, weight_scores
from langslice.sparsity.skeleton import Skeleton
from langslice.sparsity.sparsegpt import prune_by_reconstruction
from langslice.sparsity.weight_bytes import rounded, stored_bytes

WINDOW = 1 << 20  # elements of a matrix that are scored at once

Chosen = Callable[[Block], tuple[Linear, ...]]


def sparsify(
    folder: Path,
    request: SparsityRequest,
    *,
    work: Path | None = None,
    ray: str | None = None,
    report: Report = silent,
) -> SparsityReport:
    """Zero weights of a checkpoint in place, and say which.

    folder   a checkpoint that the caller owns, never a user's source: safetensors files, config.json, tokenizer
    request  see SparsityRequest
    work     a folder that survives a kill: a later call with the same arguments continues after the last finished block;
             without it an interrupted checkpoint must be thrown away
    ray      address of a Ray cluster whose machines all see `folder`, or `local`: calibration data is spread over it
    report   told each block
    Returns  what happened to every pruned tensor; all other bytes are as they were
    Raises   PlanError for the request; CorpusError for the calibration data; CheckpointError for the model, among them
             infinite or NaN activations, naming the layer
    """
    check_request(request)
    if ray is not None:
        check_spreadable(request)
    skeleton = Skeleton(folder)
    _refuse_pickles(skeleton)
    chosen = choose_linears(skeleton, request.linears)
    shares = uniform_shares(skeleton, chosen, request)
    _check_groups(skeleton, chosen, request)
    prompts = _prompts(skeleton.checkpoint.model_folder, request)
    if request.score not in CALIBRATED and (request.score != "magnitude" or request.group() is not None):
        prove_directions(skeleton, chosen)
    entries = {linear.entry.name: linear.entry for block in skeleton.blocks for linear in block.linears}
    journal = Journal(work, _fingerprint(skeleton, request, prompts), entries)
    with _offload_folder(request, work) as offload:
        if request.allocation in ("outliers", LANGUAGES):
            if not journal.shares:
                journal.settle_shares(_measured_shares(skeleton, chosen, prompts, request, offload, report))
                skeleton = Skeleton(folder)
                chosen = choose_linears(skeleton, request.linears)
            shares = journal.shares
        resumed = len(journal.finished)
        if ray is None:
            visits = _visits(skeleton, chosen, request, prompts, journal.finished, offload, report)
        else:
            visits = spread_visits(skeleton, chosen, request, prompts, journal.finished, ray, report)
        for visit in visits:
            edits, sparsity = _prune_block(visit, chosen(visit.block), shares, request)
            if edits:
                journal.commit(visit.block.name, edits, sparsity)
    if not any(item.zeros for item in journal.tensors.values()):
        raise PlanError(
            f"no weight was zeroed: {len(journal.tensors)} tensors, sparsity {request.share():g}",
            hint="rows may be too short for so small a share; ask for more, or for other layers",
        )
    missed = [block.name for block in skeleton.blocks if chosen(block) and block.name not in journal.finished]
    return make_report(skeleton.checkpoint.tensors, request, prompts, journal, missed, resumed)


def _measured_shares(
    skeleton: Skeleton,
    chosen: Chosen,
    prompts: Sequence[Prompt],
    request: SparsityRequest,
    offload: Path | None,
    report: Report,
) -> dict[str, float]:
    """Shares by layer that calibration data decides, by a pass over the model before any weight goes."""
    kept = [replace(prompt, condition=KEEP) for prompt in prompts if prompt.condition != AVOID]
    measured = outlier_shares
    if request.allocation == LANGUAGES:
        measured, kept = language_shares, list(by_language(kept, request))
    return measured(skeleton, chosen, kept, request.share(), offload=offload, compute=request.compute, report=report)


def _refuse_pickles(skeleton: Skeleton) -> None:
    for shard in skeleton.checkpoint.shards:
        if shard.format != "safetensors":
            raise CheckpointError(
                f"weights are pruned in place in safetensors files only\n  found {shard.name}",
                "copy the model with langslice first; its output is safetensors",
            )


def _visits(
    skeleton: Skeleton,
    chosen: Chosen,
    request: SparsityRequest,
    prompts: Sequence[Prompt],
    finished: Sequence[str],
    offload: Path | None,
    report: Report,
) -> Iterator[Visit]:
    """Blocks with their weights loaded, walked by prompts where the score needs them."""
    if request.score in CALIBRATED:
        products = request.score == "sparsegpt"
        yield from walk(
            skeleton, prompts, watched=chosen, with_products=products, with_activity=request.score == "mwanda",
            finished=finished, offload=offload, compute=request.compute, report=report,
        )  # fmt: skip
        return
    for number, block in enumerate(skeleton.blocks):
        report(f"block {block.name}", number, len(skeleton.blocks))
        if block.name not in finished and chosen(block):
            skeleton.load(block)
            yield Visit(block, None)
            skeleton.release(block)


def _prune_block(
    visit: Visit, linears: Sequence[Linear], shares: Mapping[str, float], request: SparsityRequest
) -> tuple[list[Edit], dict[str, TensorSparsity]]:
    """Prune the loaded weights of a block, and say what to write."""
    edits: list[Edit] = []
    sparsity: dict[str, TensorSparsity] = {}
    for linear in linears:
        share = shares[linear.name]
        reached = visit.statistics is None or _is_reached(linear, visit.statistics)
        if request.score == "sparsegpt" and visit.statistics is not None:
            edits.append((linear.entry, _reconstruct(linear, visit.statistics, share, request)))
        else:
            factors = None if visit.statistics is None else _factors(linear, visit.statistics, request)
            edits.append((linear.entry, np.packbits(_zero(linear, factors, share, request))))
        weight = linear.module.weight.data.numpy()
        zeros = sum(int(np.count_nonzero(part == 0)) for part in np.array_split(weight, max(weight.size // WINDOW, 1)))
        sparsity[linear.entry.name] = TensorSparsity(linear.entry.shape, share, zeros, weight.size, reached)
    return edits, sparsity


def _is_reached(linear: Linear, statistics: InputStatistics) -> bool:
    """Whether prompts to keep, of one language at least, say anything of a layer."""
    return any(statistics.reached(condition, linear) for condition in statistics.kept())


def _factors(linear: Linear, statistics: InputStatistics, request: SparsityRequest) -> Vector | None:
    """What weights are multiplied with by input; None, which leaves their magnitude, for an expert that nothing was sent to."""
    if not _is_reached(linear, statistics):
        return None
    if request.score == "mwanda":
        return mwanda_factors(linear, statistics, request)
    avoid = statistics.mean_squares(AVOID, linear) if request.avoid_demos else None
    return input_weights(statistics.mean_squares(KEEP, linear), avoid, request.epsilon)


def _zero(linear: Linear, factors: Vector | None, share: float, request: SparsityRequest) -> npt.NDArray[np.bool_]:
    """Zero a loaded weight's lowest scores.

    factors  (inputs,), None for scores that do not look at inputs
    Returns  bool in the shape and order that the tensor is stored in, True where a weight went
    """
    weight: npt.NDArray[np.float32] = linear.rows().numpy()  # (outputs, inputs), in the layer's own memory
    bits = weight.view(np.int32)
    stored = np.empty(linear.entry.shape, dtype=np.bool_)
    marks = stored.T if linear.transposed else stored
    # Magnitude is compared over the whole matrix, every other score within a row.
    whole = request.score == "magnitude" and request.group() is None
    step = weight.shape[0] if whole else max(WINDOW // weight.shape[1], 1)
    for first in range(0, weight.shape[0], step):
        rows = slice(first, min(first + step, weight.shape[0]))
        if request.score == "random":
            scores = random_scores(linear.entry.name, rows, weight.shape[1], request.seed)
        else:
            window = np.ascontiguousarray(weight[rows])
            scores = np.abs(window) if factors is None else weight_scores(window, factors)
            if request.score == "top":
                np.negative(scores, out=scores)
        marks[rows] = _mask(scores, share, request.group(), whole)
        # Bits times 0 or 1: many times faster than assigning where marked, and never -0 or NaN.
        np.multiply(bits[rows], ~marks[rows], out=bits[rows])
    return stored


def _mask(
    scores: npt.NDArray[np.float32], share: float, group: tuple[int, int] | None, whole: bool
) -> npt.NDArray[np.bool_]:
    if group is not None:
        return lowest_of_groups(scores, *group)
    if whole:
        return lowest_of_matrix(scores, int(scores.size * share))
    return lowest_of_rows(scores, int(scores.shape[1] * share))


def _reconstruct(linear: Linear, statistics: InputStatistics, share: float, request: SparsityRequest) -> memoryview:
    """Prune and update a loaded weight by SparseGPT; what comes back, and stays loaded, is rounded as it is stored."""
    import torch

    statistics.mean_squares(KEEP, linear)  # names the layer where an input is infinite or NaN
    weight = linear.rows()
    known = statistics.reached(KEEP, linear)
    products = statistics.products(KEEP, linear) if known else torch.eye(linear.inputs)  # which is to say magnitude
    prune_by_reconstruction(weight, products, share, request.group(), linear.name)
    data = stored_bytes(linear.module.weight.data, linear.entry)
    linear.module.weight.data.copy_(rounded(data, linear.entry))
    return data


def _check_groups(skeleton: Skeleton, chosen: Chosen, request: SparsityRequest) -> None:
    group = request.group()
    if group is None:
        return
    for block in skeleton.blocks:
        for linear in chosen(block):
            if linear.inputs % group[1]:
                raise PlanError(
                    f"pattern {request.pattern} does not fit {linear.entry.name}: {linear.inputs} inputs a row are no "
                    f"multiple of {group[1]}",
                    hint=f'leave it out with --linears "!{linear.name}", or choose another pattern',
                )


def _prompts(folder: Path, request: SparsityRequest) -> tuple[Prompt, ...]:
    if request.score not in CALIBRATED:
        return ()
    conditions = {KEEP: request.keep_demos, AVOID: request.avoid_demos}
    given = {name: demos for name, demos in conditions.items() if demos}
    prompts = load_prompts(folder, given, max_tokens=request.max_tokens, count_padding=request.count_padding)
    if not request.compares_languages():
        return prompts
    languages = by_language([prompt for prompt in prompts if prompt.condition == KEEP], request)
    return languages if request.score == "mwanda" else prompts


def _fingerprint(skeleton: Skeleton, request: SparsityRequest, prompts: Sequence[Prompt]) -> str:
    """What a resumed run must have in common with the one that was killed."""
    tensors = [[name, entry.dtype, entry.shape] for name, entry in sorted(skeleton.checkpoint.tensors.items())]
    options = {
        name: value for name, value in request.to_json().items() if name not in ("offload", "keep_demos", "avoid_demos")
    }
    read: list[list[object]] = [
        [prompt.condition, prompt.ids, prompt.decoder_ids, prompt.padding] for prompt in prompts
    ]
    if request.compares_languages():
        read.append([prompt.languages for prompt in prompts])
    document = json.dumps([skeleton.checkpoint.config, tensors, options, read], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


@contextmanager
def _offload_folder(request: SparsityRequest, work: Path | None) -> Iterator[Path | None]:
    """Where activations go: the work folder, or a temporary one; None for memory."""
    if not request.offload:
        yield None
    elif work is not None:
        work.mkdir(parents=True, exist_ok=True)
        for left in work.glob(f"{PREFIX}*"):
            shutil.rmtree(left)  # of a run that was killed
        yield work
    else:
        with tempfile.TemporaryDirectory(prefix="langslice-") as folder:
            yield Path(folder)
