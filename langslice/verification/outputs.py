"""Run the source and the slice on the same tokens and compare what they compute.

One model is in memory at a time. Where only the vocabulary is sliced, hidden states must be equal bit for bit: the blocks are
the same bytes and see the same embeddings. Logits of kept tokens may differ by float rounding, because a matrix product of
another width may be summed in another order. Where layers, heads or neurons are pruned, the slice is compared with the source
in which these are masked and skipped, both in float32, and its last hidden states, too, may differ by rounding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langslice.files.memory import return_freed_memory
from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.model.positions import longest_text
from langslice.model.transformers_classes import dtype_option, full_config, model_class, quiet_transformers
from langslice.planning.plan import SlicePlan
from langslice.verification.check import Check
from langslice.verification.model_inputs import CANNOT_RUN, RANDOM_LENGTH, STATES, encode_sound, inputs_of, text_reader
from langslice.verification.narrowed_source import hidden_dims, load_unrounded, part_of
from langslice.verification.rounding import Outputs, differences, disturbed, may_be_rounding
from langslice.verification.weight_pages import giving_back_pages, head_at_last

if TYPE_CHECKING:
    from langslice.structure.kept import Kept
    from langslice.verification.router_ties import RouterTies

_RANDOM_SAMPLES = 4
# One sample is longer than every window that is no longer than this; of it the last positions are compared.
_LONGEST = 1024
_LAST_POSITIONS = 16
_LEAST_TOKENS, _MOST_FLOPS = 1024, 5e12
# Fields that say how far a token sees.
_WINDOWS = re.compile(
    r"sliding_window|local_attention|attention_window|window_size|attention_chunk_size|relative_attention_max_distance"
)
_TOWERS = re.compile(r".*(vision|audio|image|video).*")


def check_outputs(checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan, samples: Sequence[list[int]]) -> Check:
    """Both models on the same tokens: hidden states equal, logits of kept tokens equal within float rounding."""
    lacking = lacking_memory(checkpoint, masked=plan.structure is not None)
    if lacking:
        return Check("outputs", None, lacking)
    if model_class(checkpoint.model_folder) is None:
        return Check("outputs", None, "config.json names no class that transformers has (`architectures`)")
    return compare_outputs(checkpoint, sliced, plan, samples)


def lacking_memory(checkpoint: Checkpoint, *, masked: bool) -> str:
    """Why the source cannot be run on this machine; "" where its memory suffices.

    masked  whether something of its structure is masked in memory
    """
    size = sum(tensor.size_bytes for tensor in checkpoint.tensors.values())
    if masked:  # compared in float32
        size = 8 * sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
    available = _available_memory()
    if available is None or 1.3 * size <= available:
        return ""
    return f"not run: needs about {1.3 * size / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB available"


def _available_memory() -> int | None:
    """Bytes of memory that the kernel says can be used without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def compare_outputs(checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan, samples: Sequence[list[int]]) -> Check:
    """Compare hidden states and kept logits on sample text and on random kept tokens.

    samples  new ids of real text that uses kept tokens only
    """
    rng = np.random.default_rng(0)
    size = int(plan.kept.shape[0])
    new_ids = [list(sample) for sample in samples[:_RANDOM_SAMPLES]]
    new_ids += [rng.integers(0, size, RANDOM_LENGTH).tolist() for _ in range(_RANDOM_SAMPLES)]
    longest, longer = _long_sample(full_config(checkpoint.config) or checkpoint.config)
    new_ids.append(rng.integers(0, size, longest).tolist())
    # A class may do something of its own with some id, which only that id shows.
    tokens = _tokens_once(checkpoint, size) if plan.row and not plan.keeps_vocabulary else 0
    once = rng.permutation(size)[:tokens]
    length = min(longest, 4 * RANDOM_LENGTH)
    new_ids += [once[at : at + length].tolist() for at in range(0, tokens, length)]
    whole = len(new_ids) - 1 - -(-tokens // length) if plan.row else None
    old_ids = [plan.kept[np.asarray(ids)].tolist() for ids in new_ids]
    start = _decoder_start(checkpoint, plan)
    structure = plan.structure
    load, stock, ties = _loaders(checkpoint, sliced, plan)
    ends = structure is not None
    try:
        dims = hidden_dims(checkpoint, structure)
        before = _run(load, old_ids, start[0], keep=plan.kept, ends=ends, whole=whole, dims=dims)
    except CANNOT_RUN as error:
        return Check("outputs", None, f"not run: the source itself does not run here: {_first_line(error)}")
    try:
        after = _run(stock, new_ids, start[1], keep=np.arange(size), ends=ends, whole=whole)
    except CANNOT_RUN as error:
        return Check("outputs", False, "the source runs, the slice does not", (_first_line(error), *_advice(structure)))
    wrong, hidden, logits = differences(before, after, ends=ends)
    # A model in which few dimensions outweigh all others may magnify what is rounded.
    if wrong and ends and may_be_rounding(hidden, logits):
        again = _run(disturbed(load), old_ids, start[0], keep=plan.kept, ends=ends, whole=whole, dims=dims)
        wrong, hidden, logits = differences(before, after, ends=ends, again=again)
    told = f", kept logits by {logits:.0e}" if before[0].logits is not None else ""
    told += f"; computed by {before[0].part}, the text model inside" if before[0].part else ""
    finite = sum(left.is_finite() for left in before)
    if finite < len(before):
        told += f"; the source itself overflows in {len(before) - finite} of them"
    of_text = min(len(samples), _RANDOM_SAMPLES)
    told_of = f"{of_text + _RANDOM_SAMPLES + 1} samples"
    told_of += (
        f" ({of_text} of text, one of {longest} tokens" if of_text else f" of random ids (one of {longest} tokens"
    )
    if tokens:
        told_of += f", {tokens} of {size} kept tokens once each"
    if longer:
        told_of += f", which is less than the window of {longer}"
    if ties is not None and ties.followed:
        told += (
            f"; {ties.followed} choices of routers between scores that are equal within rounding made as in the source"
        )
    compared = "last hidden states of the masked source differ by" if ends else "hidden states differ by"
    return Check("outputs", not wrong, f"{told_of}): {compared} {hidden:g}{told}", tuple(wrong))


def _loaders(
    checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan
) -> tuple[Callable[[], Any], Callable[[], Any], RouterTies | None]:
    """How source and slice are loaded, and what is known of their routers when both have run, in this order."""
    structure, aligned = plan.structure, bool(plan.row)
    if structure is None:
        source = partial(load_unmodified, checkpoint.model_folder, aligned=aligned)
        return source, partial(load_unmodified, sliced.model_folder, aligned=aligned), None
    from langslice.verification.router_ties import RouterTies

    ties = RouterTies(structure)

    def masked() -> Any:
        model = load_source_masked(checkpoint, structure)
        ties.noting(model, read_anatomy(checkpoint))
        return model

    def unmodified() -> Any:
        model = load_slice(checkpoint, sliced, plan)
        if ties.noted:
            ties.following(model, read_anatomy(checkpoint))
        return model

    return masked, unmodified, ties


def _tokens_once(checkpoint: Checkpoint, size: int) -> int:
    """How many kept tokens are fed once each: all of them, or as many as a budget of arithmetic allows."""
    parameters = sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
    return min(size, max(_LEAST_TOKENS, int(_MOST_FLOPS / (2 * max(parameters, 1)))))


def _long_sample(config: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the sample that is longer than every window, and the longest window that it does not reach, or 0.

    Where positions have a table, it is as long as the table.
    """
    windows = [value for value in _numbers(config, _WINDOWS) if value > 0]
    table = longest_text(config)
    limit = min(_LONGEST, table or _LONGEST)
    wanted = [value + _LAST_POSITIONS for value in windows if value < _LONGEST]
    wanted += [table] if table is not None and table <= _LONGEST else []
    longer = [value for value in windows if value >= limit and (table is None or value < table)]
    return max(1, min(limit, max(wanted, default=RANDOM_LENGTH))), max(longer, default=0)


def _numbers(config: Mapping[str, Any], names: re.Pattern[str]) -> Iterator[int]:
    """Numbers of the fields with these names, anywhere but in towers for pictures and sound."""
    for key, value in config.items():
        if isinstance(value, Mapping) and not _TOWERS.fullmatch(key):
            yield from _numbers(value, names)
        elif names.fullmatch(key):
            yield from (one for one in (value if isinstance(value, list) else [value]) if type(one) is int)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _decoder_start(checkpoint: Checkpoint, plan: SlicePlan) -> tuple[int, int]:
    """Old and new id that a decoder starts from; 0 where the configuration names none that is kept."""
    new_of = {old: new for new, old in enumerate(plan.kept.tolist())}
    for key in ("decoder_start_token_id", "bos_token_id", "eos_token_id"):
        old = checkpoint.config.get(key)
        if isinstance(old, int) and old in new_of:
            return old, new_of[old]
    return int(plan.kept[0]), 0


def _run(
    load: Callable[[], Any],
    batches: Sequence[list[int]],
    start: int,
    *,
    keep: np.ndarray,
    ends: bool,
    whole: int | None = None,
    dims: np.ndarray | None = None,
) -> list[Outputs]:
    """Hidden states of every layer, or of the last alone, and logits of the kept tokens, for each sample.

    batches  one sequence each; the last is the long one, of which hidden states at the last positions are kept
    whole    for a class that nobody has looked at: the place of the long one, behind which others stand that need no head;
             the head then sees all positions
    dims     (n,), or (hidden, n): of the states what to look at, see hidden_dims; None for all
    """
    import torch

    with quiet_transformers():
        model = load()
        results = []
        headed = len(batches) - 1 if whole is None else whole
        with torch.inference_mode(), giving_back_pages(model):
            reader = text_reader(model)
            sound = encode_sound(reader)
            # Weights of a pooler that a checkpoint lacks are drawn anew at every loading.
            pools = not any("pooler" in name for name, _ in reader.named_parameters())
            with head_at_last(model) if whole is None else nullcontext():
                for ids in batches[:headed]:
                    output = reader(
                        **inputs_of(reader, ids, start), **sound, output_hidden_states=True, return_dict=True
                    )
                    results.append(_collect(output, keep, ends, pools, dims=dims))
            for at, ids in enumerate(batches[headed:]):
                inputs = inputs_of(reader, ids, start)
                output = reader.base_model(**inputs, **sound, output_hidden_states=True, return_dict=True)
                output = _of_kept(reader, output, keep)
                last = 0 if at else _LAST_POSITIONS
                results.append(_collect(output, keep, ends or at > 0, pools, last=last, dims=dims))
                del output
    part = "" if reader is model else type(reader).__name__
    del model, reader
    return_freed_memory()
    return [replace(one, part=part) for one in results]


def load_unmodified(folder: Path, dtype: str = "auto", *, aligned: bool = False) -> Any:
    """The unmodified model on the CPU, with plain attention, in the type it is stored in unless another is given.

    aligned  copy every tensor out of its file: where one begins there may change the order in which a product is summed
    """
    import torch

    model = model_class(folder).from_pretrained(folder, **_loading_options(dtype)).to(torch.device("cpu")).eval()
    for parameter in model.parameters() if aligned else ():
        parameter.data = parameter.data.clone()
    return model


def load_slice(checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan) -> Any:
    """The slice as it is compared: in float32 where its structure differs from its source's.

    Where weights were scaled and rounded to a half-precision type, their values before that are taken: that what is written is
    these, rounded, is the business of the check of bytes.
    """
    if plan.structure is None or not plan.structure.hidden:
        dtype = "auto" if plan.structure is None else "float32"
        return load_unmodified(sliced.model_folder, dtype, aligned=bool(plan.row))
    import torch

    return (
        load_unrounded(checkpoint, sliced, plan, plan.structure, _loading_options("float32"))
        .to(torch.device("cpu"))
        .eval()
    )


def load_source_masked(checkpoint: Checkpoint, structure: Kept) -> Any:
    """The source in float32, with what the slice removed masked and skipped."""
    import torch

    from langslice.verification.masked_source import load_masked

    return load_masked(checkpoint, structure, _loading_options("float32")).to(torch.device("cpu")).eval()


def _advice(structure: Kept | None) -> tuple[str, ...]:
    """What may help a slice that does not run."""
    import transformers

    if structure is None or structure.style != "sliced" or not transformers.__version__.startswith("4."):
        return ()
    return (
        f"its layers differ in size, and transformers {transformers.__version__} sizes some families' layers, or their "
        "cache, by config.json alone; transformers 5 does not",
    )


def _loading_options(dtype: str) -> dict[str, str]:
    """Options of `from_pretrained` for a comparison: plain attention, and a type."""
    return {"attn_implementation": "eager", **dtype_option(dtype)}


def _of_kept(model: Any, output: Any, keep: np.ndarray) -> Any:
    """What a body gives, with the kept columns of logits where its last states are these, as FSMT's are."""
    table = getattr(model.get_input_embeddings(), "weight", None)
    last = getattr(output, "last_hidden_state", None)
    if table is not None and last is not None and last.shape[-1] == table.shape[0] != table.shape[1]:
        output.last_hidden_state = last[..., keep]
    return output


def _flat(states: Any) -> list[Any]:
    """Hidden states of a layer, or of several: some classes give two of each, for text and for what stands for all of it."""
    return [one for part in states for one in _flat(part)] if isinstance(states, tuple | list) else [states]


def _collect(
    output: Any, keep: np.ndarray, ends: bool, pools: bool, last: int = 0, dims: np.ndarray | None = None
) -> Outputs:
    import torch

    states: list[Any] = []
    for name in STATES:
        value = getattr(output, name, None)
        if value is not None:
            states += _flat(value[-1:] if ends and isinstance(value, tuple | list) else value)
    parts = [state[:, -last:] for state in states]
    pooled = getattr(output, "pooler_output", None)
    parts += [pooled] if torch.is_tensor(pooled) and pools else []
    parts = [part_of(part, dims) for part in parts]
    hidden = np.concatenate([part.to(torch.float64).numpy().ravel() for part in parts])
    logits = getattr(output, "logits", None)
    dtype = str((logits if logits is not None else states[0]).dtype).removeprefix("torch.")
    kept = None if logits is None else logits[..., torch.from_numpy(keep)].to(torch.float64).numpy()
    return Outputs(hidden, kept, dtype)
