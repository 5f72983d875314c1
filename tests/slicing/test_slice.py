"""The whole job on every family: plan, slice, verify, reload in unmodified transformers, and compare by another way."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import langslice
from langslice.errors import LangsliceError, OutputError, PlanError, UnknownTensorError, VerificationError
from langslice.model.checkpoint import open_checkpoint
from langslice.planning.plan import load_plan, save_plan
from tests.zoo import FAMILIES, SHORT_PER_LAYER_TABLE, lacks

CHOICE = {"scripts": "Latn"}


def stored(folder):
    """Every tensor of a checkpoint, read by the safetensors library."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_slice_of_every_family_is_proven(model_type, zoo, tmp_path):
    source = zoo(model_type)
    multiple = 1 if model_type == "whisper" else 8  # after its time stamps nothing may be
    result = langslice.slice(source, tmp_path / "out", pad_to_multiple_of=multiple, **CHOICE)
    assert result.verification.passed
    names = ("files", "tensors", "loading", "bytes", "tokenizer", "ids", "tokenisation", "clients", "outputs")
    runs = None if lacks(model_type, SHORT_PER_LAYER_TABLE) else True  # where the source itself does not run
    passed = {check.name: check.passed for check in result.verification.checks}
    assert passed == {**dict.fromkeys(names, True), "outputs": runs}
    rows = result.plan.new_to_old
    assert len(rows) % multiple == 0
    assert 40 < len(result.plan.kept) < 100
    # Another way: gather in memory with torch, and compare every tensor of the file.
    before, after = stored(source), stored(tmp_path / "out")
    assert list(before) == list(after)
    for name, tensor in before.items():
        planned = result.plan.tensors[name]
        if planned.action == "slice":
            dim = next(d for d, axis in enumerate(planned.axes) if axis in {"vocab", "per_layer_vocab"})
            # Of Gemma 3n's per-layer table the rows that it has.
            wanted = (
                rows[: int((rows >= tensor.shape[dim]).argmax()) or None] if (rows >= tensor.shape[dim]).any() else rows
            )
            tensor = tensor.index_select(dim, __import__("torch").from_numpy(wanted))
        assert np.array_equal(tensor.numpy(), after[name].numpy()), name


def test_half_precision_and_shards(tmp_path, zoo):
    import torch
    import transformers

    source = zoo("llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(source).to(torch.bfloat16)
    sharded = tmp_path / "sharded"
    model.save_pretrained(sharded, max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, sharded)
    assert len(open_checkpoint(sharded).shards) > 2
    result = langslice.slice(sharded, tmp_path / "out", **CHOICE)
    assert result.verification.passed
    assert len(open_checkpoint(tmp_path / "out").shards) == len(open_checkpoint(sharded).shards)


def test_pickled_weights_become_safetensors(tmp_path, zoo):
    import torch

    source, pickled = zoo("roberta"), tmp_path / "pickled"
    shutil.copytree(source, pickled)
    state = stored(source)
    state["lm_head.decoder.weight"] = state["roberta.embeddings.word_embeddings.weight"]
    state["lm_head.decoder.bias"] = state["lm_head.bias"]
    torch.save(state, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    result = langslice.slice(pickled, tmp_path / "out", **CHOICE)
    assert result.verification.passed
    assert "lm_head.decoder.weight" in result.left_out
    assert "the model ties it" in result.left_out["lm_head.decoder.weight"]
    assert np.array_equal(stored(tmp_path / "out")["lm_head.decoder.bias"], stored(tmp_path / "out")["lm_head.bias"])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name for name in names if name != "generation_config.json"] == [
        "README.md", "config.json", "model.safetensors", "slice.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_ids_follow_their_tokens(zoo, tmp_path):
    source = tmp_path / "whisper"
    shutil.copytree(zoo("whisper"), source)
    config = json.loads((source / "config.json").read_text())
    tokens = [piece for piece, _ in json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]]
    config["suppress_tokens"] = [tokens.index("▁the"), tokens.index("가"), 129]
    (source / "config.json").write_text(json.dumps(config))
    result = langslice.slice(source, tmp_path / "out", **CHOICE)
    after = json.loads((tmp_path / "out/config.json").read_text())
    kept = result.plan.kept.tolist()
    assert [kept[new] for new in after["suppress_tokens"]] == config["suppress_tokens"]
    assert list(after) == list(config)
    assert after["vocab_size"] == len(kept)
    # 129 is a row beyond the tokenizer: it stays because the configuration names it.
    assert result.plan.reasons[kept.index(129)] == "named by config.json: suppress_tokens"
    assert result.plan.tokens[kept.index(129)] is None


def test_class_defaults_are_written_out_when_their_token_moves(zoo, tmp_path):
    source = tmp_path / "llama"
    shutil.copytree(zoo("llama"), source)
    config = json.loads((source / "config.json").read_text())
    del config["eos_token_id"], config["bos_token_id"]
    (source / "config.json").write_text(json.dumps(config))
    # In this tokenizer ids 1 and 2, Llama's defaults, stay where they are: nothing is added.
    langslice.slice(source, tmp_path / "same", **CHOICE)
    assert "eos_token_id" not in json.loads((tmp_path / "same/config.json").read_text())
    plan = langslice.plan(source, **CHOICE)
    assert plan.implied_ids == {}
    assert plan.reasons[2].startswith("special")


def test_a_vocabulary_size_left_to_the_class_is_written_out(tmp_path):
    """As published Gemma 3 checkpoints do: their text_config has no vocab_size."""
    from itertools import product

    from langslice.model.transformers_classes import implied_fields
    from tests.zoo import add_tokenizer, build

    gemma = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
    _, sizes = implied_fields(gemma, rows=262208, per_layer_rows=None, ignore=frozenset())
    assert sizes == {"text_config.vocab_size": 262208}

    source = add_tokenizer(build("llama", tmp_path / "source", vocab_size=32000))
    config = json.loads((source / "config.json").read_text())
    del config["vocab_size"]
    (source / "config.json").write_text(json.dumps(config))
    document = json.loads((source / "tokenizer.json").read_text())
    document["model"]["vocab"] += [["".join(letters), -9.0] for letters in product("가나다라마바사아자차카", repeat=4)][
        :16000
    ]
    document["model"]["vocab"] += [["".join(letters), -9.0] for letters in product("abcdefgh", repeat=4)]
    (source / "tokenizer.json").write_text(json.dumps(document))
    result = langslice.slice(source, tmp_path / "out", **CHOICE)
    assert result.verification.passed
    after = json.loads((tmp_path / "out/config.json").read_text())
    assert after["vocab_size"] == len(result.plan.kept) < 32000


def test_quantised_storage_that_needs_another_library_is_sliced_without_running_it(zoo, tmp_path):
    """Loading and outputs say that they were not checked; everything else is."""
    source = tmp_path / "source"
    shutil.copytree(zoo("llama"), source)
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    (source / "config.json").write_text(json.dumps(config))
    verification = langslice.slice(source, tmp_path / "out", **CHOICE).verification
    found = {check.name: (check.passed, check.detail) for check in verification.checks}
    for name in ("loading", "outputs"):
        passed, detail = found.pop(name)
        assert passed is None
        assert "not run: " in detail
        assert "requires" in detail
    assert all(passed is True for passed, _ in found.values())


def test_a_head_of_nan_or_without_logits_is_a_difference(zoo, tmp_path, monkeypatch):
    from langslice.verification import outputs

    source = open_checkpoint(zoo("llama"))
    plan = langslice.plan(zoo("llama"), **CHOICE)
    states = np.ones((1, 3))

    def compared(logits):
        runs = iter(
            [
                [outputs.Outputs(states, np.ones((1, 3, 5)), "float32")] * 4,
                [outputs.Outputs(states, logits, "float32")] * 4,
            ]
        )
        monkeypatch.setattr(outputs, "_run", lambda *_, **__: next(runs))
        return outputs.compare_outputs(source, source, plan, [])

    assert compared(np.ones((1, 3, 5))).passed
    assert (
        compared(np.full((1, 3, 5), np.nan)).examples[0]
        == "sample 0: logits of kept tokens differ by nan of the largest"
    )
    assert compared(None).examples[0] == "sample 0: only one of the two models has logits"


@pytest.mark.parametrize("value", [9999, 3])
def test_ids_that_appear_or_lie_outside_the_slice_are_differences(value, zoo, tmp_path):
    langslice.slice(zoo("llama"), tmp_path / "out", **CHOICE)
    path = tmp_path / "out/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "eos_token_id": value} if value > 200 else {**config, "sep_token_id": value}))
    (check,) = (check for check in langslice.verify(zoo("llama"), tmp_path / "out").checks if check.name == "ids")
    assert not check.passed
    assert ("became 9999" if value > 200 else "sep_token_id = 3 is not in the source") in check.examples[0]


def test_a_field_of_the_wrong_type_is_one_message(zoo, tmp_path):
    import transformers

    source = tmp_path / "source"
    shutil.copytree(zoo("llama"), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "num_hidden_layers": "x"}))
    if transformers.__version__.startswith("4."):
        # Version 4 accepts any type in a configuration; the class then cannot be built, and verification says so.
        checks = langslice.slice(source, tmp_path / "out", **CHOICE).verification.checks
        details = [check.detail for check in checks if check.name in {"loading", "outputs"} and check.passed is None]
        assert len(details) == 2
        assert all(detail.startswith("not run: ") and "TypeError" in detail for detail in details)
        return
    with pytest.raises(LangsliceError, match=r"(?s)does not accept config\.json.*num_hidden_layers"):
        langslice.slice(source, tmp_path / "out", **CHOICE)


def test_a_choice_beside_a_plan_is_refused(zoo, tmp_path):
    plan = langslice.plan(zoo("llama"), **CHOICE)
    with pytest.raises(PlanError, match="`plan` says what to keep, so `ignore_field`, `scripts` cannot be given"):
        langslice.slice(zoo("llama"), tmp_path / "out", plan=plan, scripts="Hang", ignore_field="x")


def test_missing_text_is_refused_before_anything_is_written(zoo, tmp_path, monkeypatch):
    from langslice.slicing import main as job

    monkeypatch.setattr(job, "write_shards", lambda *_, **__: pytest.fail("weights were written"))
    with pytest.raises(LangsliceError, match=r"nothing\.txt: no such file"):
        langslice.slice(zoo("llama"), tmp_path / "out", text=str(tmp_path / "nothing.txt"), **CHOICE)


def test_plan_file_round_trip_and_edits(zoo, tmp_path):
    source = zoo("mt5")
    plan = langslice.plan(source, pad_to_multiple_of=8, **CHOICE)
    save_plan(plan, tmp_path / "plan.json")
    again = load_plan(tmp_path / "plan.json")
    save_plan(again, tmp_path / "again.json")
    assert (tmp_path / "plan.json").read_text() == (tmp_path / "again.json").read_text()

    lines = (tmp_path / "plan.json").read_text().splitlines()
    dropped = [line for line in lines if '"▁the"' not in line]
    assert len(dropped) == len(lines) - 1
    (tmp_path / "edited.json").write_text("\n".join(dropped))
    result = langslice.slice(source, tmp_path / "out", plan=tmp_path / "edited.json")
    assert result.verification.passed
    assert "▁the" not in result.plan.tokens

    (tmp_path / "wrong.json").write_text("\n".join(lines).replace('"▁the"', '"▁teh"'))
    again = json.loads((tmp_path / "wrong.json").read_text())
    again["vocabulary"]["checked"] = ""
    (tmp_path / "wrong.json").write_text(json.dumps(again))
    with pytest.raises(PlanError, match=r"the plan calls token \d+ '▁teh', the model calls it '▁the'"):
        langslice.slice(source, tmp_path / "wrong", plan=tmp_path / "wrong.json")

    no_bytes = [line for line in lines if '"<unk>"' not in line]
    (tmp_path / "broken.json").write_text("\n".join(no_bytes))
    with pytest.raises(PlanError, match="the plan drops 1 tokens that kept ones need"):
        langslice.slice(source, tmp_path / "broken", plan=tmp_path / "broken.json")
    assert not (tmp_path / "broken").exists()


def test_a_plan_of_another_model_is_refused(zoo, tmp_path):
    plan = langslice.plan(zoo("llama"), **CHOICE)
    with pytest.raises(PlanError, match="made for a `llama` model"):
        langslice.slice(zoo("mistral"), tmp_path / "out", plan=plan)
    other = tmp_path / "other"
    shutil.copytree(zoo("llama"), other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    with pytest.raises(PlanError, match="made for another source"):
        langslice.slice(other, tmp_path / "out", plan=plan)


@pytest.mark.parametrize("damage", ["row", "order", "bytes", "id", "tokenizer"])
def test_a_wrong_slice_is_never_proven(damage, zoo, tmp_path):
    """Each damage is one that a slicer could do; verification must see every one."""
    from safetensors.torch import load_file, save_file

    out = tmp_path / "out"
    result = langslice.slice(zoo("llama"), out, **CHOICE)
    path = out / "model.safetensors"
    tensors = load_file(path)
    if damage == "row":
        tensors["model.embed_tokens.weight"][20] += 1
    elif damage == "order":
        tensors["lm_head.weight"][[20, 21]] = tensors["lm_head.weight"][[21, 20]]
    elif damage == "bytes":
        tensors["model.layers.1.mlp.up_proj.weight"][3, 3] += 1
    if damage in {"row", "order", "bytes"}:
        save_file(tensors, path, metadata={"format": "pt"})
    elif damage == "id":
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "eos_token_id": config["eos_token_id"] + 1}))
    else:
        document = json.loads((out / "tokenizer.json").read_text())
        vocabulary = document["model"]["vocab"]
        # One piece becomes so likely that covered text is split elsewhere.
        at = next(index for index, (piece, _) in enumerate(vocabulary) if piece == "ing")
        vocabulary[at][1] = -100.0
        (out / "tokenizer.json").write_text(json.dumps(document))
    verification = langslice.verify(zoo("llama"), out)
    assert not verification.passed
    assert any(check.examples for check in verification.checks if check.passed is False)
    assert result.verification.passed


def test_a_failed_proof_leaves_no_output(zoo, tmp_path, monkeypatch):
    from langslice.verification import main
    from langslice.verification.check import Check

    monkeypatch.setattr(main, "check_bytes", lambda *_: Check("bytes", False, "made to fail", ("row 3",)))
    with pytest.raises(VerificationError, match=r"(?s)was not written: the slice differs.*bytes: made to fail.*row 3"):
        langslice.slice(zoo("llama"), tmp_path / "out", **CHOICE)
    assert list(tmp_path.iterdir()) == []


def test_unknown_vocabulary_tensor_stops_before_anything_is_written(zoo, tmp_path):
    from safetensors.torch import load_file, save_file

    source = tmp_path / "source"
    shutil.copytree(zoo("llama"), source)
    tensors = load_file(source / "model.safetensors")
    rows = tensors["lm_head.weight"].shape[0]
    tensors["model.token_gate"] = tensors["lm_head.weight"][:, 0].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnknownTensorError, match=rf"model\.token_gate, shape \({rows},\)"):
        langslice.slice(source, tmp_path / "out", **CHOICE)
    assert not (tmp_path / "out").exists()


def test_existing_or_inner_output_is_refused(zoo, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(zoo("llama"), source)
    listing = sorted(path.name for path in source.iterdir())
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists"):
        langslice.slice(source, tmp_path / "out", **CHOICE)
    with pytest.raises(OutputError):
        langslice.slice(source, source / "inner", **CHOICE)
    assert sorted(path.name for path in source.iterdir()) == listing


def test_slicing_a_slice_keeps_the_way_back(zoo, tmp_path):
    langslice.slice(zoo("gpt2"), tmp_path / "first", **CHOICE)
    second = langslice.slice(tmp_path / "first", tmp_path / "second", scripts="Latn", max_vocab=60)
    assert second.verification.passed
    record = json.loads((tmp_path / "second/slice.json").read_text())
    first = np.array(record["source"]["slice"]["new_to_old"])
    direct = stored(zoo("gpt2"))["transformer.wte.weight"].numpy()
    twice = stored(tmp_path / "second")["transformer.wte.weight"].numpy()
    assert np.array_equal(direct[first[second.plan.new_to_old]], twice)


def test_side_files(zoo, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(zoo("bert"), source)
    (source / "onnx").mkdir()
    for name in ("README.md", "onnx/model.onnx", "model.gguf", "vocab.txt", "tf_model.h5", "chat_template.jinja"):
        (source / name).write_text("x")
    (source / "pytorch_model.bin.index.fp32.json").write_text('{"metadata": {}, "weight_map": {}}')
    result = langslice.slice(source, tmp_path / "out", **CHOICE)
    assert (tmp_path / "out/SOURCE_README.md").read_text() == "x"
    assert "A slice of" in (tmp_path / "out/README.md").read_text()
    assert (tmp_path / "out/chat_template.jinja").is_file()
    for name in ("onnx/model.onnx", "model.gguf", "vocab.txt", "tf_model.h5", "pytorch_model.bin.index.fp32.json"):
        assert name in result.left_out, name
        assert not (tmp_path / "out" / name).exists()
    (source / "phonemes.json").write_text(json.dumps({f"p{number}": number for number in range(100)}))
    with pytest.raises(LangsliceError, match=r"phonemes\.json .* is not a file that langslice knows"):
        langslice.slice(source, tmp_path / "out2", **CHOICE)
    (source / "phonemes.json").unlink()
    (source / "mystery.dat").write_text("x")
    with pytest.raises(LangsliceError, match=r"mystery\.dat .* is not a file that langslice knows"):
        langslice.slice(source, tmp_path / "out2", **CHOICE)
    assert langslice.slice(source, tmp_path / "out3", carry="mystery.dat", **CHOICE).verification.passed
    assert (tmp_path / "out3/mystery.dat").is_file()


def test_an_added_token_without_a_row_is_left_out_and_named(zoo, tmp_path):
    """As in Gemma 3's text models, whose tokenizer has one token more than the model has rows."""
    from tokenizers import AddedToken, Tokenizer

    source = tmp_path / "source"
    shutil.copytree(zoo("gemma3_text"), source)
    # Fill the ids up to the last row, so that the next token lies after it.
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    rows = json.loads((source / "config.json").read_text())["vocab_size"]
    fillers = [f"<unused{number}>" for number in range(rows - tokenizer.get_vocab_size())]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in [*fillers, "<image_soft_token>"]])
    assert tokenizer.token_to_id("<image_soft_token>") == rows
    tokenizer.save(str(source / "tokenizer.json"))
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["image_token"] = "<image_soft_token>"
    settings["added_tokens_decoder"] = {str(rows): {"content": "<image_soft_token>", "special": True}}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    result = langslice.slice(source, tmp_path / "out", **CHOICE)
    assert result.verification.passed
    assert any("no row for the added token '<image_soft_token>'" in note for note in result.notes)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert "image_soft" not in (tmp_path / "out" / name).read_text()
