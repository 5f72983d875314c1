"""Conditions against each other: languages together by hand, the paired test a bootstrap of its own, spreads over seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from langslice.evaluation.measurement import Measurement, mean_of
from langslice.evaluation.statistics import difference
from langslice.reproduction.comparisons import (
    Condition,
    against_others,
    change_text,
    changes,
    over_seeds,
    over_sparsities,
    pooled,
)
from langslice.reproduction.kim2024 import tabulated
from langslice.sweeps.result import Finished, Sweep

METRICS = {"Loss": ("translation_loss", "bits"), "Accuracy": ("xcopa", "accuracy")}
RNG = np.random.default_rng(0)
BASE = RNG.normal(100, 10, 40)


def finished(shift, noise=1.0):
    """A run whose loss is `shift` above the base's in both languages, and whose accuracy is none of it."""
    measured = []
    for number, language in enumerate(("fr-en", "zh-en")):
        bits = BASE + shift + np.random.default_rng(number).normal(0, noise, 40)
        items = np.stack([bits, np.full(40, 100.0)], axis=1)
        measured.append(Measurement("translation_loss", language, "bits", "ratio", items, "lower"))
    measured.append(mean_of("xcopa", "zh", "accuracy", [0, 1] * 20))
    return Finished(None, "k", {"measured": [one.to_json() for one in measured]}, "", False)


def swept(*shifts):
    return Sweep(None, tuple(finished(shift) for shift in shifts))


def test_languages_together_are_added_line_by_line():
    one = Measurement("t", "fr-en", "m", "ratio", np.array([[2.0, 4.0], [1.0, 1.0]]))
    two = Measurement("t", "zh-en", "m", "ratio", np.array([[4.0, 4.0], [3.0, 1.0]]))
    both = pooled([one, two])
    assert both.items.tolist() == [[6.0, 8.0], [4.0, 2.0]]
    assert both.value == 1.0
    assert pooled([mean_of("t", "a", "m", [0, 1]), mean_of("t", "b", "m", [1, 1])]).items.tolist() == [[0.5], [1.0]]
    assert pooled([one]) is None
    assert pooled([one, Measurement("t", "ko-en", "m", "ratio", np.ones((3, 2)))]) is None
    assert pooled([Measurement("t", code, "m", "spearman", np.ones((2, 2))) for code in "ab"]) is None


def test_changes_are_those_of_the_paired_bootstrap():
    done = swept(0.0, 5.0)
    sheets = changes(done, ("unpruned", "mt fr-en"), METRICS)
    assert [sheet.title for sheet in sheets] == ["Loss: change from unpruned", "Accuracy: change from unpruned"]
    assert sheets[0].columns == ("fr-en", "zh-en", "all")
    first, second = (np.array(run.result["measured"][0]["items"]) for run in done.runs)
    assert sheets[0].rows[0][1][0] == change_text(difference("ratio", first, second), "bits")
    assert sheets[0].rows[0][1][2].startswith("+0.050 [+0.050, +0.050]*")
    assert sheets[1].rows[0][1] == ("+0.000 [+0.000, +0.000]",)


def test_translation_stands_against_every_other_way():
    names = ("unpruned", "mt fr-en", "mono en", "random", "mt zh-en")
    (sheet,) = against_others(swept(0.0, 1.0, 2.0, 8.0, 1.0), names, METRICS)
    assert [name for name, _ in sheet.rows] == [
        "mt fr-en − mono en", "mt fr-en − random", "mt zh-en − mono en", "mt zh-en − random",
    ]  # fmt: skip
    cells = dict(sheet.rows)
    assert cells["mt fr-en − random"][0].startswith("-0.070 [")
    assert cells["mt fr-en − random"][0].endswith("]*")
    assert not cells["mt fr-en − mono en"][1].endswith("*")
    assert against_others(swept(0.0, 1.0), ("unpruned", "mt fr-en"), METRICS) == []


def test_spreads_are_over_seeds_and_sparsities():
    conditions = [Condition("unpruned", 0.0, None)]
    conditions += [Condition("random", share, seed) for share in (0.3, 0.5) for seed in (0, 1)]
    conditions.append(Condition("magnitude", 0.3, None))
    done = swept(0.0, 1.0, 3.0, 10.0, 20.0, 4.0)
    (seeds,) = over_seeds(done, conditions, {"Loss": METRICS["Loss"]})
    assert [name for name, _ in seeds.rows] == ["random at 0.3", "random at 0.5"]
    middle, low, high = (float(part.strip("()")) for part in seeds.rows[0][1][0].replace(" to ", " ").split())
    assert (middle, high - low) == (pytest.approx((low + high) / 2, abs=1e-3), pytest.approx(0.02, abs=1e-3))
    (sparsities,) = over_sparsities(done, conditions, {"Loss": METRICS["Loss"]})
    assert sparsities.columns == ("0.3", "0.5")
    assert [name for name, _ in sparsities.rows] == ["unpruned", "random", "magnitude"]
    assert sparsities.rows[2][1][1] == "–"
    assert over_seeds(done, conditions[:2], METRICS) == []
    assert str(conditions[1]) == "random at 0.3, seed 0"


def test_main_tables_hold_the_first_sparsity_and_seed_alone():
    conditions = [Condition("unpruned", 0.0, None)]
    conditions += [
        Condition(kind, share, seed) for share in (0.5, 0.3) for seed in (2, 1) for kind in ("mt fr-en", "random")
    ]
    runs = []
    for shift in range(len(conditions)):
        run = finished(float(shift))
        for each in run.result["measured"]:
            each["metric"] = each["metric"].replace("bits", "bits per byte of the reference")
        runs.append(replace(run, result={**run.result, "scores": [], "notes": {}}))
    found = tabulated("t", Sweep(None, tuple(runs)), conditions, ["a note"])
    sheets = {sheet.title: sheet for sheet in found.sheets}
    title = "Reference translation into English, bits per byte"
    assert [name for name, _ in sheets[f"{title}: change from unpruned"].rows] == ["mt fr-en", "random"]
    assert sheets[f"{title}: change from unpruned"].rows[0][1][2].startswith("+0.010 [")  # of 0.5 and seed 2
    assert sheets[f"{title}: by sparsity"].columns == ("0.3", "0.5")
    assert [name for name, _ in sheets["Over 2 seeds: mean (lowest to highest), all languages"].rows] == [
        "mt fr-en at 0.5", "mt fr-en at 0.3", "random at 0.5", "random at 0.3",
    ]  # fmt: skip
    assert found.notes == ("a note",)
