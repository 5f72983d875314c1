"""Rows without a token: those with which the model's code computes stay, and padding goes, by name."""

import numpy as np
import pytest

import langslice
from langslice.errors import PlanError
from langslice.model.families import family_of
from langslice.planning.token_free_rows import live_rows, rows_note
from langslice.tokenizer import open_tokenizer


def test_time_stamps_of_whisper_stay_in_order_behind_the_last_token(zoo):
    plan = langslice.plan(zoo("whisper"), scripts="Latn")
    size = len(open_tokenizer(zoo("whisper")).tokens)
    assert size < plan.rows
    assert plan.kept[-(plan.rows - size) :].tolist() == list(range(size, plan.rows))
    assert plan.reasons[-1] == "time stamps"
    assert f"{plan.rows - size} rows have no token: {plan.rows - size} stay (time stamps)" in plan.notes


def test_whisper_is_not_padded_as_that_would_be_more_time_stamps(zoo):
    with pytest.raises(PlanError, match="the model's last rows are time stamps"):
        langslice.plan(zoo("whisper"), scripts="Latn", pad_to_multiple_of=64)


def test_padding_goes_and_is_told(zoo):
    plan = langslice.plan(zoo("llama"), scripts="Latn")
    size = len(open_tokenizer(zoo("llama")).tokens)
    assert plan.kept[-1] < size < plan.rows
    rest = plan.rows - size
    assert f"{rest} rows have no token: {rest} are padding, to which nothing refers, and dropped" in plan.notes


def test_what_rows_mean_is_a_fact_of_the_family(zoo):
    tokenizer = open_tokenizer(zoo("llama"))
    size = len(tokenizer.tokens)
    for model_type, stays in (
        ("whisper", True),
        ("gemma3n", True),
        ("paligemma", True),
        ("bert", False),
        ("qwen2", False),
    ):
        live = live_rows(family_of({"model_type": model_type}).live_rows, tokenizer, size + 3)
        assert list(live) == ([size, size + 1, size + 2] if stays else []), model_type


def test_places_of_images_may_be_tokens():
    live = family_of({"model_type": "paligemma"}).live_rows
    named = type("Named", (), {"tokens": ("<s>", "<loc0000>")})()
    assert live_rows(live, named, 4) == {}


def test_the_note_names_who_refers_to_a_row(zoo):
    tokenizer = open_tokenizer(zoo("llama"))
    size = len(tokenizer.tokens)
    note = rows_note(tokenizer, size + 3, {size + 1: "named by config.json: image_token_id"})
    assert note == (
        "3 rows have no token: 1 stays (named by config.json: image_token_id); "
        "2 are padding, to which nothing refers, and dropped"
    )
    assert rows_note(tokenizer, size, {}) == ""


def test_ids_beyond_the_tokenizer_are_renumbered(zoo, tmp_path):
    import json
    import shutil

    source = shutil.copytree(zoo("whisper"), tmp_path / "source")
    size = len(open_tokenizer(source).tokens)
    fields = json.loads((source / "generation_config.json").read_text())
    fields |= {"no_timestamps_token_id": size - 1, "suppress_tokens": [5, size + 2]}
    (source / "generation_config.json").write_text(json.dumps(fields))
    result = langslice.slice(source, tmp_path / "out", scripts="Latn")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    rows = result.plan.new_to_old
    begin = written["no_timestamps_token_id"] + 1
    assert rows[begin:].tolist() == list(range(size, result.plan.rows))
    assert rows[written["suppress_tokens"]].tolist() == [5, size + 2]
    assert np.diff(rows).min() > 0
