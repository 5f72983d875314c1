"""lm-evaluation-harness on a slice, and our own figures next to its own where the prompt is the same."""

from __future__ import annotations

import json
import sys

import pytest

from langslice.errors import TaskError
from langslice.evaluation.choice_tasks import load_task, parse_task, read_examples
from langslice.evaluation.harness import measure_harness
from langslice.evaluation.loaded_model import load_model
from langslice.evaluation.main import evaluate
from langslice.evaluation.settings import make_settings
from langslice.evaluation.zero_shot import label_scores, measure_choice
from langslice.mini import mini_model_path

ITEMS = 24


def write_task(folder, name, rows, **entries):
    """A task of the harness on local rows."""
    import yaml

    (folder / f"{name}.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    document = {
        "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test", "output_type": "multiple_choice", "metric_list": [{"metric": "acc"}], **entries,
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    return str(folder / f"{name}.yaml")


@pytest.fixture
def harness(monkeypatch, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is an extra that is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.assets
@pytest.mark.filterwarnings("ignore")
def test_xcopa_agrees_item_by_item(assets, harness):
    rows = [json.loads(line) for line in (assets / "data/xcopa/test.it.jsonl").read_text("utf-8").splitlines()][:ITEMS]
    task = write_task(
        harness, "own_xcopa_it", rows, doc_to_target="label",
        doc_to_text='{{premise.strip()[:-1]}} {{{"cause": "perché", "effect": "quindi"}[question]}}',
        doc_to_choice="{{[choice1[:1]|lower + choice1[1:], choice2[:1]|lower + choice2[1:]]}}",
    )  # fmt: skip
    score = evaluate("mini", tasks=f"lm-eval:{task}", device="cpu").scores[0]
    assert (score.task, score.metric, score.original.n) == ("lm-eval:own_xcopa_it", "acc", ITEMS)
    theirs = measure_harness(mini_model_path(), [task], make_settings(tasks="speed", languages="", device="cpu"))[0]
    loaded = load_model(mini_model_path(), device="cpu")
    ours = measure_choice(
        loaded, "xcopa", "it", read_examples(load_task("xcopa"), "it", assets / "data", limit=ITEMS), ["sum"]
    )
    assert ours[0].items.tolist() == theirs.items.tolist()


@pytest.mark.assets
@pytest.mark.filterwarnings("ignore")
def test_xnli_agrees_item_by_item(assets, harness):
    lines = (assets / "data/kornlu/xnli.test.ko.tsv").read_text("utf-8").splitlines()[1 : ITEMS + 1]
    labels = ["entailment", "neutral", "contradiction"]
    rows = [dict(zip(("premise", "hypothesis", "label"), line.split("\t"), strict=True)) for line in lines]
    rows = [{**row, "label": labels.index(row["label"])} for row in rows]
    task = write_task(
        harness, "own_xnli_ko", rows, doc_to_text="{{premise}}, right?", doc_to_target="label",
        doc_to_choice='{{["Yes, " + hypothesis, "Also, " + hypothesis, "No, " + hypothesis]}}',
    )  # fmt: skip
    theirs = measure_harness(mini_model_path(), [task], make_settings(tasks="speed", languages="", device="cpu"))[0]
    same = parse_task(
        {
            "prompt": "{premise}, right?", "candidate": " {label}, {hypothesis}",
            "labels": {"entailment": "Yes", "neutral": "Also", "contradiction": "No"},
            "sources": [{"file": "kornlu/xnli.test.{language}.tsv", "label": "gold_label",
                         "columns": {"premise": "sentence1", "hypothesis": "sentence2"}}],
        }, place="same.yaml",
    )  # fmt: skip
    loaded = load_model(mini_model_path(), device="cpu")
    examples = read_examples(same, "ko", assets / "data", limit=ITEMS)
    ours = measure_choice(loaded, "xnli", "ko", examples, ["sum"])[0]
    assert ours.items.tolist() == theirs.items.tolist()
    assert len(label_scores(loaded, ("xnli", "ko"), examples, ["sum"])["sum"]) == ITEMS


@pytest.mark.filterwarnings("ignore")
def test_an_unknown_task_of_the_harness_is_refused(harness):
    (harness / "odd.yaml").write_text("output_type: multiple_choice\n")
    with pytest.raises(TaskError, match="not a task file of lm-evaluation-harness"):
        evaluate("mini", tasks=f"lm-eval:{harness / 'odd.yaml'}", device="cpu")
    (harness / "bad.yaml").write_text("task: bad\ndataset_path: json\noutput_type: none_such\n")
    with pytest.raises(TaskError, match="lm-evaluation-harness could not run bad"):
        evaluate("mini", tasks=f"lm-eval:{harness / 'bad.yaml'}", device="cpu")


def test_the_harness_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(TaskError, match=r'needs the package `lm_eval`\nhint: pip install "langslice\[lm-eval\]"'):
        evaluate("mini", tasks="lm-eval:xnli_en", device="cpu")
