"""Blocks walked one at a time see and make what the whole model does, in every family that reads text."""

from __future__ import annotations

import pytest

from langslice.demonstrations.tokens import Prompt
from langslice.sparsity.skeleton import Skeleton
from langslice.sparsity.walking import walk
from tests.zoo import FAMILIES

# The last three have other names on disk than in stock code.
REFUSED = {
    "albert", "whisper", "qwen3_moe", "mixtral", "deepseek_v3", "gemma3n_text", "gte", "jina_embeddings_v3", "nomic_bert",
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(FAMILIES.keys() - REFUSED))
def test_hidden_states_equal_those_of_the_loaded_model(zoo, model_type):
    import torch

    from langslice.stock import model_class, quiet_transformers

    folder = zoo(model_type)
    skeleton = Skeleton(folder)
    written = (2, 5, 6, 7) if skeleton.is_encoder_decoder else None
    prompts = [Prompt("keep", 0, (4, 99, 17, 30, 11), written), Prompt("avoid", 0, (64, 8, 8), written)]
    found = {}
    visits = walk(
        skeleton,
        prompts,
        watched=lambda block: block.linears,
        on_hidden=lambda name, number, hidden: found.__setitem__((name, number), hidden.clone()),
    )
    names = [visit.block.name for visit in visits]
    with quiet_transformers():
        model = model_class(folder).from_pretrained(folder).float().eval()
    seen = {}
    for number, prompt in enumerate(prompts):
        handles = [
            model.get_submodule(name).register_forward_hook(
                lambda _, __, output, key=(name, number): seen.__setitem__(
                    key, output[0] if isinstance(output, tuple) else output
                )
            )
            for name in names
        ]
        with torch.no_grad():
            model(**prompt.inputs())
        for handle in handles:
            handle.remove()
    assert len(names) >= 3 and seen.keys() == found.keys() - {("embeddings", 0), ("embeddings", 1)}
    for key, hidden in seen.items():
        assert torch.equal(found[key], hidden), key


def test_every_parameter_outside_the_vocabulary_is_given_back(zoo):
    skeleton = Skeleton(zoo("llama"))
    for visit in walk(skeleton, [Prompt("keep", 0, (4, 5))], watched=lambda block: block.linears):
        loaded = [block.name for block in skeleton.blocks if not next(block.module.parameters()).is_meta]
        assert loaded == [visit.block.name], "one block at a time"
    assert all(next(block.module.parameters()).is_meta for block in skeleton.blocks)
    assert skeleton.model.lm_head.weight.is_meta
    assert skeleton.model.model.embed_tokens.weight.shape == (2, 24), "only the rows that are used"


def test_products_in_bfloat16_are_used_and_outputs_are_float32(zoo):
    import torch

    found = {}
    for compute in ("float32", "bfloat16"):
        for _ in walk(
            Skeleton(zoo("llama")),
            [Prompt("keep", 0, (4, 99, 17, 30, 11))],
            compute=compute,
            on_hidden=lambda name, _, hidden, compute=compute: found.__setitem__((name, compute), hidden.clone()),
        ):
            pass
    exact, fast = found["model.layers.2", "float32"], found["model.layers.2", "bfloat16"]
    assert fast.dtype == torch.float32 and not torch.equal(exact, fast)
    assert float((exact - fast).norm() / exact.norm()) < 0.02
