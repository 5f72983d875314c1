"""Hidden states of fewer dimensions: what is written computes what the source does whose dropped dimensions stay zero."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import langslice
import langslice.structure.hidden_size as hidden_size
import langslice.verification.rounding as rounding
from langslice.errors import PlanError, VerificationError
from langslice.mini import heldout_text, mini_model_path
from langslice.planning.plan import load_plan, save_plan
from langslice.reporting.sections.structure import structure_section
from langslice.reporting.slice_folder import open_slice
from langslice.restoration.main import restore
from tests.structure.test_structure import load, outputs_of, run
from tests.zoo import build

SIZE, KEPT = 24, 16
HEADS = {"heads_sparsity": 0.25, "uniform": True}
# What the classes derive from the hidden size: nothing; the scale of embeddings, with norms behind the parts of a layer and
# without; the scale of what the head reads; the size of a head.
TYPES = {
    "llama": {},
    "qwen3": {},
    "gemma": {},
    "gemma3_text": {},
    "t5": {},
    "mt5": {},
    "bert": {**HEADS, "hidden_size": 18, "output_style": "stock"},
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Tiny random checkpoints without a tokenizer, by model type."""
    root = tmp_path_factory.mktemp("bare")
    return lambda model_type: (
        root / model_type if (root / model_type).is_dir() else build(model_type, root / model_type)
    )


@pytest.mark.parametrize("model_type", TYPES)
def test_outputs_are_those_of_the_source_with_zeros(model_type, bare, tmp_path):
    result = langslice.slice(bare(model_type), tmp_path / "out", **{"hidden_size": KEPT, **TYPES[model_type]})
    assert "masked source" in outputs_of(result)
    kept = result.plan.structure.hidden
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config.get("hidden_size", config.get("d_model")) == len(kept)
    assert "auto_map" not in config


def changed_after_writes(source, change):
    """A Llama whose hidden states are changed after every write; norms take the mean square of the dimensions that stay."""
    model = load(source)
    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "o_proj", "down_proj")):
            module.register_forward_hook(lambda module, args, output: change(output))
        elif name.endswith("norm"):
            module.variance_epsilon *= KEPT / SIZE
    return model


def test_by_lines_that_share_nothing_with_verification(bare, tmp_path):
    """Zeros after every write, by hooks on the source; norms divide by the root mean square of all dimensions."""
    source = bare("llama")
    result = langslice.slice(source, tmp_path / "out", hidden_size=KEPT)
    mask = torch.zeros(SIZE)
    mask[list(result.plan.structure.hidden)] = 1
    model = changed_after_writes(source, lambda output: output * mask)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected, found = model(ids).logits, load(tmp_path / "out")(ids).logits
    assert torch.allclose(expected, found, rtol=0, atol=1e-5 * expected.abs().max())
    assert not torch.allclose(load(source)(ids).logits, found, rtol=0, atol=1e-2)


def test_half_precision_is_proven_before_rounding(bare, tmp_path):
    """Scaled norms are rounded to bfloat16: bytes are checked against the rounded, outputs against the exact values."""
    source = tmp_path / "source"
    shutil.copytree(bare("gemma3_text"), source)
    halves = {name: one.to(torch.bfloat16) for name, one in load_file(source / "model.safetensors").items()}
    save_file(halves, source / "model.safetensors", {"format": "pt"})
    result = langslice.slice(source, tmp_path / "out", hidden_size=KEPT)
    outputs_of(result)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    kept = list(result.plan.structure.hidden)
    embedding, norm = "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"
    assert torch.equal(after[embedding], before[embedding][:, kept])
    exact = (1 + before[norm].double()[kept]) * (SIZE / KEPT) ** 0.5 - 1
    assert torch.equal(after[norm], exact.to(torch.bfloat16))
    behind = norm.replace("input", "post_attention")
    assert torch.equal(after[behind], before[behind][kept])


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_wrong_scale_is_never_written(factor, bare, tmp_path, monkeypatch):
    right = hidden_size.scalings

    def wrong(*given):
        return {
            name: replace(one, factor=factor if factor == 1 else one.factor * factor)
            for name, one in right(*given).items()
        }

    monkeypatch.setattr(hidden_size, "scalings", wrong)
    monkeypatch.setattr("langslice.verification.narrowed_source.scalings", wrong)
    with pytest.raises(VerificationError, match="last hidden states differ"):
        langslice.slice(bare("qwen3"), tmp_path / "out", hidden_size=KEPT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "choice", [{"hidden_size": KEPT}, {"drop_layers": "1", "neurons_sparsity": 0.25, "uniform": True}]
)
def test_rounding_that_a_model_magnifies_is_told_from_a_fault(bare, tmp_path, monkeypatch, choice):
    """With no tolerance at all, what differs is compared with what a disturbance by one rounding makes."""
    monkeypatch.setitem(rounding.TOLERANCE, "float32", 0.0)
    outputs_of(langslice.slice(bare("qwen3"), tmp_path / "out", **choice))
    monkeypatch.setattr("langslice.verification.rounding._TIMES", 0.01)
    with pytest.raises(VerificationError, match="last hidden states differ"):
        langslice.slice(bare("qwen3"), tmp_path / "other", **choice)


def test_all_axes_in_one_plan_that_is_edited(bare, tmp_path):
    plan = langslice.plan(
        bare("qwen3"), hidden_size=KEPT, drop_layers="1", neurons_sparsity=0.25, heads_sparsity=0.5, uniform=True
    )
    assert f"{KEPT} hidden dimensions" in repr(plan)
    kept = plan.structure.hidden
    outside = next(one for one in range(SIZE) if one not in kept)
    edited = replace(plan, structure=replace(plan.structure, hidden=tuple(sorted({*kept[1:], outside}))))
    save_plan(edited, tmp_path / "plan.json")
    result = langslice.slice(bare("qwen3"), tmp_path / "out", plan=tmp_path / "plan.json")
    outputs_of(result)
    assert result.plan.structure.hidden == edited.structure.hidden
    for wrong, said in (((0, 0, 1), "does not have"), ((SIZE,), "does not have"), (kept[1:], "contradicts itself")):
        save_plan(replace(plan, structure=replace(plan.structure, hidden=wrong)), tmp_path / "wrong.json")
        with pytest.raises(PlanError, match=said):
            langslice.slice(bare("qwen3"), tmp_path / "other", plan=load_plan(tmp_path / "wrong.json"))


def test_on_text_with_the_packaged_model_and_back(tmp_path):
    (tmp_path / "ko.txt").write_text("\n".join(heldout_text("ko")[:20]), encoding="utf-8")
    source = mini_model_path()
    size = json.loads((source / "config.json").read_text())["hidden_size"]
    result = langslice.slice(
        source, tmp_path / "out", languages="ko", hidden_size=size * 3 // 4, calibration=f"ko={tmp_path / 'ko.txt'}"
    )
    outputs_of(result)
    head = json.loads((tmp_path / "out/slice.json").read_text())
    assert head["plan"]["facts"]["sizes"]["hidden"] == size
    data = open_slice(tmp_path / "out")[0]
    assert (data.hidden.sizes.before, data.hidden.sizes.after) == (size, size * 3 // 4)
    assert f"Of the {size} dimensions of its hidden states {size * 3 // 4} are kept" in str(
        structure_section(data).body
    )
    assert "the source's, scaled where" in (tmp_path / "out/README.md").read_text()
    restored = restore(tmp_path / "out", tmp_path / "back", base=source)
    assert restored.verification.passed
    assert json.loads((tmp_path / "back/config.json").read_text())["hidden_size"] == size * 3 // 4
    with pytest.raises(PlanError, match="cannot come back"):
        restore(tmp_path / "out", tmp_path / "all", base=source, everything=True)


REFUSED = [
    ("llama", {"hidden_size": SIZE}, "have 24 dimensions"),
    ("llama", {"hidden_size": 17}, "multiple of the number"),
    ("llama", {"hidden_size": 17, "hidden_by": "activation"}, "multiple of the number"),
    ("llama", {"hidden_by": "l2", "drop_layers": "0"}, "no hidden dimension goes"),
    ("llama", {"hidden_size": KEPT, "output_style": "masked"}, "cannot be masked"),
    ("llama", {"hidden_size": KEPT, "prune_rows": "*.q_proj=0.2"}, "zeroes rows by their place"),
    ("llama", {"hidden_size": KEPT, "drop_heads": "0:0,1"}, "unmodified class alone"),
    ("bert", {"hidden_size": 18}, "3 heads of 6 in every layer, and 4 stay"),
    ("bert", {"hidden_size": KEPT, **HEADS}, "2.66667 heads of 6"),
    ("gpt2", {"hidden_size": KEPT}, "cannot be cut"),
    ("gemma3", {"hidden_size": KEPT}, "cannot be cut"),
]


@pytest.mark.parametrize(("model_type", "cut", "said"), REFUSED)
def test_what_cannot_be_written_is_refused(model_type, cut, said, bare, tmp_path):
    with pytest.raises(PlanError, match=said) as caught:
        langslice.slice(bare(model_type), tmp_path / "out", **cut)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_scores_of_what_nothing_drops(zoo):
    with pytest.raises(PlanError, match="has no effect") as caught:
        langslice.plan(zoo("llama"), hidden_by="l2")
    assert "`hidden_size`" in caught.value.hint


def test_the_command_line_says_what_fits(bare, tmp_path, capsys, monkeypatch):
    code, said = run(capsys, monkeypatch, "slice", bare("llama"), "--hidden-size", 18, "-o", tmp_path / "out")
    assert code == 2
    assert "a multiple of 4 heads: --hidden-size 16 or 20" in said
    code, said = run(capsys, monkeypatch, "slice", bare("bert"), "--hidden-size", 18, "-o", tmp_path / "out")
    assert code == 2
    assert "--hidden-size 18 and as many heads less in every layer: --heads-sparsity 0.25 --uniform" in said
    assert not (tmp_path / "out").exists()
