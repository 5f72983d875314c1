"""Folders that no config.json describes: a tokenizer alone, a tokenizer and one matrix, an encoder inside a wrapper."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import langslice
from langslice.cli.app import main
from langslice.errors import CheckpointError, LangsliceError
from langslice.mini import mini_model_path
from tests.zoo import VOCABULARY

CHOICE = {"languages": "ko,en"}
LATIN = {"scripts": "Latn", "languages": "en", "max_vocab": 100}
ROWS = 12288


@pytest.fixture
def tokenizer_folder(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(mini_model_path() / name, folder / name)
    return folder


def check_ids(source, out):
    """The slice's tokens are those of the source at kept_ids.npy."""
    from tokenizers import Tokenizer

    old, new = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (source, out))
    kept = np.load(out / "kept_ids.npy")
    assert kept.dtype == np.int64
    assert len(kept) == new.get_vocab_size() < 0.7 * old.get_vocab_size()
    assert [old.id_to_token(int(at)) for at in kept] == [new.id_to_token(at) for at in range(len(kept))]
    text = "The weather is nice. 날씨가 좋습니다."
    assert kept[new.encode(text).ids].tolist() == old.encode(text).ids
    return kept


@pytest.mark.parametrize("config", [None, {}, {"model_type": "of_a_kind_nobody_knows", "hidden_size": 5}])
def test_a_tokenizer_alone(tokenizer_folder, tmp_path, monkeypatch, capsys, config):
    if config is not None:
        (tokenizer_folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(
        "sys.argv", ["langslice", "slice", str(tokenizer_folder), "-o", str(tmp_path / "out"), "-l", "ko,en"]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0, capsys.readouterr().err
    check_ids(tokenizer_folder, tmp_path / "out")
    assert langslice.verify(tokenizer_folder, tmp_path / "out").passed
    assert langslice.slice(tmp_path / "out", tmp_path / "again", languages="ko").verification.passed


def test_a_sentencepiece_model_alone(assets, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copyfile(assets / "tokenizers/mistral-v1-spm/tokenizer.model", source / "tokenizer.model")
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    result = langslice.slice(source, tmp_path / "out", languages="en")
    assert result.verification.passed
    assert np.array_equal(np.load(tmp_path / "out/kept_ids.npy"), result.plan.kept)


@pytest.mark.parametrize("extra", [0, 37])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_tokenizer_and_one_matrix(tokenizer_folder, tmp_path, extra, name):
    import torch
    from safetensors.torch import load_file, save_file

    table = torch.randn(ROWS + extra, 5)
    save = torch.save if name.endswith(".bin") else save_file
    save({"anything": table}, tokenizer_folder / name)
    result = langslice.slice(tokenizer_folder, tmp_path / "out", **CHOICE)
    assert result.verification.passed
    kept = check_ids(tokenizer_folder, tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out/model.safetensors")["anything"], table[torch.from_numpy(kept)])


@pytest.mark.parametrize("name", ["embeddings.npy", "embeddings.pt"])
def test_a_tokenizer_and_a_table_under_another_name(tokenizer_folder, tmp_path, name):
    import torch

    table = torch.randn(ROWS, 5)
    if name.endswith(".npy"):
        np.save(tokenizer_folder / name, table.numpy())
    else:
        torch.save({"table": table}, tokenizer_folder / name)
    langslice.slice(tokenizer_folder, tmp_path / "out", **CHOICE)
    path = tmp_path / "out" / name
    found = np.load(path) if name.endswith(".npy") else torch.load(path, weights_only=True)["table"].numpy()
    assert np.array_equal(found, table.numpy()[check_ids(tokenizer_folder, tmp_path / "out")])


def test_a_table_with_other_rows_is_refused(tokenizer_folder):
    np.save(tokenizer_folder / "embeddings.npy", np.zeros((ROWS + 3, 5), np.float32))
    with pytest.raises(
        LangsliceError, match=r"embeddings\.npy: the array has 12,291 rows, the tokenizer 12,288 tokens"
    ):
        langslice.plan(tokenizer_folder, **CHOICE)


def test_layers_of_a_tokenizer_cannot_be_cut(tokenizer_folder):
    with pytest.raises(LangsliceError, match="a tokenizer alone has no layers"):
        langslice.plan(tokenizer_folder, drop_layers="0")


def gliner_like(zoo, folder, *, named=True, pickled=True):
    """An ordinary encoder under a prefix, heads after it, and a configuration of the wrapper's own."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(zoo("deberta-v2"), folder)
    inner = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    prefix = "token_rep_layer.bert_layer.model."
    encoder = {name.removeprefix("deberta."): value for name, value in state.items() if name.startswith("deberta.")}
    tensors = {f"{prefix}{name}": value for name, value in encoder.items()}
    tensors |= {"rnn.lstm.weight_ih_l0": torch.randn(48, 24), "prompt_rep_layer.0.weight": torch.randn(96, 24)}
    tensors |= {"span_rep_layer.span_rep_layer.project_start.0.weight": torch.randn(96, 24)}
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    config = {"model_name": "some/mdeberta", "class_token_index": 9, "vocab_size": VOCABULARY, "max_width": 12}
    config |= {"encoder_config": inner} if named else {}
    (folder / "gliner_config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.parametrize("pickled", [True, False])
def test_an_encoder_inside_a_wrapper(zoo, tmp_path, pickled):
    import torch
    from safetensors.torch import load_file

    source, out = tmp_path / "source", tmp_path / "out"
    tensors = gliner_like(zoo, source, pickled=pickled)
    result = langslice.slice(source, out, **LATIN)
    assert result.verification.passed
    kept = result.plan.kept.tolist()
    found = load_file(out / "model.safetensors")
    table = "token_rep_layer.bert_layer.model.embeddings.word_embeddings.weight"
    for name, value in tensors.items():
        assert torch.equal(found[name], value[result.plan.new_to_old] if name == table else value), name
    after = json.loads((out / "gliner_config.json").read_text())
    before = json.loads((source / "gliner_config.json").read_text())
    assert kept[after["class_token_index"]] == 9
    assert after["vocab_size"] == after["encoder_config"]["vocab_size"] == len(kept) < VOCABULARY
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        assert kept[after["encoder_config"][name]] == before["encoder_config"][name]
    assert langslice.verify(source, out).passed
    with pytest.raises(
        LangsliceError, match=r"only the vocabulary of a model inside a wrapper \(gliner_config\.json\)"
    ):
        langslice.plan(source, drop_layers="1")


def test_a_wrapper_that_does_not_name_its_encoder(zoo, tmp_path):
    """The message offers a way, and the way works."""
    source, alone = tmp_path / "source", tmp_path / "alone"
    gliner_like(zoo, source, named=False)
    with pytest.raises(CheckpointError, match=r"config\.json is missing") as error:
        langslice.slice(source, tmp_path / "out", **LATIN)
    assert "kept_ids.npy" in error.value.hint
    alone.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, alone / name)
    assert langslice.slice(alone, tmp_path / "out", **LATIN).verification.passed
    assert (tmp_path / "out/kept_ids.npy").is_file()


@pytest.mark.parametrize("config", [{"name": "mine"}, {"model_type": "of_a_kind_nobody_knows"}])
def test_a_foreign_configuration_beside_whole_weights(zoo, tmp_path, config):
    source = shutil.copytree(zoo("llama"), tmp_path / "source")
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"model.type") as error:
        langslice.slice(source, tmp_path / "out", **LATIN)
    assert "kept_ids.npy" in error.value.hint


def test_a_folder_of_weights_without_anything_is_still_refused(tmp_path):
    from langslice.model.checkpoint import open_checkpoint

    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        open_checkpoint(tmp_path)
