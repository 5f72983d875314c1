"""The table of families against the tensors that unmodified transformers writes."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open

from langslice.errors import CheckpointError, UnknownFamilyError, UnknownTensorError
from langslice.model import axes
from langslice.model.axes import describe_tensor, find_vocabulary_size
from langslice.model.families import family_of
from tests.zoo import FAMILIES, VOCABULARY

# Axes that one stack gives several lengths: experts are narrower than the dense layers before them.
# A latent attention has heads of other lengths in tables of queries, of keys and values, and of outputs; tables of Gemma 3n that
# mix its inputs are as long as their square in one and as they are in the other.
SEVERAL_LENGTHS = {
    ("deepseek_v3", "heads"),
    ("deepseek_v3", "neurons"),
    ("gemma3n_text", "mixed"),
    ("qwen3_moe", "neurons"),
}


def stored_shapes(folder):
    with safe_open(folder / "model.safetensors", "np") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_every_tensor_has_axes_that_agree(model_type, zoo):
    folder = zoo(model_type)
    family = family_of(json.loads((folder / "config.json").read_text()))
    shapes = stored_shapes(folder)
    assert find_vocabulary_size(family, shapes) == VOCABULARY
    lengths: dict[tuple[str, str], set[int]] = {}
    for name, shape in shapes.items():
        described = describe_tensor(family, name, shape, frozenset({VOCABULARY}))
        assert (VOCABULARY in shape) == ("vocab" in (described.axes or ())), name
        stack = "encoder" if "encoder." in name else "decoder" if "decoder." in name else ""
        for axis, size in zip(described.axes or (), shape, strict=False):
            lengths.setdefault((stack, axis), set()).add(size)
    several = {axis for (_, axis), sizes in lengths.items() if len(sizes) > 1}
    assert {(model_type, axis) for axis in several} <= SEVERAL_LENGTHS


def test_unknown_family_names_similar_ones():
    with pytest.raises(UnknownFamilyError, match=r"unknown model type `qwen9`.*qwen3"):
        family_of({"model_type": "qwen9"})
    with pytest.raises(UnknownFamilyError, match="no `model_type`"):
        family_of({})


def test_unknown_tensor_as_long_as_the_vocabulary_stops():
    llama = family_of({"model_type": "llama"})
    with pytest.raises(UnknownTensorError, match=r"(?s)model\.token_scales.*as long as the vocabulary"):
        describe_tensor(llama, "model.token_scales", (VOCABULARY,), frozenset({VOCABULARY}))
    assert describe_tensor(llama, "model.token_scales", (7,), frozenset({VOCABULARY})).axes is None


def test_quantised_storage_passes_inside_blocks_and_stops_along_the_vocabulary():
    llama = family_of({"model_type": "llama"})
    packed = describe_tensor(llama, "model.layers.0.self_attn.q_proj.qweight", (3, 40), frozenset({VOCABULARY}))
    assert packed.axes is None
    assert packed.part == "attention"
    with pytest.raises(UnknownTensorError, match=r"lm_head .* is stored quantised") as error:
        describe_tensor(llama, "lm_head.qweight", (24, 17), frozenset({VOCABULARY}))
    assert "families.py" not in str(error.value)
    assert describe_tensor(llama, "lm_head.qweight", (24, 17), frozenset({VOCABULARY}), cut=False).axes is None
    assert describe_tensor(llama, "lm_head.SCB", (VOCABULARY,), frozenset({VOCABULARY})).axes == ("vocab",)
    with pytest.raises(UnknownTensorError, match="its storage format is not known"):
        describe_tensor(llama, "lm_head.table", (24, 17), frozenset({VOCABULARY}))


def test_a_row_taken_from_the_table_stops_the_job(monkeypatch, zoo):
    folder = zoo("bart")
    without = tuple(rule for rule in axes.COMMON if rule.pattern != "final_logits_bias")
    monkeypatch.setattr(axes, "COMMON", without)
    family = family_of({"model_type": "bart"})
    with pytest.raises(UnknownTensorError, match="final_logits_bias"):
        for name, shape in stored_shapes(folder).items():
            describe_tensor(family, name, shape, frozenset({VOCABULARY}))


def test_vocabularies_of_two_sizes_are_refused():
    shapes = {"model.encoder.embed_tokens.weight": (11, 4), "model.decoder.embed_tokens.weight": (13, 4)}
    with pytest.raises(CheckpointError, match="disagree about the size of the vocabulary"):
        find_vocabulary_size(family_of({"model_type": "marian"}), shapes)
    with pytest.raises(UnknownTensorError, match=r"no tensor .* runs along the vocabulary"):
        find_vocabulary_size(family_of({"model_type": "llama"}), {"layers.0.x": (3,)})
