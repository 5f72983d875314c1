"""Loss of reference translations: equal to a naive loop over whole prompts, in families of every kind of attention."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from langslice.errors import TaskError
from langslice.evaluation.label_scores import score_ends
from langslice.evaluation.main import refuse_unfit
from langslice.evaluation.parallel import read_parallel
from langslice.evaluation.settings import make_settings
from langslice.evaluation.task_registry import prepare
from langslice.evaluation.translation import make_pair
from langslice.evaluation.translation_loss import measure_translation_loss
from langslice.mini import heldout_text, mini_model_path
from langslice.model.checkpoint import open_checkpoint
from tests.evaluation.test_label_scores import loaded_zoo, naive


@pytest.fixture(scope="module")
def mini():
    from langslice.evaluation.loaded_model import load_model

    return load_model(mini_model_path(), device="cpu")


@pytest.mark.parametrize(("shots", "separator"), [(2, "\n"), (0, "\n"), (1, "<eos>")])
def test_bits_equal_a_naive_loop(mini, shots, separator):
    separator = mini.tokenizer.eos_token if separator == "<eos>" else separator
    pair = make_pair(read_parallel("t", ["fr", "en"], None), "fr", "en", shots=shots, limit=4)
    (found,) = measure_translation_loss(mini, pair, separator=separator)
    assert (found.task, found.language, found.metric) == ("translation_loss", "fr-en", "bits per byte of the reference")
    before = "".join(f"French: {one}{separator}English: {two}{separator}" for one, two in pair.shots)
    bits = []
    for source, reference in zip(pair.sources, pair.references, strict=True):
        prompt = f"{before}French: {source}{separator}English:"
        ids = mini.tokenizer(f"{prompt} {reference}").input_ids
        start = len(mini.tokenizer(prompt).input_ids)
        bits.append(-naive(mini.model, ids)[start - 1 :].sum() / log(2))
    sizes = [len(line.encode()) for line in pair.references]
    assert np.allclose(found.items, np.array([bits, sizes]).T, rtol=1e-4)
    assert found.value == pytest.approx(sum(bits) / sum(sizes), rel=1e-4)
    assert found.better == "lower"


def test_a_reference_that_does_not_belong_costs_more(mini):
    lines = heldout_text("en")[:6]
    text = {"fr": lines, "en": lines}
    from langslice.evaluation.parallel import ParallelText

    right = make_pair(ParallelText("t", text, {}), "fr", "en", shots=0, limit=6)
    wrong = make_pair(ParallelText("t", {"fr": lines, "en": lines[::-1]}, {}), "fr", "en", shots=0, limit=6)
    (one,), (other,) = (measure_translation_loss(mini, pair) for pair in (right, wrong))
    assert one.value < other.value


@pytest.mark.parametrize("model_type", ["llama", "bloom", "gemma2", "mistral"])
def test_ends_are_scored_as_alone(model_type, zoo):
    loaded = loaded_zoo(zoo(model_type), model_type)
    rng = np.random.default_rng(0)
    common = rng.integers(3, 40, 12).tolist()
    rows = [[*common, *rng.integers(3, 40, size).tolist()] for size in (3, 9, 5, 1)]
    starts = [13, 16, 14, 12]
    found = score_ends(loaded, rows, starts)
    for ids, start, values in zip(rows, starts, found, strict=True):
        assert np.abs(naive(loaded.model, ids)[start - 1 :] - values).max() < 1e-4


def test_a_model_without_a_cache_says_so_and_scores_the_same(zoo):
    loaded = loaded_zoo(zoo("llama"), "llama")
    rows, starts = [[5, 6, 7, 8, 9], [5, 6, 7, 9, 4, 3]], [4, 4]
    expected = score_ends(loaded, rows, starts)
    forward = loaded.model.forward

    def without_cache(**inputs):
        return forward(**{**inputs, "use_cache": False})

    loaded.model.forward = without_cache
    found = score_ends(loaded, rows, starts)
    assert loaded.notes == ["the model has no cache that can be shared: every candidate was read whole"]
    assert all(np.allclose(one, other, atol=1e-4) for one, other in zip(expected, found, strict=True))


def test_an_encoder_decoder_is_refused(zoo):
    settings = make_settings(tasks=("translation_loss",), languages=("fr",), limit=2)
    with pytest.raises(TaskError, match="it needs a model that is causal"):
        refuse_unfit(prepare(settings), open_checkpoint(zoo("t5")), settings)
