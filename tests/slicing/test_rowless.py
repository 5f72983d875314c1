"""Ids and tokens for which the model has no row: named, never written, and in no way of a slice that does not touch them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import langslice
from langslice.errors import CheckpointError, TokenizerError
from langslice.tokenizer import open_tokenizer
from tests.tokenizer_samples import added


def with_one_token_more(source: Path, folder: Path) -> Path:
    """A copy whose tokenizer has a token after the model's last row; returns the folder."""
    shutil.copytree(source, folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    document = json.loads((folder / "tokenizer.json").read_text())
    free = range(len(document["model"]["vocab"]), rows + 1)
    document["added_tokens"] += [added(old, f"<more_{old}>") for old in free]
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False))
    return folder


@pytest.mark.parametrize("verify", [True, False])
def test_a_token_without_a_row_does_not_stop_a_cut_of_layers(zoo, tmp_path: Path, verify: bool) -> None:
    source = with_one_token_more(zoo("llama"), tmp_path / "source")
    result = langslice.slice(source, tmp_path / "out", drop_layers="1", verify=verify)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert not any("left out" in note for note in result.notes)


def test_where_tokens_are_cut_a_token_without_a_row_is_dropped_and_named(zoo, tmp_path: Path) -> None:
    source = with_one_token_more(zoo("llama"), tmp_path / "source")
    rows = json.loads((source / "config.json").read_text())["vocab_size"]
    result = langslice.slice(source, tmp_path / "out", scripts="Latn")
    assert f"the model has no row for the added token '<more_{rows}>', so it is left out" in result.notes
    assert f"<more_{rows}>" not in open_tokenizer(tmp_path / "out").tokens


def padless(source: Path, folder: Path) -> int:
    """Name a row that does not exist as padding; returns its id."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    for name in ("config.json", "generation_config.json"):
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**document, "pad_token_id": config["vocab_size"]}))
    return int(config["vocab_size"])


def test_an_id_without_a_row_is_refused_and_its_hint_works(zoo, tmp_path: Path) -> None:
    rows = padless(zoo("llama"), tmp_path / "source")
    with pytest.raises(CheckpointError, match=f"pad_token_id = {rows}, but the model has {rows} rows") as refusal:
        langslice.slice(tmp_path / "source", tmp_path / "out", scripts="Latn")
    assert "ignore_field" not in str(refusal.value.hint) and "set it to null" in str(refusal.value.hint)
    with pytest.raises(
        CheckpointError, match='`ignore_field="pad_token_id"`: this field holds token ids in every model'
    ):
        langslice.plan(tmp_path / "source", scripts="Latn", ignore_field="pad_token_id")
    for name in ("config.json", "generation_config.json"):  # as the hint says
        document = json.loads((tmp_path / "source" / name).read_text())
        (tmp_path / "source" / name).write_text(json.dumps({**document, "pad_token_id": None}))
    verification = langslice.slice(tmp_path / "source", tmp_path / "out", scripts="Latn").verification
    assert verification is not None and verification.passed


@pytest.mark.parametrize("content", [{"foo_token": 5}, {"foo_token_id": 10**6}, {"foo_token_id": "a"}])
def test_a_field_that_a_hint_offers_to_ignore_can_be_ignored(zoo, tmp_path: Path, content: dict) -> None:
    source = shutil.copytree(zoo("llama"), tmp_path / "source")
    document = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**document, **content}))
    with pytest.raises(CheckpointError) as refusal:
        langslice.plan(source, scripts="Latn")
    (field,) = re.findall(r'`ignore_field="?(\w+)"?`', str(refusal.value.hint))
    langslice.slice(source, tmp_path / "out", scripts="Latn", ignore_field=field)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert {key: written[key] for key in content} == content


def test_what_plan_accepts_slice_does(zoo, tmp_path: Path) -> None:
    """Settings that are not understood stop the plan already, with the source's name."""
    source = shutil.copytree(zoo("llama"), tmp_path / "source")
    config = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**config, "separator_id": 4}))
    with pytest.raises(TokenizerError, match=re.escape(f"{source}/tokenizer_config.json: separator_id = 4")):
        langslice.plan(source, scripts="Latn")
    langslice.slice(
        source, tmp_path / "layers", drop_layers="1", verify=False
    )  # where the file is only copied, it may stay
