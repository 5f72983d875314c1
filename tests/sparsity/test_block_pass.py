"""Blocks walked one at a time see and make what the whole model does, in every family that reads text."""

from __future__ import annotations

import os

import pytest

from langslice.demonstrations.tokens import Prompt
from langslice.sparsity.block_pass import walk
from langslice.sparsity.skeleton import Skeleton
from tests.zoo import FAMILIES

# The last three have other names on disk than in unmodified code.
REFUSED = {
    "albert", "whisper", "gemma3n_text", "gte", "jina_embeddings_v3", "nomic_bert",
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(FAMILIES.keys() - REFUSED))
def test_hidden_states_equal_those_of_the_loaded_model(zoo, model_type):
    import torch

    from langslice.model.transformers_classes import model_class, quiet_transformers

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
    for parameter in model.parameters():  # a few tokens' products are rounded by where the weights lie in memory
        parameter.data = parameter.data.clone()
    if hasattr(model.config, "_experts_implementation"):
        model.set_experts_implementation("eager")
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


@pytest.mark.parametrize("model_type", ["bert", "bloom", "gemma3", "gpt2", "llama", "m2m_100", "modernbert", "mt5"])
def test_packed_weights_give_the_same_values_up_to_rounding(zoo, model_type):
    import torch

    folder = zoo(model_type)
    written = (2, 5, 6, 7) if Skeleton(folder).is_encoder_decoder else None
    prompts = [Prompt("keep", 0, (4, 99, 17, 30, 11), written), Prompt("avoid", 0, (64, 8, 8), written)]
    found: dict[bool, dict] = {True: {}, False: {}}
    sums: dict[bool, dict] = {True: {}, False: {}}
    for pack in (True, False):
        for visit in walk(
            Skeleton(folder),
            prompts,
            watched=lambda block: block.linears,
            pack=pack,
            on_hidden=lambda name, number, hidden, of=found[pack]: of.__setitem__((name, number), hidden.clone()),
        ):
            assert all("forward" not in vars(linear.module) for linear in visit.block.linears), "given back"
            for linear in visit.block.linears:
                sums[pack][linear.name] = torch.from_numpy(visit.statistics.mean_squares("keep", linear))
    for key, hidden in found[False].items():
        torch.testing.assert_close(found[True][key], hidden, rtol=1e-4, atol=1e-5)
    for name, squares in sums[False].items():
        torch.testing.assert_close(sums[True][name], squares, rtol=1e-4, atol=1e-5)


def test_packed_weights_are_used_where_prompts_are_long_together(zoo, monkeypatch):
    import torch

    from langslice.sparsity import packed_weights as packing

    if packing._operations("float32") is None:
        switched_off = os.environ.get(packing.SWITCH) == "0"
        assert switched_off or not torch.backends.mkldnn.is_available(), "torch has oneDNN, which did not work"
        return
    arrange, multiply = packing._operations("float32")
    arranged, multiplied = [], []
    monkeypatch.setattr(
        packing,
        "_operations",
        lambda compute: (
            lambda weight: arranged.append(weight.shape) or arrange(weight),
            lambda *given: multiplied.append(0) or multiply(*given),
        ),
    )
    prompts = [Prompt("keep", number, tuple(range(3, 67))) for number in range(packing.MIN_TOKENS // 64)]
    for few, count in ((prompts[1:], 0), (prompts, 3 + 2)):
        for _ in walk(Skeleton(zoo("llama")), few, watched=lambda block: block.linears):
            pass
        assert len(arranged) == 7 * count, "each of three blocks is observed, the last is not passed"
        # The last layer of a block is multiplied for the first prompt alone while its inputs are counted.
        assert len(multiplied) == (16 * 7 * count - 15 * 3 if count else 0)


@pytest.fixture
def probed_again(monkeypatch):
    """Let this test try oneDNN's operations anew, and the next one too."""
    from langslice.sparsity.packed_weights import SWITCH, _operations

    monkeypatch.delenv(SWITCH, raising=False)
    _operations.cache_clear()
    yield
    _operations.cache_clear()


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, AttributeError, TypeError])
def test_what_onednn_refuses_is_left_to_torch(zoo, monkeypatch, probed_again, error):
    """As on a processor without AVX-512, where it takes float32 alone."""
    import torch

    from langslice.sparsity import packed_weights as packing

    arrange = torch.ops.mkldnn._reorder_linear_weight
    asked = []

    def refuse(weight):
        asked.append(weight.dtype)
        if weight.dtype == torch.bfloat16:
            raise error("mkldnn_reorder_linear_weight: bf16 path needs the cpu support")
        return arrange(weight)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuse)
    for compute in ("bfloat16", "float32", "bfloat16"):
        for _ in walk(Skeleton(zoo("llama")), [Prompt("keep", 0, (4, 99, 17, 30, 11))], compute=compute, pack=True):
            pass
    assert asked.count(torch.bfloat16) == 1, "tried once"
    assert packing._operations("bfloat16") is None and packing._operations("float32") is not None


def test_a_wrong_product_of_onednn_is_not_used(monkeypatch, probed_again):
    import torch

    from langslice.sparsity import packed_weights as packing

    multiply = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *given: multiply(*given) + 1)
    assert packing._operations("float32") is None


def test_the_switch_leaves_onednn_alone(monkeypatch, probed_again):
    from langslice.sparsity import packed_weights as packing

    monkeypatch.setenv("LANGSLICE_ONEDNN", "0")
    assert packing._operations("float32") is packing._operations("bfloat16") is None


@pytest.mark.parametrize("name", ["NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation", "BloomGelu"])
def test_classes_taken_for_the_tanh_form_of_gelu_are_it(name):
    import torch
    from transformers import activations
    from transformers.models.bloom import modeling_bloom

    from langslice.sparsity.packed_weights import TANH_GELU

    assert name in TANH_GELU
    stock = getattr(modeling_bloom if name == "BloomGelu" else activations, name)().eval()
    rows = torch.linspace(-12, 12, 4001)
    torch.testing.assert_close(torch.nn.functional.gelu(rows, approximate="tanh"), stock(rows), rtol=1e-5, atol=1e-6)


def test_outputs_that_nobody_reads_are_not_kept(zoo, monkeypatch):
    import torch

    from langslice.errors import CheckpointError
    from langslice.sparsity import activations

    kept = []
    put = activations.Activations.put
    monkeypatch.setattr(activations.Activations, "put", lambda self, *given: (kept.append(given), put(self, *given))[1])
    for model_type in ("bloom", "mt5"):
        kept.clear()
        written = (2, 5, 6, 7) if model_type == "mt5" else None
        for _ in walk(
            Skeleton(zoo(model_type)), [Prompt("keep", at, (4, 99, 17), written) for at in (0, 1)],
            on_hidden=lambda *_: None,
        ):  # fmt: skip
            pass
        last = {stack: output for _, stack, output in kept}
        if model_type == "bloom":
            # Older versions return no second output at all.
            assert not any(each is not None for each in last["transformer.h"][1:]), "attention weights nobody asked for"
        else:
            assert last["decoder.block"][1] is not None, "position biases go from block to block"
    answer = activations.Answer((torch.ones(1), None), {0}, frozenset({1}))
    assert answer[0] == 1
    for reading in (
        lambda: answer[1],
        lambda: answer[-1],
        lambda: list(answer),
        lambda: answer[1:],
        lambda: answer + (1,),
    ):
        with pytest.raises(CheckpointError, match="a block's output is read that was not read of the block before"):
            reading()


def test_every_parameter_outside_the_vocabulary_is_given_back(zoo):
    skeleton = Skeleton(zoo("llama"))
    for visit in walk(skeleton, [Prompt("keep", 0, (4, 5))], watched=lambda block: block.linears):
        loaded = [block.name for block in skeleton.blocks if not next(block.module.parameters()).is_meta]
        assert loaded == [visit.block.name], "one block at a time"
    assert all(next(block.module.parameters()).is_meta for block in skeleton.blocks)
    assert skeleton.model.lm_head.weight.is_meta
    assert skeleton.model.model.embed_tokens.weight.shape == (2, 24), "only the rows that are used"


@pytest.mark.parametrize("pack", [False, True])
def test_products_in_bfloat16_are_used_and_outputs_are_float32(zoo, pack):
    import torch

    found = {}
    for compute in ("float32", "bfloat16"):
        for _ in walk(
            Skeleton(zoo("llama")),
            [Prompt("keep", 0, (4, 99, 17, 30, 11))],
            compute=compute,
            pack=pack,
            on_hidden=lambda name, _, hidden, compute=compute: found.__setitem__((name, compute), hidden.clone()),
        ):
            pass
    exact, fast = found["model.layers.2", "float32"], found["model.layers.2", "bfloat16"]
    assert fast.dtype == torch.float32 and not torch.equal(exact, fast)
    assert float((exact - fast).norm() / exact.norm()) < 0.02
