"""A slice of a loaded model is trained, and its rows come back into the model in place."""

from __future__ import annotations

import pytest
import torch
import transformers

import langslice
from langslice.errors import OptionError, PlanError

TEXTS = ["the land and men", "a line\nof the sand"]
# Tied and untied tables, a masked model with a bias per token, an encoder-decoder, tables per layer.
FAMILIES = {
    "llama": transformers.AutoModelForCausalLM, "gemma3_text": transformers.AutoModelForCausalLM,
    "bert": transformers.AutoModelForMaskedLM, "t5": transformers.AutoModelForSeq2SeqLM,
    "gemma3n_text": transformers.AutoModelForCausalLM,
}  # fmt: skip


# Of all tables but Gemma 3n's, which has fewer rows per layer.
ROWS = (131, 121)


def load(folder, model_type):
    return FAMILIES[model_type].from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("model_type", FAMILIES)
def test_trained_rows_come_back_and_all_others_stay(zoo, model_type):
    model, tokenizer = load(zoo(model_type), model_type)
    model.train()
    before, places = snapshot(model), {name: value.data_ptr() for name, value in model.state_dict().items()}
    with langslice.shrink(model, tokenizer, texts=TEXTS, verify=False) as (small, small_tokenizer):
        assert small is not model and len(small_tokenizer) < len(tokenizer) and small.training
        kept = tokenizer.convert_tokens_to_ids(small_tokenizer.convert_ids_to_tokens(range(len(small_tokenizer))))
        with torch.no_grad():
            for value in small.parameters():
                value += 1
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    tables = 0
    for name, value in model.state_dict().items():
        assert value.data_ptr() == places[name] and value.dtype == before[name].dtype
        rows = next((size for size in value.shape if size in ROWS), 0)
        if rows:
            tables += 1
            dim = value.shape.index(rows)
            others = torch.tensor(sorted(set(range(rows)) - set(kept)))
            changed = torch.tensor(sorted(place for place in kept if place < rows))
            assert torch.equal(value.index_select(dim, others), before[name].index_select(dim, others)), name
            assert torch.equal(value.index_select(dim, changed), before[name].index_select(dim, changed) + 1), name
        elif name in dict(model.named_parameters()):
            assert torch.equal(value, before[name] + 1), name
    assert tables and model.training
    tied = model.config.get_text_config().tie_word_embeddings
    if model.get_output_embeddings() is not None and tied:
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.usefixtures("one_thread")
def test_the_model_is_as_it_was_when_an_error_leaves_the_block_or_the_slice_no_longer_fits(zoo):
    model, tokenizer = load(zoo("llama"), "llama")
    model.to(torch.bfloat16)
    before = snapshot(model)
    with (
        pytest.raises(RuntimeError, match="out of patience"),
        langslice.shrink(model, tokenizer, scripts="Latn", verify=False) as (small, _),
    ):
        assert small.dtype == torch.bfloat16
        small.get_input_embeddings().weight.data += 1
        raise RuntimeError("out of patience")
    with pytest.raises(PlanError), langslice.shrink(model, tokenizer, scripts="Latn", verify=False) as (small, _):
        small.resize_token_embeddings(len(tokenizer) + 7)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with langslice.shrink(model, tokenizer, scripts="Latn", verify=False):
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.dtype == torch.bfloat16


def test_what_cannot_be_shrunk_is_refused():
    with pytest.raises(OptionError, match="`texts` must be a list of texts, found one"):
        langslice.shrink(object(), object(), texts="the land")
    with pytest.raises(OptionError, match="`model` must be of transformers, found str"):
        langslice.shrink("mini", object(), languages="ko")
    with pytest.raises(langslice.LangsliceError, match="unknown parameter `langages`"):
        langslice.shrink(object(), object(), langages="ko")
