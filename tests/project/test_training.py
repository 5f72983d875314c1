"""The training of the small model: its split, its layouts, and a run that is stopped and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module", autouse=True)
def _training_on_path():
    sys.path.insert(0, str(TRAINING))
    yield
    sys.path.remove(str(TRAINING))


@pytest.fixture(scope="module")
def documents(assets, _training_on_path):
    from sources import read_sources

    return read_sources(assets, names=False)


@pytest.fixture(scope="module")
def data(assets, _training_on_path):
    from model import SMOKE_SHAPE
    from train import prepare

    return prepare(assets, SMOKE_SHAPE)


def smoke_run(steps: int):
    from model import SMOKE_SHAPE
    from train import Run

    return Run(
        shape=SMOKE_SHAPE,
        seed=0,
        steps=steps,
        warmup=10,
        decay=steps // 4,
        windows=4,
        matrix_rate=0.006,
        other_rate=0.003,
        bfloat16=False,
        evaluate_every=20,
        checkpoint_every=20,
    )


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_learning_rate_rises_stays_and_falls_to_zero():
    from train import learning_rate

    run = replace(smoke_run(100), warmup=10, decay=25)
    assert learning_rate(0, run) == pytest.approx(0.1)
    assert learning_rate(9, run) == 1.0
    assert learning_rate(75, run) == 1.0
    assert learning_rate(80, run) == pytest.approx(20 / 25)
    assert learning_rate(99, run) == pytest.approx(1 / 25)


@pytest.mark.assets
def test_every_tenth_document_is_held_out(documents):
    by_source: dict[str, list] = {}
    for document in documents:
        by_source.setdefault(document.source, []).append(document)
    for source in ("ntrex", "xquad", "udhr", "python"):
        places = [place for place, document in enumerate(by_source[source]) if document.heldout]
        assert places == list(range(3, len(by_source[source]), 10))
    assert len(by_source["ntrex"]) == 123
    assert sum(len(document.lines["ko"]) for document in by_source["ntrex"]) == 1997


@pytest.mark.assets
def test_no_held_out_sentence_is_on_the_training_side(documents):
    def lines(heldout: bool) -> set[str]:
        prose = [document for document in documents if document.source in ("ntrex", "xquad", "udhr")]
        return {
            line
            for document in prose
            if document.heldout == heldout
            for own in document.lines.values()
            for line in own
            if len(line) > 40
        }

    assert len(lines(True)) > 1000
    assert not lines(True) & lines(False)


@pytest.mark.assets
def test_parallel_files_that_disagree_are_refused(assets, tmp_path):
    from sources import NTREX_FILES, read_ntrex

    for name in ("DOCUMENT_IDS.tsv", *NTREX_FILES.values()):
        text = (assets / "data" / "ntrex128" / name).read_text(encoding="utf-8")
        cut = text.rstrip("\n").rsplit("\n", 1)[0] + "\n" if name == NTREX_FILES["sw"] else text
        (tmp_path / name).write_text(cut, encoding="utf-8")
    with pytest.raises(ValueError, match=r"newstest2019-ref\.swa\.txt: 1996 lines, DOCUMENT_IDS\.tsv has 1997"):
        read_ntrex(tmp_path)


@pytest.mark.assets
def test_a_demonstration_window_is_the_written_format(data):
    from layout import SENTENCE_SOURCES, Windows

    windows = Windows(data.training, seed=0)
    parts = windows._translation(np.random.default_rng(5), SENTENCE_SOURCES)
    text = data.tokenizer.decode(np.concatenate(parts).tolist(), skip_special_tokens=False)
    pieces = text.split("<|endoftext|>")
    assert pieces.pop() == ""
    labels = [piece.split(": ", 1)[0] for piece in pieces]
    assert len(set(labels[::2])) == len(set(labels[1::2])) == 1
    assert labels[0] != labels[1]
    # Two ways: the written string, encoded at once, gives the ids that were put together from single lines.
    assert data.tokenizer.encode(text).ids == np.concatenate(parts).tolist()


@pytest.mark.assets
def test_windows_depend_on_seed_and_number_only(data):
    from layout import Windows

    first, again, other = Windows(data.training, 0), Windows(data.training, 0), Windows(data.training, 1)
    again.batch(3, 8, 65)
    assert (first.batch(7, 8, 65) == again.batch(7, 8, 65)).all()
    assert (first.batch(7, 8, 65) != other.batch(7, 8, 65)).any()
    layouts = {first.window(number, 65)[1] for number in range(200)}
    assert layouts == {"running", "sentences", "monolingual", "words", "code"}


@pytest.mark.assets
def test_smoke_run_learns_and_a_stopped_run_resumes_exactly(assets, data, tmp_path):
    import torch
    from train import train

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    command = [sys.executable, str(TRAINING / "train.py"), "--smoke", "--assets", str(assets), "--threads", "1"]
    done = subprocess.run([*command, "--out", str(whole)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    log = read_log(whole)
    assert [line["step"] for line in log] == [20, 40, 60]
    assert log[0]["train_loss"] > log[1]["train_loss"] > log[2]["train_loss"]
    for language, loss in log[-1]["heldout_loss"].items():
        assert loss < log[0]["heldout_loss"][language] - 0.3, language

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(stopped, data, smoke_run(60), None, resume=False, stop_after=30)
        assert not (stopped / "model").exists()
        train(stopped, data, smoke_run(60), None, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert read_log(stopped)[-1]["heldout_loss"] == log[-1]["heldout_loss"]
    ours, theirs = ((folder / "model" / "model.safetensors").read_bytes() for folder in (stopped, whole))
    assert ours == theirs


@pytest.mark.assets
def test_minutes_choose_the_number_of_steps(data, tmp_path):
    from train import train

    run = train(tmp_path, data, replace(smoke_run(10**9), decay=1), minutes=0.02, resume=False)
    assert run.decay == round((run.steps - run.decay) / 3)
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == run.steps
    assert read_log(tmp_path)[-1]["step"] == run.steps
