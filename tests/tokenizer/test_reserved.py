"""Tokens held in reserve: known by their form, kept unless asked, and dropped only where nothing refers to them."""

import json

import pytest
from tokenizers import Tokenizer

from langslice.tokenizer import close, missing_closure, open_tokenizer, write_tokenizer
from langslice.tokenizer.reserved import reserved_among
from tests.tokenizer_samples import added, byte_level_folder

RESERVED = (
    "<unused0>", "[unused99]", "<|reserved_special_token_3|>", "<|reserved_200017|>", "<|extra_7|>", "<SPECIAL_12>",
    "<|placeholder1|>", "<|dummy_0|>", "[PAD151700]", "<unk_2>", "<pad_3>", "madeupword0001", "[UNUSED_TOKEN_3]", "<extra_token_4>",
    "<｜place▁holder▁no▁7｜>", "<[PLHD12_never_used]>", ">>UNUSED_12<<", "<|extratoken_1|>",
)  # fmt: skip
OTHERS = (
    "<extra_id_0>",
    "<pad>",
    "<unk>",
    "<mask_1>",
    "<2ko>",
    "<|im_start|>",
    "<|0.00|>",
    "unused0",
    "<0x0A>",
    "<h1>",
    "[CLS]",
)


def test_by_form_alone():
    tokens = (*RESERVED, *OTHERS)
    assert {tokens[old] for old in reserved_among(enumerate(tokens))} == set(RESERVED)


@pytest.fixture
def folder(tmp_path):
    """Byte-level BPE with two reserved tokens in the model's vocabulary and three after it, one of them in use."""
    extra = ["<unused0>", "<unused1>"]
    size = 256 + len(extra)
    names = [*extra, "<s>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "</s>"]
    entries = [added(256 + place, name) for place, name in enumerate(names)]
    template = {
        "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
        "special_tokens": {"<|reserved_special_token_1|>": {"id": "<|reserved_special_token_1|>", "ids": [size + 2], "tokens": []}},
    }  # fmt: skip
    made = byte_level_folder(tmp_path / "source", [], extra, added_tokens=entries, post_processor=template)
    decoder = {str(256 + place): {"content": name, "special": True} for place, name in enumerate(names)}
    settings = {"pad_token": "<unused1>", "additional_special_tokens": names, "added_tokens_decoder": decoder}
    (made / "tokenizer_config.json").write_text(json.dumps(settings))
    return made


def test_what_settings_and_processors_name_is_not_in_reserve(folder):
    tokenizer = open_tokenizer(folder)
    assert {tokenizer.tokens[old] for old in tokenizer.reserved_ids} == {"<unused0>", "<|reserved_special_token_0|>"}
    assert not tokenizer.reserved_ids & set(close(tokenizer, []).kept)


def test_files_without_them_are_written_and_load(folder, tmp_path):
    tokenizer = open_tokenizer(folder)
    kept = [old for old in range(len(tokenizer.tokens)) if old not in tokenizer.reserved_ids]
    assert not missing_closure(tokenizer, kept)
    (out := tmp_path / "out").mkdir()
    write_tokenizer(tokenizer, kept, out)
    loaded = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert [loaded.id_to_token(new) for new in range(len(kept))] == [tokenizer.tokens[old] for old in kept]
    assert loaded.get_vocab_size() == len(kept)
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["additional_special_tokens"] == ["<unused1>", "<s>", "<|reserved_special_token_1|>", "</s>"]
    assert [entry["content"] for entry in settings["added_tokens_decoder"].values()] == settings[
        "additional_special_tokens"
    ]
    assert open_tokenizer(out).tokens == tuple(tokenizer.tokens[old] for old in kept)
