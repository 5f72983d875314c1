"""Masks, scores and SparseGPT on numbers that can be checked by hand or by a slow loop."""

from __future__ import annotations

import numpy as np
import pytest

from langslice.errors import CheckpointError, PlanError
from langslice.sparsity.allocation import spread_shares
from langslice.sparsity.masks import lowest_of_groups, lowest_of_matrix, lowest_of_rows
from langslice.sparsity.request import SparsityRequest, allocation_shares, check_request
from langslice.sparsity.scores import input_weights, random_scores, weight_scores

TIED = np.random.default_rng(0).integers(0, 4, (50, 24)).astype(np.float32)
DISTINCT = np.random.default_rng(1).random((50, 24), dtype=np.float32)


def stable_rows(scores: np.ndarray, count: int) -> np.ndarray:
    mask = np.zeros(scores.shape, dtype=bool)
    for row, order in enumerate(np.argsort(scores, axis=1, kind="stable")):
        mask[row, order[:count]] = True
    return mask


@pytest.mark.parametrize("scores", [TIED, DISTINCT], ids=["tied", "distinct"])
@pytest.mark.parametrize("count", [0, 1, 7, 23, 24])
def test_rows_are_cut_as_a_stable_sort_would(scores, count):
    assert np.array_equal(lowest_of_rows(scores, count), stable_rows(scores, count))


def test_of_equal_scores_the_earlier_input_goes():
    assert lowest_of_rows(np.array([[3, 1, 2, 1]], dtype=np.float32), 1).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(("removed", "size"), [(2, 4), (1, 4), (4, 8), (1, 2), (3, 4)])
@pytest.mark.parametrize("scores", [TIED, DISTINCT], ids=["tied", "distinct"])
def test_groups_are_cut_as_a_stable_sort_of_each_would(scores, removed, size):
    found = lowest_of_groups(scores, removed, size)
    expected = stable_rows(scores.reshape(-1, size), removed).reshape(scores.shape)
    assert np.array_equal(found, expected)
    assert (found.reshape(50, -1, size).sum(axis=2) == removed).all()


def test_the_whole_matrix_has_one_threshold():
    scores = np.array([[1, 9], [2, 3]], dtype=np.float32)
    assert lowest_of_matrix(scores, 2).tolist() == [[True, False], [True, False]]


def test_wanda_by_hand():
    keep = np.array([4.0, 1.0, 9.0], dtype=np.float32)
    assert weight_scores(np.array([[1, -5, 1]], dtype=np.float32), input_weights(keep)).tolist() == [[2.0, 5.0, 3.0]]


def test_avoiding_by_hand():
    # |W| * keep norm^2 / avoid norm: the second input matters as much, and more to what is avoided.
    keep, avoid = np.array([4.0, 4.0], dtype=np.float32), np.array([1.0, 16.0], dtype=np.float32)
    assert input_weights(keep, avoid, 0.0).tolist() == [4.0, 1.0]
    assert input_weights(keep, avoid, 3.0)[0] == pytest.approx(2.0)


def test_unused_inputs_never_make_a_score_that_is_not_a_number():
    keep, avoid = np.array([0.0, 2.0, 3e38], dtype=np.float32), np.array([0.0, 0.0, 1e-30], dtype=np.float32)
    factors = input_weights(keep, avoid, 0.0)
    assert factors[0] == 0 and np.isfinite(factors).all()
    assert factors[1] > 1e30


def test_random_scores_do_not_depend_on_the_window():
    whole = random_scores("a.weight", slice(0, 8), 5, seed=3)
    assert np.array_equal(whole[4:6], random_scores("a.weight", slice(4, 6), 5, seed=3))
    assert not np.array_equal(whole, random_scores("a.weight", slice(0, 8), 5, seed=4))
    assert not np.array_equal(whole, random_scores("b.weight", slice(0, 8), 5, seed=3))


def test_outliers_spread_shares_around_the_mean():
    assert spread_shares({"a": 0.0, "b": 0.1}, 0.5) == {"a": 0.58, "b": 0.42}
    assert spread_shares({"a": 0.2, "b": 0.2}, 0.5) == {"a": 0.5, "b": 0.5}
    with pytest.raises(PlanError, match=r"allocation 'outliers' at sparsity 0.05 would remove -0.03 to 0.13"):
        spread_shares({"a": 0.0, "b": 0.1}, 0.05)


def test_sparsegpt_removes_what_was_asked_and_beats_the_mask_alone():
    import torch

    from langslice.sparsity.sparsegpt import prune_by_reconstruction

    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn((200, 200), generator=generator)
    inputs = torch.randn((4096, 200), generator=generator) @ mixing  # correlated, or there is nothing to make good
    before = torch.randn((64, 200), generator=generator)
    after = before.clone()
    prune_by_reconstruction(after, inputs.T @ inputs / 4096, 0.5, None)
    assert (after == 0).sum() == int(64 * 128 * 0.5) + int(64 * 72 * 0.5)
    masked = torch.where(after == 0, 0.0, before)
    wanda = before.clone()
    norms = input_weights((inputs**2).sum(0).numpy())
    wanda[torch.from_numpy(lowest_of_rows(weight_scores(before.numpy().copy(), norms), 100))] = 0.0

    def error(weight: torch.Tensor) -> float:
        return float((inputs @ (weight - before).T).square().sum())

    assert error(after) < 0.8 * error(masked)
    assert error(after) < 0.8 * error(wanda)


def test_sparsegpt_on_inputs_without_correlation_only_masks():
    import torch

    from langslice.sparsity.sparsegpt import prune_by_reconstruction

    weight = torch.randn((6, 160), generator=torch.Generator().manual_seed(0))
    expected = weight.clone()
    for columns in (slice(0, 128), slice(128, 160)):
        part = expected[:, columns]
        part[torch.from_numpy(lowest_of_matrix(part.abs().numpy().copy(), int(part.numel() * 0.25)))] = 0.0
    prune_by_reconstruction(weight, torch.eye(160) * 7.0, 0.25, None)
    assert torch.equal(weight, expected)


def test_sparsegpt_groups_and_dead_inputs():
    import torch

    from langslice.sparsity.sparsegpt import prune_by_reconstruction

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((512, 24), generator=generator)
    inputs[:, 5] = 0.0
    weight = torch.randn((10, 24), generator=generator)
    prune_by_reconstruction(weight, inputs.T @ inputs, 0.5, (2, 4))
    assert ((weight.reshape(10, 6, 4) == 0).sum(dim=2) == 2).all()
    assert (weight[:, 5] == 0).all()
    with pytest.raises(CheckpointError, match="the inputs of up_proj cannot be inverted for SparseGPT"):
        prune_by_reconstruction(weight, -torch.eye(24), 0.5, None, "up_proj")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"sparsity": 1.0}, "sparsity must lie between 0 and 1, found 1.0"),
        ({"sparsity": 0.0}, "sparsity must lie between 0 and 1, found 0.0"),
        ({"sparsity": float("nan")}, "sparsity must lie between 0 and 1, found nan"),
        ({}, "no sparsity was given"),
        ({"sparsity": 0.5, "pattern": "2:3:4"}, "unknown pattern '2:3:4'"),
        ({"sparsity": 0.3, "pattern": "2:4"}, "pattern 2:4 zeroes 0.5 of the weights, not the 0.3 asked for"),
        ({"pattern": "4:4"}, "pattern 4:4 would leave no weight"),
        ({"sparsity": 0.3, "score": "l1"}, "unknown score 'l1'"),
        ({"sparsity": 0.3, "score": "wanda"}, "score 'wanda' needs calibration data, and none was given"),
        ({"sparsity": 0.3, "score": "magnitude", "avoid_demos": ("x",)}, "calibration data to avoid has no meaning"),
        (
            {"sparsity": 0.3, "score": "random", "keep_demos": ("x",)},
            "score 'random' does not look at calibration data",
        ),
        ({"sparsity": 0.3, "score": "random", "epsilon": -1.0}, "epsilon must be a number that is not negative"),
        ({"sparsity": 0.3, "score": "random", "allocation": "*.mlp=2"}, "is not understood at '\\*.mlp=2'"),
        ({"pattern": "2:4", "score": "random", "allocation": "*=0.1"}, "pattern 2:4 fixes the share of every layer"),
        (
            {"sparsity": 0.3, "score": "random", "allocation": "outliers"},
            "allocation 'outliers' needs calibration data",
        ),
        ({"sparsity": 0.3, "keep_demos": ("x",), "compute": "int8"}, "unknown type to compute in 'int8'"),
        (
            {"sparsity": 0.3, "keep_demos": ("x",), "max_tokens": 0},
            "calibration prompts of at most 0 tokens hold nothing",
        ),
    ],
)
def test_requests_that_are_refused(entries, message):
    with pytest.raises(PlanError, match=message):
        check_request(SparsityRequest(**entries))


def test_an_allocation_lists_patterns():
    assert allocation_shares("*.mlp.*=0.4, *.0.*=0.1") == {"*.mlp.*": 0.4, "*.0.*": 0.1}
    assert allocation_shares("uniform") == {}


def test_importing_the_room_loads_neither_torch_nor_transformers():
    import subprocess
    import sys

    code = (
        "import langslice.sparsity, langslice.demonstrations, sys; print({'torch', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
