"""Draft models of EAGLE-3's kind, laid out as SpecForge and speculators publish them, cut to fit a slice of their target."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import langslice
from langslice.cli.app import main
from langslice.errors import CheckpointError, PlanError
from langslice.model.checkpoint import open_checkpoint
from langslice.planning.drafts import draft_plan
from langslice.planning.source import Source
from langslice.structure.kept import Kept

HIDDEN, HEADS, SIZE, WIDTH = 24, 4, 10, 44
LAYER = {
    "hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": 2,
    "head_dim": SIZE, "num_hidden_layers": 1, "rms_norm_eps": 1e-5, "model_type": "llama", "hidden_act": "silu",
}  # fmt: skip
# Draft ids are in no order of the target's: clients do not ask for one.
TARGETS = [5, 130, 2, 90, 33, 34, 40, 77, 100, 120, 64, 12]


def load(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def save(folder, tensors, config):
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tensors_of(rows, *, embedding, layer="midlayer"):
    """The tensors of a draft, random, with a head over TARGETS."""
    import torch

    torch.manual_seed(0)
    shapes = {
        "fc.weight": (HIDDEN, 3 * HIDDEN), "norm.weight": (HIDDEN,), "lm_head.weight": (len(TARGETS), HIDDEN),
        f"{layer}.self_attn.q_proj.weight": (HEADS * SIZE, 2 * HIDDEN),
        f"{layer}.self_attn.k_proj.weight": (2 * SIZE, 2 * HIDDEN),
        f"{layer}.self_attn.v_proj.weight": (2 * SIZE, 2 * HIDDEN),
        f"{layer}.self_attn.o_proj.weight": (HIDDEN, HEADS * SIZE),
        f"{layer}.mlp.gate_proj.weight": (WIDTH, HIDDEN), f"{layer}.mlp.up_proj.weight": (WIDTH, HIDDEN),
        f"{layer}.mlp.down_proj.weight": (HIDDEN, WIDTH), f"{layer}.hidden_norm.weight": (HIDDEN,),
        f"{layer}.input_layernorm.weight": (HIDDEN,), f"{layer}.post_attention_layernorm.weight": (HIDDEN,),
    }  # fmt: skip
    if embedding:
        shapes["embed_tokens.weight"] = (rows, HIDDEN)
    found = {name: torch.randn(shape) for name, shape in shapes.items()}
    targets = torch.tensor(TARGETS)
    flags = torch.zeros(rows, dtype=torch.bool)
    flags[targets] = True
    return {**found, "d2t": targets - torch.arange(len(TARGETS)), "t2d": flags}


def config_of(rows, kind="specforge"):
    own = {"draft_vocab_size": len(TARGETS), "eos_token_id": 2}
    if kind == "specforge":
        return {"architectures": ["LlamaForCausalLMEagle3"], **LAYER, **own, "vocab_size": rows}
    return {
        "architectures": ["Eagle3DraftModel"], "speculators_model_type": "eagle3", "draft_vocab_size": len(TARGETS),
        "speculators_config": {
            "algorithm": "eagle3", "proposal_methods": [{"proposal_type": "greedy", "speculative_tokens": 5}],
            "verifier": {"name_or_path": "target"},
        },
        "transformer_layer_config": {**LAYER, "vocab_size": rows},
    }  # fmt: skip


def logits(tensors, layer, ids, states):
    """EAGLE-3's own forward pass: logits of draft ids and the state before the last norm; as vLLM's llama_eagle3.py computes it."""
    import torch
    from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

    def normed(values, name):
        return rms_norm(values, (HIDDEN,), tensors[name], 1e-5)

    def turned(values):
        angles = torch.arange(values.shape[-2])[:, None] / 10000 ** (torch.arange(0, SIZE, 2) / SIZE)
        cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
        left, right = values.chunk(2, -1)
        return values * cos + torch.cat([-right, left], -1) * sin

    residual = states @ tensors["fc.weight"].T
    both = torch.cat(
        [
            normed(tensors["embed_tokens.weight"][ids], f"{layer}.input_layernorm.weight"),
            normed(residual, f"{layer}.hidden_norm.weight"),
        ],
        -1,
    )
    q, k, v = (
        (both @ tensors[f"{layer}.self_attn.{name}_proj.weight"].T).view(len(ids), -1, SIZE).transpose(0, 1)
        for name in "qkv"
    )
    k, v = k.repeat_interleave(2, 0), v.repeat_interleave(2, 0)
    mixed = scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True).transpose(0, 1).reshape(len(ids), -1)
    residual = residual + mixed @ tensors[f"{layer}.self_attn.o_proj.weight"].T
    inner = normed(residual, f"{layer}.post_attention_layernorm.weight")
    gate, up, down = (tensors[f"{layer}.mlp.{name}_proj.weight"].T for name in ("gate", "up", "down"))
    residual = residual + (silu(inner @ gate) * (inner @ up)) @ down
    return normed(residual, "norm.weight") @ tensors["lm_head.weight"].T


@pytest.fixture(scope="module")
def target(zoo, tmp_path_factory):
    """A slice of the zoo's Llama, with rows of padding, and the numbers of rows before and after."""
    out = tmp_path_factory.mktemp("target") / "slice"
    result = langslice.slice(zoo("llama"), out, scripts="Latn", pad_to_multiple_of=64, verify=False)
    assert len(result.plan.padding) and result.plan.rows == 131
    return out, result.plan


@pytest.fixture
def draft(target, tmp_path):
    """A draft as SpecForge writes it, with an embedding of its own."""
    rows = target[1].rows
    return save(tmp_path / "draft", tensors_of(rows, embedding=True), config_of(rows))


@pytest.mark.parametrize(
    ("kind", "layer", "embedding"),
    [("specforge", "midlayer", True), ("specforge", "midlayer", False), ("speculators", "layers.0", True)],
)
def test_a_draft_follows_its_target(target, tmp_path, kind, layer, embedding):
    import torch

    plan = target[1]
    before = tensors_of(plan.rows, embedding=embedding, layer=layer)
    source = save(tmp_path / "draft", before, config_of(plan.rows, kind))
    (source / "tokenizer.json").write_text("{}")  # the target's, as some repositories have it: stale after the cut
    result = langslice.slice(source, tmp_path / "out", like=target[0])
    after, config = load(tmp_path / "out"), json.loads((tmp_path / "out/config.json").read_text())
    kept, rows = plan.kept.tolist(), len(plan.new_to_old)
    stays = [draft for draft, old in enumerate(TARGETS) if old in kept]
    assert 2 < len(stays) < len(TARGETS)
    new = (after["d2t"] + torch.arange(len(stays))).tolist()
    assert [kept[each] for each in new] == [TARGETS[draft] for draft in stays]
    assert after["t2d"].nonzero().ravel().tolist() == sorted(new) and after["t2d"].shape == (rows,)
    assert (after["d2t"].dtype, after["t2d"].dtype) == (torch.int64, torch.bool)
    held = config if kind == "specforge" else config["transformer_layer_config"]
    assert (held["vocab_size"], config["draft_vocab_size"]) == (rows, len(stays))
    assert held["model_type"] == "llama" and not (tmp_path / "out/tokenizer.json").exists()
    assert result.verification.passed and langslice.verify(source, tmp_path / "out").passed
    assert ("embed_tokens.weight" in after) == embedding
    if embedding:
        ids = torch.randint(0, len(kept), (9,), generator=torch.Generator().manual_seed(1))
        states = torch.randn(9, 3 * HIDDEN, generator=torch.Generator().manual_seed(2))
        whole = logits(before, layer, torch.tensor(kept)[ids], states)
        # The head has another number of rows, by which products are summed in another order.
        torch.testing.assert_close(logits(after, layer, ids, states), whole[:, stays], rtol=1e-5, atol=1e-5)


def test_a_draft_whose_head_has_the_targets_numbering_follows_too(target, tmp_path):
    import torch

    rows, map_of = target[1].rows, ("d2t", "t2d")
    before = {name: each for name, each in tensors_of(rows, embedding=False).items() if name not in map_of}
    before["lm_head.weight"] = torch.randn(rows, HIDDEN)
    source = save(tmp_path / "draft", before, {**config_of(rows), "draft_vocab_size": rows})
    assert langslice.slice(source, tmp_path / "out", like=target[0]).verification.passed
    config, size = json.loads((tmp_path / "out/config.json").read_text()), len(target[1].new_to_old)
    assert torch.equal(load(tmp_path / "out")["lm_head.weight"], before["lm_head.weight"][target[1].new_to_old])
    assert (config["vocab_size"], config["draft_vocab_size"]) == (size, size)


def test_a_damaged_map_of_a_slice_is_found(draft, target, tmp_path):
    import torch

    langslice.slice(draft, tmp_path / "out", like=target[0])
    good = load(tmp_path / "out")
    swapped = {**good, "d2t": good["d2t"].clone(), "lm_head.weight": good["lm_head.weight"]}
    one, other = (swapped["d2t"] + torch.arange(len(swapped["d2t"])))[:2].tolist()
    swapped["d2t"][:2] = torch.tensor([other, one - 1])
    for wrong in (swapped, {**good, "t2d": ~good["t2d"]}):
        save_again = tmp_path / "out"
        from safetensors.torch import save_file

        save_file(wrong, save_again / "model.safetensors", metadata={"format": "pt"})
        failed = [check.name for check in langslice.verify(draft, save_again).checks if check.passed is False]
        assert failed == ["draft map"]


@pytest.fixture
def refuse(monkeypatch, capsys):
    """Give what `slice` says when it stops with exit code 2."""

    def refused(*arguments):
        monkeypatch.setattr("sys.argv", ["langslice", "slice", *map(str, arguments), "--quiet"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return refused


def test_what_does_not_fit_is_refused_by_name(draft, target, zoo, tmp_path, refuse):
    import torch

    out, tensors, config = tmp_path / "out", load(draft), json.loads((draft / "config.json").read_text())
    like = ("--like", target[0], "-o", out)

    def damaged(**changed):
        folder = tmp_path / f"damaged-{next(iter(changed))}"
        kept = {**tensors, **{name: value for name, value in changed.items() if torch.is_tensor(value)}}
        settings = {**config, **{name: value for name, value in changed.items() if not torch.is_tensor(value)}}
        return save(folder, kept, settings)

    outside, twice, flags = tensors["d2t"].clone(), tensors["d2t"].clone(), tensors["t2d"].clone()
    outside[3], twice[1], flags[7] = 131, tensors["d2t"][0] - 1, True
    cases = {
        "draft id 3 is target id 134, of 131": damaged(d2t=outside),
        "t2d and d2t disagree about 1 target ids, the first 7": damaged(t2d=flags),
        "d2t has 12 draft ids, draft_vocab_size says 11": damaged(draft_vocab_size=11),
        "vocab_size = 130, but the embedding has 131 rows": damaged(vocab_size=130),
        "pad_token_id names token id": damaged(pad_token_id=int(np.setdiff1d(np.arange(131), target[1].kept)[0])),
    }
    for said, folder in cases.items():
        assert said in refuse(folder, *like)
    alone = save(tmp_path / "alone", {name: each for name, each in tensors.items() if name != "d2t"}, config)
    assert "it has t2d and no d2t" in refuse(alone, *like)
    real = save(tmp_path / "real", {**tensors, "d2t": tensors["d2t"].float()}, config)
    assert "d2t is F32 (12,), expected one dimension of I64 or I32" in refuse(real, *like)
    unknown = save(tmp_path / "unknown", {**tensors, "markov_embed.weight": torch.zeros(131, 4)}, config)
    assert "unknown tensor markov_embed.weight" in refuse(unknown, *like)
    with pytest.raises(CheckpointError, match="two draft ids have one target id"):
        langslice.plan(save(tmp_path / "twice", {**tensors, "d2t": twice}, config), like=target[0])
    assert "its token ids are those of its target" in refuse(draft, "-l", "en", "-o", out)
    assert "--max-vocab together with --like" in refuse(draft, *like, "--max-vocab", 9)
    assert "--like is for draft models" in refuse(zoo("llama"), *like)
    small = save(tmp_path / "small", {**tensors_of(140, embedding=True)}, config_of(140))
    assert "vocabulary of 140 rows, the slice was cut from one of 131" in refuse(small, *like)
    assert "no such folder" in refuse(draft, "--like", tmp_path / "nowhere", "-o", out)
    narrow = replace(target[1], structure=Kept(hidden=tuple(range(20))))
    with pytest.raises(PlanError, match="20 hidden dimensions, and the draft reads all"):
        draft_plan(Source(open_checkpoint(draft)), narrow, {"like": str(target[0])})
    assert not out.exists()


def test_a_draft_cannot_be_restored(draft, target, tmp_path):
    langslice.slice(draft, tmp_path / "out", like=target[0])
    healed = shutil.copytree(tmp_path / "out", tmp_path / "healed")
    with pytest.raises(PlanError, match="draft model"):
        langslice.restore(healed, tmp_path / "back", base=draft, plan=tmp_path / "out")
