"""Classes made up to mislead: what is derived of them is proven, or refused by name, and never wrong."""

from __future__ import annotations

import sys

import pytest

import langslice
from langslice.errors import LangsliceError, UnknownFamilyError, VerificationError
from tests.families.made_up import LAYERS, ROWS, MadeUp, MadeUpConfig, save


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Transformers knows the class for the length of a test."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    # Looked up now: importing some of its parts puts another module object in the place of `transformers`.
    monkeypatch.setattr(sys.modules["transformers"], "MadeUp", MadeUp, raising=False)
    monkeypatch.setitem(CONFIG_MAPPING._extra_content, "made_up", MadeUpConfig)


@pytest.mark.parametrize("trick", ["", "second table", "by chance"])
def test_proven(trick, tmp_path):
    source = save(tmp_path / "source", trick)
    result = langslice.slice(source, tmp_path / "out", scripts="Hang")
    assert result.verification.passed
    sliced = {name for name, tensor in result.plan.tensors.items() if tensor.action == "slice"}
    assert ("colour" in sliced) == (trick == "second table")
    assert "histogram" not in sliced  # as long as the vocabulary, by chance


@pytest.mark.parametrize(
    ("trick", "error", "why"),
    [
        ("scaled", VerificationError, "hidden states differ"),
        ("hidden buffer", UnknownFamilyError, "weights changes with the vocabulary, and is in no checkpoint"),
        ("pairs", UnknownFamilyError, "pairs.weight changes from"),
        ("square", VerificationError, "mismatched: follows"),
        # Transformers itself does not load what the configuration denies: its head is random.
        ("tie", VerificationError, "logits of kept tokens differ"),
        ("other field", UnknownFamilyError, "`vocab_size` does not set their number"),
        ("one id", VerificationError, "hidden states differ"),
        ("hashed", VerificationError, "hidden states differ"),
    ],
)
def test_refused_by_name(trick, error, why, tmp_path):
    config = {"tie_word_embeddings": False} if trick == "tie" else {}
    source = save(tmp_path / "source", trick, **config)
    with pytest.raises(error, match=why):
        langslice.slice(source, tmp_path / "out", scripts="Hang")
    assert not (tmp_path / "out").exists()


def test_rows_that_the_class_pads(tmp_path):
    source = save(tmp_path / "source", "padded")
    with pytest.raises(LangsliceError):  # the class would make more rows than the slice has
        langslice.slice(source, tmp_path / "out", scripts="Hang")
    result = langslice.slice(source, tmp_path / "padded", scripts="Hang", pad_to_multiple_of=64)
    assert result.verification.passed


@pytest.mark.parametrize("layers", ["0", "2", "1-2"])
def test_a_list_with_one_entry_per_layer_under_an_unknown_name(layers, tmp_path):
    source = save(tmp_path / "source", "list")
    result = langslice.slice(source, tmp_path / "out", drop_layers=layers)
    assert result.verification.passed
    gains = MadeUpConfig.from_pretrained(tmp_path / "out").gains
    gone = {"0": [0], "2": [2], "1-2": [1, 2]}[layers]
    assert gains == [at + 1.0 for at in range(LAYERS) if at not in gone]


def test_a_list_of_numbers_that_only_looks_so(tmp_path):
    """Its gains go round, one after another: no shorter list says what is left."""
    source = save(tmp_path / "source", "list", gains=[1.0, 2.0])
    with pytest.raises(VerificationError, match="last hidden states differ"):
        langslice.slice(source, tmp_path / "out", drop_layers="1")
    result = langslice.slice(source, tmp_path / "pair", drop_layers="0-1")
    assert result.verification.passed
    assert len(result.plan.kept) == ROWS


def test_neurons(tmp_path):
    source = save(tmp_path / "source", "")
    neurons = [f"{layer}:{layer}-{layer + 7}" for layer in range(LAYERS)]
    assert langslice.slice(source, tmp_path / "out", drop_neurons=neurons).verification.passed
