"""The command line of demonstrations and features."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from langslice.cli.app import app
from langslice.errors import CorpusError, LangsliceError, OutputError, PlanError

runner = CliRunner()


def run(*arguments: object):
    return runner.invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def test_pairs_named_by_their_file(tmp_path):
    (tmp_path / "fr-en.tsv").write_text("".join(f"f{n}\te{n}\n" for n in range(9)))
    done = run(
        "demonstrations", "--parallel", tmp_path / "fr-en.tsv", "--shots", 2, "--count", 3, "-o", tmp_path / "d.jsonl"
    )
    assert done.exit_code == 0 and "3 demonstrations, mt" in done.stderr
    records = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert records[1] == {
        "condition": "mt",
        "languages": ["fr", "en"],
        "parts": ["French: f2", "English: e2", "French: f3", "English: e3"],
        "separator": "\n",
        "answer": True,
    }
    with pytest.raises(OutputError, match="exists already"):
        run("demonstrations", "--parallel", tmp_path / "fr-en.tsv", "-o", tmp_path / "d.jsonl")


def test_options_override_the_preset(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "x.txt").write_text("".join(f"{n}\n" for n in range(9)))
    run("demonstrations", "--corpus", tmp_path / "x.txt", "-l", "ko", "--names", "Hangugeo", "--preset", "kim2024", "--count", 2,
        "--order", "file", "--separator", "\\n", "--condition", "ko", "-o", tmp_path / "d.jsonl")  # fmt: skip
    record = json.loads((tmp_path / "d.jsonl").read_text().splitlines()[1])
    assert record["parts"][0] == "Hangugeo: 5" and record["separator"] == "\n" and record["condition"] == "ko"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of --parallel, --corpus and --code, found 0"),
        (["--corpus", "x.txt", "--code", "x.py"], "expected one of --parallel, --corpus and --code, found 2"),
        (["--corpus", "some.txt.gz", "-l", "fr,en"], "--corpus needs 1 of --languages, found 2"),
        (["--parallel", "pairs_1.tsv"], "--parallel needs 2 of --languages, found 0: none"),
        (["--parallel", "fr-en.tsv", "--fields", "a"], "--parallel needs 2 of --fields, found 1: a"),
        (["--parallel", "fr-en.tsv", "--preset", "kim"], "--preset must be one of kim2024, found 'kim'"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=message):
        run("demonstrations", *arguments, "-o", "d.jsonl")


@pytest.fixture
def demos(tmp_path):
    texts = {"mt": ["the lamb and net"] * 2, "fr": ["sing ted mend"] * 2, "ko": ["모두 각 the"]}
    for name, lines in texts.items():
        records = [json.dumps({"condition": name, "parts": [one, "net"], "answer": name == "mt"}) for one in lines]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(records))
    return tmp_path


def test_features_writes_tables_and_pictures(zoo, demos):
    import pyarrow.parquet as pq

    done = run("features", zoo("llama"), "--demos", demos / "mt.jsonl", "--against", demos / "fr.jsonl",
               "--against", f"korean={demos / 'ko.jsonl'}", "--stand-out", 2, "--ablate", "-o", demos / "out")  # fmt: skip
    assert done.exit_code == 0
    assert "Dimensions particular to mt" in done.stdout and "random" in done.stdout
    names = sorted(path.name for path in (demos / "out").iterdir())
    assert names == sorted(
        ["magnitudes.parquet", "overlap.parquet", "particular-mt.parquet", "ablation-mt.parquet", "ablation-mt.png",
         "overlap.png", "overlap-layers.png", "bars-mt.png", "bars-fr.png", "bars-korean.png"]
    )  # fmt: skip
    assert all((demos / "out" / name).read_bytes()[1:4] == b"PNG" for name in names if name.endswith(".png"))
    table = pq.read_table(demos / "out/magnitudes.parquet")
    assert table.num_rows == 3 * 4 * 24
    assert pq.read_table(demos / "out/particular-mt.parquet").num_rows == 4 * 2
    with pytest.raises(OutputError, match="exists already"):
        run("features", zoo("llama"), "--demos", demos / "mt.jsonl", "-o", demos / "out")


def test_features_of_one_set_without_pictures(zoo, demos):
    done = run(
        "features", zoo("mt5"), "--demos", demos / "mt.jsonl", "--no-pictures", "--offload", "-q", "-o", demos / "out"
    )
    assert done.exit_code == 0 and done.output == ""
    assert sorted(path.name for path in (demos / "out").iterdir()) == ["magnitudes.parquet", "overlap.parquet"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], PlanError, "no demonstrations were given"),
        (["--demos", "mt.jsonl", "--against", "mt=fr.jsonl"], PlanError, "two sets of demonstrations are called 'mt'"),
        (["--demos", "mt.jsonl", "--demos", "mt=fr.jsonl"], PlanError, "two sets of demonstrations are called 'mt'"),
        (["--demos", "mt.jsonl", "--against", "fr.jsonl", "--share", "0.6"], PlanError, "found 0.6"),
        (["--demos", "none.jsonl"], CorpusError, "none.jsonl: no such file of demonstrations"),
        (
            ["--demos", "mt.jsonl", "--against", "fr.jsonl", "--share", "0.01", "--ablate"],
            PlanError,
            "no dimension after a layer is large in mt and small in every other set",
        ),
    ],
)
def test_features_refuses(zoo, demos, monkeypatch, arguments, error, message):
    monkeypatch.chdir(demos)
    with pytest.raises(error, match=message):
        run("features", zoo("llama"), *arguments, "-o", "out")
    assert not (demos / "out").exists()


def test_pictures_without_matplotlib(zoo, demos, monkeypatch):
    monkeypatch.setattr("langslice.features.pictures.find_spec", lambda name: None)
    with pytest.raises(LangsliceError, match="pictures need the package `matplotlib`"):
        run("features", zoo("llama"), "--demos", demos / "mt.jsonl", "-o", demos / "out")
