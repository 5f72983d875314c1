"""The whole evaluation: original and slice side by side, as a table and as JSON, and what it refuses."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from langslice.cli import app as cli
from langslice.errors import LanguageError, TaskError
from langslice.evaluation.loaded_model import load_model
from langslice.evaluation.main import evaluate
from langslice.evaluation.perplexity import measure_perplexity, perplexity
from langslice.evaluation.speed import Speed
from langslice.mini import heldout_text, mini_model_path
from langslice.slicing import main as job


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluate") / "ko-en"
    job.slice(mini_model_path(), out, languages="ko,en", verify=False)
    return out


def run(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["langslice", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def test_perplexity_equals_the_other_road():
    lines = heldout_text("ko")[:12]
    loaded = load_model(mini_model_path(), device="cpu")
    by_byte, by_character, bits = measure_perplexity(loaded, "ko", [*lines, "", "  "])
    expected = perplexity(mini_model_path(), lines)
    assert bits.value == pytest.approx(expected.bits_per_byte, rel=1e-5)
    assert by_byte.value == pytest.approx(2**expected.bits_per_byte, rel=1e-5)
    assert by_character.value == pytest.approx(np.exp(expected.nats / sum(map(len, lines))), rel=1e-4)
    assert by_byte.details == {"tokens": expected.tokens, "pieces": 0}


def test_a_line_beyond_the_models_positions_is_read_in_pieces():
    loaded = load_model(mini_model_path(), device="cpu")
    found = measure_perplexity(loaded, "ko", ["밥을 먹고 물을 마신다 " * 120])[0]
    assert found.details["pieces"] >= 1
    assert np.isfinite(found.value)


def test_a_slice_is_a_little_better_on_what_it_keeps_and_much_worse_on_what_it_dropped(sliced):
    found = evaluate("mini", sliced, tasks="perplexity", languages="ko,ar", limit=25, device="cpu", resamples=200)
    scores = {(score.language, score.metric): score for score in found.scores}
    kept, dropped = scores["ko", "bits per byte"], scores["ar", "bits per byte"]
    assert kept.original.n == dropped.original.n == 25
    assert kept.original.low < kept.original.value < kept.original.high
    assert -0.1 < kept.difference.value < 0
    assert dropped.difference.value > 0.5
    assert dropped.difference.p < 0.02
    size = scores["", "weights, bytes"]
    assert size.slice.value < size.original.value
    assert size.difference is None
    assert found.models["slice"]["vocabulary"] < found.models["original"]["vocabulary"] == 12288


@pytest.mark.assets
def test_kornli_and_rankc_side_by_side(sliced, assets):
    settings = {"data": assets / "data", "limit": 12, "device": "cpu", "resamples": 200}
    found = evaluate("mini", sliced, tasks="xnli", languages="ko", label_scores="all", **settings)
    metrics = [score.metric for score in found.scores]
    assert metrics[:5] == [f"accuracy ({kind})" for kind in ("paper", "sum", "normalised", "first_token", "pmi")]
    for score in found.scores[:5]:
        assert score.original.n == 12
        assert sum(score.details["original"]["predicted"]) == 12
        assert score.details["original"]["chance"] == pytest.approx(1 / 3)
    pairs = evaluate("mini", tasks="rankc:xcopa,xcopa", languages="zh,sw,it", **settings)
    rankc = [score for score in pairs.scores if score.task == "rankc"]
    assert [score.language for score in rankc] == ["zh-sw", "zh-it", "sw-it"]
    assert all(score.details["original"]["random"] == pytest.approx(0.634, abs=1e-3) for score in rankc)
    assert all(score.slice is None for score in pairs.scores)


@pytest.mark.assets
def test_rankc_refuses_rows_that_are_not_parallel(assets, tmp_path):
    (tmp_path / "xcopa").mkdir()
    for language in ("it", "zh"):
        lines = (assets / "data" / "xcopa" / f"test.{language}.jsonl").read_text(encoding="utf-8").splitlines()
        (tmp_path / "xcopa" / f"test.{language}.jsonl").write_text("\n".join(lines if language == "it" else lines[1:]))
    with pytest.raises(TaskError, match="the rows of zh and it are not parallel"):
        evaluate("mini", tasks="rankc:xcopa", languages="it,zh", data=tmp_path, limit=40)
    with pytest.raises(TaskError, match="rankc compares languages, and only one was given"):
        evaluate("mini", tasks="rankc:xcopa", languages="it", data=tmp_path, limit=40)


def test_speed_is_paired_by_round(sliced, monkeypatch):
    turns = []

    def turn(folders, *, rounds, options):
        turns.append((list(folders), rounds, tuple(options)))
        return {
            name: [Speed(1000 - 100 * k, 50.0 + k + r, 5.0, 0.2) for r in range(rounds)]
            for k, name in enumerate(folders)
        }

    monkeypatch.setattr("langslice.evaluation.speed.speed_rounds", turn)
    found = evaluate("mini", sliced, tasks="speed", device="cpu", rounds=6)
    assert turns == [(["original", "slice"], 6, ("cpu", "float32"))]
    scores = {score.metric: score for score in found.scores if score.task == "speed"}
    assert scores["prefill, tokens per second"].difference.value == 1.0
    assert scores["peak memory, bytes"].difference.value == -100
    assert scores["decode, tokens per second"].difference.p == 1.0
    assert set(scores) == {
        "prefill, tokens per second", "decode, tokens per second", "first token, seconds", "peak memory, bytes",
    }  # fmt: skip


@pytest.mark.assets
def test_speed_of_an_encoder_and_of_an_encoder_decoder(assets, zoo):
    from langslice.evaluation.speed import measure

    encoder = measure(assets / "weights" / "all-MiniLM-L6-v2", prompt=16, repeats=1)
    assert encoder.prefill > 0
    assert encoder.decode == encoder.first_token_seconds == 0
    both = measure(zoo("m2m_100"), prompt=16, new_tokens=3, repeats=1)
    assert both.decode > 0
    assert both.first_token_seconds > 0


def test_speed_of_a_model_without_a_cache_is_refused(zoo, monkeypatch):
    from langslice.evaluation.speed import measure

    monkeypatch.setattr("langslice.model.transformers_classes.cache_of", lambda output: None)
    with pytest.raises(TaskError, match="LlamaForCausalLM returns no cache: writing cannot be timed"):
        measure(zoo("llama"), prompt=16, new_tokens=3, repeats=1)


def test_the_command_prints_a_table_and_writes_json(capsys, monkeypatch, sliced, tmp_path):
    out = tmp_path / "results.json"
    arguments = (
        "evaluate",
        "mini",
        sliced,
        "--tasks",
        "perplexity",
        "-l",
        "ko",
        "-n",
        "6",
        "--device",
        "cpu",
        "-o",
        out,
    )
    code, text, _ = run(capsys, monkeypatch, *arguments)
    assert code == 0
    assert "bits per byte" in text
    assert "difference" in text
    document = json.loads(out.read_text())
    assert document["format"] == "langslice-evaluation/1"
    assert document["settings"]["limit"] == 6
    assert document["scores"][0]["original"]["n"] == 6
    assert set(document["scores"][0]["difference"]) == {"value", "low", "high", "p"}
    code, _, err = run(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "exists already" in err
    code, text, _ = run(capsys, monkeypatch, *arguments[:-2], "--json")
    assert json.loads(text)["scores"][0]["metric"] == "perplexity per byte"


def test_tasks_that_do_not_fit_are_refused_before_anything_is_loaded(monkeypatch, zoo, tmp_path):
    def never(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("langslice.evaluation.main.load_model", never)
    (tmp_path / "sts").mkdir()
    (tmp_path / "sts" / "test.ko.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\n")
    with pytest.raises(
        TaskError, match=r"task sts does not fit .*: it needs a model that is encoder, and this one is causal"
    ):
        evaluate("mini", tasks="sts", languages="ko", data=tmp_path)
    with pytest.raises(TaskError, match="task perplexity does not fit"):
        evaluate(zoo("bert"), tasks="perplexity", languages="ko")
    with pytest.raises(TaskError, match=r"unknown task 'perplexty'\nhint: did you mean perplexity\?"):
        evaluate("mini", tasks="perplexty", languages="ko")
    with pytest.raises(TaskError, match="no data in language de"):
        evaluate("mini", tasks="perplexity", languages="de")
    with pytest.raises(LanguageError, match="unknown language code"):
        evaluate("mini", tasks="perplexity", languages="korean")


def test_bad_input_on_the_command_line(capsys, monkeypatch, tmp_path):
    code, _, err = run(capsys, monkeypatch, "evaluate", "mini", "--tasks", "xcopa", "-l", "ko", "--data", tmp_path)
    assert code == 2
    assert err.startswith("error: task xcopa: no data in language ko")
    assert "hint:" in err
    code, _, err = run(capsys, monkeypatch, "evaluate", "mini", "--tasks", tmp_path / "none.yaml", "-l", "ko")
    assert code == 2
    assert "no task file" in err
