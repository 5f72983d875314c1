"""The way back: an untrained slice gives the original bit for bit, a trained one scores kept text as the slice does."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import langslice
from langslice.cli.app import main
from langslice.files.float_types import wide as widened_values
from langslice.mini import heldout_text, mini_model_path
from langslice.model.checkpoint import open_checkpoint
from langslice.model.transformers_classes import dtype_option
from langslice.restoration import restore
from langslice.restoration.merge import float_rows, widened
from tests.zoo import add_tokenizer, build

pytestmark = pytest.mark.usefixtures("one_thread")


def raw(folder):
    """Every tensor's dtype, shape and bytes."""
    return {
        name: (entry.dtype, entry.shape, entry.path.read_bytes()[entry.start : entry.start + entry.size_bytes])
        for name, entry in open_checkpoint(folder).tensors.items()
    }


def train(folder, out, seed=0):
    """A stand-in for training: every float of the slice moves, zeros stay zeros."""
    shutil.copytree(folder, out)
    generator = np.random.default_rng(seed)
    for path in out.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        for name, values in tensors.items():
            if values.dtype.kind == "f":
                noise = generator.normal(0, 0.01, values.shape).astype(values.dtype)
                tensors[name] = np.where(values == 0, values, values + noise).astype(values.dtype)
        save_file(tensors, path, metadata=metadata)
    return out


def checks(result):
    found = {check.name: check for check in result.verification.checks}
    assert all(check.passed is not False for check in found.values()), found
    return found


LATIN = {"scripts": "Latn"}
ALL_CUTS = {"drop_layers": "1", "drop_heads": ["0:0,1"], "drop_neurons": ["0:3-9"]}


@pytest.mark.parametrize(
    "model_type", ["llama", "qwen2", "qwen3_moe", "bert", "xlm-roberta", "bloom", "gpt2", "gemma3_text", "phi3"]
)
def test_an_untrained_vocabulary_slice_gives_the_original(zoo, tmp_path, model_type):
    source = zoo(model_type)
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN)
    result = restore(tmp_path / "slice", tmp_path / "full", base=source)
    assert raw(tmp_path / "full") == raw(source)
    assert checks(result)["outputs"].passed
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        if (source / name).exists():
            assert (tmp_path / "full" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("model_type", ["t5", "bart", "m2m_100", "whisper"])
def test_encoder_decoders(zoo, tmp_path, model_type):
    source = zoo(model_type)
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN)
    restore(tmp_path / "slice", tmp_path / "full", base=source)
    assert raw(tmp_path / "full") == raw(source)


@pytest.mark.parametrize(
    ("model_type", "cut"),
    [
        ("llama", ALL_CUTS),
        ("qwen3", {**ALL_CUTS, "sparsity": 0.4, "weights_by": "magnitude"}),
        ("llama", {"drop_heads": ["1:0"], "replicate_kv": True}),
        ("gpt2", ALL_CUTS),
        ("bloom", {"drop_layers": "0", "drop_heads": ["1:2"]}),
        ("falcon", {"drop_layers": "0"}),
        ("phi3", {"drop_neurons": ["0:1-4", "1:2-5", "2:0-3"]}),
        ("gpt_neox", {"drop_heads": ["1:2", "2:0,1"]}),
        ("llama", {"drop_heads": ["0:0,1"], "drop_neurons": ["1:3-9"], "output_style": "masked"}),
        ("bert", {"prune_rows": "*.query=0.2:l1", "drop_layers": "1"}),
    ],
)  # fmt: skip
def test_everything_comes_back_bit_for_bit(zoo, tmp_path, model_type, cut):
    source = zoo(model_type)
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN, **cut)
    result = restore(tmp_path / "slice", tmp_path / "full", base=source, everything=True)
    assert raw(tmp_path / "full") == raw(source)
    assert (tmp_path / "full/config.json").read_bytes() == (source / "config.json").read_bytes()
    assert not (tmp_path / "full/modeling_sliced.py").exists()
    assert checks(result)["untouched"].passed


@pytest.mark.parametrize(("model_type", "cut"), [
    ("t5", {"drop_layers": ["encoder.0", "decoder.1"]}),
    ("m2m_100", {"drop_layers": ["decoder.0"], "drop_neurons": ["encoder.1:2-8"]}),
])  # fmt: skip
def test_everything_of_encoder_decoders(zoo, tmp_path, model_type, cut):
    source = zoo(model_type)
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN, **cut)
    restore(tmp_path / "slice", tmp_path / "full", base=source, everything=True)
    assert raw(tmp_path / "full") == raw(source)


@pytest.mark.parametrize("cut", [
    {}, {"pad_to_multiple_of": 64}, {"drop_layers": "1"}, {"drop_heads": ["0:0,1"]},
    {"drop_heads": ["1:2,3"], "drop_neurons": ["0:3-9"], "output_style": "masked"},
])  # fmt: skip
def test_a_trained_slice_scores_kept_text_as_before(zoo, tmp_path, cut):
    source = zoo("llama")
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN, **cut)
    trained = train(tmp_path / "slice", tmp_path / "trained")
    result = restore(trained, tmp_path / "full", base=source)
    found = checks(result)
    assert found["outputs"].passed and "hidden states differ by 0" in found["outputs"].detail
    assert found["untouched"].passed
    kept = result.verification and np.asarray(json.loads((trained / "slice.json").read_text())["new_to_old"])
    kept = kept[: result.rows[0]]
    before, new, own = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "full", trained))
    name = "model.embed_tokens.weight"
    assert new[name].shape == before[name].shape
    np.testing.assert_array_equal(new[name][kept], own[name][: len(kept)])
    outside = np.setdiff1d(np.arange(len(before[name])), kept)
    np.testing.assert_array_equal(new[name][outside], before[name][outside])
    np.testing.assert_array_equal(
        new["model.layers.0.self_attn.v_proj.weight"], own["model.layers.0.self_attn.v_proj.weight"]
    )


def test_everything_after_training_holds_what_was_trained_between_what_was_not(zoo, tmp_path):
    source = zoo("llama")
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN, **ALL_CUTS, sparsity=0.5, weights_by="magnitude")
    trained = train(tmp_path / "slice", tmp_path / "trained")
    restore(trained, tmp_path / "full", base=source, everything=True)
    base, full, own = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "full", trained))
    for name in ("model.layers.1.mlp.up_proj.weight", "model.layers.1.input_layernorm.weight"):
        np.testing.assert_array_equal(full[name], base[name])  # the layer that had gone
    name = "model.layers.2.mlp.down_proj.weight"  # layer 1 of the slice; its neurons all stayed
    mine = own["model.layers.1.mlp.down_proj.weight"]
    holes = mine == 0
    assert holes.mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(full[name][~holes], mine[~holes])
    np.testing.assert_array_equal(full[name][holes], base[name][holes])
    name = "model.layers.0.mlp.up_proj.weight"  # neurons 3 to 9 had gone
    np.testing.assert_array_equal(full[name][3:10], base[name][3:10])
    changed = own[name] != 0
    np.testing.assert_array_equal(np.delete(full[name], range(3, 10), axis=0)[changed], own[name][changed])


@pytest.mark.assets
@pytest.mark.parametrize(("tokenizer", "model_type", "sizes"), [
    ("qwen2", "qwen2", {"vocab_size": 151936, "tie_word_embeddings": True}),
    ("o200k-base", "llama", {"vocab_size": 200064, "tie_word_embeddings": False}),
    ("xlm-roberta", "xlm-roberta", {"vocab_size": 250002}),
    ("mbert-cased", "bert", {"vocab_size": 119547}),
    ("gemma-4", "gemma3_text", {"vocab_size": 262144}),
])  # fmt: skip
def test_real_tokenizers_tied_and_untied(assets, tmp_path, tokenizer, model_type, sizes):
    source = build(model_type, tmp_path / "source", dtype="bfloat16", **sizes)
    for file in (assets / "tokenizers" / tokenizer).glob("*.json"):
        shutil.copy(file, source)
    langslice.slice(source, tmp_path / "slice", languages="ko,en", verify=False)
    proven = tokenizer in ("qwen2", "xlm-roberta", "mbert-cased")  # one of each kind; the others take their time
    result = restore(tmp_path / "slice", tmp_path / "full", base=source, verify=proven)
    assert raw(tmp_path / "full") == raw(source)
    assert not proven or checks(result)["outputs"].passed
    assert result.rows[0] < result.rows[1] == sizes["vocab_size"]
    for file in (assets / "tokenizers" / tokenizer).glob("tokenizer*.json"):
        assert (tmp_path / "full" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.assets
def test_a_trained_embedder_comes_back(assets, tmp_path):
    source = assets / "weights/all-MiniLM-L6-v2"
    langslice.slice(source, tmp_path / "slice", languages="en", verify=False)
    trained = train(tmp_path / "slice", tmp_path / "trained")
    assert checks(restore(trained, tmp_path / "full", base=source))["outputs"].passed
    card = (tmp_path / "full/README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card and "trained on a slice of it" in card
    assert (tmp_path / "full/SOURCE_README.md").read_bytes() == (source / "README.md").read_bytes()
    assert (tmp_path / "full/vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    assert (tmp_path / "full/modules.json").exists()
    restore(tmp_path / "slice", tmp_path / "same", base=source, verify=False)
    assert raw(tmp_path / "same") == raw(source)


@pytest.fixture(scope="module")
def mini_slice(tmp_path_factory):
    """The packaged model (float16) for Korean and English."""
    out = tmp_path_factory.mktemp("mini") / "slice"
    langslice.slice(mini_model_path(), out, languages="ko,en", verify=False)
    return out


def test_weights_saved_by_a_trainer_in_float32(mini_slice, tmp_path):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(mini_slice, **dtype_option(torch.float32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.001)
    model.save_pretrained(tmp_path / "trained")
    shutil.copy(mini_slice / "tokenizer.json", tmp_path / "trained")
    shutil.copy(mini_slice / "tokenizer_config.json", tmp_path / "trained")
    with pytest.raises(langslice.LangsliceError, match=r"has no slice\.json") as caught:
        restore(tmp_path / "trained", tmp_path / "full", base=mini_model_path())
    assert '`plan="SLICE/slice.json"`' in caught.value.hint
    text = tmp_path / "held.txt"
    text.write_text("\n".join(heldout_text("ko")[:20]), encoding="utf-8")
    result = restore(
        tmp_path / "trained", tmp_path / "full", base=mini_model_path(), plan=mini_slice / "slice.json", text=str(text)
    )
    assert checks(result)["outputs"].passed
    entries = open_checkpoint(tmp_path / "full").tensors
    assert {entry.dtype for entry in entries.values()} == {"F32"}
    config = json.loads((tmp_path / "full/config.json").read_text())
    assert config.get("torch_dtype", config.get("dtype")) == "float32"
    assert config["vocab_size"] == 12288
    assert not list((tmp_path / "full").glob(".*"))
    full = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "full")
    old = json.loads((mini_slice / "slice.json").read_text())["new_to_old"]
    ids = torch.tensor([[5, 300, 4000, 77]])
    with torch.no_grad():
        new, whole = model(ids).logits, full(torch.tensor(old)[ids]).logits
    torch.testing.assert_close(whole[..., old], new, rtol=1e-5, atol=1e-5)


def test_a_narrower_type_is_refused(zoo, tmp_path):
    source = zoo("llama")
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN)
    tensors = {
        name: value.astype(np.float16) for name, value in load_file(tmp_path / "slice/model.safetensors").items()
    }
    save_file(tensors, tmp_path / "slice/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(langslice.LangsliceError, match="F32 in the base and F16 in the trained slice"):
        restore(tmp_path / "slice", tmp_path / "full", base=source)
    assert not (tmp_path / "full").exists()


def test_widening_is_exact(tmp_path):
    import torch

    values = torch.tensor([[1.5, -0.0, 3.0e38], [float("inf"), 1e-40, -2.0]])
    for name, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        narrow = values.to(dtype)
        bits = narrow.view(torch.int16).numpy().view(np.uint16)
        np.testing.assert_array_equal(widened_values(bits, name, "F32"), narrow.float().numpy())
        folder = tmp_path / name
        folder.mkdir()
        save_file({"t": bits.view(np.float16)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
        from dataclasses import replace

        entry = replace(open_checkpoint(folder).tensors["t"], dtype=name)
        wide = widened(entry, "F32", folder / "wide.bin")
        assert (wide.dtype, wide.shape, wide.size_bytes) == ("F32", (2, 3), 24)
        np.testing.assert_array_equal(float_rows(wide, np.array([1])), narrow[1:].double().numpy())


def test_a_slice_of_a_slice_goes_back_step_by_step(mini_slice, tmp_path):
    langslice.slice(mini_slice, tmp_path / "second", languages="en", verify=False)
    restore(tmp_path / "second", tmp_path / "first", base=mini_slice)
    assert raw(tmp_path / "first") == raw(mini_slice)
    restore(tmp_path / "first", tmp_path / "full", base=mini_model_path())  # the first record came along
    assert raw(tmp_path / "full") == raw(mini_model_path())


def test_a_pickled_base(zoo, tmp_path):
    import torch

    source = tmp_path / "source"
    shutil.copytree(zoo("xlm-roberta"), source)
    tensors = {name: torch.from_numpy(value) for name, value in load_file(source / "model.safetensors").items()}
    tensors["lm_head.decoder.weight"] = tensors["roberta.embeddings.word_embeddings.weight"]
    torch.save(tensors, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN)
    restore(tmp_path / "slice", tmp_path / "full", base=source, everything=True)
    assert (tmp_path / "full/model.safetensors").exists()
    written = load_file(tmp_path / "full/model.safetensors")
    original = load_file(zoo("xlm-roberta") / "model.safetensors")
    assert written.keys() == original.keys()
    for name, value in original.items():
        np.testing.assert_array_equal(written[name], value)


def test_a_tied_head_that_a_trainer_did_not_save(tmp_path):
    source = add_tokenizer(build("llama", tmp_path / "source", tie_word_embeddings=True))
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()  # some files hold both
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN)
    mine = load_file(tmp_path / "slice/model.safetensors")
    del mine["lm_head.weight"]
    save_file(mine, tmp_path / "slice/model.safetensors", metadata={"format": "pt"})
    result = restore(tmp_path / "slice", tmp_path / "full", base=source, verify=False)
    assert "ties it to model.embed_tokens.weight" in " ".join(result.notes)
    assert raw(tmp_path / "full") == raw(source)


@pytest.mark.parametrize(("spoil", "message"), [
    ("base", "the plan was made for another source|made for a `bert` model|this is a `bert` model"),
    ("missing", "1 tensors that the slice had and the trained folder lacks"),
    ("extra", "1 tensors in the trained folder that the slice did not have"),
    ("shape", r"has shape \(2, 2\)"),
    ("exists", "the output exists"),
    ("nothing", "has the whole vocabulary already"),
    ("plan", "no such folder|no such plan"),
    ("heads", "training made them differ"),
])  # fmt: skip
def test_what_does_not_belong_together_is_refused(zoo, tmp_path, capsys, monkeypatch, spoil, message):
    source = zoo("llama")
    cut = {"nothing": {"drop_layers": "1"}, "heads": {**LATIN, "drop_heads": ["1:0"], "replicate_kv": True}}
    made = tmp_path / "slice"
    langslice.slice(source, made, verify=False, **cut.get(spoil, LATIN))
    if spoil == "heads":
        made = train(made, tmp_path / "trained")
    tensors = load_file(made / "model.safetensors")
    if spoil == "missing":
        del tensors["model.norm.weight"]
    if spoil == "extra":
        tensors["score.weight"] = np.ones((2, 2), np.float32)
    if spoil == "shape":
        tensors["model.norm.weight"] = np.ones((2, 2), np.float32)
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    if spoil == "exists":
        (tmp_path / "full").mkdir()
    arguments = ["--base", zoo("bert") if spoil == "base" else source, "-o", tmp_path / "full"]
    arguments += ["--plan", tmp_path / "absent/slice.json"] if spoil == "plan" else []
    arguments += ["--everything"] if spoil == "heads" else []
    before = raw(source)
    monkeypatch.setattr("sys.argv", ["langslice", "restore", str(made), *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("error: ") and "hint: " in said
    import re

    assert re.search(message, said), said
    assert raw(source) == before
    assert not (tmp_path / "full").exists() or not list((tmp_path / "full").iterdir())
    assert not list(tmp_path.glob(".full*"))


def test_a_row_that_went_astray_is_found(zoo, tmp_path, monkeypatch):
    """Must fail: verification of a restored model sees a trained row in the wrong place, and one that is not the base's."""
    from langslice.restoration import main as restoring

    source = zoo("llama")
    langslice.slice(source, tmp_path / "slice", verify=False, **LATIN)
    real = restoring.lay_over

    def astray(written, origin):
        done = real(written, origin)
        with written.path.open("r+b") as file:
            row = written.size_bytes // written.shape[0]
            file.seek(written.start)
            rows = bytearray(file.read(written.size_bytes))
            rows[: 130 * row] = rows[row : 131 * row]
            file.seek(written.start)
            file.write(rows)
        return done

    monkeypatch.setattr(restoring, "lay_over", astray)
    with pytest.raises(langslice.LangsliceError, match="was not written: it differs from the trained slice") as caught:
        restore(tmp_path / "slice", tmp_path / "full", base=source)
    assert "bytes:" in str(caught.value) and "untouched:" in str(caught.value)
    assert not (tmp_path / "full").exists()
