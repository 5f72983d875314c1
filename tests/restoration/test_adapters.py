"""A LoRA that moves between original and slice: merging and slicing commute, and what cannot be carried is named."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import langslice
from langslice.cli.app import main
from langslice.mini import mini_model_path
from langslice.model.transformers_classes import dtype_option
from langslice.restoration import carry_adapter

pytestmark = pytest.mark.usefixtures("one_thread")


def load(folder, auto="AutoModelForCausalLM"):
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (
            getattr(transformers, auto)
            .from_pretrained(folder, trust_remote_code=True, **dtype_option("float32"))
            .eval()
        )


def train_adapter(folder, out, *, auto="AutoModelForCausalLM", seed=0, **settings):
    """An adapter whose every number is its own."""
    import torch
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(load(folder, auto), LoraConfig(**{"r": 3, "lora_alpha": 5, **settings}))
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(out)
    return out


def merged(folder, adapter, out, auto="AutoModelForCausalLM"):
    """Tensors of the model with its adapter merged, by the names of the checkpoint."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about peft's own code
        model = PeftModel.from_pretrained(load(folder, auto), adapter).merge_and_unload()
    shutil.copytree(folder, out)
    values = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    stored = load_file(folder / "model.safetensors")
    values.setdefault("embed_out.weight", stored.get("embed_out.weight"))  # GPT-NeoX's head has another name in memory
    tensors = {name: np.ascontiguousarray(values[name]).copy() for name in stored}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return tensors


LATIN = {"scripts": "Latn"}
CUTS = {
    "vocabulary": {},
    "layers": {"drop_layers": "1"},
    "heads": {"drop_heads": ["0:0,1"]},
    "all": {"drop_layers": "1", "drop_heads": ["0:0,1"], "drop_neurons": ["0:3-9"]},
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("model_type", "settings"), [
    ("llama", {"target_modules": "all-linear", "alpha_pattern": {r"layers\.2\.mlp\.up_proj": 7}}),
    ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "rank_pattern": {"q_proj": 2}, "use_rslora": True}),
    ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    ("gpt_neox", {"target_modules": ["query_key_value", "dense", "dense_4h_to_h"], "bias": "all"}),
    ("qwen3", {"target_modules": r".*\.(0|2)\.(self_attn|mlp)\.(k_proj|down_proj)"}),
])  # fmt: skip
def test_merging_and_slicing_commute(zoo, tmp_path, model_type, settings, cut):
    source = zoo(model_type)
    choice = {**LATIN, **CUTS[cut]}
    langslice.slice(source, tmp_path / "slice", verify=False, **choice)
    adapter = train_adapter(source, tmp_path / "adapter", **settings)
    carry_adapter(adapter, tmp_path / "carried", plan=tmp_path / "slice/slice.json")
    mine = merged(tmp_path / "slice", tmp_path / "carried", tmp_path / "merged-slice")
    merged(source, adapter, tmp_path / "merged")
    langslice.slice(tmp_path / "merged", tmp_path / "slice-merged", verify=False, **choice)
    theirs = load_file(tmp_path / "slice-merged/model.safetensors")
    assert mine.keys() == theirs.keys()
    moved = 0
    for name, value in theirs.items():
        np.testing.assert_allclose(mine[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        plain = load_file(tmp_path / "slice/model.safetensors")[name]
        moved += not np.array_equal(plain, value)
    assert moved


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("model_type", "settings"), [
    ("llama", {"target_modules": "all-linear"}),
    ("llama", {"target_modules": ["o_proj", "embed_tokens"]}),
    ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
])  # fmt: skip
def test_an_adapter_trained_on_the_slice_does_the_same_to_the_original(zoo, tmp_path, model_type, settings, cut):
    """Restoring the merged slice with everything is the original with the carried adapter."""
    from langslice.restoration import restore

    source = zoo(model_type)
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN, **CUTS[cut])
    adapter = train_adapter(tmp_path / "slice", tmp_path / "adapter", **settings)
    result = carry_adapter(adapter, tmp_path / "carried", plan=tmp_path / "slice")
    assert result.to == "original"
    mine = merged(source, tmp_path / "carried", tmp_path / "merged")
    merged(tmp_path / "slice", adapter, tmp_path / "merged-slice")
    restore(tmp_path / "merged-slice", tmp_path / "full", base=source, everything=True, verify=False)
    for name, value in load_file(tmp_path / "full/model.safetensors").items():
        np.testing.assert_allclose(mine[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    back = carry_adapter(tmp_path / "carried", tmp_path / "again", plan=tmp_path / "slice/slice.json", to="slice")
    assert back.to == "slice"
    before = load_file(adapter / "adapter_model.safetensors")
    after = load_file(tmp_path / "again/adapter_model.safetensors")
    before = {name: value for name, value in before.items() if "base_layer" not in name}
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])


def test_encoders_and_encoder_decoders(zoo, tmp_path):
    for model_type, auto, cut, targets in (
        ("bert", "AutoModelForMaskedLM", {"drop_layers": "0"}, ["query", "dense"]),
        ("t5", "AutoModelForSeq2SeqLM", {"drop_layers": ["encoder.0", "decoder.1"]}, ["q", "wo"]),
    ):
        source, folder = zoo(model_type), tmp_path / model_type
        folder.mkdir()
        langslice.slice(source, folder / "slice", verify=False, **LATIN, **cut)
        adapter = train_adapter(source, folder / "adapter", auto=auto, target_modules=targets)
        carry_adapter(adapter, folder / "carried", plan=folder / "slice/slice.json")
        mine = merged(folder / "slice", folder / "carried", folder / "merged-slice", auto)
        merged(source, adapter, folder / "merged", auto)
        langslice.slice(folder / "merged", folder / "slice-merged", verify=False, **LATIN, **cut)
        for name, value in load_file(folder / "slice-merged/model.safetensors").items():
            np.testing.assert_allclose(mine[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_scores_of_kept_text_on_the_packaged_model(tmp_path):
    import torch
    from peft import PeftModel

    langslice.slice(mini_model_path(), tmp_path / "slice", languages="ko,en", verify=False)
    adapter = train_adapter(mini_model_path(), tmp_path / "adapter", target_modules="all-linear")
    carry_adapter(adapter, tmp_path / "carried", plan=tmp_path / "slice/slice.json", to="slice")
    kept = json.loads((tmp_path / "slice/slice.json").read_text())["new_to_old"]
    new_ids = torch.tensor([[3, 900, 4321, 77, 6000]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about peft's own code
        whole = PeftModel.from_pretrained(load(mini_model_path()), adapter)(torch.tensor(kept)[new_ids]).logits
        mine = PeftModel.from_pretrained(load(tmp_path / "slice"), tmp_path / "carried")(new_ids).logits
    torch.testing.assert_close(mine, whole[..., kept], rtol=1e-4, atol=1e-4)


def test_trained_tokens_and_whole_tables(zoo, tmp_path):
    source = zoo("llama")
    langslice.slice(source, tmp_path / "slice", verify=False, pad_to_multiple_of=16, **LATIN)
    kept = json.loads((tmp_path / "slice/slice.json").read_text())["new_to_old"][:72]
    gone = next(token for token in range(10, 131) if token not in kept)
    adapter = train_adapter(
        source, tmp_path / "adapter", target_modules=["q_proj"], trainable_token_indices=[kept[40], gone, kept[7]]
    )
    result = carry_adapter(adapter, tmp_path / "carried", plan=tmp_path / "slice/slice.json", to="slice")
    assert json.loads((tmp_path / "carried/adapter_config.json").read_text())["trainable_token_indices"] == [40, 7]
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    before, after = (load_file(tmp_path / at / "adapter_model.safetensors")[name] for at in ("adapter", "carried"))
    np.testing.assert_array_equal(after, before[[0, 2]])
    assert result.not_carried[f"token {gone} of {name}"] == "the slice does not keep it"

    adapter = train_adapter(
        tmp_path / "slice", tmp_path / "table", target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    with pytest.raises(langslice.LangsliceError, match=r"holds .*lm_head\.weight whole") as caught:
        carry_adapter(adapter, tmp_path / "no", plan=tmp_path / "slice/slice.json")
    assert caught.value.hint == "name the original: `base=MODEL`"
    carry_adapter(adapter, tmp_path / "full", plan=tmp_path / "slice/slice.json", base=source)
    name = "base_model.model.lm_head.weight"
    mine = load_file(tmp_path / "table/adapter_model.safetensors")[name]
    full = load_file(tmp_path / "full/adapter_model.safetensors")[name]
    rows = json.loads((tmp_path / "slice/slice.json").read_text())["plan"]["vocabulary"]["kept_rows"]
    old = json.loads((tmp_path / "slice/slice.json").read_text())["new_to_old"][:rows]
    np.testing.assert_array_equal(full[old], mine[:rows])
    outside = np.setdiff1d(np.arange(131), old)
    np.testing.assert_array_equal(full[outside], load_file(source / "model.safetensors")["lm_head.weight"][outside])


def test_layers_that_are_gone_are_named_and_settings_say_which_are_meant(zoo, tmp_path):
    source = zoo("llama")
    langslice.slice(source, tmp_path / "slice", verify=False, drop_layers="0", **LATIN)
    adapter = train_adapter(
        source,
        tmp_path / "adapter",
        target_modules=["q_proj"],
        layers_to_transform=[0, 2],
        rank_pattern={"2.self_attn.q_proj": 4},
    )
    (adapter / "tokenizer.json").write_text("{}")
    result = carry_adapter(adapter, tmp_path / "carried", plan=tmp_path / "slice/slice.json")
    config = json.loads((tmp_path / "carried/adapter_config.json").read_text())
    assert config["target_modules"] == ["model.layers.1.self_attn.q_proj"]
    assert config["rank_pattern"] == {"model.layers.1.self_attn.q_proj": 4}
    assert config["layers_to_transform"] is None
    assert config["base_model_name_or_path"] == str(tmp_path / "slice")
    lost = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert result.not_carried[lost] == "its layer is not in the slice: layer 0 of the layers stack is not kept"
    assert "tokenizer.json" in result.not_carried
    assert not (tmp_path / "carried/tokenizer.json").exists()
    record = json.loads((tmp_path / "carried/carried_adapter.json").read_text())
    assert record["modules"] == {"model.layers.2.self_attn.q_proj": "model.layers.1.self_attn.q_proj"}


def test_dora_is_carried_where_rows_stay_whole(zoo, tmp_path):
    source = zoo("llama")
    langslice.slice(source, tmp_path / "slice", verify=False, drop_heads=["0:0,1"], **LATIN)
    adapter = train_adapter(source, tmp_path / "adapter", target_modules=["q_proj"], use_dora=True)
    carry_adapter(adapter, tmp_path / "carried", plan=tmp_path / "slice/slice.json")
    mine = merged(tmp_path / "slice", tmp_path / "carried", tmp_path / "merged-slice")
    whole = merged(source, adapter, tmp_path / "merged")
    np.testing.assert_allclose(
        mine["model.layers.0.self_attn.q_proj.weight"], whole["model.layers.0.self_attn.q_proj.weight"][20:], rtol=1e-5
    )
    with pytest.raises(langslice.LangsliceError, match="DoRA's magnitudes of the others are not known"):
        carry_adapter(tmp_path / "carried", tmp_path / "back", plan=tmp_path / "slice/slice.json", to="original")
    adapter = train_adapter(source, tmp_path / "inputs", target_modules=["o_proj"], use_dora=True)
    with pytest.raises(langslice.LangsliceError, match="the slice has not all inputs of this layer"):
        carry_adapter(adapter, tmp_path / "no", plan=tmp_path / "slice/slice.json")


@pytest.mark.parametrize(("spoil", "message"), [
    ("nothing there", "is not an adapter: no such folder"),
    ("no config", "there is no adapter_config.json"),
    ("kind", "an adapter of type 'IA3' cannot be carried"),
    ("setting", "setting `layer_replication` = "),
    ("init", "changes the base's weights"),
    ("weights", "cannot be read"),
    ("no weights", "has neither adapter_model.safetensors nor"),
    ("tensor", "is not understood"),
    ("both", "fits the original and the slice, and says that it belongs to elsewhere"),
    ("neither", "fits neither the original nor the slice"),
    ("side", "--to must be one of slice, original, found"),
    ("plan", "no such folder"),
    ("exists", "the output exists"),
])  # fmt: skip
def test_bad_input(zoo, tmp_path, capsys, monkeypatch, spoil, message):
    source = zoo("llama")
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN)
    adapter = train_adapter(source, tmp_path / "adapter", target_modules=["q_proj"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    config |= {
        "kind": {"peft_type": "IA3"}, "setting": {"layer_replication": [[0, 2]]}, "init": {"init_lora_weights": "pissa"},
        "both": {"base_model_name_or_path": "elsewhere"},
    }.get(spoil, {})  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    if spoil == "tensor":
        tensors["base_model.model.model.layers.0.ia3_l"] = np.ones(3, np.float32)
    if spoil == "neither":
        tensors = {name: np.ones((5, 5), np.float32) for name in tensors}
    save_file(tensors, weights)
    if spoil == "weights":
        weights.write_bytes(b"\x10\0\0\0\0\0\0\0 not a header")
    if spoil == "no weights":
        weights.unlink()
    if spoil == "no config":
        (adapter / "adapter_config.json").unlink()
    if spoil == "exists":
        (tmp_path / "out").mkdir()
    arguments = [tmp_path / "absent" if spoil == "nothing there" else adapter, "-o", tmp_path / "out"]
    arguments += ["--plan", tmp_path / ("absent" if spoil == "plan" else "slice") / "slice.json"]
    arguments += ["--to", "there"] if spoil == "side" else []
    monkeypatch.setattr("sys.argv", ["langslice", "adapter", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in said and said.startswith("error: ")
    assert not (tmp_path / "out").exists() or spoil == "exists"


@pytest.mark.parametrize("to", [None, "slice"])
def test_an_adapter_of_a_grown_base_is_refused_with_both_counts_of_rows(zoo, tmp_path, to):
    source, grown = zoo("llama"), tmp_path / "grown"
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN)
    shutil.copytree(source, grown)
    model = load(grown)
    model.resize_token_embeddings(134, mean_resizing=False)
    model.save_pretrained(grown)
    adapter = train_adapter(grown, tmp_path / "adapter", target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(langslice.LangsliceError, match=r"134 × 24, model\.embed_tokens\.weight is 131 × 24"):
        carry_adapter(adapter, tmp_path / "carried", plan=tmp_path / "slice/slice.json", to=to)
    assert not (tmp_path / "carried").exists()
