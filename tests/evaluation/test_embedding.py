"""Embedding tasks: KorSTS and retrieval, on a real encoder and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from langslice.errors import TaskError
from langslice.evaluation.embedding import load_encoder, measure_bitext, measure_sts, read_pairs
from langslice.evaluation.main import evaluate
from langslice.slicing import main as job


class Letters:
    """Embeds a text by how often each letter occurs."""

    def encode(self, texts, **_):
        return np.array([[text.count(letter) for letter in "abcd"] for text in texts], dtype=np.float32)


def test_similarity_by_hand():
    gold = np.array([5.0, 0.0, 2.5])
    first, second = ["aab", "a", "ab"], ["aab", "b", "bd"]
    found = measure_sts(Letters(), "en", first, second, gold)
    cosine = [1.0, 0.0, 0.5]
    assert found[0].items[:, 0].tolist() == pytest.approx(cosine)
    assert [measured.metric for measured in found] == ["spearman", "pearson"]
    assert [measured.value for measured in found] == pytest.approx([1.0, 1.0])


def test_retrieval_by_hand_both_ways():
    forward, back = measure_bitext(Letters(), ("xx", "yy"), ["a", "b", "ab"], ["aac", "bbb", "d"])
    assert (forward.language, back.language) == ("xx-yy", "yy-xx")
    assert forward.items[:, 0].tolist() == [1.0, 1.0, 0.0]
    assert back.items[:, 0].tolist() == [1.0, 1.0, 0.0]


def test_a_repeated_line_counts_by_any_of_its_places():
    forward, _ = measure_bitext(Letters(), ("xx", "yy"), ["a", "a"], ["a", "a"])
    assert forward.value == 1.0


@pytest.mark.assets
def test_korsts_rows(assets):
    first, second, gold = read_pairs("ko", assets / "data", limit=3)
    assert first[0] == "한 소녀가 머리를 스타일링하고 있다."
    assert second[0] == "한 소녀가 머리를 빗고 있다."
    assert gold[:2].tolist() == [2.5, 3.6]
    assert len(read_pairs("ko", assets / "data")[0]) == 1379
    with pytest.raises(TaskError, match="task sts: no data in language fr"):
        read_pairs("fr", assets / "data")


def test_scores_that_are_no_numbers_are_refused(tmp_path):
    (tmp_path / "sts").mkdir()
    (tmp_path / "sts" / "test.fr.tsv").write_text("sentence1\tsentence2\tscore\na\tb\thigh\n")
    with pytest.raises(TaskError, match="score is not a number"):
        read_pairs("fr", tmp_path)
    (tmp_path / "sts" / "test.fr.tsv").write_text("sentence1\tscore\na\t1\n")
    with pytest.raises(TaskError, match="no column 'sentence2'"):
        read_pairs("fr", tmp_path)


@pytest.mark.assets
def test_a_slice_that_keeps_korean_keeps_its_korsts_and_one_that_drops_it_does_not(assets, tmp_path):
    source = assets / "weights" / "all-MiniLM-L6-v2"
    for name, scripts in (("both", "Hang,Latn"), ("english", "Latn")):
        job.slice(source, tmp_path / name, scripts=scripts, drop_scripts="" if name == "both" else "Hang", verify=False)
    settings = {"languages": "ko", "data": assets / "data", "limit": 40, "device": "cpu", "resamples": 200}
    both = evaluate(source, tmp_path / "both", tasks="sts,bitext", **settings)
    scores = {(score.task, score.language, score.metric): score for score in both.scores}
    kept = scores["sts", "ko", "spearman"]
    assert kept.original.n == 40
    # The full model's own figure on these pairs, by its publisher's tokenizer and weights.
    assert kept.original.value > 0.1
    assert kept.slice.value == pytest.approx(kept.original.value, abs=1e-6)
    assert kept.difference.p == 1.0
    retrieval = scores["bitext", "ko-en", "accuracy"]
    assert retrieval.original.value > 1.5 / 40
    assert retrieval.slice.value == retrieval.original.value
    english = evaluate(source, tmp_path / "english", tasks="sts", **settings)
    dropped = english.scores[0]
    assert dropped.slice.value < dropped.original.value - 0.1
    assert dropped.difference.high < 0


def test_a_folder_that_sentence_transformers_cannot_open(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TaskError, match="sentence-transformers cannot open it"):
        load_encoder(tmp_path, device="cpu")
