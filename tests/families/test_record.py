"""The record of all model types: nothing in it is wrong, and a sample of it is what the code does today."""

from __future__ import annotations

import pytest
import transformers

from tests.families.record import lost, page, read_record
from tests.families.sweep import sweep

RECORD = read_record()
STRIDE = 37
SAMPLE = [
    (model_type, name)
    for model_type, classes in sorted(RECORD["types"].items())
    for name, axes in classes.items()
    if "exact" in axes.values()
][::STRIDE]


def test_nothing_is_wrong():
    said = [one for classes in RECORD["types"].values() for axes in classes.values() for one in axes.values()]
    assert not [one for one in said if one.startswith(("wrong", "failed"))]
    assert said.count("exact") > len(said) / 2


@pytest.mark.parametrize(("model_type", "name"), SAMPLE)
def test_what_is_exact_stays_exact(model_type, name, tmp_path):
    if transformers.__version__ != RECORD["transformers"]:
        pytest.skip(f"recorded with transformers {RECORD['transformers']}")
    found = sweep(model_type, name, tmp_path)
    assert lost({model_type: {name: RECORD["types"][model_type][name]}}, {model_type: {name: found}}) == []


def test_a_type_that_turns_from_exact_to_refused_is_named():
    before = {"some": {"Some": {"vocabulary": "exact", "layers": "refused: so"}}}
    after = {"some": {"Some": {"vocabulary": "refused: why", "layers": "exact"}}}
    assert lost(before, after) == ["some, Some: vocabulary was exact, now refused: why"]
    assert "| `some` | Some | refused [1] | exact |" in page({"transformers": "5", "types": after})
