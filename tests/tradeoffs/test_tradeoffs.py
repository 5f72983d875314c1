"""What a smaller vocabulary costs: measured in memory as on the written slice; the smallest that loses little enough."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

import langslice
from langslice.cli.app import app
from langslice.errors import CheckpointError, CorpusError, FewerRowsError, PlanError
from langslice.evaluation.embedding import embed, load_encoder
from langslice.evaluation.loaded_model import load_model
from langslice.evaluation.perplexity import measure_perplexity
from langslice.mini import heldout_text
from langslice.tradeoffs.ladder import ladder_sizes
from langslice.tradeoffs.losses import line_items
from langslice.tradeoffs.texts import read_texts

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = {"ko": heldout_text("ko")[:24], "en": heldout_text("en")[:24]}


def bits(folder, lines):
    found = measure_perplexity(load_model(folder), "", lines)
    return next(one.value for one in found if one.metric == "bits per byte")


def written_losses(model, out, texts, rows, **options):
    """What the slice that is written loses, language by language."""
    langslice.slice(model, out, max_vocab=rows, verify=False, **options)
    lines = {code: read_texts(texts, (), 100).measured[code] for code in texts}
    return {code: bits(out, each) - bits(model, each) for code, each in lines.items()}


def distances(model, out, texts, rows, **options):
    langslice.slice(model, out, max_vocab=rows, verify=False, **options)
    both = [load_encoder(folder, device="cpu") for folder in (model, out)]
    lines = read_texts(texts, (), 100).measured
    return {
        code: float(np.mean(1 - (embed(both[0], each) * embed(both[1], each)).sum(1))) for code, each in lines.items()
    }


def assert_predicted(model, tmp_path, written, texts, rows, **options):
    found = langslice.tradeoff(model, sizes=[rows], drop_by="frequency", loss_texts=texts, **options)
    (rung,) = found.rungs
    real = written(model, tmp_path / "out", texts, rows, **options)
    assert {code: loss.value for code, loss in rung.loss.items()} == pytest.approx(real, abs=1e-3)
    weights = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.safetensors"))
    assert rung.size_bytes == pytest.approx(weights, rel=0.01)
    assert max(rung.loss.values(), key=lambda loss: loss.value).value == rung.worst > 0
    assert all(loss.low <= loss.value <= loss.high for loss in rung.loss.values())
    return found


def test_a_causal_model_loses_what_its_written_slice_loses(tmp_path):
    from langslice.mini import mini_model_path

    found = assert_predicted(mini_model_path(), tmp_path, written_losses, TEXTS, 3000, languages="ko,en")
    assert found.measure == "bits per byte"
    assert found.rungs[0].growth["ko"] > 1.02


def test_an_encoder_moves_as_its_written_slice_moves(assets, tmp_path):
    model = assets / "weights/all-MiniLM-L6-v2"
    found = assert_predicted(model, tmp_path, distances, {"en": TEXTS["en"]}, 6000, languages="en")
    assert found.measure == "1 - cosine to the original"
    assert found.before["rows"] == 30522


def test_an_encoder_decoder_loses_what_its_written_slice_loses(zoo, tmp_path):
    texts = {"": ["the cat sat", "the dog ran to the cat", "it is a very long word"]}
    (tmp_path / "text.txt").write_text("the cat\n")
    model = zoo("t5")
    found = langslice.tradeoff(model, corpus=tmp_path / "text.txt", loss_texts=texts, drop_by="frequency", sizes="9999")
    langslice.slice(model, tmp_path / "out", corpus=tmp_path / "text.txt", verify=False)
    lines = read_texts(texts, (), 100).measured
    before, after = (line_items(load_model(folder), lines)[""].sum(0) for folder in (model, tmp_path / "out"))
    assert found.rungs[0].loss[""].value == pytest.approx(after[0] / after[1] - before[0] / before[1], abs=1e-3)
    assert found.rungs[0].growth[""] > 1


@pytest.mark.models("gemma-3-270m")
def test_gemma_loses_what_its_written_slice_loses(models, tmp_path):
    assert_predicted(models / "gemma-3-270m", tmp_path, written_losses, TEXTS, 48000, languages="ko,en")


@pytest.mark.models("multilingual-e5-small")
def test_e5_moves_as_its_written_slice_moves(models, tmp_path):
    assert_predicted(models / "multilingual-e5-small", tmp_path, distances, TEXTS, 16000, languages="ko,en")


def test_both_orders_and_the_better_of_them():
    found = langslice.tradeoff(
        "mini", languages="ko,en", sizes="4000,2600", drop_by="both", loss_lines=20, max_loss=0.4
    )
    assert [(rung.order, rung.rows <= size) for rung, size in zip(found.rungs, (4000, 4000, 2600, 2600), strict=True)] == [
        ("frequency", True), ("expected-loss", True), ("frequency", True), ("expected-loss", True)
    ]  # fmt: skip
    rows = found.rungs[0].rows
    assert found.best(rows).worst == min(rung.worst for rung in found.rungs if rung.rows == rows)
    assert found.chosen is not None
    assert found.chosen.worst < 0.4
    assert found.lines == {"ko": 20, "en": 20}


def test_max_loss_chooses_the_smallest_vocabulary_below_it(tmp_path):
    made = langslice.plan("mini", languages="ko,en", max_loss=0.1, loss_texts=TEXTS)
    assert made.request["max_loss"] == 0.1
    rows = len(made.kept)
    assert made.notes[0].startswith(f"--max-loss 0.1: {rows:,} rows lose ko +0.0")
    found = langslice.tradeoff(
        "mini", languages="ko,en", sizes=[rows, rows * 94 // 100], drop_by="frequency", loss_texts=TEXTS
    )
    assert found.rungs[0].worst < 0.1 <= found.rungs[1].worst
    result = langslice.slice("mini", tmp_path / "out", languages="ko,en", max_loss=0.1, loss_texts=TEXTS, verify=False)
    assert result.plan.kept.tolist() == made.kept.tolist()


def test_a_corpus_is_counted_once_and_layers_are_not_measured(tmp_path, monkeypatch):
    """Evidence of a corpus is the same on every rung; a cut of layers comes on top, and the plan says so."""
    import langslice.planning.criteria as building

    counted = []
    whole = building.count_sides
    monkeypatch.setattr(building, "count_sides", lambda *given, **named: counted.append(1) or whole(*given, **named))
    (tmp_path / "ko.txt").write_text("\n".join(heldout_text("ko")[100:]), encoding="utf-8")
    asked = {"languages": "ko", "corpus": tmp_path / "ko.txt", "loss_texts": {"ko": TEXTS["ko"]}}
    found = langslice.tradeoff("mini", sizes="3000,2500", drop_by="frequency", **asked)
    assert (len(found.rungs), len(counted)) == (2, 1)
    made = langslice.plan("mini", max_loss=0.3, drop_layers=1, **asked)
    assert len(counted) == 3
    assert made.structure is not None
    assert made.notes[0].endswith("; what layers, heads, neurons and weights cost comes on top")
    assert made.request["loss_texts"] == ["ko=24 lines"]


def test_a_loss_that_cannot_be_had_is_refused(tmp_path):
    with pytest.raises(PlanError, match=r"already the whole choice of [\d,]+ rows loses") as caught:
        langslice.slice(
            "mini", tmp_path / "out", languages="ko", max_loss=1e-9, loss_texts={"zh": heldout_text("zh")[:20]}
        )
    assert "--corpus" in (caught.value.hint or "") or "corpus" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_refusals(zoo):
    with pytest.raises(CorpusError, match="no data in language de") as caught:
        langslice.tradeoff("mini", languages="ko,de")
    assert "de=FILE" in (caught.value.hint or "")
    with pytest.raises(PlanError, match="are no sizes"):
        langslice.tradeoff("mini", languages="ko", sizes="many")
    for size in (-5, 0):
        with pytest.raises(PlanError, match=f"`sizes` has {size}, and a vocabulary at least 1 row"):
            langslice.tradeoff("mini", languages="ko", sizes=[64, size])
    with pytest.raises(FewerRowsError, match="cannot be sliced to 100"):
        langslice.tradeoff("mini", languages="ko", sizes="100")
    with pytest.raises(CheckpointError, match="reads input_features, not text"):
        langslice.tradeoff(zoo("whisper"), languages="en")
    with pytest.raises(CorpusError, match="fewer than two lines"):
        langslice.tradeoff("mini", languages="ko", loss_texts={"ko": ["하나"]})


def test_a_quantised_model_is_refused(zoo, tmp_path):
    shutil.copytree(zoo("llama"), tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"is quantised \(bitsandbytes"):
        langslice.tradeoff(tmp_path / "model", languages="en", loss_lines=4)


def test_an_encoder_does_not_tell_what_a_token_costs(zoo):
    with pytest.raises(PlanError, match="does not predict text token by token"):
        langslice.tradeoff(zoo("bert"), languages="en", drop_by="expected-loss", loss_lines=4)


def test_sizes_of_a_ladder():
    assert ladder_sizes(1000, 10, 3) == [1000, 100, 10]
    assert ladder_sizes(7, 7) == [7]


def test_the_command_writes_a_table_a_file_and_a_picture(tmp_path):
    out = tmp_path / "cost.json"
    asked = [
        "tradeoff",
        "mini",
        "-l",
        "ko,en",
        "--sizes",
        "3000",
        "--drop-by",
        "both",
        "--loss-lines",
        "8",
        "-o",
        str(out),
    ]
    said = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert said.exit_code == 0
    assert "bits per byte" in said.stdout
    document = json.loads(out.read_text())
    assert document["format"] == "langslice-tradeoff/1"
    assert [rung["order"] for rung in document["rungs"]] == ["frequency", "expected-loss"]
    texts = [node.text for node in ET.parse(tmp_path / "cost.svg").getroot().iter() if node.text]
    assert "en, by expected-loss" in texts
