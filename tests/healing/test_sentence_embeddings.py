"""Sentence embedding models: contrast, and the teacher's embeddings, on the real MiniLM."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import langslice
from langslice.errors import CorpusError, HealError
from langslice.healing import HealOptions, heal
from langslice.healing.sentence_embeddings import Sentences, _check, _split, read_sentences
from langslice.healing.student import open_source
from langslice.mini import heldout_text

pytestmark = [pytest.mark.assets, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def minilm(assets):
    return assets / "weights/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def cut(minilm, tmp_path_factory):
    """Half of the layers, and 20% of the weights of what is left zero."""
    out = tmp_path_factory.mktemp("cut") / "cut"
    langslice.slice(
        minilm, out, languages="en", drop_layers="1,3,4", sparsity=0.2, weights_by="magnitude", verify=False
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(heldout_text("en")[:60]), encoding="utf-8")
    return file


def quick(**changes):
    base = {
        "steps": 6,
        "batch_size": 8,
        "seq_length": 24,
        "learning_rate": 2e-4,
        "heldout": 0.1,
        "device": "cpu",
        "train": "all,!embeddings",
    }
    return HealOptions(**{**base, **changes})  # fmt: skip


def test_towards_the_teacher(cut, minilm, text, tmp_path):
    """Nearer to the teacher's embeddings; same files; zeros stay; the folder is opened as before."""
    from sentence_transformers import SentenceTransformer

    out = tmp_path / "out"
    result = heal(cut, out, quick(corpus=str(text), teacher=str(minilm)))
    assert result.loss["heldout_after"] < result.loss["heldout_before"]
    old, new = load_file(cut / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in old if (old[name] != new[name]).any()}
    assert changed == set(result.trained)
    assert "pooler.dense.weight" not in changed
    assert "embeddings.word_embeddings.weight" not in changed
    recorded = json.loads((cut / "slice.json").read_text())["sparsity"]["tensors"]
    assert set(recorded) <= set(result.masks)
    assert all(((old[name] == 0) == (new[name] == 0)).all() for name in recorded)
    names = {str(path.relative_to(cut)) for path in cut.rglob("*") if path.is_file()}
    for name in names - {"model.safetensors", "slice.json", "README.md"}:
        assert (cut / name).read_bytes() == (out / name).read_bytes()
    sentences = heldout_text("en")[100:130]
    vectors = {folder: SentenceTransformer(str(folder), device="cpu").encode(sentences, show_progress_bar=False)
               for folder in (minilm, cut, out)}  # fmt: skip
    assert ((vectors[out] - vectors[minilm]) ** 2).mean() < ((vectors[cut] - vectors[minilm]) ** 2).mean()


def test_the_teacher_reads_what_the_run_reads(cut, minilm, text, tmp_path, monkeypatch):
    """Two steps of four sentences: the teacher embeds those eight and the held-out ones, whatever the text holds."""
    from langslice.healing import sentence_embeddings

    asked = []

    def counted(source, settings, student):
        embed, digest = find_targets(source, settings, student)
        return lambda texts: asked.append(len(texts)) or embed(texts), digest

    find_targets = sentence_embeddings._targets
    monkeypatch.setattr(sentence_embeddings, "_targets", counted)
    heal(cut, tmp_path / "out", quick(corpus=str(text), teacher=str(minilm), steps=2, batch_size=4))
    assert asked == [8, 6]


def test_parallel_pairs_and_an_adapter(cut, tmp_path):
    """Translations come nearer; more steps than sentences, so that the text is read twice."""
    pairs = tmp_path / "pairs.tsv"
    lines = list(zip(heldout_text("es"), heldout_text("en"), strict=True))[:40]
    pairs.write_text("\n".join("\t".join(pair) for pair in lines), encoding="utf-8")
    result = heal(cut, tmp_path / "out", quick(pairs=str(pairs), steps=12, lora=8, train="all", learning_rate=2e-3))
    assert result.loss["last"] < result.loss["first"]
    assert all(name.endswith(".weight") for name in result.trained)
    again = heal(cut, tmp_path / "again", quick(pairs=str(pairs), steps=12, lora=8, train="all", learning_rate=2e-3))
    assert again.loss == result.loss


def test_a_run_that_goes_on_in_its_second_pass(cut, text, tmp_path, monkeypatch):
    from langslice.healing import main as healing

    def stopped(*_, **__):
        raise KeyboardInterrupt

    settings = quick(corpus=str(text), steps=9, save_every=4, heldout=0.0)
    whole = heal(cut, tmp_path / "whole", settings)
    with monkeypatch.context() as patched:
        patched.setattr(healing, "_write", stopped)
        with pytest.raises(KeyboardInterrupt):
            heal(cut, tmp_path / "out", settings)
    (tmp_path / ".out.healing/checkpoints/checkpoint-9/finished.json").unlink()
    result = heal(cut, tmp_path / "out", settings)
    assert result.resumed == 8
    assert result.loss == whole.loss
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_what_is_held_out_is_not_trained_on():
    sentences = Sentences(tuple("abcdefghij"), tuple("ABCDEFGHIJ"))
    kept, apart = _split(sentences, HealOptions(heldout=0.3))
    assert len(apart.first) == 3
    assert set(kept.first) | set(apart.first) == set("abcdefghij")
    assert not set(kept.first) & set(apart.first)
    assert [one.upper() for one in kept.first] == list(kept.second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "mse"}, "`objective` mse needs a teacher"),
        ({"objective": "contrastive", "teacher": "x"}, "`objective` contrastive does not use a teacher"),
        ({"objective": "masked"}, "`objective` masked does not fit a sentence embedding model"),
        ({"hidden": 1.0, "teacher": "x"}, "`hidden` has no effect on a sentence embedding model"),
        ({"batch_size": 1}, "`batch_size` is 1, and a contrast needs others in the batch"),
    ],
)
def test_refused(minilm, changes, message):
    with pytest.raises(HealError, match=message):
        _check(open_source(minilm), HealOptions(corpus=("a.txt",), **changes))


def test_a_corpus_of_unknown_tokens(cut, tmp_path):
    (tmp_path / "text.txt").write_text("ᚠᚢᚦ\nᚨᚱ\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="the corpus tokenises to nothing"):
        read_sentences(open_source(cut), quick(corpus=str(tmp_path / "text.txt")))
