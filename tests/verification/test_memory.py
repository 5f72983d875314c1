"""What verification holds in memory at once: one tokenizer or one model, and of a model what its running module reads."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import langslice
from langslice.model.checkpoint import open_checkpoint
from langslice.planning.source import Source
from langslice.tokenizer.source import remembered
from langslice.verification import main as verification
from langslice.verification import weight_pages
from langslice.verification.outputs import load_unmodified
from tests.verification.sources import make_mini

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    return make_mini(tmp_path_factory.mktemp("memory") / "mini")


def test_no_tokenizer_is_left_when_models_are_built(mini, tmp_path, monkeypatch):
    """Both tokenizers, with all that was worked out from them, are gone before a model's class is imported."""
    opened, left = [], []
    open_source, open_result, check = Source.tokenizer.func, verification.open_tokenizer, verification.check_loading

    def noted(open_one):
        def opening(*given, **named):
            found = open_one(*given, **named)
            opened.append(weakref.ref(found))
            return found

        return opening

    def loading(*given):
        left.extend(found for found in (one() for one in opened) if found is not None)
        return check(*given)

    monkeypatch.setattr(Source.tokenizer, "func", noted(open_source))
    monkeypatch.setattr(verification, "open_tokenizer", noted(open_result))
    monkeypatch.setattr(verification, "check_loading", loading)
    assert langslice.slice(mini, tmp_path / "out", languages="en").verification.passed
    assert len(opened) >= 2
    assert not left


def test_what_is_remembered_of_a_tokenizer_goes_with_it(mini):
    asked = []

    @remembered
    def size(tokenizer, scale=1):
        asked.append(scale)
        return len(tokenizer.tokens) * scale

    tokenizer = Source(open_checkpoint(mini)).tokenizer
    assert size(tokenizer, 2) == size(tokenizer, 2) == 2 * size(tokenizer)
    assert asked == [2, 1]
    tokenizer.release()
    size(tokenizer)
    assert asked == [2, 1, 1]
    last = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert last() is None


def test_pages_are_given_back_and_nothing_computed_changes(mini, monkeypatch):
    """Weights lie in their file: what was read of them is dropped after each module, unless somebody wrote to them in memory."""
    monkeypatch.setattr(weight_pages, "_SMALL", 0)
    model = load_unmodified(mini)
    given_back = []
    give = weight_pages._give_back
    monkeypatch.setattr(
        weight_pages, "_give_back", lambda tensor, mapped: (given_back.append(tensor), give(tensor, mapped))
    )
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        with weight_pages.giving_back_pages(model):
            assert torch.equal(model(input_ids=ids).logits, expected)
            assert torch.equal(model(input_ids=ids).logits, expected)
    held = sum(one.numel() for one in {id(one): one for one in given_back}.values())
    assert held == sum(one.numel() for one in model.parameters())
    start = next(model.parameters()).data_ptr()
    assert any(low <= start < high for low, high in weight_pages._clean_mappings())
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert not any(low <= start < high for low, high in weight_pages._clean_mappings())
    with torch.inference_mode():
        changed = model(input_ids=ids).logits
        with weight_pages.giving_back_pages(model):
            assert torch.equal(model(input_ids=ids).logits, changed)
            assert torch.equal(model(input_ids=ids).logits, changed)


def test_a_head_in_blocks_of_rows_gives_what_it_gives_whole(monkeypatch):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(8, 70)

        def get_output_embeddings(self):
            return self.head

    torch.manual_seed(0)
    model, states = Model(), torch.randn(1, 9, 8)
    monkeypatch.setattr(weight_pages, "_HEAD_ROWS", 16)
    with torch.inference_mode():
        whole = model.head(states)
        with weight_pages.head_at_last(model):
            found = model.head(states)
        assert found.shape == (1, 4, 70)
        assert torch.allclose(found, whole[:, -4:], atol=1e-6)
        assert torch.equal(model.head(states), whole)


def test_neurons_are_removed_without_reading_merges_and_the_plan_is_the_same(mini, tmp_path, monkeypatch):
    from langslice.tokenizer import document

    expected = langslice.plan(mini, languages="en", neurons_sparsity=0.25, uniform=True)
    read = document._read_merges
    monkeypatch.setattr(document, "_read_merges", lambda *_: pytest.fail("merges were read"))
    made = langslice.slice(mini, tmp_path / "out", neurons_sparsity=0.25, uniform=True, verify=False).plan
    assert made.fingerprint == expected.fingerprint
    assert made.tokens == Source(open_checkpoint(mini), needs_tokenizer=False).tokenizer.tokens
    late = Source(open_checkpoint(mini), needs_tokenizer=False).tokenizer.document
    monkeypatch.setattr(document, "_read_merges", read)
    whole = Source(open_checkpoint(mini)).tokenizer.document
    assert (late.merges.product == whole.merges.product).all()
