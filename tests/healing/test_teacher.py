"""Distillation: the map of rows and layers, wrong teachers, guesses on disk."""

from __future__ import annotations

import json
import shutil
from math import log

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import langslice
from langslice.errors import HealError
from langslice.healing import HealOptions, heal
from langslice.healing.distillation import divergence, hidden_distance, labelled, pairs_of, top_divergence
from langslice.healing.student import open_source
from langslice.healing.teacher import Teacher, find_teacher
from langslice.healing.teacher_cache import TopLogits
from langslice.mini import heldout_text, mini_model_path

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(heldout_text("ko")[:40] + heldout_text("en")[:40]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    out = tmp_path_factory.mktemp("cut") / "cut"
    langslice.slice(mini_model_path(), out, languages="ko,en", drop_layers="2,3", pad_to_multiple_of=64, verify=False)
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A vocabulary slice with all layers: its logits are the teacher's."""
    out = tmp_path_factory.mktemp("whole") / "whole"
    langslice.slice(mini_model_path(), out, languages="ko,en", pad_to_multiple_of=64, verify=False)
    return out


def quick(text, **changes):
    base = {"corpus": str(text), "steps": 3, "batch_size": 2, "seq_length": 48, "heldout": 0.0, "device": "cpu"}
    return HealOptions(**{**base, "teacher": str(mini_model_path()), **changes})


# --- numbers worked by hand


def test_divergence_by_hand():
    student, teacher = torch.tensor([[0.0, log(3)]]), torch.tensor([[0.0, 0.0]])
    expected = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)
    assert float(divergence(student, teacher, 1.0)) == pytest.approx(expected, abs=1e-6)
    # At temperature 2 the student says 1 : sqrt(3); the whole counts four times.
    low = 1 / (1 + 3**0.5)
    expected = 4 * (0.5 * log(0.5 / low) + 0.5 * log(0.5 / (1 - low)))
    assert float(divergence(student, teacher, 2.0)) == pytest.approx(expected, abs=1e-6)
    assert float(divergence(student, student, 1.0)) == pytest.approx(0.0, abs=1e-7)


def test_the_rest_counts_as_one_token():
    """Teacher .5 .25 .25 of which one is kept; student .25 .25 .5: .5 log 2 + .5 log(.5 / .75)."""
    student = torch.tensor([[0.25, 0.25, 0.5]]).log()
    found = top_divergence(student, torch.tensor([[0]]), torch.tensor([[0.5]]).log(), 1.0)
    assert float(found) == pytest.approx(0.5 * log(2) + 0.5 * log(0.5 / 0.75), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_guesses_are_the_whole_distribution(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(7, 11), torch.randn(7, 11)
    shares, ids = torch.log_softmax(teacher / temperature, -1).sort(-1, descending=True)
    found = top_divergence(student, ids, shares, temperature)
    assert float(found) == pytest.approx(float(divergence(student, teacher, temperature)), abs=1e-5)
    fewer = top_divergence(student, ids[:, :4], shares[:, :4], temperature)
    assert 0 < float(fewer) < float(found)


def test_labels_of_causal_models_are_one_ahead():
    logits = torch.arange(8.0).reshape(1, 4, 2)
    assert labelled(logits, torch.tensor([[5, -100, 6, 7]]), shifted=True).tolist() == [[2, 3], [4, 5]]
    assert labelled(logits, torch.tensor([[5, -100, -100, 7]]), shifted=False).tolist() == [[0, 1], [6, 7]]


def test_pairs_of_layers():
    assert pairs_of("layers", 3, 5, {"layers": (0, 1, 4)}) == [(1, 1), (2, 4), (3, 5)]
    assert pairs_of("decoder", 2, 2, {"encoder": (0,)}) == [(1, 1), (2, 2)]
    with pytest.raises(HealError, match="the slice gives states of 3 layers, the plan keeps 2 of the teacher's 5"):
        pairs_of("layers", 3, 5, {"layers": (0, 1)})


def test_hidden_distance_by_hand():
    """Second token is padding; (3-1)² / 1² at the first, in the only pair."""
    batch = {"attention_mask": torch.tensor([[1, 0]]), "labels": torch.tensor([[1, -100]])}
    states = [torch.zeros(1, 2, 1), torch.tensor([[[3.0], [9.0]]])]
    teacher = [torch.zeros(1, 2, 1), torch.tensor([[[1.0], [1.0]]])]
    found = hidden_distance({"hidden_states": states}, {"hidden_states": teacher}, batch, {})
    assert float(found) == pytest.approx(4.0)


# --- the teacher reads the slice's tokens


def test_a_slice_of_all_layers_says_what_its_teacher_says(whole):
    """Two ways: the slice's own logits, and the teacher's over kept rows; hidden states too."""
    from langslice.healing.student import load_student

    mapped = find_teacher(open_source(whole), str(mini_model_path()), any_teacher=False)
    student = load_student(open_source(whole).checkpoint)
    rows = student.config.vocab_size
    assert mapped.rows.size == rows
    assert mapped.kept < rows  # rows of padding are not compared
    ids = torch.arange(4, 64).reshape(2, 30)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    for streamed in (False, True):
        teacher = Teacher(mapped, streamed=streamed, dtype=torch.float32, device="cpu")
        theirs = teacher(batch, hidden=True)
        with torch.no_grad():
            own = student(**batch, output_hidden_states=True)
        assert theirs["logits"].shape == (2, 30, mapped.kept)
        assert torch.allclose(own["logits"][..., : mapped.kept], theirs["logits"], atol=2e-4)
        assert float(hidden_distance(own, theirs, batch, mapped.layers)) < 1e-8
        assert float(divergence(own["logits"][0, :, : mapped.kept], theirs["logits"][0], 1.0)) < 1e-6


@pytest.mark.parametrize("family", ["xlm-roberta", "t5"])
def test_masked_and_denoising_teachers(zoo, tmp_path, family):
    """Without dropout a vocabulary slice says what its teacher says: nothing is left to learn from it."""
    source = tmp_path / "source"
    shutil.copytree(zoo(family), source)
    settings = source / "tokenizer_config.json"
    if family == "t5":
        for path in (source / "tokenizer.json", settings):
            path.write_text(path.read_text().replace("<extra_", "<extra_id_"))
    else:
        settings.write_text(settings.read_text().replace("}", ', "mask_token": "<extra_0>"}'))
    config = json.loads((source / "config.json").read_text())
    config |= dict.fromkeys(("dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    (source / "config.json").write_text(json.dumps(config))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(["the land and men ling sed", "tin man lo", "molen the sed and"] * 12))
    langslice.slice(source, tmp_path / "cut", scripts="Latn", verify=False)
    run = {"corpus": str(corpus), "teacher": str(source), "seq_length": 24, "alpha": 1.0, "hidden": 0.5}
    result = heal(tmp_path / "cut", tmp_path / "out", quick(corpus, **run))
    assert abs(result.loss["first"]) < 1e-5


@pytest.mark.parametrize("options", [{}, {"hidden": 0.5, "temperature": 2.0}, {"stream_teacher": True}])
def test_distilling_brings_the_slice_nearer(cut, text, tmp_path, options):
    result = heal(cut, tmp_path / "out", quick(text, steps=8, alpha=1.0, learning_rate=1e-3, **options))
    assert result.loss["last"] < result.loss["first"] - 0.05
    healed = json.loads((tmp_path / "out/slice.json").read_text())["healed"]
    assert healed["settings"]["teacher"] == str(mini_model_path())


# --- guesses on disk


def test_a_cache_of_everything_trains_as_the_teacher_does(cut, text, tmp_path):
    """All guesses kept: the same run, but for rounding to float16."""
    live = heal(cut, tmp_path / "live", quick(text))
    rows = json.loads((cut / "config.json").read_text())["vocab_size"]
    cached = heal(cut, tmp_path / "cached", quick(text, teacher_cache=str(tmp_path / "cache"), teacher_top=rows))
    assert cached.loss["first"] == pytest.approx(live.loss["first"], abs=2e-3)
    assert cached.loss["last"] == pytest.approx(live.loss["last"], abs=2e-3)


def test_a_cache_is_used_again_only_by_the_same_run(cut, text, tmp_path, monkeypatch):
    from langslice.healing import main as healing
    from langslice.healing import teacher_cache

    cache = tmp_path / "cache"
    made = []
    real = teacher_cache.cache_top_logits
    monkeypatch.setattr(teacher_cache, "cache_top_logits", lambda *a, **k: made.append(1) or real(*a, **k))
    assert healing.heal is heal
    other = tmp_path / "other.txt"
    other.write_text("\n".join(heldout_text("en")[:30]))
    runs = [
        ({}, 1), ({}, 1), ({"learning_rate": 1e-3}, 1), ({"temperature": 2.0}, 2), ({"teacher_top": 8}, 3),
        ({"seed": 1}, 4), ({"corpus": str(other)}, 5),
    ]  # fmt: skip
    losses = []
    for number, (options, expected) in enumerate(runs):
        result = heal(cut, tmp_path / f"out{number}", quick(text, teacher_cache=str(cache), steps=1, **options))
        losses.append(result.loss["first"])
        assert len(made) == expected
    assert losses[0] == losses[1] == losses[2]
    folders = sorted(path for path in cache.iterdir())
    assert len(folders) == 5
    assert {path.name for path in folders[0].iterdir()} == {"ids.npy", "key.json", "shares.npy", "starts.npy"}


def test_top_logits_of_sequences():
    guesses = TopLogits(None, np.arange(12).reshape(6, 2), -np.arange(12.0).reshape(6, 2), np.array([0, 2, 2, 6]))
    ids, shares = guesses.of([2, 0])
    assert ids.tolist() == [[4, 5], [6, 7], [8, 9], [10, 11], [0, 1], [2, 3]]
    assert shares[0].tolist() == [-4, -5]


# --- wrong teachers


def test_a_teacher_with_other_weights(cut, text, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(mini_model_path(), other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.float16(1.5)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    proven = tmp_path / "proven"
    langslice.slice(mini_model_path(), proven, languages="ko,en", drop_layers="2-4")
    with pytest.raises(
        HealError, match=r"wrong teacher: model.safetensors of .* holds other weights than when the slice was made"
    ):
        heal(proven, tmp_path / "out", quick(text, teacher=str(other)))
    result = heal(proven, tmp_path / "out", quick(text, teacher=str(other), any_teacher=True, steps=1))
    assert result.steps == 1


def test_a_teacher_of_another_shape_or_vocabulary(cut, zoo, text, tmp_path):
    with pytest.raises(HealError, match=r"wrong teacher: the slice was made from .*\n  fingerprint in slice.json"):
        heal(cut, tmp_path / "out", quick(text, teacher=str(zoo("llama"))))
    with pytest.raises(
        HealError, match=r"wrong teacher: .* has another vocabulary .*\n  expected 12,288 rows .* found 131"
    ):
        heal(cut, tmp_path / "out", quick(text, teacher=str(zoo("llama")), any_teacher=True))
    plain = tmp_path / "plain"
    shutil.copytree(cut, plain)
    (plain / "slice.json").unlink()
    with pytest.raises(HealError, match=r"has no slice.json, and its vocabulary is not that of"):
        heal(plain, tmp_path / "out", quick(text))
    result = heal(plain, tmp_path / "out", quick(text, teacher=str(cut), steps=1))
    assert result.loss["first"] > 0


def test_a_wrong_plan(cut, text, tmp_path):
    """A record whose map was edited is refused before anything is read."""
    edited = tmp_path / "edited"
    shutil.copytree(cut, edited)
    record = json.loads((edited / "slice.json").read_text())
    record["new_to_old"][5] += 1
    (edited / "slice.json").write_text(json.dumps(record))
    with pytest.raises(langslice.LangsliceError, match="`new_to_old` is not the map of the plan next to it"):
        heal(edited, tmp_path / "out", quick(text))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.healing").exists()
