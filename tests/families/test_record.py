"""The record of all model types: nothing in it is wrong, and a sample of it is what the code does today."""

from __future__ import annotations

import pytest
import transformers

from tests.families import sweep as sweeps
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


@pytest.mark.parametrize("kind", ["types", "towers"])
def test_nothing_is_wrong(kind):
    said = [one for classes in RECORD[kind].values() for axes in classes.values() for one in axes.values()]
    assert not [one for one in said if one.startswith(("wrong", "failed"))]
    has_it = [one for one in said if not one.startswith(("has none", "not built"))]
    assert has_it.count("exact") > len(has_it) / 2


@pytest.mark.parametrize(
    ("kind", "model_type", "name"), [*(("types", *pair) for pair in SAMPLE), ("towers", "clip", "CLIPModel")]
)
def test_what_is_exact_stays_exact(kind, model_type, name, tmp_path):
    if transformers.__version__ != RECORD["transformers"]:
        pytest.skip(f"recorded with transformers {RECORD['transformers']}")
    known = RECORD[kind][model_type][name]
    found = sweep(model_type, name, tmp_path, list(known))
    assert lost({model_type: {name: known}}, {model_type: {name: found}}) == []


def test_a_type_that_turns_from_exact_to_refused_is_named():
    before = {"some": {"Some": {"vocabulary": "exact", "layers": "refused: so"}}}
    after = {"some": {"Some": {"vocabulary": "refused: why", "layers": "exact"}}}
    assert lost(before, after) == ["some, Some: vocabulary was exact, now refused: why"]
    assert "| `some` | Some | refused [1] | exact |" in page({"transformers": "5", "types": after})


def test_what_a_type_does_not_have_is_not_refused(tmp_path):
    found = sweep("mamba2", "Mamba2ForCausalLM", tmp_path, ["heads", "neurons"])
    assert found == {"heads": "has none: it has no attention heads", "neurons": "has none: it has no feed-forward part"}
    table = page(
        {"transformers": "5", "types": {"some": {"One": found, "Two": {"heads": "exact", "neurons": "refused: so"}}}}
    )
    assert "| exact, of those that have it | 0.0% | 0.0% | 100.0% | 0.0% |" in table


def test_reasons_name_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps.tempfile, "gettempdir", lambda: str(tmp_path))
    said = sweeps._short(ValueError(f"takes the source and not {tmp_path}/x/.heads.partial-1-a: it says so"))
    assert said == "takes the source and not FOLDER: it says so"
    reasons = [one for classes in RECORD["types"].values() for axes in classes.values() for one in axes.values()]
    assert not [one for one in reasons if "/tmp" in one]


def test_a_sweep_that_was_stopped_goes_on(tmp_path, monkeypatch):
    swept = []
    monkeypatch.setattr(sweeps, "pairs", lambda: iter([("one", "One"), ("two", "Two")]))
    monkeypatch.setattr(sweeps, "swept_apart", lambda *pair: swept.append(pair[0]) or {"layers": "exact"})
    journal = tmp_path / "build" / "journal.jsonl"
    monkeypatch.setattr(sweeps, "JOURNALS", {"types": journal})
    part = sweeps._swept("types", "", ["layers"], go_on=False, minutes=-1)
    assert part == {}
    journal.write_text('["one", "One", {"layers": "refused: so"}]\n')
    whole = sweeps._swept("types", "", ["layers"], go_on=True, minutes=float("inf"))
    assert swept == ["two"]
    assert whole == {"one": {"One": {"layers": "refused: so"}}, "two": {"Two": {"layers": "exact"}}}
    assert len(journal.read_text().splitlines()) == 2
