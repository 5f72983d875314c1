"""Tasks and their data: templates, published layouts, and a clear error for everything that does not fit."""

from __future__ import annotations

import json
import sys
import types

import pytest

from langslice.errors import LanguageError, TaskError
from langslice.evaluation.choice_tasks import fill, load_task, parse_task, preset_names, read_examples
from langslice.evaluation.codes import flores_code, spellings
from langslice.evaluation.data_sets import read_rows
from langslice.evaluation.parallel import read_lines, read_parallel
from langslice.evaluation.settings import directions, make_settings

PLAIN = {
    "prompt": "{premise} , right?  ",
    "candidate": "{label} , {hypothesis}",
    "labels": {"yes": "Yes", "no": "No"},
    "sources": [{"file": "t/test.{language}.tsv", "label": "gold", "columns": {"premise": "first"}}],
}


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return folder


def test_presets_are_all_readable():
    assert preset_names() == ("belebele", "marc", "xcopa", "xnli")
    assert [load_task(name).name for name in preset_names()] == list(preset_names())


@pytest.mark.assets
def test_kornli_is_filled_as_in_the_paper(assets):
    found = read_examples(load_task("xnli"), "ko", assets / "data", limit=2)
    assert len(found) == 2
    assert found[0].prompt == (
        "글쎄, 나는 그것에 관해 생각조차 하지 않았지만, 나는 너무 좌절했고, 결국 그에게 다시 이야기하게 되었다. , right?  "
    )
    assert [text.split(" , ")[0] for text in found[0].candidates] == ["Yes", "Also", "No"]
    assert found[0].candidates[2] == "No , 나는 그와 다시 이야기하지 않았다."
    assert [example.answer for example in found] == [2, 0]
    assert found[0].neutral == " , right?  "
    assert len(read_examples(load_task("xnli"), "ko", assets / "data")) == 5010


@pytest.mark.assets
@pytest.mark.parametrize("language", ["et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh"])
def test_xcopa_is_there_in_every_language(assets, language):
    found = read_examples(load_task("xcopa"), language, assets / "data")
    assert len(found) == 500
    assert {example.answer for example in found} == {0, 1}


@pytest.mark.assets
def test_xcopa_connects_with_words_of_the_language(assets):
    found = read_examples(load_task("xcopa"), "it", assets / "data", limit=2)
    assert found[0].prompt == "L'oggetto era incartato nella plastica bollata perché"
    assert found[0].candidates == (" era delicato.", " era piccolo.")
    assert found[1].prompt == "Avevo svuotato le mie tasche quindi"


def test_marc_drops_three_stars_and_cuts_reviews(tmp_path):
    rows = [{"stars": stars, "review_body": "word " * 200} for stars in ("1", "2", "3", "4", "5")]
    write(tmp_path, "marc/dataset_de_test.json", "\n".join(json.dumps(row) for row in rows))
    found = read_examples(load_task("marc"), "de", tmp_path)
    assert [example.answer for example in found] == [0, 0, 1, 1]
    assert found[0].prompt == "word " * 128 + "It is"
    assert found[0].candidates == (" negative", " positive")
    assert found[0].neutral == " It is"


def test_belebele_layout(tmp_path):
    row = {
        "flores_passage": "P.", "question": "Q?", "mc_answer1": "a", "mc_answer2": "b", "mc_answer3": "c",
        "mc_answer4": "d", "correct_answer_num": "3",
    }  # fmt: skip
    write(tmp_path, "belebele/kor_Hang.jsonl", json.dumps(row) + "\n")
    found = read_examples(load_task("belebele"), "ko", tmp_path)[0]
    assert (found.prompt, found.candidates, found.answer) == ("P.\nQ?\n", ("a", "b", "c", "d"), 2)


def test_xnli_in_one_file_for_all_languages(tmp_path):
    lines = ["language\tgold_label\tsentence1\tsentence2", "fr\tneutral\tA\tB", 'de\tentailment\tC\t"D']
    write(tmp_path, "XNLI-1.0/xnli.test.tsv", "\n".join(lines))
    assert [example.answer for example in read_examples(load_task("xnli"), "de", tmp_path)] == [0]
    assert read_examples(load_task("xnli"), "de", tmp_path)[0].candidates[0] == 'Yes , "D'
    with pytest.raises(TaskError, match="task xnli: no data in language es"):
        read_examples(load_task("xnli"), "es", tmp_path)


def test_the_folder_may_be_the_data_set_itself(tmp_path):
    folder = write(tmp_path / "xcopa", "test.it.jsonl", json.dumps(
        {"premise": "A.", "question": "cause", "choice1": "B", "choice2": "C", "label": 1}))  # fmt: skip
    assert read_examples(load_task("xcopa"), "it", folder)[0].answer == 1


def test_filters():
    assert fill("{a|words:2}!", {"a": " one  two three "}) == "one two!"
    assert fill("{a|without_end}", {"a": "One. "}) == "One"
    assert fill("{a|uncapitalised}", {"a": "One Two"}) == "one Two"
    assert fill("{a}", {"a": "{b}"}) == "{b}"


def test_an_unquoted_yes_stays_a_word(tmp_path):
    write(tmp_path, "t.yaml", "prompt: 'a {x}'\ncandidate: ' {label}'\nlabels: {1: Yes, 2: No}\n"
          "sources: [{file: f.tsv, label: y}]\n")  # fmt: skip
    task = load_task(str(tmp_path / "t.yaml"))
    assert dict(task.labels) == {"1": "Yes", "2": "No"}
    assert task.name == "t"


def changed(**entries):
    return {**PLAIN, **entries}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (["a"], "t.yaml: expected a mapping, found list"),
        (changed(promt="x"), "t.yaml: unknown entry `promt`\nhint: did you mean `prompt`?"),
        ({"prompt": "x"}, "t.yaml: `candidate` is missing"),
        (changed(labels={"yes": "Yes"}), "`labels` needs at least two"),
        (changed(score="best"), "score 'best' is not one of paper, sum"),
        (changed(prompt="{premise|upper}"), "unknown filter 'upper'"),
        (changed(prompt="{premise} {"), "a brace that is no field"),
        (changed(candidate="x"), "`candidate` must hold {label}"),
        (changed(sources={}), "`sources` is missing"),
        (changed(sources={"a": 1}), "`sources` must be a list"),
        (changed(sources=[{"file": "a"}]), "a source needs `label`"),
        (changed(sources=[{"label": "a"}]), "a source needs either `file` or `hub`"),
        (changed(sources=[{"label": "a", "file": "b", "values": {"0": "maybe"}}]), "names the label 'maybe'"),
        (changed(sources=[{"label": "a", "file": "b", "colums": {}}]), "did you mean `columns`?"),
    ],
)
def test_task_files_that_are_not_understood(document, message):
    with pytest.raises(TaskError) as caught:
        parse_task(document, place="t.yaml")
    assert message in str(caught.value)


def read_plain(folder, text, **entries):
    write(folder, "t/test.ko.tsv", text)
    return read_examples(parse_task(changed(**entries), place="t.yaml"), "ko", folder)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(TaskError) as caught:
        read_plain(tmp_path, "first\tgold\nA\tyes\n")
    assert "no column 'hypothesis'\n  found: first, gold" in str(caught.value)
    with pytest.raises(TaskError, match="row 1: no column 'gold'\n  found: first, hypothesis"):
        read_plain(tmp_path, "first\thypothesis\nA\tB\n")


def test_a_label_that_the_verbaliser_does_not_know_is_named(tmp_path):
    with pytest.raises(TaskError) as caught:
        read_plain(tmp_path, "first\thypothesis\tgold\nA\tB\tyes\nA\tB\tmaybe\n")
    assert "row 2: label 'maybe' is unknown to the verbaliser of task t\n  known: yes, no" in str(caught.value)


def test_a_short_line_is_named(tmp_path):
    with pytest.raises(TaskError, match="row 2 has 2 columns, expected 3: first, hypothesis, gold"):
        read_plain(tmp_path, "first\thypothesis\tgold\nA\tB\tyes\nA\tB\n")


def test_a_value_without_a_text_is_named(tmp_path):
    row = {"premise": "A.", "question": "reason", "choice1": "B", "choice2": "C", "label": 1}
    write(tmp_path, "xcopa/test.it.jsonl", json.dumps(row))
    with pytest.raises(TaskError, match="question 'reason' has no text in task xcopa\n  known: cause, effect"):
        read_examples(load_task("xcopa"), "it", tmp_path)


def test_a_language_without_data_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(TaskError) as caught:
        read_examples(load_task("xcopa"), "ko", tmp_path)
    assert f"task xcopa: no data in language ko\n  below {tmp_path}\n  looked for xcopa/test" in str(caught.value)
    with pytest.raises(TaskError, match="is not a folder"):
        read_examples(load_task("xcopa"), "ko", tmp_path / "none")
    with pytest.raises(TaskError, match="no task file nothing"):
        load_task("nothing")


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", "{"), ("a.json", '["x"]'), ("a.tsv", "a\tb\nx\n"), ("a.doc", "")]
)
def test_unreadable_files(tmp_path, name, text):
    write(tmp_path, name, text)
    with pytest.raises(TaskError, match=name):
        read_rows(tmp_path / name)


def test_rows_of_every_kind_of_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write(tmp_path, "a.csv", 'x,y\n"1, 2",3\n')
    write(tmp_path, "a.json", '[{"x": "1, 2", "y": "3"}]')
    pq.write_table(pa.table({"x": ["1, 2"], "y": ["3"]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.json", "a.parquet"):
        assert read_rows(tmp_path / name) == [{"x": "1, 2", "y": "3"}]


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the package `datasets` that records what it is asked for."""
    asked = []

    def load_dataset(name, config=None, split=None):
        asked.append((name, config, split))
        if config == "xx":
            raise ValueError("BuilderConfig 'xx' not found")
        return [{"premise": "A", "hypothesis": "B", "label": 2}] if "xnli" in f"{name}{config}" else [{"text": config}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_the_hub_is_used_without_a_folder(hub):
    assert read_examples(load_task("xnli"), "fr", None)[0].answer == 2
    assert read_examples(load_task("xnli"), "ko", None)[0].answer == 2
    assert hub == [("facebook/xnli", "fr", "test"), ("kakaobrain/kor_nli", "xnli", "test")]
    text = read_parallel("translation", ["ko", "zh"], None, hub=True)
    assert text.lines == {"ko": ["kor_Hang"], "zh": ["zho_Hans"]}
    assert [split for _, _, split in hub[2:]] == ["devtest", "devtest", "dev", "dev"]


def test_what_the_hub_lacks_is_said(hub):
    task = parse_task(changed(sources=[{"hub": "a/b", "config": "xx", "label": "gold"}]), place="t.yaml")
    with pytest.raises(TaskError, match="a/b:xx@test cannot be opened\n  ValueError: BuilderConfig"):
        read_examples(task, "ko", None)
    local = parse_task(PLAIN, place="t.yaml")
    with pytest.raises(TaskError, match="no data set of the hub is known for it"):
        read_examples(local, "ko", None)


@pytest.mark.assets
def test_ntrex_in_many_languages(assets):
    languages = ["ko", "en", "fr", "zh", "pt", "ar", "sw", "fa", "zh-Hant"]
    text = read_parallel("translation", languages, assets / "data")
    assert {len(lines) for lines in text.lines.values()} == {1997}
    assert text.lines["zh"][0] != text.lines["zh-Hant"][0]
    assert text.lines["en"][0].startswith("Welsh AMs")
    with pytest.raises(TaskError, match="no parallel text in language cy"):
        read_parallel("translation", ["ko", "cy"], assets / "data")


def test_flores_has_lines_for_demonstrations_apart(tmp_path):
    for code in ("kor_Hang", "eng_Latn"):
        write(tmp_path, f"flores200_dataset/devtest/{code}.devtest", f"test {code}\n")
        write(tmp_path, f"flores200_dataset/dev/{code}.dev", f"dev {code}\n")
    text = read_parallel("translation", ["ko", "en"], tmp_path)
    assert text.name == "FLORES-200"
    assert text.lines["ko"] == ["test kor_Hang"]
    assert text.shots["en"] == ["dev eng_Latn"]


def test_lines_that_are_not_parallel_are_refused(tmp_path):
    write(tmp_path, "parallel/ko.txt", "a\nb\n")
    write(tmp_path, "parallel/en.txt", "a\n")
    with pytest.raises(TaskError, match="text is not parallel\n  lines: ko 2, en 1"):
        read_parallel("translation", ["ko", "en"], tmp_path)
    assert read_lines("perplexity", ["ko", "en"], tmp_path) == {"ko": ["a", "b"], "en": ["a"]}


def test_the_packages_own_sentences_are_in_eight_languages():
    assert len(read_lines("perplexity", ["ko"], None)["ko"]) > 100
    with pytest.raises(TaskError, match="no data in language de\n  the sentences that come with the package are in ar"):
        read_lines("perplexity", ["de"], None)


def test_codes():
    assert flores_code("ko") == "kor_Hang"
    assert flores_code("ar") == "arb_Arab"
    assert flores_code("zh-Hant") == "zho_Hant"
    assert "por-BR" in spellings("pt")
    assert "zho" not in spellings("zh-Hant")
    assert "zho-TW" in spellings("zh-Hant")


def test_settings_are_checked():
    found = make_settings(tasks="translate,kornli,xnli", languages="ko, en", pairs="ko-en,en-ko")
    assert found.tasks == ("translation", "xnli")
    assert directions(found) == [("ko", "en"), ("en", "ko")]
    assert directions(make_settings(tasks="bitext", languages="ko,en,fr")) == [("ko", "en"), ("fr", "en")]
    with pytest.raises(TaskError, match="no task was given"):
        make_settings(tasks="", languages="ko")
    with pytest.raises(LanguageError, match="no language was given"):
        make_settings(tasks="xnli", languages="")
    with pytest.raises(TaskError, match="unknown label score 'best'"):
        make_settings(tasks="xnli", languages="ko", label_scores="best")
    with pytest.raises(TaskError, match="`limit` must be a whole number at least 1, found 0"):
        make_settings(tasks="xnli", languages="ko", limit=0)
    with pytest.raises(LanguageError, match="expected two languages, found the pair 'ko'"):
        make_settings(tasks="translation", languages="ko", pairs="ko")
    with pytest.raises(TaskError, match="no pair of languages to translate"):
        directions(make_settings(tasks="translation", languages="en"))
    assert make_settings(tasks="speed", languages="").languages == ()
