"""`langslice score` as a user meets it: a table on stdout, a file, a plot, and one message for every bad input."""

from __future__ import annotations

import sys

import pytest

from langslice.cli import app as cli
from langslice.model.checkpoint import open_checkpoint
from langslice.scoring import ScoreSettings, compute, load_scores

pytestmark = pytest.mark.usefixtures("one_thread")
KO = ["가감값 갔강", "각간 갈", "갈 감갔 가각강", "값 각"]
EN = ["the sting and letter", "list the nest", "same tale", "the salt"]


def run(capsys, monkeypatch, *arguments):
    """Exit code, stdout and stderr of one command."""
    monkeypatch.setattr(sys, "argv", ["langslice", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "ko.txt").write_text("\n".join(KO))
    (tmp_path / "en.txt").write_text("\n".join(EN))
    return tmp_path


def test_heads_by_language(capsys, monkeypatch, zoo, texts):
    code, out, err = run(
        capsys, monkeypatch, "score", zoo("llama"), "heads", "--method", "gradient", "-o", texts / "heads.parquet",
        "--calibration", f"ko={texts / 'ko.txt'}", "--calibration", f"en={texts / 'en.txt'}", "--seeds", "2",
    )  # fmt: skip
    assert code == 0, err
    assert "heads by gradient, 36 scores" in out
    assert "layers.self, ko" in out
    assert "mean of 2 seeds; loss: causal" in " ".join(out.split())  # a long path breaks the line
    assert load_scores(texts / "heads.parquet", open_checkpoint(zoo("llama"))).languages == ("en", "ko")
    assert (texts / "heads.png").read_bytes().startswith(b"\x89PNG")
    assert "heads.png" in out


@pytest.mark.parametrize(("kind", "method"), [("layers", "block-influence"), ("neurons", "l2")])
def test_other_kinds_print_their_tables(capsys, monkeypatch, zoo, texts, kind, method):
    arguments = ["score", zoo("mt5"), kind, "-m", method, "-o", texts / "s.parquet", "--picture", texts / "p.png"]
    code, out, err = run(capsys, monkeypatch, *arguments, "--calibration", texts / "en.txt")
    assert code == 0, err
    assert "encoder" in out
    assert "decoder" in out
    assert ("spread" if kind == "layers" else "median") in out
    assert (texts / "p.png").stat().st_size > 1000
    code, _, err = run(capsys, monkeypatch, *arguments, "--calibration", texts / "en.txt")
    assert code == 2
    assert "s.parquet exists already" in err


def test_without_matplotlib_there_is_no_picture(capsys, monkeypatch, zoo, texts):
    from langslice.scoring import pictures

    monkeypatch.setattr(pictures, "can_draw", lambda: False)
    arguments = ["score", zoo("llama"), "heads", "-m", "l1", "-o", texts / "h.parquet"]
    code, out, _ = run(capsys, monkeypatch, *arguments)
    assert code == 0
    assert 'no picture: pip install "langslice[pictures]"' in out
    assert "no text was read" in out
    code, _, err = run(capsys, monkeypatch, *arguments, "--overwrite", "--picture", texts / "h.png")
    assert code == 2
    assert "pictures need matplotlib" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("heads", "--method", "gradient"), "this method reads text, and none was given"),
        (("heads", "--method", "gradeint"), "did you mean `gradient`?"),
        (("neuron", "--method", "l1"), "did you mean `neurons`?"),
        (("heads", "--method", "gradient", "--calibration", "gone.txt"), "gone.txt: no such file or folder"),
        (
            ("neurons", "--method", "lape", "--calibration", "ko=KO"),
            "lape compares languages and needs text of at least 2",
        ),
    ],
)
def test_bad_input_is_one_message(capsys, monkeypatch, zoo, texts, arguments, message):
    named = [argument.replace("=KO", f"={texts / 'ko.txt'}") for argument in arguments]
    code, out, err = run(capsys, monkeypatch, "score", zoo("llama"), *named, "-o", texts / "out.parquet")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert not (texts / "out.parquet").exists()
    assert not (texts / "out.png").exists()


def test_pictures_of_every_kind_are_drawn(zoo, texts):
    from langslice.scoring.pictures import draw_scores

    checkpoint = open_checkpoint(zoo("bart"))
    settings = ScoreSettings(seeds=(0,), count=1)
    for kind, method in (("heads", "lahis"), ("neurons", "lape"), ("layers", "perplexity"), ("layers", "angular")):
        draw_scores(compute(checkpoint, kind, method, {"ko": KO, "en": EN}, settings=settings), texts / f"{method}.png")
        assert (texts / f"{method}.png").read_bytes().startswith(b"\x89PNG")
