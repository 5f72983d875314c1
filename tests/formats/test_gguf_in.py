"""GGUF files as the source: cutting the file gives what cutting the model and exporting it gives, byte for byte."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from importlib.util import find_spec

import numpy as np
import pytest

import langslice
from langslice.cli.app import main
from langslice.errors import CheckpointError, CorpusError, OutputError, PlanError, VerificationError
from langslice.formats.gguf_in import write
from langslice.formats.gguf_in.container import ARRAY, STRING, UINT32, encoded, encoded_array, header_bytes, read_gguf
from langslice.mini import mini_model_path
from tests.formats.test_gguf import GEMMA, MINI_PRE, WIDER
from tests.tokenizer_samples import added, bpe, write_tokenizer_json

pytestmark = pytest.mark.usefixtures("one_thread")
needs_llama_cpp = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
BYTES = [f"<0x{value:02X}>" for value in range(256)]
CYRILLIC = "абвгдежзийклмноп"


def add_spm_tokenizer(folder):
    """SentencePiece's BPE with bytes for what has no token, and a token of the user's."""
    letters = [*"▁abcdefghijklmnopqrstuvwxyz", *CYRILLIC, *(chr(0xAC00 + 28 * number) for number in range(40))]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("i", "n"), ("in", "g"), ("e", "r"), ("▁", "가"), ("▁가", "갸")]
    tokens = ["<unk>", "<s>", "</s>", "<tool>", *BYTES, *letters, *(left + right for left, right in merges)]
    specials = [added(number, token, special=number < 3) for number, token in enumerate(tokens[:4])]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    write_tokenizer_json(
        folder, bpe(tokens, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True), added_tokens=specials,
        normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        decoder={"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    )  # fmt: skip
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", **names, "chat_template": "{{ messages[0].content }}"}
        )
    )
    return len(tokens)


def add_wordpiece_tokenizer(folder):
    words = [
        *"abcdefghijklmnopqrstuvwxyz",
        "the",
        "and",
        *CYRILLIC,
        *(chr(0xAC00 + 28 * number) for number in range(40)),
    ]
    pieces = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["##ing", "##ed", "##가", "##갸"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(each for pair in zip(words, pieces, strict=False) for each in pair)]
    tokens += words[len(pieces) :]
    from tests.tokenizer_samples import wordpiece

    around = {
        "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2],
    }  # fmt: skip
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": False}
    write_tokenizer_json(
        folder, wordpiece(tokens), added_tokens=[added(at, token) for at, token in enumerate(tokens[:4])],
        normalizer={**normalizer, "strip_accents": False}, pre_tokenizer={"type": "BertPreTokenizer"}, post_processor=around,
    )  # fmt: skip
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    return len(tokens)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Give the folder of a small random model with one kind of tokenizer, and its pre-tokenizer's name."""
    import torch
    import transformers

    from tests.zoo import add_tokenizer

    root = tmp_path_factory.mktemp("models")

    def build(kind):
        folder, pre = root / kind, None
        if not folder.is_dir():
            folder.mkdir()
            model_type, sizes = {
                "byte-bpe": ("gemma3_text", GEMMA), "spm-bpe": ("llama", {**WIDER, "num_hidden_layers": 3}),
                "unigram": ("bert", {**WIDER, "num_hidden_layers": 2}), "wordpiece": ("bert", {**WIDER, "num_hidden_layers": 2}),
            }[kind]  # fmt: skip
            if kind == "byte-bpe":
                for name in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(mini_model_path() / name, folder)
                rows = 12288
            elif kind == "unigram":
                rows = 125
                add_tokenizer(folder)
            else:
                rows = {"spm-bpe": add_spm_tokenizer, "wordpiece": add_wordpiece_tokenizer}[kind](folder)
            ids = (
                {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
                if kind != "wordpiece"
                else {"pad_token_id": 0}
            )
            config = transformers.AutoConfig.for_model(model_type, vocab_size=rows, **ids, **sizes)
            torch.manual_seed(0)
            kind_of = transformers.AutoModel if model_type == "bert" else transformers.AutoModelForCausalLM
            made = kind_of.from_config(config)
            with torch.no_grad():
                for parameter in made.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
            made.save_pretrained(folder)
        pre = MINI_PRE if kind == "byte-bpe" else None
        return folder, pre

    return build


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Give a model's GGUF file."""
    root = tmp_path_factory.mktemp("files")

    def export(kind, precision="f32"):
        path = root / f"{kind}-{precision}.gguf"
        if not path.is_file():
            folder, pre = model(kind)
            langslice.export(folder, root / kind, precision=precision, pre=pre, verify=False, overwrite=True)
            shutil.move(root / kind / f"{kind}-{precision}.gguf", path)
        return path

    return export


def contents(path):
    """Everything that a file holds, by the package gguf: metadata but for names and our own keys, and bytes of tensors."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = {
        key: field.contents()
        for key, field in reader.fields.items()
        if not key.startswith(("GGUF.", "langslice.", "general.name"))
    }
    return fields, {tensor.name: (tensor.tensor_type, tensor.data.tobytes()) for tensor in reader.tensors}


def same_both_ways(model, exported, tmp_path, kind, precision="f32", verify=True, **cut):
    """Cut the GGUF file; and cut the model and export it. Gives the result of the first."""
    folder, pre = model(kind)
    done = langslice.slice(exported(kind, precision), tmp_path / "out.gguf", verify=verify, **cut)
    langslice.slice(folder, tmp_path / "cut", verify=False, **cut)
    langslice.export(tmp_path / "cut", tmp_path / "gguf", precision=precision, pre=pre, verify=False)
    here, there = contents(tmp_path / "out.gguf"), contents(tmp_path / f"gguf/gguf-{precision}.gguf")
    for key in ("attention.key_length", "attention.value_length"):
        for fields in (here[0], there[0]):
            fields.setdefault(f"{fields['general.architecture']}.{key}", 16)
    assert here[0].keys() == there[0].keys()
    assert {key for key in here[0] if here[0][key] != there[0][key]} - {"tokenizer.ggml.scores"} == set()
    assert here[1] == there[1]
    return done


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("byte-bpe", "q8_0"), ("spm-bpe", "f16"), ("unigram", "bf16"), ("wordpiece", "f32")],
)
def test_a_vocabulary_is_cut_as_that_of_the_model(model, exported, tmp_path, kind, precision):
    digest = hashlib.sha256(exported(kind, precision).read_bytes()).hexdigest()
    done = same_both_ways(model, exported, tmp_path, kind, precision, languages="ko")
    assert 0 < len(done.plan.kept) < done.plan.rows
    passed = {check.name: check.passed for check in done.verification.checks}
    names = ("tokens", "outputs") if kind in ("unigram", "wordpiece") else ("tokens", "outputs", "greedy")
    absent = find_spec("xllamacpp") is None
    assert passed.pop("bytes") and (absent or passed == dict.fromkeys(names, True))
    assert hashlib.sha256(exported(kind, precision).read_bytes()).hexdigest() == digest
    if kind == "spm-bpe":
        again = langslice.slice(done.out, tmp_path / "again.gguf", languages="en", verify=False)
        assert read_gguf(again.out).value("langslice.kept_ids") == again.plan.kept.tolist()


def test_layers_heads_and_neurons_go_as_those_of_the_model(model, exported, tmp_path):
    cut = {
        "drop_layers": "1", "drop_heads": [f"{layer}:0,1" for layer in (0, 2)],
        "drop_neurons": ["0:32-63", "2:0-31"],
    }  # fmt: skip
    done = same_both_ways(model, exported, tmp_path, "spm-bpe", "q8_0", **cut)
    fields, _ = contents(done.out)
    assert [fields[f"llama.{key}"] for key in ("block_count", "attention.head_count", "attention.head_count_kv")] == [
        2,
        2,
        1,
    ]
    assert fields["llama.feed_forward_length"] == 64 and fields["llama.attention.key_length"] == 16
    if find_spec("xllamacpp") is not None:
        assert {check.name: check.passed for check in done.verification.checks} == dict.fromkeys(
            ("bytes", "tokens", "runs"), True
        )
    assert "layers 0,2" in repr(done.plan) and done.plan.keeps_vocabulary


@pytest.mark.parametrize(
    ("kind", "cut", "message"),
    [
        (
            "spm-bpe",
            {"drop_neurons": ["0:0-15", "1:0-15", "2:0-15"]},
            r"ffn_down.weight is stored as Q8_0, in blocks of 32",
        ),
        ("spm-bpe", {"drop_neurons": ["0:0-31"]}, "as many neurons in every layer"),
        ("spm-bpe", {"drop_heads": ["0:0", "1:0", "2:0"]}, "2 heads share a key and value in layer 0"),
        ("spm-bpe", {"drop_layers": "3"}, "layer 3 does not exist"),
        ("spm-bpe", {"languages": "ko", "neurons_sparsity": 0.5}, "`neurons_sparsity` is not for GGUF files"),
        ("spm-bpe", {"max_loss": 0.1, "languages": "ko"}, "`max_loss` is not for GGUF files"),
        ("wordpiece", {"drop_heads": ["0:0", "1:0"]}, "divides the hidden size of bert by its heads"),
        ("byte-bpe", {"drop_layers": "0"}, "layer 5 would become one of the other kind|layer 6|of the other kind"),
        ("byte-bpe", {"languages": "ko", "max_size": "10KB"}, "leaves no room for a vocabulary"),
    ],
)
def test_what_blocks_or_llama_cpp_do_not_allow_is_refused(exported, tmp_path, kind, cut, message):
    precision = "f32" if kind == "wordpiece" else "q8_0"
    with pytest.raises(PlanError, match=message):
        langslice.slice(exported(kind, precision), tmp_path / "out.gguf", **cut)
    assert list(tmp_path.iterdir()) == []


def changed(path, out, values=(), tensors=()):
    """A copy of a file with values added or replaced, and tensors of zeros added: name -> shape of float32."""
    source = read_gguf(path)
    found = {key: source.raw[entry.start : entry.end] for key, entry in source.entries.items()} | dict(values)
    data, listed = b"", []
    whole = path.read_bytes()
    for tensor in source.tensors.values():
        listed.append((tensor.name, tensor.shape, tensor.kind, len(data)))
        data += whole[tensor.start : tensor.start + tensor.size_bytes]
        data += b"\0" * (-len(data) % source.alignment)
    for name, shape in dict(tensors).items():
        listed.append((name, shape, 0, len(data)))
        data += bytes(4 * int(np.prod(shape)))
        data += b"\0" * (-len(data) % source.alignment)
    out.write_bytes(header_bytes(source.version, source.alignment, found, listed) + data)
    return out


SIZE = len(BYTES) + 4 + 67 + len(CYRILLIC) + 8


KO, SHORTER = {"languages": "ko"}, {"drop_layers": 1}
GGML = "tokenizer.ggml."


@pytest.mark.parametrize(
    ("values", "tensors", "cut", "message"),
    [
        ({"llama.x": encoded_array(UINT32, range(SIZE))}, {}, KO, f"llama.x is a list of {SIZE}, one for each token"),
        ({f"{GGML}fim": encoded(UINT32, 5)}, {}, KO, "fim may hold token ids"),
        ({"llama.draft_token_ids": encoded_array(UINT32, [5])}, {}, KO, "draft_token_ids may hold token ids"),
        ({}, {"of_tokens": (SIZE,)}, KO, "of_tokens .* may have a part for each token"),
        ({}, {"of_layers": (3, 2)}, SHORTER, "of_layers .* may have a part for each token or layer"),
        ({"llama.x": encoded_array(UINT32, [1, 2, 3])}, {}, SHORTER, "llama.x is a list of 3, one for each layer"),
        ({"llama.dense": encoded(UINT32, 1)}, {}, SHORTER, "llama.dense may say something of single layers"),
        ({f"{GGML}model": encoded(STRING, "rwkv")}, {}, KO, "of the kind rwkv is not understood"),
        ({"general.architecture": encoded(STRING, "mamba")}, {}, KO, "of the kind mamba are not understood"),
        ({"split.count": encoded(UINT32, 2)}, {}, KO, "one file of several"),
        (
            {f"{GGML}model": encoded(STRING, "gpt2"), f"{GGML}pre": encoded(STRING, "x")},
            {},
            KO,
            "pre-tokenizer x is not",
        ),
    ],
)
def test_what_is_not_understood_stops_the_job_by_name(exported, tmp_path, values, tensors, cut, message):
    path = changed(exported("spm-bpe"), tmp_path / "source.gguf", values, tensors)
    with pytest.raises(CheckpointError, match=message):
        langslice.slice(path, tmp_path / "out.gguf", verify=False, **cut)
    assert [each.name for each in tmp_path.iterdir()] == ["source.gguf"]


def test_lists_by_layer_and_lists_of_ids_follow(exported, tmp_path):
    path = changed(
        exported("spm-bpe"), tmp_path / "source.gguf",
        {
            "llama.attention.head_count": encoded_array(UINT32, [4, 4, 4]), "tokenizer.huggingface.json": encoded(STRING, "{}"),
            "tokenizer.ggml.eog_token_ids": encoded_array(UINT32, [2, 300]), "general.tags": encoded_array(STRING, [b"a"] * 3),
            "tokenizer.ggml.eot_token_id": encoded(UINT32, 0xFFFFFFFF),
        },
    )  # fmt: skip
    done = langslice.slice(path, tmp_path / "out.gguf", languages="ko", drop_layers="0", verify=False)
    result, kept = read_gguf(done.out), done.plan.kept.tolist()
    assert result.value("llama.attention.head_count") == [4, 4] and len(result.value("general.tags")) == 3
    assert result.value("tokenizer.ggml.eog_token_ids") == [2, kept.index(300)]
    assert result.value("tokenizer.ggml.eot_token_id") == 0xFFFFFFFF
    assert list(done.left_out) == ["tokenizer.huggingface.json"] and "tokenizer.huggingface.json" not in result.entries


def test_blocks_of_every_type_are_carried_as_they_are(tmp_path):
    """Random bytes in place of blocks, read back by the package gguf."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter

    draw = np.random.default_rng(0)
    texts = ["<unk>", "<s>", "</s>", *BYTES, *"▁abcdefghijklmnopqrstuvwxyz", *CYRILLIC, *"가나다라마바사아자차"]
    whole = {GGMLQuantizationType[name] for name in ("I8", "I16", "I32", "I64", "F64")}
    for kind in sorted(set(GGML_QUANT_SIZES) - whole):
        block, size = GGML_QUANT_SIZES[kind]
        path = tmp_path / "source.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_block_count(1)
        writer.add_head_count(4)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(texts)
        writer.add_token_scores([-float(number) for number in range(len(texts))])
        writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(texts) - 259)])
        rows = {
            name: draw.integers(0, 256, (len(texts), 2 * size), dtype=np.uint8) for name in ("token_embd", "output")
        }
        for name, data in rows.items():
            writer.add_tensor(f"{name}.weight", data, raw_shape=(len(texts), 2 * size), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        done = langslice.slice(path, tmp_path / "out.gguf", languages="ko", overwrite=True, verify=False)
        assert 256 < len(done.plan.kept) < len(texts)
        for tensor in GGUFReader(done.out).tensors:
            expected = rows[tensor.name.removesuffix(".weight")][done.plan.kept]
            assert tensor.tensor_type == kind and list(tensor.shape) == [2 * block, len(done.plan.kept)]
            assert tensor.data.tobytes() == expected.tobytes()


@needs_llama_cpp
def test_a_wrong_result_is_found_and_does_not_appear(exported, tmp_path, monkeypatch):
    path = exported("spm-bpe")

    def shifted(*given, **more):
        done = cut(*given, **more)
        with given[4 - 1].open("r+b") as file:
            file.seek(-64 * 4, 2)
            file.write(bytes(64 * 4))
        return done

    cut = write.write_cut
    monkeypatch.setattr("langslice.formats.gguf_in.main.write_cut", shifted)
    with pytest.raises(VerificationError, match="bytes: "):
        langslice.slice(path, tmp_path / "out.gguf", languages="ko")
    monkeypatch.setattr("langslice.formats.gguf_in.check.differing", lambda *given: (0, []))
    with pytest.raises(VerificationError, match="outputs: "):
        langslice.slice(path, tmp_path / "out.gguf", languages="ko")
    monkeypatch.setattr("langslice.formats.gguf_in.main.write_cut", cut)
    from langslice.formats.gguf_in import main as job

    whole = job.cut_metadata

    def without_scores(source, kept):
        values, left_out = whole(source, kept)
        return {**values, "tokenizer.ggml.scores": encoded_array(6, range(len(kept.rows)))}, left_out

    monkeypatch.setattr(job, "cut_metadata", without_scores)
    with pytest.raises(VerificationError, match=r"tokens: "):
        langslice.slice(path, tmp_path / "out.gguf", languages="en")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_none_and_outputs_that_cannot_be(exported, tmp_path, capsys, monkeypatch):
    path = shutil.copy(exported("spm-bpe"), tmp_path / "source.gguf")
    (tmp_path / "short.gguf").write_bytes(path.read_bytes()[:-100])
    (tmp_path / "header.gguf").write_bytes(path.read_bytes()[:500])
    (tmp_path / "none.gguf").write_text("no model")
    for name, message in (("short", "ends within"), ("header", "header is damaged"), ("none", "is not a GGUF file")):
        given = ["slice", str(tmp_path / f"{name}.gguf"), "-l", "ko", "-o", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", ["langslice", *given])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr().err
        assert stop.value.code == 2 and message in told and "hint:" in told
    (tmp_path / "notes.txt").write_text("mine")
    for out in (path, tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(OutputError):
            langslice.slice(path, out, languages="ko", overwrite=True)
    with pytest.raises(OutputError):
        langslice.slice(path, tmp_path / "short.gguf", languages="ko")
    with pytest.raises(CorpusError):
        langslice.slice(path, tmp_path / "out.gguf", languages="ko", text=tmp_path / "nothing.txt")
    with pytest.raises(CheckpointError, match="only `slice` and `inspect` read"):
        langslice.plan(path, languages="ko")


def test_inspect_says_what_is_in_a_file_and_what_a_cut_would_leave(exported, tmp_path):
    path = exported("spm-bpe", "q8_0")
    found = langslice.inspect(path, languages=["ko,en"])
    assert (found.model_type, found.rows, found.tokenizer) == ("llama", SIZE, "spm-bpe")
    assert found.size_bytes == path.stat().st_size and any("Q8_0" in note for note in found.notes)
    done = langslice.slice(path, tmp_path / "out.gguf", languages="ko,en", verify=False)
    assert found.savings[0].rows == len(done.plan.kept)
    assert found.savings[0].parameters == sum(after for _, after in done.parameters.values())
    assert abs(found.savings[0].size_bytes / done.written.size_bytes - 1) < 0.05
    # Two tables of 64 numbers a row, in blocks of 34 bytes for 32; the header is taken at its size, and old ids are added.
    limit = path.stat().st_size - (SIZE - len(done.plan.kept) + 2) * (2 * 2 * 34 + 4) + SIZE * 4 + 1024
    small = langslice.slice(path, tmp_path / "small.gguf", languages="ko,en", max_size=limit, verify=False)
    assert small.written.size_bytes <= limit and len(small.plan.kept) < len(done.plan.kept)


def test_an_array_of_arrays_is_refused(exported, tmp_path):
    nested = struct.pack("<IIQ", ARRAY, ARRAY, 1) + encoded_array(UINT32, [1])[4:]
    path = changed(exported("spm-bpe"), tmp_path / "source.gguf", {"x": nested})
    with pytest.raises(CheckpointError, match="x has a type that is not known: 9"):
        read_gguf(path)
