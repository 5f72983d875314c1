"""ONNX files in ONNX Runtime against the model in transformers: hidden states, logits, and text that a decoder writes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from langslice.formats.onnx_graphs import HIDDEN, LOGITS
from langslice.formats.onnx_merge import SWITCH
from langslice.model.transformers_classes import cache_of, cache_option
from langslice.verification.check import Check

Values = dict[str, np.ndarray]


class OutputPair(NamedTuple):
    """What transformers and a file give for the same: hidden states or logits (tokens, numbers)."""

    exact: np.ndarray
    found: np.ndarray
    logits: bool = True


# Of the largest number; and the least cosine, on average, of mean vectors or of logits in int8, which only a broken file misses.
_TOLERANCE, _LEAST_COSINE = 1e-4, 0.9
_WRITTEN = 8


def check_files(
    model: Any, kind: str, paths: Mapping[str, Path], prompts: Sequence[Sequence[int]], label: str
) -> list[Check]:
    """Compare the files of one type of weights.

    kind     "encoder", "decoder" or "encoder-decoder"
    paths    name -> file
    prompts  ids of texts
    label    "" for float32, whose numbers must be equal up to rounding; "int8 " for files that may round
    """
    sessions = {name: _session(path) for name, path in paths.items()}
    compare = {"encoder": _encoded, "decoder": _decoded, "encoder-decoder": _translated}[kind]
    with torch.no_grad():
        pairs = list(compare(model, sessions, prompts))
    cosines = [_cosine(pair) for pair in pairs]
    steps = sum(pair.logits for pair in pairs)
    what = f"logits of {steps} steps, each with what was cached before," if steps else "hidden states"
    told = f"{len(prompts)} texts against transformers: {what}"
    if label:
        passed = bool(cosines) and float(np.mean(cosines)) >= _LEAST_COSINE
        told += f" have a cosine of at least {min(cosines, default=0):.4f}, {np.mean(cosines):.4f} on average"
        if steps:
            same = np.concatenate([pair.exact.argmax(-1) == pair.found.argmax(-1) for pair in pairs if pair.logits])
            told += f"; the likeliest token is the same at {same.mean():.0%} of {same.size} positions"
        return [Check(f"{label}outputs", passed, told)]
    largest = max((float(np.abs(a - b).max() / np.abs(a).max()) for a, b, _ in pairs), default=float("inf"))
    return [Check("outputs", largest <= _TOLERANCE, f"{told} differ by at most {largest:.1e} of the largest")]


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _run(session: Any, values: Values) -> Values:
    """All outputs by name; of the values those that the file asks for."""
    names = [one.name for one in session.get_outputs()]
    given = {one.name: values[one.name] for one in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


def _cosine(pair: OutputPair) -> float:
    """Of the mean vectors over all tokens."""
    one, other = (each.mean(0, dtype=np.float64) for each in (pair.exact, pair.found))
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _encoded(model: Any, sessions: Mapping[str, Any], prompts: Sequence[Sequence[int]]) -> Iterator[OutputPair]:
    """Hidden states (tokens, hidden) of each text, alone and in one batch."""
    pad = getattr(model.config, "pad_token_id", None) or 0
    for batch in [*(_batch([ids], pad) for ids in prompts), _batch(prompts, pad)]:
        names = [one.name for one in sessions["model"].get_inputs()]
        exact = model(**{name: torch.from_numpy(batch[name]) for name in names}).last_hidden_state.numpy()
        found = _run(sessions["model"], batch)[HIDDEN]
        for at, row in enumerate(batch["attention_mask"].astype(bool)):
            yield OutputPair(exact[at][row], found[at][row], logits=False)


def _batch(prompts: Sequence[Sequence[int]], pad: int) -> Values:
    """Texts in one matrix: each value (texts, tokens) int64."""
    length = max(map(len, prompts))
    ids = np.array([[*each, *[pad] * (length - len(each))] for each in prompts], dtype=np.int64)
    mask = np.array([[1] * len(each) + [0] * (length - len(each)) for each in prompts], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _decoded(model: Any, sessions: Mapping[str, Any], prompts: Sequence[Sequence[int]]) -> Iterator[OutputPair]:
    """Logits (tokens, vocabulary) of each text, and of each token that the model then writes, by keys and values kept so far.

    Every second text goes in with padding before it.
    """
    session = sessions["model"]
    for number, ids in enumerate(prompts):
        before = number % 2 * 2
        text = [0] * before + list(ids)
        mask = np.array([[0] * before + [1] * len(ids)], dtype=np.int64)
        values: Values = {"attention_mask": mask, **_nothing_kept(session)}
        exact = model(input_ids=torch.tensor([list(ids)]), use_cache=True, return_dict=True)
        new = np.array([text], dtype=np.int64)
        for _ in range(_WRITTEN):
            positions = np.maximum(values["attention_mask"].cumsum(1) - 1, 0)[:, -new.shape[1] :]
            found = _run(session, {**values, "input_ids": new, "position_ids": positions})
            logits = exact.logits[0].numpy()
            yield OutputPair(logits, found[LOGITS][0, -len(logits) :])
            values |= _kept(found)
            values["attention_mask"] = np.concatenate([values["attention_mask"], np.ones((1, 1), dtype=np.int64)], 1)
            token = int(logits[-1].argmax())
            new = np.array([[token]], dtype=np.int64)
            exact = _next(model, {"input_ids": torch.tensor([[token]])}, exact)


def _next(model: Any, named: Mapping[str, Any], before: Any) -> Any:
    return model(**named, **cache_option(model, cache_of(before)), use_cache=True, return_dict=True)


def _kept(found: Values) -> Values:
    """What a step returned to be kept, under the names by which the next takes it."""
    return {
        name.replace("present.", "past_key_values."): value
        for name, value in found.items()
        if name.startswith("present.")
    }


def _nothing_kept(session: Any) -> Values:
    """Keys and values of no token: each (1, heads, 0, size) float32."""
    found = {}
    for one in session.get_inputs():
        if one.name.startswith("past_key_values."):
            found[one.name] = np.zeros((1, one.shape[1], 0, one.shape[3]), dtype=np.float32)
    return found


def _translated(model: Any, sessions: Mapping[str, Any], prompts: Sequence[Sequence[int]]) -> Iterator[OutputPair]:
    """The encoder's hidden states of each text, or sound, and logits of each token that the model then writes."""
    start = getattr(model.generation_config, "decoder_start_token_id", None)
    start = model.config.decoder_start_token_id if start is None else start
    for values in _sources(model, prompts):
        named = {name: torch.from_numpy(value) for name, value in values.items()}
        states = model.get_encoder()(**named, return_dict=True)
        found = _run(sessions["encoder_model"], values)
        yield OutputPair(states.last_hidden_state[0].numpy(), found[HIDDEN][0], logits=False)
        session = sessions["decoder_model_merged"]
        fixed = {"encoder_hidden_states": found[HIDDEN], "encoder_attention_mask": values.get("attention_mask")}
        mask = {name: value for name, value in named.items() if name == "attention_mask"}
        kept, token, exact = _nothing_kept(session), int(start), None
        for number in count():
            new = torch.tensor([[token]])
            cached: dict[str, Any] = {} if exact is None else cache_option(model, cache_of(exact))
            exact = model(
                decoder_input_ids=new, encoder_outputs=states, **mask, **cached, use_cache=True, return_dict=True
            )
            step = {**fixed, **kept, "input_ids": new.numpy(), SWITCH: np.array([number > 0])}
            found = _run(session, step)
            logits = exact.logits[0].numpy()
            yield OutputPair(logits, found[LOGITS][0])
            if number + 1 == _WRITTEN:
                break
            kept, token = _kept(found), int(logits[-1].argmax())


def _sources(model: Any, prompts: Sequence[Sequence[int]]) -> Iterator[Values]:
    """What the encoder is given: texts, or for a model of speech random features (1, bins, frames)."""
    if model.main_input_name == "input_ids":
        for ids in prompts:
            given = np.array([list(ids)], dtype=np.int64)
            yield {"input_ids": given, "attention_mask": np.ones_like(given)}
        return
    generator = np.random.default_rng(0)
    shape = (1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    for _ in prompts[:2]:
        yield {model.main_input_name: generator.standard_normal(shape, dtype=np.float32)}
