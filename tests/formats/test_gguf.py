"""GGUF files: what is in them is what was in the model, and what llama.cpp computes from them is what transformers computes."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest

import langslice
from langslice.cli.app import main
from langslice.errors import ExportError, OutputError, VerificationError
from langslice.formats.families import FAMILIES, gguf_family
from langslice.formats.gguf_metadata import rope_factors
from langslice.formats.modelfile import find_layout, modelfile
from langslice.formats.pre_tokenizers import known_pre_tokenizers
from langslice.mini import mini_model_path
from langslice.model.checkpoint import open_checkpoint
from langslice.model.transformers_classes import full_config

pytestmark = pytest.mark.usefixtures("one_thread")
needs_llama_cpp = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
MINI_PRE = "qwen35"  # what the packaged model's pre-tokenizer is in llama.cpp
# Sizes that llama.cpp takes (32 numbers to a block of q8_0), and Gemma's own order of layers.
WIDER = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
GEMMA = {**WIDER, "num_hidden_layers": 6, "query_pre_attn_scalar": 16, "sliding_window": 6, "sliding_window_pattern": 6}


def value(reader, key):
    return reader.fields[key].contents()


def read(path):
    from gguf import GGUFReader

    return GGUFReader(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Give the folder of a small random model of a type that llama.cpp takes, and its pre-tokenizer's name there.

    Encoders have the tokenizer of the zoo, the others that of the packaged model.
    """
    import torch
    import transformers

    from tests.zoo import FAMILIES as ZOO
    from tests.zoo import add_tokenizer

    root = tmp_path_factory.mktemp("models")

    def build(model_type):
        folder, encoder = root / model_type, FAMILIES[model_type].encoder
        if not folder.is_dir():
            auto, config = ZOO[model_type]
            sizes = {**(GEMMA if model_type == "gemma3_text" else WIDER)}
            own = transformers.AutoConfig.for_model(
                model_type, **{**config, **sizes, **({} if encoder else {"vocab_size": 12288})}
            )
            torch.manual_seed(0)
            made = getattr(transformers, auto).from_config(own)
            with torch.no_grad():
                for parameter in made.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
            made.save_pretrained(folder)
            if encoder:
                add_tokenizer(folder)
            else:
                for name in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(mini_model_path() / name, folder)
        # transformers gives a tokenizer of Qwen 2 its own pre-tokenizer, whatever the file says.
        return folder, None if encoder else "qwen2" if model_type == "qwen2" else MINI_PRE

    return build


@pytest.mark.parametrize(
    ("model_type", "precision"), [*((each, "f32") for each in FAMILIES), ("llama", "q8_0"), ("bert", "q8_0")]
)
def test_every_family_and_number_is_written_and_computes_the_same(model, tmp_path, model_type, precision):
    folder, pre = model(model_type)
    done = langslice.export(folder, tmp_path / "out", precision=precision, pre=pre)
    checks = {check.name: check for check in done.checks}
    told = int(checks["weights"].detail.split(" ")[0].replace(",", ""))
    checkpoint = open_checkpoint(folder)
    encoder = FAMILIES[model_type].encoder
    tied = full_config(checkpoint.config)["tie_word_embeddings"]
    unused = ("pooler.", "cls.", "lm_head.") if encoder else ("lm_head.",) if tied else ()
    kept = [tensor for name, tensor in checkpoint.tensors.items() if not any(each in name for each in unused)]
    offset = 2 * 64 if FAMILIES[model_type].offset else 0
    assert told == sum(int(np.prod(tensor.shape)) for tensor in kept) - offset
    absent = find_spec("xllamacpp") is None
    expected = {"weights": True, "tokens": None if absent else True, "outputs": None if absent else True}
    if not encoder and precision == "f32" and not absent:
        expected["greedy"] = True
    assert {name: checks[name].passed for name in expected} == expected
    assert not absent or "xllamacpp is not installed" in checks["tokens"].detail


@needs_llama_cpp
def test_rows_in_the_wrong_order_are_found_by_what_llama_cpp_computes(model, tmp_path, monkeypatch):
    from langslice.formats import gguf_tensors

    monkeypatch.setattr(gguf_tensors, "_together", lambda rows, heads: rows)
    with pytest.raises(VerificationError, match="weights"):
        langslice.export(model("llama")[0], tmp_path / "out", precision="f32", pre=MINI_PRE)
    # Undone in the same wrong way, only the outputs tell.
    monkeypatch.setattr(gguf_tensors, "_apart", lambda rows, heads: rows)
    with pytest.raises(VerificationError, match="outputs"):
        langslice.export(model("llama")[0], tmp_path / "out", precision="f32", pre=MINI_PRE)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_query_and_key_are_interleaved(model, tmp_path):
    from safetensors.numpy import load_file

    folder, pre = model("llama")
    langslice.export(folder, tmp_path / "out", precision="f32", pre=pre, verify=False)
    before = load_file(folder / "model.safetensors")["model.layers.1.self_attn.k_proj.weight"]
    after = next(
        each for each in read(tmp_path / "out/out-f32.gguf").tensors if each.name == "blk.1.attn_k.weight"
    ).data
    assert np.array_equal(after[16:32:2], before[16:24])
    assert np.array_equal(after[17:32:2], before[24:32])


def test_llama_3_positions():
    config = {"hidden_size": 512, "num_attention_heads": 4, "rope_theta": 500000.0}
    config["rope_scaling"] = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    whole = LlamaConfig(max_position_embeddings=16384, **config)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](whole, "cpu")
    plain = 500000.0 ** -(np.arange(0, 128, 2) / 128)
    assert np.allclose(plain / rope_factors(config), scaled.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "change", "message"),
    [
        ("llama", {"hidden_act": "relu"}, "its activation is relu, llama.cpp's is silu"),
        ("qwen2", {"head_dim": 8}, "4 heads of 8 are not the hidden size, 64"),
        ("qwen2", {"use_sliding_window": True}, "sliding window"),
        ("bert", {"position_embedding_type": "relative_key"}, "its positions are relative_key"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 6}, "every 6th layer"),
        ("gemma3_text", {"query_pre_attn_scalar": 32}, "scaled otherwise"),
        ("mt5", {}, "does not write GGUF files of model type mt5"),
    ],
)
def test_what_llama_cpp_would_not_compute_is_refused(model, model_type, change, message):
    config = (
        full_config(open_checkpoint(model(model_type)[0]).config)
        if model_type in FAMILIES
        else {"model_type": model_type}
    )
    with pytest.raises(ExportError, match=message):
        gguf_family({**config, **change})


@pytest.fixture(scope="module")
def sliced_mini(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "ko-en"
    langslice.slice("mini", folder, languages="ko,en", verify=False)
    return folder


def test_an_unknown_hash_is_refused_and_nothing_is_written(sliced_mini, tmp_path, capsys, monkeypatch):
    digest = json.loads((sliced_mini / "slice.json").read_text())["pre_tokenizer_hash"]
    monkeypatch.setattr("sys.argv", ["langslice", "export", str(sliced_mini), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert digest in told and "--pre NAME" in told
    assert list(tmp_path.iterdir()) == []


def test_the_name_is_that_of_the_source_however_often_it_is_sliced(sliced_mini, tmp_path, monkeypatch):
    digest = json.loads((sliced_mini / "slice.json").read_text())["pre_tokenizer_hash"]
    again = tmp_path / "again"
    langslice.slice(sliced_mini, again, languages="en", verify=False)
    assert json.loads((again / "slice.json").read_text())["pre_tokenizer_hash"] == digest
    monkeypatch.setitem(known_pre_tokenizers()["names"], digest, MINI_PRE)
    for name, folder in (("source", "mini"), ("once", sliced_mini), ("twice", again)):
        langslice.export(folder, tmp_path / name, precision="bf16", verify=False)
        assert value(read(tmp_path / f"{name}/{name}-bf16.gguf"), "tokenizer.ggml.pre") == MINI_PRE


def test_a_slice_that_does_not_say_asks_its_source(sliced_mini, tmp_path, monkeypatch):
    older = shutil.copytree(sliced_mini, tmp_path / "older")
    record = json.loads((older / "slice.json").read_text())
    digest = record.pop("pre_tokenizer_hash")
    (older / "slice.json").write_text(json.dumps(record))
    monkeypatch.setitem(known_pre_tokenizers()["names"], digest, MINI_PRE)
    langslice.export(older, tmp_path / "out", verify=False)
    record["source"]["model"] = "elsewhere"
    (older / "slice.json").write_text(json.dumps(record))
    with pytest.raises(ExportError, match="the source is not at hand"):
        langslice.export(older, tmp_path / "other", verify=False)


@needs_llama_cpp
@pytest.mark.parametrize(("pre", "right"), [(MINI_PRE, True), ("gpt-2", False)])
def test_a_name_that_the_user_says_is_checked(sliced_mini, tmp_path, pre, right):
    if right:
        done = langslice.export(sliced_mini, tmp_path / "out", pre=pre, precision="f32")
        assert all(check.passed for check in done.checks)
        return
    with pytest.raises(VerificationError, match=r"tokens: .* lines have the same ids"):
        langslice.export(sliced_mini, tmp_path / "out", pre=pre, precision="f32")


@pytest.mark.assets
@pytest.mark.parametrize("name", ["qwen2", "mbert-cased"])
def test_real_tokenizers(assets, tmp_path, name):
    """A random model with a real tokenizer, sliced to Korean and English."""
    import torch
    import transformers

    own = {"qwen2": "qwen2", "mbert-cased": "bert"}[name]
    source = tmp_path / "source"
    tokens = len(transformers.AutoTokenizer.from_pretrained(assets / "tokenizers" / name))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = transformers.AutoConfig.for_model(own, vocab_size=tokens, **sizes)
    if hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = 2
    torch.manual_seed(0)
    kind = transformers.AutoModel if "bert" in own else transformers.AutoModelForCausalLM
    kind.from_config(config).save_pretrained(source)
    for file in (assets / "tokenizers" / name).glob("tokenizer*"):
        shutil.copy(file, source)
    langslice.slice(source, tmp_path / "cut", languages="ko,en", verify=False)
    done = langslice.export(tmp_path / "cut", tmp_path / "out", precision="f32")
    assert all(check.passed is not False for check in done.checks)
    if find_spec("xllamacpp") is not None:
        assert all(check.passed for check in done.checks)


def test_a_missing_package_is_named(sliced_mini, tmp_path, monkeypatch):
    monkeypatch.setattr("langslice.formats.gguf_file.find_spec", lambda name: None)
    with pytest.raises(ExportError) as stop:
        langslice.export(sliced_mini, tmp_path / "out", pre=MINI_PRE)
    assert stop.value.hint == "pip install 'langslice[gguf]'"


def test_other_types_need_llama_quantize(sliced_mini, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ExportError, match=r"q4_k_m is written by llama-quantize of llama\.cpp, which is not on the PATH"
    ):
        langslice.export(sliced_mini, tmp_path / "out", pre=MINI_PRE, precision="q4_k_m")
    program = tmp_path / "llama-quantize"
    program.write_text('#!/bin/sh\n[ "$3" = Q4_K_M ] || { echo "invalid ftype" >&2; exit 1; }\n/bin/cp "$1" "$2"\n')
    program.chmod(0o755)
    done = langslice.export(sliced_mini, tmp_path / "out", pre=MINI_PRE, precision="q4_k_m", verify=False)
    assert sorted(done.files) == ["Modelfile", "export.json", "out-q4_k_m.gguf"]
    with pytest.raises(ExportError, match="invalid ftype"):
        langslice.export(sliced_mini, tmp_path / "other", pre=MINI_PRE, precision="q9", verify=False)
    assert not (tmp_path / "other").exists()


def test_the_converter_is_told_the_name(sliced_mini, tmp_path):
    folder = tmp_path / "llama.cpp"
    (folder / "conversion").mkdir(parents=True)
    (folder / "conversion/__init__.py").touch()
    (folder / "conversion/base.py").write_text(
        "class TextModel:\n    def get_vocab_base_pre(self, tokenizer):\n        raise NotImplementedError('not recognized')\n"
    )
    converter = folder / "convert_hf_to_gguf.py"
    converter.write_text(
        "import sys\nfrom pathlib import Path\nfrom conversion.base import TextModel\n"
        "Path(sys.argv[3]).write_text(TextModel().get_vocab_base_pre(None) + ' ' + sys.argv[5])\n"
    )
    arguments = {"converter": converter, "precision": "bf16", "verify": False}
    langslice.export(sliced_mini, tmp_path / "out", pre=MINI_PRE, **arguments)
    assert (tmp_path / "out/out-bf16.gguf").read_text() == f"{MINI_PRE} bf16"
    with pytest.raises(ExportError, match=r"(?s)did not write the file.*not recognized"):
        langslice.export(sliced_mini, tmp_path / "other", pre="default", **arguments)
    assert not (tmp_path / "other").exists()


def test_an_export_is_replaced_when_asked(sliced_mini, tmp_path):
    arguments = {"pre": MINI_PRE, "verify": False}
    langslice.export(sliced_mini, tmp_path / "out", **arguments)
    with pytest.raises(OutputError):
        langslice.export(sliced_mini, tmp_path / "out", **arguments)
    langslice.export(sliced_mini, tmp_path / "out", overwrite=True, precision="bf16", **arguments)
    assert (tmp_path / "out/out-bf16.gguf").is_file() and not (tmp_path / "out/out-f16.gguf").exists()


CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}<start>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>model\n{% endif %}"
)
COUNTING = "{% for m in messages %}[{{ loop.index }}] {{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [(CHATML, "<|im_start|>user\n{{ .Content }}<|im_end|>\n"), (TURNS, "<start>model\n")],
)
def test_a_chat_template_becomes_ollamas(template, expected):
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(mini_model_path())
    auto.chat_template = template
    assert find_layout(auto) is not None
    text, note = modelfile("a.gguf", auto, [0], {})
    assert text.startswith('FROM ./a.gguf\nTEMPLATE """') and expected in text and note == ""
    assert ("if not .System" in text) == (template is CHATML)


def test_a_template_that_does_more_is_left_out():
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(mini_model_path())
    auto.chat_template = COUNTING
    text, note = modelfile("a.gguf", auto, [], {"do_sample": True, "temperature": 0.5})
    assert text == "FROM ./a.gguf\nPARAMETER temperature 0.5\n"
    assert "does more than a Modelfile can say" in note
