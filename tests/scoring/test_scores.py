"""Scores: hand-worked numbers, naive reimplementations that must agree, files, and every kind of bad input."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from langslice.errors import CheckpointError, CorpusError, LangsliceError, ScoreError
from langslice.model.anatomy import Heads, read_anatomy
from langslice.model.checkpoint import TensorEntry, open_checkpoint
from langslice.scoring import METHODS, ScoreSettings, compute, load_scores
from langslice.scoring.magnitude import power_sums, rows_by_head
from langslice.scoring.table import averaged
from langslice.scoring.texts import read_score_texts, sample_lines

KO = ["가감값 갔강", "각간 갈", "갈 감갔 가각강", "값 각", "강갈간"]
EN = ["the sting and letter", "list the nest", "same tale", "the salt", "nine lines the end"]
QUICK = ScoreSettings(seeds=(0,), samples=8, steps=3)


pytestmark = pytest.mark.usefixtures("one_thread")


def stock(folder, dtype="float32"):
    import torch

    from langslice.model.transformers_classes import dtype_option, model_class, quiet_transformers

    with quiet_transformers():
        model = model_class(folder).from_pretrained(folder, **dtype_option(getattr(torch, dtype)))
    model.config.use_cache = False
    return model.eval().requires_grad_(False)


def encoded(folder, lines, start=None):
    """Ids of each line, the way the tokenizer's own library gives them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own = [tokenizer.encode(line, add_special_tokens=start is None).ids for line in lines]
    return own if start is None else [[start, *ids] for ids in own]


def line_inputs(folder, lines):
    """What a causal or encoder-decoder model of the zoo gets for each line by itself, and its labels."""
    import torch

    config = json.loads((folder / "config.json").read_text())
    seq2seq = config.get("is_encoder_decoder", False)
    for ids in encoded(folder, lines, None if seq2seq else config["bos_token_id"]):
        tokens = torch.tensor([ids])
        if seq2seq:
            decoder = torch.tensor([[config["decoder_start_token_id"], *ids[:-1]]])
            yield {"input_ids": tokens, "decoder_input_ids": decoder}, tokens
        else:
            yield {"input_ids": tokens}, torch.tensor([[*ids[1:], -100]])


# Weights


def test_power_sums_by_hand(tmp_path):
    (tmp_path / "w").write_bytes(np.array([9, 1, -2, 3, 0], "<f4").tobytes())
    entry = TensorEntry("w", "F32", (2, 2), tmp_path / "w", 4, 16)
    assert power_sums(entry, 0, 2).tolist() == [5, 9]
    assert power_sums(entry, 1, 1).tolist() == [4, 2]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_power_sums_of_other_types_and_windows(tmp_path, monkeypatch, dtype):
    import torch

    from langslice.scoring import magnitude

    weight = torch.randn(7, 5, 3).to(getattr(torch, dtype))
    (tmp_path / "w").write_bytes(weight.view(torch.uint8).numpy().tobytes())
    code = {"bfloat16": "BF16", "float16": "F16", "float64": "F64"}[dtype]
    entry = TensorEntry("w", code, (7, 5, 3), tmp_path / "w", 0, weight.numel() * weight.itemsize)
    monkeypatch.setattr(magnitude, "_WINDOW_BYTES", 2 * 15 * weight.itemsize)  # windows of two rows, the last of one
    for dim in range(3):
        others = [at for at in range(3) if at != dim]
        expected = weight.double().square().sum(others).numpy()
        np.testing.assert_allclose(power_sums(entry, dim, 2), expected, rtol=1e-6)


def test_power_sums_refuse_packed_weights(tmp_path):
    with pytest.raises(ScoreError, match="w is stored as I8; magnitudes are read from F64, F32, F16, BF16 only"):
        power_sums(TensorEntry("w", "I8", (2, 2), tmp_path / "w", 0, 4), 0, 1)


def test_rows_go_to_their_heads():
    rows = np.arange(1.0, 9.0)
    assert rows_by_head(rows, "heads", Heads(4, 4, 2), "").tolist() == [3, 7, 11, 15]
    assert rows_by_head(rows[:2], "kv_heads", Heads(4, 2, 1), "").tolist() == [1, 1, 2, 2]
    # [q q q q; k k; v v]
    assert rows_by_head(rows, "qkv", Heads(4, 2, 1), "parts").tolist() == [13, 14, 17, 18]
    # head: q k v
    assert rows_by_head(rows[:6], "qkv", Heads(2, 2, 1), "heads").tolist() == [6, 15]
    # group: q q k v
    assert rows_by_head(rows, "qkv", Heads(4, 2, 1), "groups").tolist() == [8, 9, 20, 21]
    # multi-query: [q q q q; k; v]
    assert rows_by_head(rows[:6], "qkv", Heads(4, 1, 1), "parts").tolist() == [12, 13, 14, 15]


def naive_head_norms(model_type, model, layer, head):
    """Every weight of one head, sliced out by hand."""
    if model_type == "llama":
        part, size, group = model.model.layers[layer].self_attn, 10, 2
        own, shared = slice(head * size, head * size + size), slice(head // group * size, head // group * size + size)
        return [
            part.q_proj.weight[own],
            part.k_proj.weight[shared],
            part.v_proj.weight[shared],
            part.o_proj.weight[:, own],
        ]
    if model_type == "gpt2":
        part, size = model.transformer.h[layer].attn, 6
        qkv = part.c_attn.weight.view(24, 3, 4, size)[:, :, head]
        return [qkv, part.c_proj.weight[head * size : (head + 1) * size]]
    if model_type == "bloom":
        part, size = model.transformer.h[layer].self_attention, 6
        qkv = part.query_key_value.weight.view(4, 3, size, 24)[head]
        return [qkv, part.dense.weight[:, head * size : (head + 1) * size]]
    part, size = model.model.decoder.layers[layer].encoder_attn, 6
    own = slice(head * size, head * size + size)
    return [part.q_proj.weight[own], part.k_proj.weight[own], part.v_proj.weight[own], part.out_proj.weight[:, own]]


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom", "bart"])
@pytest.mark.parametrize("order", [1, 2])
def test_head_norms_equal_slices_of_the_stock_model(zoo, model_type, order):
    import torch

    folder = zoo(model_type)
    scores = compute(open_checkpoint(folder), "heads", f"l{order}")
    assert not scores.texts
    assert (scores.spread == 0).all()
    model, place = stock(folder), "decoder.cross" if model_type == "bart" else "layers.self"
    for layer, row in scores.values()[place].items():
        for head, value in enumerate(row):
            parts = torch.cat([part.reshape(-1) for part in naive_head_norms(model_type, model, layer, head)])
            assert value == pytest.approx(float(parts.double().norm(p=order)), rel=1e-6)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "phi3", "qwen3_moe"])
def test_neuron_norms_equal_slices_of_the_stock_model(zoo, model_type):
    import torch

    folder = zoo(model_type)
    row = compute(open_checkpoint(folder), "neurons", "l2").values()["layers"][1]
    model = stock(folder)
    if model_type == "gpt2":
        first = model.transformer.h[1].mlp.c_fc.weight.T
    elif model_type == "phi3":
        first = torch.cat(model.model.layers[1].mlp.gate_up_proj.weight.chunk(2), dim=1)
    elif model_type == "llama":
        part = model.model.layers[1].mlp
        first = torch.cat([part.gate_proj.weight, part.up_proj.weight], dim=1)
    else:
        part = model.model.layers[1].mlp.experts
        if not hasattr(part, "gate_up_proj"):
            pytest.skip("this version of transformers keeps each expert apart")
        first = torch.cat([half for one in part.gate_up_proj for half in one.chunk(2)], dim=1)
    np.testing.assert_allclose(row, first.double().norm(dim=1).detach().numpy(), rtol=1e-6)


# Text


def naive_products(model, modules, inputs, labels):
    """Input times gradient of some modules for one line: (tokens, width) each, by autograd on plain tensors."""
    import torch

    seen = []

    def keep(module, args):
        args[0].retain_grad()
        seen.append(args[0])

    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    logits = model(**inputs).logits
    torch.nn.functional.cross_entropy(logits[0], labels[0], ignore_index=-100, reduction="sum").backward()
    for hook in hooks:
        hook.remove()
    return [(states * states.grad).flatten(0, -2).detach() for states in seen]


def output_projections(model_type, model):
    if model_type == "llama":
        return {("layers.self", at): one.self_attn.o_proj for at, one in enumerate(model.model.layers)}
    if model_type == "gpt2":
        return {("layers.self", at): one.attn.c_proj for at, one in enumerate(model.transformer.h)}
    sites = {("encoder.self", at): one.self_attn.out_proj for at, one in enumerate(model.model.encoder.layers)}
    for at, one in enumerate(model.model.decoder.layers):
        sites["decoder.self", at] = one.self_attn.out_proj
        sites["decoder.cross", at] = one.encoder_attn.out_proj
    return sites


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bart"])
def test_head_importance_equals_a_naive_reimplementation(zoo, model_type):
    folder = zoo(model_type)
    checkpoint = open_checkpoint(folder)
    scores = compute(checkpoint, "heads", "gradient", {"": KO + EN}, settings=ScoreSettings(seeds=(3,)))
    assert scores.loss == ("seq2seq" if model_type == "bart" else "causal")
    lines = sample_lines(KO + EN, 3, 128)
    model = stock(folder)
    sites = output_projections(model_type, model)
    totals, tokens = dict.fromkeys(sites, 0.0), 0
    for inputs, labels in line_inputs(folder, lines):
        # hooks fire in the order of the forward pass, which is that of the sites
        for key, product in zip(sites, naive_products(model, sites.values(), inputs, labels), strict=True):
            totals[key] = totals[key] + product.view(len(product), 4, -1).sum(-1).abs().sum(0).double()
        tokens += inputs["input_ids"].shape[1]
    for (place, layer), total in totals.items():
        naive = (total / tokens).numpy()
        np.testing.assert_allclose(scores.values()[place][layer], naive, rtol=2e-5, atol=1e-6)
        ours = scores.values()[place][layer]
        np.testing.assert_allclose(ours / np.linalg.norm(ours), naive / np.linalg.norm(naive), atol=1e-6)


def test_neuron_taylor_equals_a_naive_reimplementation(zoo):
    folder = zoo("opt")  # passes its neurons as (tokens, width) in some versions
    row = compute(open_checkpoint(folder), "neurons", "taylor", {"": KO}, settings=ScoreSettings(seeds=(0,))).values()
    model = stock(folder)
    modules = [one.fc2 for one in model.model.decoder.layers]
    total, tokens = 0, 0
    for inputs, labels in line_inputs(folder, sample_lines(KO, 0, 128)):
        total = total + naive_products(model, modules, inputs, labels)[1].abs().sum(0).double()
        tokens += inputs["input_ids"].shape[1]
    np.testing.assert_allclose(row["layers"][1], (total / tokens).numpy(), rtol=2e-5, atol=1e-8)


def test_language_importance_equals_the_gradient_of_an_explicit_mask(zoo):
    import torch

    folder = zoo("llama")
    scores = compute(
        open_checkpoint(folder), "heads", "lahis", {"ko": KO, "en": EN}, settings=ScoreSettings(seeds=(0,))
    )
    assert scores.languages == ("en", "ko")
    model = stock(folder)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    lines = sample_lines(KO, 0, 128)
    for inputs, labels in line_inputs(folder, lines):
        masks = torch.ones(3, 4, requires_grad=True)
        hooks = [
            one.self_attn.o_proj.register_forward_pre_hook(
                lambda module, args, mask=masks[at]: args[0] * mask.repeat_interleave(10)
            )
            for at, one in enumerate(model.model.layers)
        ]
        logits = model(**inputs).logits
        torch.nn.functional.cross_entropy(logits[0], labels[0], ignore_index=-100).backward()
        expected += masks.grad.abs().double() / len(lines)
        for hook in hooks:
            hook.remove()
    ours = np.stack(list(scores.values("ko")["layers.self"].values()))
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-4, atol=1e-7)
    both = np.stack(list(scores.values()["layers.self"].values()))
    english = np.stack(list(scores.values("en")["layers.self"].values()))
    np.testing.assert_allclose(both, (ours + english) / 2)


def test_block_influence_and_angles_equal_those_of_hidden_states(zoo):
    import torch

    folder = zoo("llama")
    checkpoint = open_checkpoint(folder)
    settings = ScoreSettings(seeds=(0,), run=2)
    influence = compute(checkpoint, "layers", "block-influence", {"": KO}, settings=settings).values()["layers"]
    angles = compute(checkpoint, "layers", "angular", {"": KO}, settings=settings).values()["layers"]
    model, cosines, turned = stock(folder), [], []
    for inputs, _ in line_inputs(folder, sample_lines(KO, 0, 128)):
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states
        cosines.append(torch.nn.functional.cosine_similarity(states[1][0], states[2][0], dim=-1))
        last = torch.nn.functional.cosine_similarity(states[0][0, -1], states[2][0, -1], dim=-1)
        turned.append(float(torch.arccos(last.double())) / np.pi)
    assert influence[1][0] == pytest.approx(1 - float(torch.cat(cosines).mean()), abs=1e-6)
    assert sorted(angles) == [0, 1]
    assert angles[0][0] == pytest.approx(np.mean(turned), abs=1e-6)


def test_greedy_removal_equals_models_without_the_layer(zoo):
    import torch

    folder = zoo("llama")
    scores = compute(open_checkpoint(folder), "layers", "perplexity", {"": KO}, settings=ScoreSettings(seeds=(0,)))

    def loss(layers):
        model = stock(folder)
        model.model.layers = torch.nn.ModuleList(model.model.layers[at] for at in layers)
        total = count = 0
        for inputs, labels in line_inputs(folder, sample_lines(KO, 0, 128)):
            with torch.no_grad():
                logits = model(**inputs).logits
            kept = labels[0] != -100
            total += float(torch.nn.functional.cross_entropy(logits[0][kept], labels[0][kept], reduction="sum"))
            count += int(kept.sum())
        return total / count

    whole = loss([0, 1, 2])
    single = {layer: loss([at for at in range(3) if at != layer]) - whole for layer in range(3)}
    values = {layer: float(row[0]) for layer, row in scores.values()["layers"].items()}
    first, second, third = sorted(values, key=values.get)
    assert first == min(single, key=single.get)
    assert values[first] == pytest.approx(single[first], abs=1e-5)
    assert values[second] == pytest.approx(max(loss([third]) - whole, values[first]), abs=1e-5)
    partial = compute(
        open_checkpoint(folder), "layers", "perplexity", {"": KO}, settings=ScoreSettings(seeds=(0,), count=1)
    )
    assert np.isinf(partial.score).sum() == 2


def test_activation_and_its_probability_equal_naive_ones(zoo):
    import torch

    folder = zoo("llama")
    checkpoint = open_checkpoint(folder)
    settings = ScoreSettings(seeds=(0,))
    chance = compute(checkpoint, "neurons", "lape", {"ko": KO, "en": EN}, settings=settings)
    mean = compute(checkpoint, "neurons", "activation", {"": EN}, settings=settings).values()["layers"][2]
    model, gates, outputs = stock(folder), [], []
    layer = model.model.layers[2].mlp
    layer.act_fn.register_forward_hook(lambda module, args, output: gates.append(output[0]))
    layer.down_proj.register_forward_pre_hook(lambda module, args: outputs.append(args[0][0]))
    for inputs, _ in line_inputs(folder, sample_lines(EN, 0, 128)):
        with torch.no_grad():
            model(**inputs)
    expected = (torch.cat(gates) > 0).double().mean(0).numpy()
    np.testing.assert_allclose(chance.values("en")["layers"][2], expected, atol=1e-9)
    np.testing.assert_allclose(mean, torch.cat(outputs).abs().double().mean(0).numpy(), rtol=1e-5)
    with pytest.raises(ScoreError, match="no rows for all languages together"):
        chance.values()


def test_hard_concrete_gates_by_hand():
    import torch

    from langslice.scoring.gradients import open_probability, sample_gates

    location = torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64)
    # sigmoid(log 9 / .33) = .99872, stretched 1.2 s - .1 = 1.0985: clipped to 1
    drawn = sample_gates(location, torch.tensor([0.5, 0.1, 0.9], dtype=torch.float64))
    assert drawn.tolist() == pytest.approx([0.5, 0.0, 1.0])
    # sigmoid(.33 log 11) = .68811
    assert float(open_probability(location)[0]) == pytest.approx(0.68811, abs=1e-5)


def test_a_gate_closes_on_a_head_that_does_nothing(zoo, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "dead"
    shutil.copytree(zoo("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"][:, 20:30] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = ScoreSettings(seeds=(0,), steps=60, penalty=0.05)
    row = compute(open_checkpoint(folder), "heads", "gates", {"": EN}, settings=settings).values()["layers.self"][1]
    assert row.argmin() == 2
    assert row[2] < 0.5
    gradient = compute(open_checkpoint(folder), "heads", "gradient", {"": EN}, settings=QUICK).values()["layers.self"][
        1
    ]
    assert gradient[2] == 0


FAMILIES = ("bert", "distilbert", "deberta-v2", "modernbert", "albert", "mt5", "marian", "bloom", "falcon", "gpt_neox",
            "phi3", "qwen3_moe", "gemma2", "gemma3", "cohere2")  # fmt: skip


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_is_scored_in_full(zoo, model_type):
    checkpoint = open_checkpoint(zoo(model_type))
    anatomy = read_anatomy(checkpoint)
    heads = {place: {at: one.query for at, one in layers.items()} for place, layers in anatomy.heads.items()}
    expected = {
        "heads": heads,
        "neurons": {stack: dict(layers) for stack, layers in anatomy.neurons.items()},
        "layers": {stack: dict.fromkeys(range(count), 1) for stack, count in anatomy.layers.items()},
    }
    for kind, method in (("heads", "gradient"), ("neurons", "lape"), ("layers", "block-influence")):

        def score(kind=kind, method=method):
            return compute(checkpoint, kind, method, {"ko": KO, "en": EN}, settings=QUICK)

        if model_type == "albert" and kind == "layers":
            with pytest.raises(ScoreError, match="the layers of `albert` share one set of weights"):
                score()
        elif model_type == "qwen3_moe" and kind == "neurons":
            with pytest.raises(ScoreError, match="layer 0 has experts, whose neurons lape cannot score"):
                score()
        else:
            found = score()
            shape = {place: {at: len(row) for at, row in one.items()} for place, one in found.values("ko").items()}
            assert shape == expected[kind]
            assert np.isfinite(found.score).all()
            assert (found.score > 0).any()


def test_at_most_one_layer_is_in_memory(zoo, tmp_path):
    import torch

    from langslice.scoring.mapped_model import one_layer_at_a_time
    from langslice.scoring.model_runs import open_running
    from tests.zoo import add_tokenizer, build

    checkpoint = open_checkpoint(add_tokenizer(build("llama", tmp_path / "half", dtype="bfloat16")))
    running = open_running(checkpoint, read_anatomy(checkpoint), whole=False)
    mapped = {tensor.untyped_storage().data_ptr() for tensor in running.weights.tensors.values()}
    layers = list(running.model.model.layers)
    most = []

    def count(module, args):
        own = [layer for layer in layers if any(p.dtype == torch.float32 for p in layer.parameters())]
        most.append(len(own))
        assert own == [module] or module not in layers

    ids = torch.arange(10, 30)[None]
    with one_layer_at_a_time(running.model, running.sites, running.weights), torch.no_grad():
        hooks = [layer.register_forward_pre_hook(count) for layer in layers]
        logits = running.model(input_ids=ids).logits
    for hook in hooks:
        hook.remove()
    assert most == [1, 1, 1]
    assert {p.untyped_storage().data_ptr() for p in running.model.parameters()} <= mapped
    with torch.no_grad():
        expected = stock(checkpoint.model_folder, "float32")(input_ids=ids).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_silenced_heads_are_zero_columns(zoo):
    import torch

    from langslice.scoring.model_runs import hooked, open_running, silencing

    checkpoint = open_checkpoint(zoo("llama"))
    running = open_running(checkpoint, read_anatomy(checkpoint), whole=True)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        with hooked(silencing(running.sites, running.anatomy, {"layers.self": {1: (0, 3)}}, {"layers": {2: (5,)}})):
            silent = running.model(input_ids=ids).logits
        model = stock(checkpoint.model_folder)
        model.model.layers[1].self_attn.o_proj.weight[:, :10] = 0
        model.model.layers[1].self_attn.o_proj.weight[:, 30:] = 0
        model.model.layers[2].mlp.down_proj.weight[:, 5] = 0
        torch.testing.assert_close(silent, model(input_ids=ids).logits)
        assert not torch.equal(silent, running.model(input_ids=ids).logits)


def test_masked_models_guess_tokens_and_others_speak_of_their_embedding(zoo, tmp_path):
    folder = tmp_path / "masked"
    shutil.copytree(zoo("bert"), folder)
    tokenizer = (folder / "tokenizer.json").read_text().replace("<extra_0>", "<mask>")
    (folder / "tokenizer.json").write_text(tokenizer)
    masked = compute(open_checkpoint(folder), "heads", "gradient", {"": KO}, settings=QUICK)
    assert (masked.loss, masked.notes) == ("masked", ())
    embedding = compute(open_checkpoint(zoo("bert")), "heads", "gradient", {"": KO}, settings=QUICK)
    assert embedding.loss == "embedding"
    assert embedding.notes == (
        "the model has no mask token: scores speak of its embedding (mean over tokens, length 1)",
    )
    assert not np.allclose(masked.score, embedding.score)


def test_hidden_tokens_are_never_special_ones():
    import random

    from langslice.scoring.batches import _guessed

    line = [0, *range(10, 30), 2]
    for seed in range(20):
        chosen = _guessed(line, 25, frozenset({0, 2}), random.Random(seed))
        assert sum(chosen) == 3  # 15% of twenty
        assert not any(chosen[at] for at in (0, 21, 22, 23, 24))
    assert sum(_guessed([0, 11, 2], 3, frozenset({0, 2}), random.Random(0))) == 1


@pytest.mark.assets
def test_marian_reads_through_its_own_files(assets, tmp_path):
    from tests.zoo import build

    ids = {"vocab_size": 54688, "pad_token_id": 54687, "eos_token_id": 0, "decoder_start_token_id": 54687}
    folder = build("marian", tmp_path / "marian", **ids)
    for file in (assets / "tokenizers/opus-mt-en-mg").iterdir():
        if file.name not in ("config.json", "generation_config.json"):
            shutil.copyfile(file, folder / file.name)
    checkpoint = open_checkpoint(folder)
    scores = compute(checkpoint, "heads", "gradient", {"": ["A cold wind blew.", "Nobody came."]}, settings=QUICK)
    assert set(scores.values()) == {"encoder.self", "decoder.self", "decoder.cross"}
    assert (scores.score > 0).all()


@pytest.mark.assets
def test_lowest_heads_of_a_sentence_encoder_move_its_embeddings_less_than_random_ones(assets):
    from langslice.scoring.batches import make_batches
    from langslice.scoring.model_runs import hooked, open_running, silencing
    from langslice.scoring.selection import heads_to_drop, random_control

    lines = (assets / "data/ntrex128/newstest2019-src.eng.txt").read_text(encoding="utf-8").splitlines()
    checkpoint = open_checkpoint(assets / "weights/all-MiniLM-L6-v2")
    settings = ScoreSettings(seeds=(0,), samples=24, max_tokens=48)
    scores = compute(checkpoint, "heads", "gradient", {"": lines[:100]}, settings=settings)
    running = open_running(checkpoint, read_anatomy(checkpoint), whole=True, max_tokens=48)
    batches = make_batches(running.reader, lines[1000:1024], 0, predict=True)
    references = running.references(batches)

    def distance(dropped):
        with hooked(silencing(running.sites, running.anatomy, dropped)):
            return running.mean_loss(batches, references)

    dropped = heads_to_drop(scores, running.anatomy, 0.25)
    assert distance({}) == pytest.approx(0, abs=1e-6)
    assert distance(dropped) < np.mean([distance(random_control(dropped, running.anatomy, seed)) for seed in range(3)])


def test_lowest_heads_of_the_packaged_model_cost_less_than_random_ones():
    from langslice.mini import heldout_text, mini_model_path
    from langslice.scoring.batches import make_batches
    from langslice.scoring.model_runs import hooked, open_running, silencing
    from langslice.scoring.selection import heads_to_drop, random_control

    texts = {language: heldout_text(language) for language in ("ko", "en")}
    checkpoint = open_checkpoint(mini_model_path())
    scores = compute(
        checkpoint, "heads", "gradient", {language: lines[::2] for language, lines in texts.items()},
        settings=ScoreSettings(seeds=(0, 1), samples=24),
    )  # fmt: skip
    assert (scores.spread > 0).all()
    running = open_running(checkpoint, read_anatomy(checkpoint), whole=True)
    held_out = [line for lines in texts.values() for line in lines[1::2][:20]]
    batches = make_batches(running.reader, held_out, 0, predict=True)

    def loss(dropped):
        with hooked(silencing(running.sites, running.anatomy, dropped)):
            return running.mean_loss(batches)

    dropped = heads_to_drop(scores, running.anatomy, 0.25)
    assert sum(len(gone) for gone in dropped["layers.self"].values()) == 12
    assert loss(dropped) < np.mean([loss(random_control(dropped, running.anatomy, seed)) for seed in range(4)])


# The table and its file


def test_seeds_are_averaged_by_hand():
    seeds = [{"layers": {0: np.array([1.0])}}, {"layers": {0: np.array([3.0])}}]
    columns = averaged({"ko": seeds, "en": [seeds[1], seeds[1]]}, overall=True)
    assert columns["language"].tolist() == ["ko", "en", ""]
    assert columns["score"].tolist() == [2, 3, 2.5]
    assert columns["spread"].tolist() == pytest.approx([2**0.5, 0, 0.5**0.5])
    assert np.isnan(averaged({"": seeds[:1]}, overall=True)["spread"]).all()


def test_saved_scores_come_back(zoo, tmp_path):
    import pyarrow.parquet as pq

    checkpoint = open_checkpoint(zoo("llama"))
    made = compute(checkpoint, "heads", "gradient", {"ko": KO, "en": EN}, settings=ScoreSettings(seeds=(0, 1)))
    made.save(tmp_path / "heads.parquet")
    table = pq.read_table(tmp_path / "heads.parquet")
    assert table.column_names == ["kind", "place", "layer", "index", "language", "score", "spread"]
    found = load_scores(tmp_path / "heads.parquet", checkpoint)
    for name in ("kind", "method", "model", "fingerprint", "texts", "seeds", "loss", "notes", "languages"):
        assert getattr(found, name) == getattr(made, name)
    assert found.settings == {"samples": 128, "max_tokens": 128}
    for language in ("", "ko", "en"):
        for layer, row in made.values(language)["layers.self"].items():
            assert (found.values(language)["layers.self"][layer] == row).all()


def test_scores_of_another_model_are_refused(zoo, tmp_path):
    compute(open_checkpoint(zoo("llama")), "heads", "l1").save(tmp_path / "heads.parquet")
    with pytest.raises(ScoreError, match="scores from another model") as refused:
        load_scores(tmp_path / "heads.parquet", open_checkpoint(zoo("mistral")))
    assert refused.value.hint == "score this model with `langslice score`"


def test_what_is_no_file_of_scores_is_refused(zoo, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    checkpoint = open_checkpoint(zoo("llama"))
    with pytest.raises(ScoreError, match="no such file"):
        load_scores(tmp_path / "none.parquet", checkpoint)
    pq.write_table(pa.table({"id": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ScoreError, match="not a file of scores"):
        load_scores(tmp_path / "other.parquet", checkpoint)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(ScoreError, match="not a file of scores"):
        load_scores(tmp_path / "text.parquet", checkpoint)


# Bad input


@pytest.mark.parametrize(
    ("kind", "method", "texts", "settings", "error", "message"),
    [
        ("head", "l1", (), {}, ScoreError, "cannot score `head`; did you mean `heads`?"),
        ("heads", "gradeint", (), {}, ScoreError, "unknown method `gradeint` for heads; did you mean `gradient`?"),
        ("heads", "zzz", (), {}, ScoreError, "unknown method `zzz` for heads; nothing that is known is like it"),
        ("heads", "taylor", (), {}, ScoreError, "`taylor` scores neurons, not heads"),
        ("heads", "gradient", (), {}, CorpusError, "this method reads text, and none was given"),
        ("heads", "gradient", {"": ["  "]}, {}, CorpusError, "the text holds no line with anything in it"),
        ("heads", "gradient", {"ko": KO, "en": []}, {}, CorpusError, "the text of `en` holds no line"),
        ("heads", "gradient", {"": KO, "en": EN}, {}, CorpusError, "some texts have a language and others have none"),
        ("heads", "gradient", ["missing.txt"], {}, CorpusError, "missing.txt: no such file or folder"),
        ("heads", "lahis", {"": KO}, {}, ScoreError, "lahis compares languages and needs text of at least 1"),
        ("neurons", "lape", {"ko": KO}, {}, ScoreError, "lape compares languages and needs text of at least 2"),
        ("layers", "angular", {"": KO}, {"run": 3}, ScoreError, "a run of 3 layers does not fit the 3 layers of `layers`"),
        ("layers", "angular", {"": KO}, {"run": 0}, ScoreError, "`run` must be a whole number at least 1, found 0"),
        ("heads", "gates", {"": KO}, {"penalty": -1.0}, ScoreError, "`penalty` must be a number at least 0, found -1"),
        ("heads", "gradient", {"": KO}, {"seeds": ()}, ScoreError, "`seeds` are []; expected at least one"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_message(zoo, kind, method, texts, settings, error, message):
    with pytest.raises(error) as refused:
        compute(open_checkpoint(zoo("llama")), kind, method, texts, settings=ScoreSettings(**settings))
    assert message in refused.value.message


def test_text_without_tokens_is_refused(zoo, monkeypatch):
    from dataclasses import replace

    from langslice.scoring import batches

    checkpoint = open_checkpoint(zoo("llama"))
    opened = batches.open_tokenizer
    monkeypatch.setattr(
        batches,
        "open_tokenizer",
        lambda *args, **more: replace(opened(*args, **more), encode=lambda lines: [[] for _ in lines]),
    )
    with pytest.raises(CorpusError, match="the text tokenises to nothing: none of 3 sampled lines gives a token"):
        compute(checkpoint, "heads", "gradient", {"": KO})


def test_models_that_cannot_be_run_say_why(zoo, tmp_path):
    with pytest.raises(ScoreError, match="this model reads input_features, not text"):
        compute(open_checkpoint(zoo("whisper")), "heads", "gradient", {"": KO})
    folder = tmp_path / "incomplete"
    shutil.copytree(zoo("llama"), folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ScoreError, match=r"the checkpoint lacks 1 weights of LlamaForCausalLM, model\.layers\.1\.mlp\.up_proj"
    ):
        compute(open_checkpoint(folder), "heads", "gradient", {"": KO})


def test_texts_are_read_by_language_and_sampled_by_seed(tmp_path):
    (tmp_path / "ko.txt").write_text("\n".join(KO) + "\n\n")
    lines, names = read_score_texts([f"ko={tmp_path / 'ko.txt'}", f"ko={tmp_path / 'ko.txt'}"])
    assert lines == {"ko": KO + KO}
    assert names[0].startswith("ko=")
    plain, _ = read_score_texts([str(tmp_path / "ko.txt")])
    assert plain == {"": KO}
    many = [str(number) for number in range(40)]
    first, again, other = sample_lines(many, 0, 8), sample_lines(many, 0, 8), sample_lines(many, 1, 8)
    assert first == again != other
    assert len(set(first)) == 8
    assert len(sample_lines(many, 0, 100)) == 20  # half of them, or every seed would draw the same
    assert sample_lines(["only"], 5, 8) == ["only"]


@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_without_a_method_scores_and_slices_take_the_same(zoo, kind, tmp_path):
    """With text and without: what `score` measures is what a slice drops by."""
    import langslice
    from langslice.scoring.methods import DEFAULTS

    (tmp_path / "en.txt").write_text("\n".join(EN))
    for at, texts in enumerate([[f"en={tmp_path / 'en.txt'}"], []]):
        scores = langslice.score(zoo("llama"), kind, calibration=texts)
        assert scores.method == DEFAULTS[kind][at]
        scores.save(tmp_path / f"{at}.parquet")
        cut = {f"{kind}_sparsity": 0.5, "calibration": texts}
        by_file = langslice.plan(zoo("llama"), **cut, **{f"{kind}_by": str(tmp_path / f"{at}.parquet")})
        assert langslice.plan(zoo("llama"), **cut).structure == by_file.structure
    with pytest.raises(CorpusError, match="this method reads text"):
        langslice.score(zoo("llama"), "layers")
    with pytest.raises(ScoreError, match="cannot score `head`"):
        langslice.score(zoo("llama"), "head")


def test_methods_name_every_function():
    from langslice.progress import silent
    from langslice.scoring.methods import FROM_WEIGHTS, _function

    for kind, methods in METHODS.items():
        for method in methods:
            if method not in FROM_WEIGHTS | {"perplexity"}:
                assert callable(_function(kind, method, ScoreSettings(), silent))
    assert issubclass(ScoreError, LangsliceError)
    assert not issubclass(ScoreError, CheckpointError)
