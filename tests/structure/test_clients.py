"""What a plan says of other clients: sizes that mean something to llama.cpp, and what each takes of fewer heads."""

from __future__ import annotations

import pytest

import langslice
from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import open_checkpoint
from langslice.structure import clients
from langslice.structure.clients import client_note, size_note
from tests.zoo import add_tokenizer, build


@pytest.mark.parametrize(
    ("model_type", "layers", "before", "after", "told"),
    [
        ("llama", 2, 32016, 9000, "the slice has 9000 and is no longer taken for it"),
        ("granite", 2, 51200, 49152, "the slice has as many. Only its converter"),
        ("llama", 2, 49152, 49152, ""),
        ("gpt2", 2, 49152, 9000, ""),
        ("llama", 2, 128256, 9000, ""),
        ("deepseek_v3", 48, 128256, 9000, "queries have no low-rank projection; the slice has 9000"),
        ("deepseek_v3", 61, 128256, 9000, ""),
    ],
)
def test_sizes_that_llama_cpp_takes_for_a_model(model_type, layers, before, after, told):
    note = size_note({"model_type": model_type, "num_hidden_layers": layers}, before, after)
    assert bool(note) == bool(told) and told in note


def test_a_plan_names_the_size_that_it_leaves_and_the_one_that_it_hits(tmp_path, monkeypatch):
    source = add_tokenizer(build("llama", tmp_path / "source"))
    kinds = clients.LLAMA_CPP_SIZES[32016]
    plan = langslice.plan(source, scripts="Latn")
    monkeypatch.setattr(clients, "LLAMA_CPP_SIZES", {plan.rows: kinds})
    assert any("CodeLlama" in note and "no longer" in note for note in langslice.plan(source, scripts="Latn").notes)
    monkeypatch.setattr(clients, "LLAMA_CPP_SIZES", {128: kinds})
    padded = langslice.plan(source, scripts="Latn", pad_to_multiple_of=64)
    assert any("CodeLlama" in note and "has as many" in note for note in padded.notes)
    assert not any("CodeLlama" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("model_type", "refuse"), [("llama", {"CTranslate2"}), ("mistral", set()), ("granite", {"MLX"})]
)
def test_fewer_heads_in_other_clients(model_type, refuse, tmp_path):
    source = build(model_type, tmp_path / "source")
    plan = langslice.plan(source, heads_sparsity=0.5, uniform=True)
    told = client_note(read_anatomy(open_checkpoint(source)), plan.structure)
    assert "loads in transformers" in told.split(";")[0] and "vLLM" in told.split(";")[0]
    assert {name for name in clients.CLIENTS if f"{name} (not with fewer heads)" in told} == refuse
