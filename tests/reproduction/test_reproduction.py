"""Reproductions, end to end: every condition, the tables of the papers, and nothing filled in."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from langslice.cli import app as cli
from langslice.errors import RecipeError, TaskError
from langslice.reproduction.data_folder import gather_data
from langslice.reproduction.kim2024 import CONDITIONS as CONDITIONS_2024
from langslice.reproduction.kim2024 import TABLES, kim2024, make_conditions
from langslice.reproduction.kimkim2026 import CONDITIONS, PUBLISHED, kimkim2026
from langslice.reproduction.published import beside_published, read_published, write_form
from langslice.reproduction.tables import Reproduction, Sheet, with_mean

LINES = 24


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model, and parallel text for it."""
    from tests.zoo import add_tokenizer, build

    root = tmp_path_factory.mktemp("reproduce")
    add_tokenizer(build("llama", root / "model"))
    text = root / "data" / "parallel"
    text.mkdir(parents=True)
    for number, code in enumerate(("en", "fr", "es", "zh", "ko", "hi")):
        words = ["sand", "moon", "letter", "land", "summer"] if code != "ko" else ["가", "감", "나", "다", "라"]
        lines = [" ".join(words[(row + step + number) % 5] for step in range(4)) for row in range(LINES)]
        (text / f"{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    code = root / "data" / "code"
    code.mkdir()
    for number in range(100):
        (code / f"m{number}.py").write_text(f"def add_{number}(a, b):\n    return a + b + {number}\n")
    return root


def test_kimkim2026_end_to_end(tiny, tmp_path):
    found = kimkim2026(
        str(tiny / "model"), tmp_path, data=tiny / "data", limit=3, new_tokens=3, shots=1, rounds=1, device="cpu",
        tasks=("perplexity", "translation"),
    )  # fmt: skip
    assert not found.sweep.failed, found.sweep.failed[0].error
    sheets = {sheet.title: sheet for sheet in found.sheets}
    assert list(sheets) == ["Vocabulary and size", "Perplexity per byte", "Translation, BLEU", "Translation, chrF++"]
    rows = {name: int(cells[0].replace(",", "")) for name, cells in sheets["Vocabulary and size"].rows}
    assert list(rows) == list(CONDITIONS)
    assert rows["EnKo"] <= rows["EnKoZh"] <= rows["Original"]
    assert sheets["Translation, BLEU"].columns == ("en-ko", "ko-en", "zh-ko", "ko-zh")
    page = found.markdown
    assert "| EnKo |" in page
    assert "As published" not in page


@pytest.mark.skipif(find_spec("langslice.sparsity") is None, reason="weight pruning is not in this installation")
def test_kim2024_end_to_end(tiny, tmp_path):
    found = kim2024(
        str(tiny / "model"), tmp_path, data=tiny / "data", code=tiny / "data" / "code", limit=3, new_tokens=3,
        device="cpu", processes=2, prompts=2, languages=("en", "fr", "es", "sw"),
    )  # fmt: skip
    assert not found.sweep.failed, found.sweep.failed[0].error
    names = [name for name, _ in found.sheets[0].rows]
    assert names == ["unpruned", "mt fr-en", "mt es-en", "mt zh-en", "mono en", "random", "magnitude", "code-refined"]
    assert tuple(names) == CONDITIONS_2024
    assert found.sheets[0].columns[-1] == "mean"
    assert [sheet.title for sheet in found.sheets][:2] == [
        "Translation into English, BLEU",
        "Translation into English, chrF++",
    ]
    titles = [sheet.title for sheet in found.sheets]
    for title in (
        "Reference translation into English, bits per byte",
        "Reference translation into English, bits per byte: change from unpruned",
        "Translation demonstrations against the others",
    ):
        assert title in titles
    (against,) = (sheet for sheet in found.sheets if sheet.title == "Translation demonstrations against the others")
    assert len(against.rows) == 3 * 4
    assert "demonstrations are the second half of text, from line 13 on" in found.notes
    assert any(note == "left out: task xnli: no data in language en" for note in found.notes)
    assert any("no parallel text in language sw" in note for note in found.notes)


def test_conditions_without_data_are_left_out_and_named(tiny, tmp_path):
    (tmp_path / "parallel").mkdir()
    for code in ("en", "fr"):
        (tmp_path / "parallel" / f"{code}.txt").write_text("".join(f"line {number}\n" for number in range(998)))
    made, notes = make_conditions(tmp_path, None)
    by_kind = {condition.kind: entry for condition, entry in made.items()}
    assert list(by_kind) == ["unpruned", "mt fr-en", "mono en", "random", "magnitude"]
    assert by_kind["mt fr-en"]["keep"]["count"] == 100
    shown = (tmp_path / "demonstrations" / "parallel" / "fr.txt").read_text().splitlines()
    assert shown == [f"line {number}" for number in range(499, 998)]  # none of the lines that are measured first
    assert notes == [
        "demonstrations are the second half of text, from line 500 on",
        "left out: mt es-en, task demonstrations: no parallel text in language es",
        "left out: mt zh-en, task demonstrations: no parallel text in language zh",
        "left out: code-refined, which needs source code (--code)",
    ]


def test_seeds_draw_and_sparsities_repeat_every_condition_but_what_is_not_drawn(tmp_path):
    (tmp_path / "parallel").mkdir()
    for code in ("en", "fr"):
        (tmp_path / "parallel" / f"{code}.txt").write_text("".join(f"line {number}\n" for number in range(80)))
    made, notes = make_conditions(tmp_path, None, sparsities=(0.3, 0.5), seeds=(0, 7), prompts=4)
    assert "of text, lines after the first 40 are also translated unless --limit is smaller" in notes
    assert [str(name) for name in made][:5] == [
        "unpruned", "mt fr-en at 0.3, seed 0", "mono en at 0.3, seed 0", "random at 0.3, seed 0", "magnitude at 0.3",
    ]  # fmt: skip
    assert sum(name.kind == "magnitude" for name in made) == 2
    assert sum(name.kind == "random" for name in made) == 4
    by_name = {str(name): entry for name, entry in made.items()}
    assert "order" not in by_name["mt fr-en at 0.5, seed 0"]["keep"]
    drawn = by_name["mt fr-en at 0.5, seed 7"]["keep"]
    assert (drawn["order"], drawn["seed"], drawn["count"]) == ("shuffled", 7, 4)
    assert by_name["random at 0.3, seed 7"] == {"sparsity": 0.3, "weights_by": "random", "seed": 7}


def test_means_are_given_only_where_every_figure_is_there():
    found = with_mean(Sheet("A", ("x", "y"), (("one", ("1.0", "3.0*")), ("two", ("1.0", "–")))))
    assert found == Sheet("A", ("x", "y", "mean"), (("one", ("1.0", "3.0*", "2")), ("two", ("1.0", "–", "–"))))
    alone = Sheet("B", ("x",), (("one", ("5.0",)),))
    assert with_mean(alone) is alone


FORM_TEXT = """
source: Table 2
tables:
  XNLI, accuracy:
    unpruned: {en: 0.50, fr: "", sw: 0.41}
    random: {no: 0.333}
  MARC, accuracy:
    unpruned: {en: 0.7}
"""


def read(tmp_path, text):
    path = tmp_path / "form.yaml"
    path.write_text(text)
    return read_published(path, tuple(TABLES), ("unpruned", "mt fr-en", "random"))


def test_published_figures_stand_beside_ours(tmp_path):
    found = read(tmp_path, FORM_TEXT)
    ours = Sheet("XNLI, accuracy", ("en", "fr"), (("unpruned", ("0.5125", "0.4444")), ("mt fr-en", ("0.6*", "0.5"))))
    other = Sheet("RankC, over xnli", ("en-fr",), (("unpruned", ("0.6",)),))
    sheets, notes = beside_published([ours, other], found)
    assert sheets[1] is other
    assert sheets[0].columns == ("en", "fr", "sw", "no")
    assert sheets[0].rows == (
        ("unpruned", ("0.5125", "0.4444", "–", "–")),
        ("unpruned, published", ("0.50", "–", "0.41", "–")),
        ("unpruned, difference", ("+0.01", "–", "–", "–")),
        ("mt fr-en", ("0.6*", "0.5", "–", "–")),
        ("random", ("–", "–", "–", "–")),
        ("random, published", ("–", "–", "–", "0.333")),
        ("random, difference", ("–", "–", "–", "–")),
    )
    assert notes == ["published figures: Table 2", "published, but not obtained here: MARC, accuracy"]


def test_a_form_that_a_run_leaves_is_read_once_filled_in(tmp_path):
    sheets = [Sheet("XNLI, accuracy", ("en", "mean"), (("unpruned", ("0.5", "0.5")), ("random", ("0.3", "0.3"))))]
    form = tmp_path / "published-form.yaml"
    write_form(form, sheets)
    with pytest.raises(RecipeError, match="`source` is empty"):
        read_published(form, tuple(TABLES), ("unpruned", "random"))
    text = form.read_text().replace("source: null", "source: Table 2")
    form.write_text(text)
    with pytest.raises(RecipeError, match="holds no figure"):
        read_published(form, tuple(TABLES), ("unpruned", "random"))
    form.write_text(text.replace("en: null", "en: 0.25", 1))
    write_form(form, sheets)  # what was filled in stays
    found = read_published(form, tuple(TABLES), ("unpruned", "random"))
    assert found.figures == {"XNLI, accuracy": {"unpruned": {"en": "0.25"}}}
    assert beside_published(sheets, found)[0][0].rows[2] == ("unpruned, difference", ("+0.2", "–"))


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("XNLI, acc", "XNLI acc", "unknown table 'XNLI accuracy'", "did you mean 'XNLI, accuracy'?"),
        ("random:", "randon:", "XNLI, accuracy: unknown condition 'randon'", "known are unpruned, mt fr-en, random"),
        ("0.50", "50.0", "unpruned, en: 50.0 is no share of one", "write 0.5 for 50.0 percent"),
        ("0.50", "best", "unpruned, en: 'best' is no number", "null where the paper has none"),
        ("0.50", "[1]", "unpruned, en: ['1'] is no number", "null where"),
        ("{no: 0.333}", "0.333", "random: expected names and what belongs to them, found '0.333'", "see the form"),
        ("source: Table 2", "", "`source` is empty", "which table of which paper"),
        ("source: Table 2", "source: {", "cannot be read as YAML", "a run writes an empty form"),
        ("source: Table 2", "sources: x", "unknown entry 'sources'", "did you mean 'source'?"),
    ],
)
def test_forms_that_are_refused(tmp_path, old, new, message, hint):
    assert old in FORM_TEXT
    with pytest.raises(RecipeError) as error:
        read(tmp_path, FORM_TEXT.replace(old, new))
    assert message in error.value.message
    assert hint in error.value.hint


def test_a_form_is_read_before_anything_runs(tmp_path, capsys, monkeypatch):
    arguments = ["reproduce", "kim2024", "--model", "mini", "-o", str(tmp_path / "out"), "--published", "none.yaml"]
    monkeypatch.setattr(sys, "argv", ["langslice", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "none.yaml: cannot be read as YAML" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_page_of_tables():
    page = Reproduction("t", (Sheet("A", ("x",), (("one", ("1.0",)),)),), ("left out: B",), None).markdown
    assert "## A\n\n| | x |\n|---|---:|\n| one | 1.0 |" in page
    assert page.endswith("## Notes\n\n- left out: B\n")


def test_published_figures_stand_beside_their_own_model_only():
    assert PUBLISHED["seed-x"][0] == ("vocabulary, tokens", "65,269", "41,704", "56,660")
    assert "mini" not in PUBLISHED


def test_data_is_gathered_by_links(tiny, tmp_path):
    text = (tiny / "data/parallel/en.txt").read_bytes()
    folder = gather_data(tmp_path / "all", {"xnli": tiny / "data", "marc": None}, tiny / "data", packaged=True)
    assert (tiny / "data/parallel/en.txt").read_bytes() == text
    assert sorted(path.name for path in folder.iterdir()) == ["code", "parallel", "xnli"]
    again = gather_data(tmp_path / "all", {"marc": tiny / "data"}, None, packaged=True)
    assert sorted(path.name for path in again.iterdir()) == ["marc", "parallel"]
    assert len(list((again / "parallel").glob("*.txt"))) == 8
    with pytest.raises(TaskError, match="no data at"):
        gather_data(tmp_path / "all", {"xnli": tmp_path / "none"}, None, packaged=False)


def test_a_model_of_ones_own_needs_text(tmp_path, tiny):
    for paper in (kim2024, kimkim2026):
        with pytest.raises(TaskError, match="name FLORES-200 with `flores`"):
            paper(str(tiny / "model"), tmp_path)


def test_the_command_refuses_other_papers(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["langslice", "reproduce", "kim2025", "--model", "mini", "-o", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "unknown paper 'kim2025'\nhint: one of kim2024, kimkim2026" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["kimkim2026", "--processes", "2", "--xnli", "x"],
            "kimkim2026 does not read --xnli, --processes\nhint: these belong",
        ),
        (["kim2024", "-n", "0"], "--limit must be a whole number at least 1, found 0"),
        (["kimkim2026", "--rounds", "0"], "--rounds must be a whole number at least 1, found 0"),
        (
            ["kimkim2026", "--tasks", "xnli,speed"],
            "kimkim2026 has no task xnli\nhint: its tasks are perplexity, translation",
        ),
        (["kim2024", "--rounds", "2"], "kim2024 does not read --rounds\nhint: it measures no speed"),
        (["kim2024", "--sparsities", "0.3,x"], "--sparsities: 'x' is no share between 0 and 1\nhint: such as 0.3,0.5"),
        (["kim2024", "--sparsities", "1.5"], "--sparsities: '1.5' is no share between 0 and 1"),
        (["kim2024", "--seeds", "0"], "--seeds must be a whole number at least 1, found 0"),
        (["kim2024", "--separator", "{eos}x"], "--separator: '{eos}x' is neither {eos} nor text without it"),
        (["kimkim2026", "--seeds", "1"], "kimkim2026 does not read --seeds\nhint: these belong"),
        (["kim2024", "--code", "none"], "no data at none\nhint: name source files for the code-refined condition"),
    ],
)
def test_arguments_are_refused_before_anything_runs(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr(
        sys, "argv", ["langslice", "reproduce", *arguments, "--model", "mini", "-o", str(tmp_path / "o")]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.assets
def test_a_model_that_no_condition_can_run_leaves_no_report(capsys, monkeypatch, tmp_path, assets, tiny):
    model = str(assets / "weights" / "all-MiniLM-L6-v2")
    arguments = [
        "kimkim2026",
        "--model",
        model,
        "--data",
        str(tiny / "data"),
        "-o",
        str(tmp_path / "o"),
        "-n",
        "2",
        "-q",
    ]
    monkeypatch.setattr(sys, "argv", ["langslice", "reproduce", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert "every condition failed; the first of them:" in text
    assert "it needs a model that is causal, and this one is encoder" in text
    assert not (tmp_path / "o" / "report.md").exists()
