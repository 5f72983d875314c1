"""A cut GGUF file against its source: every byte that stays; and in llama.cpp ids of text, outputs, and what is written on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

import numpy as np

from langslice.formats.gguf_in.container import GgufSource
from langslice.formats.gguf_in.metadata import KeptParts, vocabulary_size
from langslice.formats.gguf_in.parts import TensorCut
from langslice.formats.gguf_in.write import differing
from langslice.formats.llama_cpp import RUNTIME, Runtime, is_installed, running
from langslice.verification.check import MAX_EXAMPLES, Check

Texts = Mapping[str, Callable[[], Iterable[str]]]
_PROMPTS_EACH, _PROMPTS, _LONGEST, _GREEDY = 3, 8, 48, 16
# Likeliest tokens that are asked for, of all tokens and of those that stay.
_OF_SOURCE, _OF_RESULT, _LEAST_COMPARED = 20_000, 1_000, 20
# Of the largest log probability, or the largest number of a vector: products of fewer rows may be added up in another order.
_TOLERANCE = 2.0**-12


@dataclass(frozen=True)
class CutPair:
    """A source and what was made of it.

    kept     what stays
    cuts     every tensor of the result
    encoder  gives vectors
    plain    old id of a token that is whole characters, and stays
    """

    source: GgufSource
    result: GgufSource
    kept: KeptParts
    cuts: Sequence[TensorCut]
    encoder: bool
    plain: int

    @property
    def comparable(self) -> bool:
        """Whether both compute the same: nothing but tokens went."""
        return self.kept.layers is None and not self.kept.sizes

    def new_ids(self, ids: Sequence[int]) -> list[int]:
        """New ids; -1 for a token that went."""
        rows = self.kept.rows
        if rows is None:
            return list(ids)
        old = np.asarray(ids, dtype=np.int64)
        places = np.minimum(np.searchsorted(rows, old), len(rows) - 1)
        return [int(each) for each in np.where(rows[places] == old, places, -1)]


@dataclass(frozen=True)
class _Said:
    """What llama.cpp makes of one file."""

    ids: Mapping[str, list[int]]
    prompts: Sequence[Sequence[int]]
    outputs: Sequence[np.ndarray]
    greedy: Sequence[list[int]]


def check_cut(pair: CutPair, texts: Texts) -> list[Check]:
    """Every check that can be made here; those that need llama.cpp are named where it is not installed."""
    same, wrong = differing(pair.source, pair.result, pair.cuts)
    detail = f"{same:,} bytes of {len(pair.cuts)} tensors are those of the source"
    checks = [Check("bytes", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))]
    if not is_installed():
        absent = f"not run: {RUNTIME} is not installed (pip install 'langslice[gguf]')"
        return [*checks, *(Check(name, None, absent) for name in ("tokens", "outputs", "greedy"))]
    lines = list(dict.fromkeys(line for read in texts.values() for line in read()))
    before = _ask_source(pair, lines, texts)
    with _loaded(pair.result, pair.encoder) as runtime:
        checks.append(_check_tokens(pair, runtime, before))
        if not pair.comparable:
            return [*checks, _check_runs(pair, runtime, before)]
        checks.append(_check_outputs(pair, runtime, before))
        if not pair.encoder:
            checks.append(_check_greedy(pair, runtime, before))
    return checks


def _loaded(file: GgufSource, encoder: bool) -> AbstractContextManager[Runtime]:
    pooled = f"{file.architecture}.pooling_type" in file.entries
    return running(file.path, encoder=encoder, pooled=pooled)


def _ask_source(pair: CutPair, lines: Sequence[str], texts: Texts) -> _Said:
    """Ids of all lines; outputs and continuations of some whose tokens all stay."""
    size = vocabulary_size(pair.source)
    with _loaded(pair.source, pair.encoder) as runtime:
        ids = {line: runtime.ids(line) for line in lines}
        covered = [
            ids[line][: None if pair.encoder else _LONGEST]
            for read in texts.values()
            for line in islice(
                (each for each in read() if min(pair.new_ids(ids[each]), default=-1) >= 0), _PROMPTS_EACH
            )
        ]
        prompts = [each for each in covered if 2 < len(each) <= 256][:_PROMPTS]
        outputs, greedy = [], []
        for prompt in prompts if pair.comparable else ():
            if pair.encoder:
                outputs.append(runtime.vector(prompt))
                continue
            outputs.append(runtime.log_probabilities(prompt, size, min(size, _OF_SOURCE), pair.plain))
            greedy.append(runtime.greedy(prompt, _GREEDY))
    return _Said(ids, prompts, outputs, greedy)


def _check_tokens(pair: CutPair, runtime: Runtime, before: _Said) -> Check:
    """Ids of every line whose tokens all stay; of the others, that none is lost without a word."""
    covered, wrong = 0, []
    for line, ids in before.ids.items():
        expected = pair.new_ids(ids)
        if min(expected, default=0) < 0:
            continue
        covered += 1
        found = runtime.ids(line)
        if found != expected:
            wrong.append(f"{line!r}: {found}, expected {expected}")
    detail = (
        f"{covered - len(wrong):,} of {covered:,} lines whose tokens are all kept have the same tokens in llama.cpp; "
        f"{len(before.ids) - covered:,} lines use dropped ones"
    )
    return Check("tokens", covered > 0 and not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))


def _check_outputs(pair: CutPair, runtime: Runtime, before: _Said) -> Check:
    """Logits of the tokens that stay, up to the constant that the dropped ones' share makes; or vectors."""
    size = vocabulary_size(pair.result)
    errors, compared = [], []
    for prompt, expected in zip(before.prompts, before.outputs, strict=True):
        ids = pair.new_ids(prompt)
        if pair.encoder:
            found = runtime.vector(ids)
            errors.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
            continue
        kept = expected if pair.kept.rows is None else expected[pair.kept.rows]
        found = runtime.log_probabilities(ids, size, min(size, _OF_RESULT), pair.new_ids([pair.plain])[0])
        both = ~(np.isnan(found) | np.isnan(kept))
        shift = (found - kept)[both]
        compared.append(int(both.sum()))
        errors.append(float(np.ptp(shift) / np.abs(kept[both]).max()) if shift.size else np.inf)
    enough = pair.encoder or (bool(compared) and min(compared) >= min(_LEAST_COMPARED, size // 2))
    what = "vectors" if pair.encoder else f"logits of at least {min(compared, default=0):,} kept tokens each"
    detail = (
        f"{what} after {len(errors)} texts differ by at most {max(errors, default=0):.1e} of the largest, "
        f"of which {_TOLERANCE:.1e} are allowed"
    )
    return Check("outputs", bool(errors) and enough and max(errors) <= _TOLERANCE, detail)


def _check_greedy(pair: CutPair, runtime: Runtime, before: _Said) -> Check:
    """The likeliest tokens, one after the other, up to the first of the source's that went."""
    compared, ended, wrong = 0, 0, []
    for prompt, tokens in zip(before.prompts, before.greedy, strict=True):
        expected = pair.new_ids(tokens)
        gone = expected.index(-1) if -1 in expected else len(expected)
        ended += gone < len(expected)
        found = runtime.greedy(pair.new_ids(prompt), _GREEDY)
        compared += gone
        if found[:gone] != expected[:gone]:
            wrong.append(f"after {prompt}: {found[:gone]}, expected {expected[:gone]}")
    detail = (
        f"{len(before.prompts) - len(wrong)} of {len(before.prompts)} texts continue alike, {compared:,} tokens in all"
    )
    if ended:
        detail += f"; in {ended} the source comes to a token that was dropped, and was compared up to there"
    return Check("greedy", not wrong and bool(before.prompts), detail, tuple(wrong[:MAX_EXAMPLES]))


def _check_runs(pair: CutPair, runtime: Runtime, before: _Said) -> Check:
    """That llama.cpp loads a file of fewer layers, heads or neurons, and computes numbers."""
    size = vocabulary_size(pair.result)
    finite = True
    for prompt in before.prompts:
        ids = pair.new_ids(prompt)
        if pair.encoder:
            finite &= bool(np.isfinite(runtime.vector(ids)).all())
        else:
            found = runtime.log_probabilities(ids, size, min(size, _OF_RESULT), pair.new_ids([pair.plain])[0])
            finite &= bool(np.isfinite(found).any())
    detail = f"llama.cpp loads it and computes numbers for {len(before.prompts)} texts; the source, which has more parts, others"
    return Check("runs", finite and bool(before.prompts), detail)
