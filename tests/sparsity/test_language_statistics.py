"""M-Wanda's criterion and the shares by layer, against float64 loops on a tiny model; numbers by hand; what is refused."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from langslice.demonstrations import Demonstration
from langslice.demonstrations.tokens import load_prompts
from langslice.errors import PlanError
from langslice.sparsity import SparsityRequest, prune_copy
from langslice.sparsity.allocation import SPREAD, spread_shares
from langslice.sparsity.language_statistics import language_factors, rank_correlation
from langslice.sparsity.request import check_request
from tests.sparsity.test_sparsify import load, stacks, zeros_of

KOREAN = (
    Demonstration("mono", ("모두 the test", "a"), "\n", ("ko",)),
    Demonstration("mono", ("sum 모두",), "", ("ko",)),
)
ENGLISH = (Demonstration("mono", ("the lamb and sing ted", "mend net"), "\n", ("en",)),)
FRENCH = (Demonstration("mono", ("nest lime some tent and the lemon no let sum",), "", ("fr",)),)
KEEP = KOREAN + ENGLISH + FRENCH
LAYERS = 3


def naive_statistics(folder: Path, model, block: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Layer -> root mean squares and probabilities, (languages, inputs) each, token by token in float64."""
    import torch

    found: dict[str, dict[str, list[np.ndarray]]] = {}
    linears = {f"{block}.{name}": one for name, one in model.get_submodule(block).named_modules()
               if isinstance(one, torch.nn.Linear)}  # fmt: skip
    for prompt in load_prompts(folder, {"keep": KEEP}, max_tokens=512):
        hooks = [
            module.register_forward_pre_hook(
                lambda _, given, name=name, prompt=prompt: (
                    found.setdefault(name, {})
                    .setdefault(prompt.languages[0], [])
                    .extend(given[0].detach().double().numpy().reshape(-1, given[0].shape[-1]))
                    and None
                )
            )
            for name, module in linears.items()
        ]
        with torch.no_grad():
            model(**prompt.inputs())
        for hook in hooks:
            hook.remove()
    done = {}
    for name, languages in found.items():
        norms, active = [], []
        for rows in languages.values():
            squares, count = np.zeros(len(rows[0])), np.zeros(len(rows[0]))
            for row in rows:
                middle = sum(abs(value) for value in row) / len(row)
                for at, value in enumerate(row):
                    squares[at] += value * value
                    count[at] += abs(value) > middle
            norms.append(np.sqrt(squares / len(rows)))
            active.append(count / len(rows))
        done[name] = (np.array(norms), np.array(active))
    return done


def naive_mask(
    weight: np.ndarray, norms: np.ndarray, active: np.ndarray, variation: float, activity: float
) -> np.ndarray:
    """Half of each row, one input after another."""
    mask = np.zeros(weight.shape, dtype=bool)
    factors = []
    for at in range(weight.shape[1]):
        mean = sum(norms[:, at]) / len(norms)
        deviation = (sum((one - mean) ** 2 for one in norms[:, at]) / len(norms)) ** 0.5
        factors.append((mean + variation * deviation) * (1 + activity * sum(active[:, at]) / len(active)))
    for row, values in enumerate(weight):
        scores = [abs(value) * factor for value, factor in zip(values, factors, strict=True)]
        for at in sorted(range(len(scores)), key=scores.__getitem__)[: len(scores) // 2]:
            mask[row, at] = True
    return mask


@pytest.mark.parametrize(("variation", "activity"), [(1.0, 1.0), (3.0, 0.0), (0.0, 2.0)])
def test_masks_equal_a_naive_reimplementation(zoo, tmp_path, variation, activity):
    import torch

    request = SparsityRequest(
        0.5, keep_demos=KEEP, score="mwanda", variation_weight=variation, activity_weight=activity
    )
    done = prune_copy(zoo("llama"), tmp_path / "out", request)
    assert done.prompts == {"keep ko": 2, "keep en": 1, "keep fr": 1}
    model = load(zoo("llama"))
    for block in stacks(model):
        for name, (norms, active) in naive_statistics(zoo("llama"), model, block).items():
            weight = model.get_submodule(name).weight
            mask = naive_mask(weight.detach().double().numpy(), norms, active, variation, activity)
            assert np.array_equal(zeros_of(tmp_path / "out", f"{name}.weight"), mask), name
            with torch.no_grad():
                weight[torch.from_numpy(mask)] = 0.0


def naive_correlation(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [[sum(b < a for b in x) + (sum(b == a for b in x) - 1) / 2 for a in x] for x in (one, other)]
    return float(np.corrcoef(ranks)[0, 1])


@pytest.mark.parametrize("score", ["wanda", "mwanda"])
def test_shares_by_layer_equal_a_naive_reimplementation(zoo, tmp_path, score):
    done = prune_copy(
        zoo("llama"), tmp_path / "out", SparsityRequest(0.5, keep_demos=KEEP, score=score, allocation="languages")
    )
    model = load(zoo("llama"))
    correlations = []
    for block in stacks(model):
        found = naive_statistics(zoo("llama"), model, block)
        correlations.append(
            np.mean([
                naive_correlation(norms[a], norms[b]) for norms, _ in found.values() for a, b in combinations(range(3), 2)
            ])
        )  # fmt: skip
    assert len(set(correlations)) == LAYERS
    low, high = min(correlations), max(correlations)
    scaled = [(one - low) / (high - low) * 2 * SPREAD for one in correlations]
    expected = {str(at): 0.5 - one + sum(scaled) / LAYERS for at, one in enumerate(scaled)}
    asked = {name.split(".")[2]: tensor.asked for name, tensor in done.tensors.items()}
    assert asked == pytest.approx(expected, abs=1e-6)
    assert sum(asked.values()) / LAYERS == pytest.approx(0.5)
    assert asked[str(int(np.argmax(correlations)))] == min(asked.values())


def test_factors_by_hand():
    norms, active = np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[0.5, 0.0], [0.0, 1.0]])
    assert language_factors(norms, active, 0.0, 0.0).tolist() == [2.0, 2.0]
    assert language_factors(norms, active, 1.0, 0.0).tolist() == [3.0, 2.0]
    assert language_factors(norms, active, 0.0, 1.0).tolist() == [2.5, 3.0]
    assert language_factors(norms, active, 1.0, 2.0).tolist() == [4.5, 4.0]


def test_correlations_by_hand():
    rising = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(np.stack([rising, rising**9])) == pytest.approx(1.0)
    assert rank_correlation(np.stack([rising, -rising])) == pytest.approx(-1.0)
    assert rank_correlation(np.stack([rising, rising, -rising])) == pytest.approx(-1 / 3)
    assert rank_correlation(np.stack([rising, np.ones(4)])) == 0.0
    tied = np.array([1.0, 2.0, 2.0, 9.0])
    assert rank_correlation(np.stack([rising, tied])) == pytest.approx(naive_correlation(rising, tied))


def test_languages_are_named_when_shares_leave_their_range():
    with pytest.raises(PlanError, match=r"allocation 'languages' at sparsity 0.05 would remove -0.03 to 0.13"):
        spread_shares({"a": 0.0, "b": 0.1}, 0.05, "languages")


@pytest.mark.parametrize("how", [{"score": "mwanda"}, {"allocation": "languages"}], ids=["mwanda", "languages"])
@pytest.mark.parametrize(
    ("demos", "message"),
    [
        (KOREAN, "compares languages, and all calibration data is in one: ko"),
        (KOREAN + (Demonstration("mono", ("the",)),), r"names one language\n  demonstration 2 names none"),
        (KOREAN + (Demonstration("mt", ("the",), languages=("fr", "en")),), r"demonstration 2 names 2: fr, en"),
    ],
)
def test_calibration_data_that_names_no_two_languages_is_refused(zoo, tmp_path, how, demos, message):
    with pytest.raises(PlanError, match=message):
        prune_copy(zoo("llama"), tmp_path / "out", SparsityRequest(0.5, keep_demos=demos, **how))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"score": "mwanda"}, "score 'mwanda' needs calibration data, and none was given"),
        ({"score": "mwanda", "keep_demos": ("x",), "avoid_demos": ("y",)}, "calibration data to avoid has no meaning"),
        ({"score": "magnitude", "allocation": "languages"}, "allocation 'languages' needs calibration data"),
        ({"keep_demos": ("x",), "variation_weight": 2.0}, "variation_weight has no meaning for score 'wanda'"),
        ({"keep_demos": ("x",), "activity_weight": 0.0}, "activity_weight has no meaning for score 'wanda'"),
        ({"score": "mwanda", "keep_demos": ("x",), "activity_weight": -1.0}, "activity_weight must be a number"),
        ({"score": "mwanda", "keep_demos": ("x",), "variation_weight": float("inf")}, "variation_weight must be a"),
        (
            {"sparsity": None, "pattern": "2:4", "keep_demos": ("x",), "allocation": "languages"},
            "pattern 2:4 fixes the share of every layer; allocation 'languages' would change it",
        ),
    ],
)
def test_requests_that_are_refused(entries, message):
    with pytest.raises(PlanError, match=message):
        check_request(SparsityRequest(**{"sparsity": 0.3, **entries}))


def test_a_stopped_run_goes_on_with_the_shares_it_had(zoo, tmp_path, monkeypatch):
    from langslice.sparsity import journal

    request = SparsityRequest(0.5, keep_demos=KEEP, score="mwanda", allocation="languages")
    prune_copy(zoo("llama"), tmp_path / "whole", request)
    original, calls = journal._apply, []

    def dying(edits):
        calls.append(edits)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(edits)

    monkeypatch.setattr(journal, "_apply", dying)
    with pytest.raises(KeyboardInterrupt):
        prune_copy(zoo("llama"), tmp_path / "out", request, work=tmp_path / "work")
    monkeypatch.setattr(journal, "_apply", original)
    assert prune_copy(zoo("llama"), tmp_path / "out", request, work=tmp_path / "work").resumed == 2
    whole, out = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out"))
    assert whole == out


def test_experts_that_one_language_does_not_reach_are_scored_by_the_others(zoo, tmp_path):
    request = SparsityRequest(0.5, keep_demos=KEEP, score="mwanda", linears=("*.experts.*",), allocation="languages")
    done = prune_copy(zoo("qwen3_moe"), tmp_path / "out", request)
    for name, tensor in done.tensors.items():
        assert zeros_of(tmp_path / "out", name).sum() == tensor.zeros > 0


def test_a_cluster_adds_up_the_same(zoo, tmp_path):
    """What machines send of each prompt, added as one machine adds it."""
    from langslice.sparsity.allocation import choose_linears
    from langslice.sparsity.block_pass import walk
    from langslice.sparsity.cluster_calibration import Walker, _added
    from langslice.sparsity.language_statistics import by_language
    from langslice.sparsity.skeleton import Skeleton

    request = SparsityRequest(0.5, keep_demos=KEEP, score="mwanda")
    prompts = by_language(load_prompts(zoo("llama"), {"keep": KEEP}, max_tokens=512), request)
    walkers = [
        Walker(str(zoo("llama")), (), prompts[at::2], (), "float32", offload=False, pack=False, with_activity=True)
        for at in range(2)
    ]
    skeleton = Skeleton(zoo("llama"))
    chosen = choose_linears(skeleton, ())
    visit = next(walk(skeleton, prompts, watched=chosen, with_activity=True, pack=False))
    found = _added(visit.block, chosen(visit.block), prompts, [one.observe()[1] for one in walkers], with_activity=True)
    assert found is not None and visit.statistics is not None
    assert found.kept() == visit.statistics.kept() == ("keep ko", "keep en", "keep fr")
    for linear in chosen(visit.block):
        for condition in found.kept():
            ours, alone = found.activity(condition, linear), visit.statistics.activity(condition, linear)
            assert np.array_equal(ours, alone)
