"""Zero-shot choice: every label's text after the prompt, scored by the model; the highest decides.

Label scores, for tokens t_1 … t_n of the filled prompt of which those from c on are the candidate's:
    paper        sum of log p(t_2 … t_n) / n                            Kim et al. 2024, arXiv 2409.16911
    sum          sum of log p(t_c … t_n)                                lm-evaluation-harness `acc`
    normalised   sum / bytes of the candidate in UTF-8                  lm-evaluation-harness `acc_bytes`
    first_token  log p of the first token at which the candidates part
    pmi          sum - the same sum after the neutral prompt            Holtzman et al. 2021, arXiv 2104.08315
An encoder-decoder reads the prompt and writes the candidate, so that n counts the candidate's tokens only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langslice.errors import TaskError
from langslice.evaluation.choice_tasks import Example
from langslice.evaluation.label_scores import score_sequences, score_with_encoder
from langslice.evaluation.loaded_model import Loaded, encode_texts
from langslice.evaluation.measurement import Measurement, mean_of

# Scores nearer than this are a tie: the same token may be scored in two batches, with another rounding.
_TIE = 1e-6


@dataclass(frozen=True)
class _Filled:
    """One question as tokens.

    groups  token ids of each candidate, after the prompt for causal models
    starts  index of each candidate's first own token
    cut     tokens left out of the prompt because the model does not read so many
    """

    groups: list[list[int]]
    starts: list[int]
    cut: int


def measure_choice(
    loaded: Loaded, task: str, language: str, examples: Sequence[Example], kinds: Sequence[str]
) -> list[Measurement]:
    """Accuracy of a model on a task, once for each kind of label score.

    kinds    of LABEL_SCORES
    Returns  accuracy; a tie among k labels that holds the right one counts 1 / k
    """
    scores = label_scores(loaded, (task, language), examples, kinds)
    cut = loaded.memo[task, language, "cut"]
    chance = float(np.mean([1 / len(example.candidates) for example in examples]))
    answers = Counter(example.answer for example in examples)
    found = []
    for kind in kinds:
        credit = [_credit(values, example.answer) for values, example in zip(scores[kind], examples, strict=True)]
        predicted = Counter(int(values.argmax()) for values in scores[kind])
        details = {
            "chance": chance, "largest_label": max(answers.values()) / len(examples), "prompts_cut": cut,
            "predicted": [predicted[label] for label in range(len(examples[0].candidates))],
        }  # fmt: skip
        found.append(mean_of(task, language, f"accuracy ({kind})", credit, **details))
    return found


def label_scores(
    loaded: Loaded, name: tuple[str, str], examples: Sequence[Example], kinds: Sequence[str]
) -> dict[str, list[np.ndarray]]:
    """Scores of every label of every example, by kind; what was computed before under this name is not computed again.

    name     task and language
    Returns  kind -> for each example (labels,) float64, the higher the likelier
    """
    missing = [kind for kind in kinds if (*name, kind) not in loaded.memo]
    plain = [kind for kind in missing if kind != "pmi"]
    if plain or ("pmi" in missing and (*name, "sum") not in loaded.memo):
        computed, cut = _plain_scores(loaded, examples)
        loaded.memo.update({(*name, kind): values for kind, values in computed.items()})
        loaded.memo[(*name, "cut")] = cut
    if "pmi" in missing:
        loaded.memo[(*name, "pmi")] = _pmi(loaded, examples, loaded.memo[(*name, "sum")])
    return {kind: loaded.memo[(*name, kind)] for kind in kinds}


def _plain_scores(loaded: Loaded, examples: Sequence[Example]) -> tuple[dict[str, list[np.ndarray]], int]:
    if loaded.kind == "encoder":
        raise TaskError("zero-shot choice needs a model that writes, and this is an encoder", "use sts or bitext")
    if loaded.kind == "seq2seq":
        return _seq2seq_scores(loaded, examples), 0
    filled = fill_examples(loaded, examples)
    tokens = score_sequences(loaded, [each.groups for each in filled])
    scores: dict[str, list[np.ndarray]] = {"paper": [], "sum": [], "normalised": [], "first_token": []}
    for example, each, values in zip(examples, filled, tokens, strict=True):
        parted = _parting(each.groups)
        sums = np.array([float(v[s - 1 :].sum(dtype=np.float64)) for v, s in zip(values, each.starts, strict=True)])
        scores["paper"].append(np.array([v.sum(dtype=np.float64) / (len(v) + 1) for v in values]))
        scores["sum"].append(sums)
        scores["normalised"].append(sums / _sizes(example))
        scores["first_token"].append(np.array([float(v[max(parted, 1) - 1]) for v in values]))
    return scores, sum(each.cut > 0 for each in filled)


def _seq2seq_scores(loaded: Loaded, examples: Sequence[Example]) -> dict[str, list[np.ndarray]]:
    prompts = loaded.tokenizer([example.prompt for example in examples]).input_ids
    targets = [loaded.tokenizer(text_target=list(example.candidates)).input_ids for example in examples]
    tokens = score_with_encoder(loaded, prompts, targets)
    scores: dict[str, list[np.ndarray]] = {"paper": [], "sum": [], "normalised": [], "first_token": []}
    for example, groups, values in zip(examples, targets, tokens, strict=True):
        sums = np.array([float(v.sum(dtype=np.float64)) for v in values])
        scores["sum"].append(sums)
        scores["paper"].append(sums / [len(v) for v in values])
        scores["normalised"].append(sums / _sizes(example))
        scores["first_token"].append(np.array([float(v[_parting(groups)]) for v in values]))
    return scores


def _pmi(loaded: Loaded, examples: Sequence[Example], sums: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Sums after the prompt minus sums after the neutral prompt; each neutral text is scored once."""
    if any(not example.neutral.strip() for example in examples):
        raise TaskError("the pmi score needs a prompt with words of its own", "give the task a `neutral` prompt")
    texts = list(dict.fromkeys((example.neutral, text) for example in examples for text in example.candidates))
    alone = [Example(neutral, (text,), 0, "") for neutral, text in texts]
    found, _ = _plain_scores(loaded, alone)
    after_neutral = dict(zip(texts, (float(values[0]) for values in found["sum"]), strict=True))
    return [
        values - [after_neutral[example.neutral, text] for text in example.candidates]
        for example, values in zip(examples, sums, strict=True)
    ]


def fill_examples(loaded: Loaded, examples: Sequence[Example]) -> list[_Filled]:
    """Encode every filled prompt whole, as the model's tokenizer does by default, and find where candidates begin."""
    prompts = encode_texts(loaded, [example.prompt for example in examples])
    flat = encode_texts(loaded, [example.prompt + text for example in examples for text in example.candidates])
    filled: list[_Filled] = []
    place = 0
    for example, prompt in zip(examples, prompts, strict=True):
        groups = flat[place : place + len(example.candidates)]
        place += len(example.candidates)
        starts = [max(1, _agreeing(prompt, ids)) for ids in groups]
        if any(start >= len(ids) for ids, start in zip(groups, starts, strict=True)):
            raise TaskError(
                f"a candidate adds no token to its prompt: {', '.join(repr(text[:40]) for text in example.candidates)}",
                "end `prompt` before a space",
            )
        filled.append(_shortened(groups, starts, loaded.max_length))
    return filled


def _shortened(groups: list[list[int]], starts: list[int], limit: int | None) -> _Filled:
    """Truncate the prompt after its first token where the model's positions do not reach, equally for all candidates."""
    excess = 0 if limit is None else max(len(ids) for ids in groups) - limit
    if excess <= 0:
        return _Filled(groups, starts, 0)
    if excess >= min(starts):
        raise TaskError(f"a candidate alone is longer than the {limit} tokens that the model reads", "shorten the rows")
    kept = [ids[:1] + ids[1 + excess :] for ids in groups]
    return _Filled(kept, [max(1, start - excess) for start in starts], excess)


def _agreeing(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of tokens that two sequences begin with alike."""
    limit = min(len(first), len(second))
    return next((i for i in range(limit) if first[i] != second[i]), limit)


def _parting(groups: Sequence[Sequence[int]]) -> int:
    """Index of the first token at which candidates part; the last common one where one is the beginning of another."""
    shortest = min(len(ids) for ids in groups)
    ordered = sorted(list(ids) for ids in groups)
    part = _agreeing(ordered[0], ordered[-1]) if len(groups) > 1 else 0
    return min(part, shortest - 1)


def _sizes(example: Example) -> np.ndarray:
    return np.array([max(len(text.encode()), 1) for text in example.candidates], dtype=np.float64)


def _credit(scores: np.ndarray, answer: int) -> float:
    best = scores >= scores.max() - _TIE
    return float(best[answer]) / float(best.sum())


def rankings(scores: Mapping[str, Sequence[np.ndarray]], kind: str) -> list[list[int]]:
    """Labels of every example, the likeliest first; ties in the order of the task.

    scores  kind -> for each example (labels,) float64, as `label_scores` gives them
    """
    return [np.argsort(-values, kind="stable").tolist() for values in scores[kind]]
