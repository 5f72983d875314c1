"""What a report says: taken from the record, checked against what the slice is."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest

import langslice
from langslice.errors import PlanError, ReportError
from langslice.invocation import remember_command, typed_command
from langslice.planning.plan import load_plan, save_plan
from langslice.reporting import collect_report, write_report
from langslice.reporting.slice_folder import equivalent_command, open_slice
from langslice.verification.record import read_whole_record
from langslice.vocabulary.facts import coverage_curve, criteria_facts
from langslice.vocabulary.selection_criteria import SelectionCriterion
from tests.report_samples import CUT, write_features, write_results, write_scores


@pytest.fixture(scope="module")
def sliced(cut_slice):
    return cut_slice


@pytest.fixture
def copied(sliced, tmp_path):
    return shutil.copytree(sliced, tmp_path / "copy")


def edit_record(folder, change):
    path = folder / "slice.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_coverage_curve_by_hand():
    assert coverage_curve(np.array([6.0, 0.0, 1.0, 3.0])) == [[1, 0.6], [2, 0.9], [3, 1.0]]


def test_evidence_by_hand():
    evidence = SelectionCriterion("corpus", np.array([6.0, 3.0, 1.0, 0.0]), np.array([False, False, False, True]))
    (found,) = criteria_facts([(evidence, np.array([True, False, False, True]))], np.array([0, 2, 9]))
    assert found["tokens"] == 4  # three that occur, one by its script
    assert found["taken"] == 2
    assert found["kept"] == 2  # rows 0 and 2; row 3 was taken and then dropped, row 9 is no token
    assert found["covered"] == pytest.approx(0.7)
    assert found["weighed"] == 2


def test_sizes_agree_with_the_files(sliced, zoo):
    report, plan, _ = open_slice(sliced)
    stored = langslice.model.checkpoint.open_checkpoint(sliced)
    assert report.parameters.after == sum(int(np.prod(shape)) for shape in stored.shapes.values())
    assert report.size_bytes.after == sum(tensor.size_bytes for tensor in stored.tensors.values())
    source = langslice.model.checkpoint.open_checkpoint(zoo("llama"))
    assert report.size_bytes.before == sum(tensor.size_bytes for tensor in source.tensors.values())
    assert report.vocabulary.rows.after == len(plan.kept)
    assert sum(script.tokens.after for script in report.vocabulary.scripts) == len(plan.kept)
    tokens = json.loads((zoo("llama") / "tokenizer.json").read_text())["model"]["vocab"]
    assert sum(script.tokens.before for script in report.vocabulary.scripts) == len(tokens)


def test_what_was_removed_by_layer(sliced):
    report, _, _ = open_slice(sliced)
    (stack,) = report.stacks
    assert [row.new for row in stack.layers] == [0, None, 1]
    assert [row.heads["self"].kept for row in stack.layers] == [(2, 3), (), (0, 1, 2, 3)]
    assert [len(row.neurons.kept) for row in stack.layers] == [44, 0, 34]
    assert stack.layers[2].neurons.kept[0] == 10
    assert report.sparsity.share == pytest.approx(0.5, abs=0.02)
    assert report.style == "sliced"
    assert report.proven and {check.name for check in report.checks} >= {"tensors", "bytes", "ids", "weights"}


def test_equivalent_command_says_what_was_asked(sliced):
    words = equivalent_command(open_slice(sliced)[1], "out")
    pairs = dict(pairwise(words))
    for name, value in CUT.items():
        assert pairs["--" + name.replace("_", "-")] == str(value)
    assert words[-2:] == ("-o", "out")


def test_command_is_kept_without_its_secret():
    import contextvars

    def typed():
        remember_command(["slice", "m", "--token", "hf_secret", "--token=hf_other", "-o", "out"])
        return typed_command()

    assert contextvars.copy_context().run(typed) == (
        "langslice", "slice", "m", "--token", "...", "--token=...", "-o", "out",
    )  # fmt: skip


def test_records_of_earlier_versions_still_read(copied):
    def old(document):
        for name in ("command", "parts", "files"):
            del document[name]
        del document["plan"]["facts"]

    before, _, _ = open_slice(copied)
    edit_record(copied, old)
    report = collect_report(copied)
    assert report.parameters == before.parameters
    assert {part.name: part.parameters for part in report.parts} == {
        part.name: part.parameters for part in before.parts
    }
    assert report.size_bytes is None
    assert report.vocabulary.scripts == () and report.vocabulary.curves == ()
    assert not report.stacks[0].sizes_known and [row.new for row in report.stacks[0].layers] == [0, None, 1]
    assert any("tokens by script" in what for what, _ in report.unmeasured)


def test_edited_plan_has_its_scripts_counted_again(zoo, tmp_path):
    plan = langslice.plan(zoo("llama"), languages="ko,en")
    assert plan.facts["evidence"]
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json").facts == plan.facts
    lines = (tmp_path / "plan.json").read_text().splitlines()
    droppable = next(line for line in reversed(lines) if '"language:en"]' in line)
    (tmp_path / "plan.json").write_text(
        "\n".join(line for line in lines if line != droppable).replace("],\n ],", "]\n ],")
    )
    out = langslice.slice(zoo("llama"), tmp_path / "out", plan=tmp_path / "plan.json")
    facts = out.plan.facts
    assert "evidence" not in facts
    assert sum(kept for _, kept in facts["scripts"].values()) == len(plan.kept) - 1


@pytest.mark.parametrize(
    "facts",
    [None, [], 3, {"scripts": [1]}, {"scripts": {"Latn": [1]}}, {"evidence": [{}]}, {"sizes": {"layers": 3}},
     {"evidence": [{"reason": "corpus", "tokens": 1, "taken": 1, "kept": 1, "covered": 1, "weighed": 1, "curve": []}]}],
)  # fmt: skip
def test_facts_of_another_form_are_refused_with_the_plan(copied, facts):
    edit_record(copied, lambda document: document["plan"].update(facts=facts))
    with pytest.raises(PlanError, match=r"slice\.json: the plan is damaged"):
        collect_report(copied)


def test_damaged_record(copied):
    edit_record(copied, lambda document: document["proof"]["checks"][0].pop("detail"))
    with pytest.raises(ReportError, match=r"slice\.json is damaged: KeyError: 'detail'"):
        collect_report(copied)
    (copied / "slice.json").unlink()
    with pytest.raises(PlanError, match=r"has no slice\.json"):
        collect_report(copied)
    with pytest.raises(PlanError, match="no such folder"):
        write_report(copied / "nowhere")


def test_results_scores_and_features(sliced, tmp_path):
    report = collect_report(
        sliced,
        results=[write_results(sliced, tmp_path / "r.json")],
        scores=[write_scores(tmp_path / "h.parquet"), write_scores(tmp_path / "n.parquet", "neurons", count=44)],
        features=[write_features(tmp_path / "features")],
        recipe="languages: ko,en\nout: cut\n",
        command="langslice run recipe.yaml",
    )
    (results,) = report.results
    assert [score.task for score in results.scores] == ["perplexity"] * 3 + ["translation"]
    assert [score.task for score in results.speed] == ["speed", "size"]
    assert [one.kind for one in report.scores] == ["heads", "neurons"]
    assert report.scores[0].rows[0] == pytest.approx(np.linspace(0.1, 1, 12)[:4])
    assert report.features.bin_size == 2 and len(report.features.magnitudes["mt"][0]) == 65
    assert report.origin.command == ("langslice", "run", "recipe.yaml")
    assert report.unmeasured == ()
    json.dumps(report.to_json(), allow_nan=False)


def test_bins_hold_the_largest(sliced, tmp_path):
    import pyarrow.parquet as pq

    found = collect_report(sliced, features=[write_features(tmp_path / "f")]).features
    rows = pq.read_table(tmp_path / "f/magnitudes.parquet").to_pylist()
    by_hand = max(
        row["magnitude"]
        for row in rows
        if row["condition"] == "mono" and row["layer"] == 2 and row["dimension"] in (128, 129)
    )
    assert found.magnitudes["mono"][2][64] == by_hand


def test_measurements_of_other_models_are_refused(sliced, tmp_path):
    results = write_results(sliced, tmp_path / "r.json", parameters=17)
    with pytest.raises(ReportError, match=r"r\.json: results of another model\n  slice `cut` has 17 parameters"):
        collect_report(sliced, results=[results])
    with pytest.raises(ReportError, match=r"layer 0 of layers\.self has 6 heads there, 4 here"):
        collect_report(sliced, scores=[write_scores(tmp_path / "s.parquet", count=6)])
    with pytest.raises(ReportError, match=r"layer 3 of layers\.self has 4 heads there, none here"):
        collect_report(sliced, scores=[write_scores(tmp_path / "s.parquet", layers=4)])


@pytest.mark.parametrize("kind", ["results", "scores", "features"])
def test_unreadable_measurements(sliced, tmp_path, kind):
    path = tmp_path / "nothing"
    with pytest.raises(ReportError, match=r"nothing: no"):
        collect_report(sliced, **{kind: [path]})
    if kind == "features":
        path.mkdir()
        path = path / "magnitudes.parquet"
    path.write_text('{"format": "other"}')
    with pytest.raises(ReportError):
        collect_report(sliced, **{kind: [path.parent if kind == "features" else path]})


def test_healing(copied):
    import pyarrow as pa
    import pyarrow.parquet as pq

    edit_record(copied, lambda document: document.update(healed={"steps": 20, "learning_rate": 1e-4, "texts": ["a"]}))
    table = {
        "step": [10, 0, 20],
        "loss": [2.0, None, 1.5],
        "heldout_loss": [None, 3.0, 1.75],
        "learning_rate": [0.1, None, 0.0],
    }
    pq.write_table(pa.table(table), copied / "healing.parquet")
    healing = collect_report(copied).healing
    assert healing.curves == {"training text": ((10.0, 2.0), (20.0, 1.5)), "held-out text": ((0.0, 3.0), (20.0, 1.75))}
    assert healing.facts["steps"] == 20
    other = pa.table({"step": [1, 1], "split": ["train", "dev"], "loss": [2.0, 3.0]})
    pq.write_table(other, copied / "healing.parquet")
    assert collect_report(copied).healing.curves == {"train": ((1.0, 2.0),), "dev": ((1.0, 3.0),)}
    (copied / "healing.parquet").write_text("x")
    with pytest.raises(ReportError, match="not a table of steps and losses"):
        collect_report(copied)


def test_record_lists_what_was_written(sliced):
    head, _ = read_whole_record(sliced)
    on_disk = {path.name: path.stat().st_size for path in sliced.iterdir()}
    assert head["files"] == {name: size for name, size in on_disk.items() if name not in ("slice.json", "README.md")}
