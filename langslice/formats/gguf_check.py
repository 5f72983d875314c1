"""A written GGUF file against the model that it was made from: every number, ids of text, and what llama.cpp computes.

The numbers of the file are read back, the checkpoint's order restored, and put into transformers' class: what that computes
differs from the model by the file's rounding alone, and what llama.cpp computes differs from that by its arithmetic alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langslice.formats.families import GgufFamily
from langslice.formats.gguf_metadata import pooling_of
from langslice.formats.gguf_tensors import GgufTensor, read_back
from langslice.formats.llama_cpp import RUNTIME, Runtime, is_installed, running
from langslice.model.checkpoint import Checkpoint
from langslice.model.transformers_classes import dtype_option, quiet_transformers
from langslice.verification.check import MAX_EXAMPLES, Check

if TYPE_CHECKING:
    import torch

# Of each text: lines whose ids are compared, and lines whose outputs are. In all: those, and what llama.cpp then writes on.
_MOST_LINES, _PROMPTS_EACH, _PROMPTS, _LONGEST, _GREEDY = 2000, 4, 8, 48, 12
# Likeliest tokens whose log probabilities are compared; each holds the sum over all of them.
_LIKELIEST = 1000
# llama.cpp rounds what goes into a product as the product's weights are: relative to the largest number. Its activations come
# from a table of f16 numbers.
_ROUNDING = {"f32": 2**-11, "f16": 2**-10, "bf16": 2**-8}
_EIGHT_BITS = 2**-7
# In f32, and without such a table.
_EXACT = 2**-17
_STEPS = 8
_SHIFTED = 2**-20


@dataclass(frozen=True)
class Written:
    """A GGUF file and what it was made from.

    auto     transformers' tokenizer
    tensors  as they were laid out; None for a file that the converter wrote
    """

    path: Path
    checkpoint: Checkpoint
    family: GgufFamily
    auto: Any
    tensors: Sequence[GgufTensor] | None
    precision: str


def check_file(written: Written, texts: Mapping[str, Callable[[], Iterable[str]]]) -> list[Check]:
    """Every check that can be made here; those that need llama.cpp are named where it is not installed."""
    model = _load(written.checkpoint)
    prompts = _prompts(written, texts)
    exact = _outputs(model, prompts, written)
    checks = []
    if written.tensors is not None:
        checks.append(_check_weights(model, written))
    rounded = _outputs(model, prompts, written)
    if not is_installed():
        absent = f"not run: {RUNTIME} is not installed (pip install 'langslice[gguf]')"
        return [*checks, Check("tokens", None, absent), Check("outputs", None, absent)]
    pooled = pooling_of(written.checkpoint.folder) is not None
    with running(written.path, encoder=written.family.encoder, pooled=pooled) as runtime:
        checks.append(_check_tokens(written, runtime, texts))
        checks.append(_check_outputs(runtime, prompts, exact, rounded, written))
        if not written.family.encoder:
            checks.append(_check_greedy(runtime, model, prompts))
    return checks


def _load(checkpoint: Checkpoint) -> Any:
    """The model in float32; an encoder without a head."""
    import transformers

    stock = transformers.AutoModelForCausalLM
    if not any("CausalLM" in name for name in checkpoint.config.get("architectures") or ()):
        stock = transformers.AutoModel
    with quiet_transformers():
        return stock.from_pretrained(checkpoint.model_folder, local_files_only=True, **dtype_option("float32")).eval()


def _prompts(written: Written, texts: Mapping[str, Callable[[], Iterable[str]]]) -> list[list[int]]:
    """The beginnings of some lines of each text, as ids."""
    found = []
    for read in texts.values():
        for line in islice(read(), _PROMPTS_EACH):
            ids = written.auto(line)["input_ids"]
            found.append(ids if written.family.encoder else ids[:_LONGEST])
    limit = written.checkpoint.config.get("max_position_embeddings", 512)
    return [ids for ids in found if 2 < len(ids) <= min(limit, 256)][:_PROMPTS]


def _outputs(model: Any, prompts: Sequence[Sequence[int]], written: Written) -> list[np.ndarray]:
    """Log probabilities after each prompt, or its vector."""
    import torch

    found = []
    pooling = pooling_of(written.checkpoint.folder) if written.family.encoder else None
    with torch.no_grad():
        for ids in prompts:
            output = model(input_ids=torch.tensor([list(ids)]))
            if written.family.encoder:
                vectors = output.last_hidden_state[0].double().numpy()
                found.append(vectors.mean(0) if pooling in (None, "mean") else vectors[0 if pooling == "cls" else -1])
            else:
                found.append(torch.log_softmax(output.logits[0, -1].double(), -1).numpy())
    return found


def _check_weights(model: Any, written: Written) -> Check:
    """Read every number of the file back into the model, and compare it with what was there."""
    import torch

    largest, where, count = 0.0, "", 0
    state = model.state_dict()
    with torch.no_grad():
        for tensor, values in read_back(written.path, written.tensors or ()):
            there = _parameter(state, tensor.source)
            if there is None:
                return Check("weights", False, f"{tensor.source} is not in the class that transformers loads")
            part = there[tensor.start :]
            spread = float(part.abs().max()) or 1.0
            error = float((part - torch.from_numpy(values)).abs().max()) / spread
            # 1 was added to it and taken away again, in float32.
            error -= _SHIFTED if tensor.shift else 0.0
            largest, where = max((largest, where), (error, tensor.source))
            count += values.size
            part.copy_(torch.from_numpy(values))
    allowed = _allowed_rounding(written.precision)
    detail = f"{count:,} numbers read back; the largest difference is {largest:.1e} of the largest number of its tensor"
    return Check("weights", largest <= allowed, f"{detail} ({where})" if largest else detail)


def _parameter(state: Mapping[str, torch.Tensor], name: str) -> Any:
    """A tensor of the model by its name in the checkpoint, whose class may put a word before it."""
    tries = (
        name,
        f"model.{name}",
        name.removeprefix("model."),
        name.removeprefix("bert."),
        name.removeprefix("roberta."),
    )
    return next((state[each] for each in tries if each in state), None)


def _allowed_rounding(precision: str) -> float:
    return {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.5 / 127 + 2**-11}.get(precision, 1.0)


def _check_tokens(written: Written, runtime: Runtime, texts: Mapping[str, Callable[[], Iterable[str]]]) -> Check:
    """Ids of each line in llama.cpp and in transformers."""
    lines, wrong = 0, []
    for read in texts.values():
        for line in read():
            expected, found = list(written.auto(line)["input_ids"]), runtime.ids(line)
            lines += 1
            if expected != found:
                wrong.append(f"{line!r}: {found}, expected {expected}")
    detail = f"{lines - len(wrong):,} of {lines:,} lines have the same ids in llama.cpp and in transformers"
    return Check("tokens", lines > 0 and not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))


def _check_outputs(
    runtime: Runtime,
    prompts: Sequence[Sequence[int]],
    exact: Sequence[np.ndarray],
    rounded: Sequence[np.ndarray],
    written: Written,
) -> Check:
    """What llama.cpp computes, against transformers with the file's own numbers."""
    encoder = written.family.encoder
    plain = written.auto("1", add_special_tokens=False)["input_ids"][-1]
    found = [
        runtime.vector(ids) if encoder else runtime.log_probabilities(ids, len(exact[0]), _LIKELIEST, plain)
        for ids in prompts
    ]
    unit = _ROUNDING.get(written.precision, _EIGHT_BITS)
    if written.precision == "f32" and written.family.activation == "silu":
        unit = _EXACT
    errors, costs = [], []
    for got, near, far in zip(found, rounded, exact, strict=True):
        scale = float(np.abs(near - near.mean()).max())
        errors.append(float(np.nanmax(np.abs(got - near))) / scale)
        costs.append(float(np.abs(near - far).max()) / scale)
    what = "vectors" if encoder else "log probabilities"
    detail = (
        f"{what} of {len(prompts)} texts: llama.cpp differs from transformers with the file's numbers by at most "
        f"{max(errors):.1e} of the largest, of which {_STEPS * unit:.1e} are allowed; "
        f"the file's rounding itself costs {max(costs):.1e}"
    )
    return Check("outputs", bool(prompts) and max(errors) <= _STEPS * unit, detail)


def _check_greedy(runtime: Runtime, model: Any, prompts: Sequence[Sequence[int]]) -> Check:
    """The likeliest continuation in both; near ties may part, so no difference is a failure."""
    import torch

    same = 0
    for ids in prompts:
        with torch.no_grad(), quiet_transformers():
            given = torch.tensor([list(ids)])
            whole = model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=_GREEDY, do_sample=False, num_beams=1
            )
        expected = whole[0, len(ids) :].tolist()
        found = runtime.greedy(ids, _GREEDY)
        same += expected[: len(found)] == found or found[: len(expected)] == expected
    return Check(
        "greedy",
        None if same < len(prompts) else True,
        f"{same} of {len(prompts)} texts continue alike for {_GREEDY} tokens",
    )
