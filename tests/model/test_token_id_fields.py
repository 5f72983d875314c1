"""Fields that hold token ids: found, renumbered, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from langslice.errors import CheckpointError, UnknownFieldError
from langslice.model.token_id_fields import IdMap, find_id_fields, renumber


def id_map(rows, kept, **sizes):
    new_of = np.full(rows, -1, dtype=np.int64)
    new_of[list(kept)] = np.arange(len(kept))
    return IdMap(new_of, size=len(kept), **sizes)


# Rows 0, 3, 5, 7, 8 of ten are kept: they become 0, 1, 2, 3, 4.
KEPT = id_map(10, [0, 3, 5, 7, 8])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"eos_token_id": 7, "vocab_size": 10}, {"eos_token_id": 3, "vocab_size": 5}),
        ({"eos_token_id": [3, 8]}, {"eos_token_id": [1, 4]}),
        ({"pad_token_id": None, "bos_token_id": -1}, {"pad_token_id": None, "bos_token_id": -1}),
        ({"text_config": {"image_token_index": 8}}, {"text_config": {"image_token_index": 4}}),
        ({"bad_words_ids": [[3, 5], [8]]}, {"bad_words_ids": [[1, 2], [4]]}),
        ({"force_words_ids": [[[3], [5]]]}, {"force_words_ids": [[[1], [2]]]}),
        ({"forced_decoder_ids": [[1, 3], [2, None]]}, {"forced_decoder_ids": [[1, 1], [2, None]]}),
        ({"sequence_bias": [[[3, 5], -2.5]]}, {"sequence_bias": [[[1, 2], -2.5]]}),
        ({"lang_to_id": {"<|ko|>": 7}}, {"lang_to_id": {"<|ko|>": 3}}),
        ({"suppress_tokens": [3, 5, 7]}, {"suppress_tokens": [1, 2, 3]}),
        ({"vision_config": {"vocab_size": 128, "vocab_offset": 7}}, None),
        ({"heads": [{"eos_token_id": 7}, {"size": 3}]}, {"heads": [{"eos_token_id": 3}, {"size": 3}]}),
        ({"task_specific_params": {"mt": {"bos_token_id": 8}}}, {"task_specific_params": {"mt": {"bos_token_id": 4}}}),
        # Whisper: an offset from its first timestamp, not an id.
        ({"max_initial_timestamp_index": 50}, {"max_initial_timestamp_index": 50}),
        ({"grapheme_chars": "abcdefghij"}, {"grapheme_chars": "adfhi"}),
        (
            {"hidden_size": 3, "max_new_tokens": 5, "num_image_tokens": 8},
            {"hidden_size": 3, "max_new_tokens": 5, "num_image_tokens": 8},
        ),
        ({"image_token_embed_dim": 8}, {"image_token_embed_dim": 8}),  # Janus: the width of a picture's token
        ({"id2label": {"0": "LABEL_0"}, "label2id": {"a": 3}}, {"id2label": {"0": "LABEL_0"}, "label2id": {"a": 3}}),
    ],
)
def test_renumber(before, after):
    if after is None:
        with pytest.raises(CheckpointError, match="vocab_offset"):
            renumber(before, KEPT, file="config.json")
    else:
        assert renumber(before, KEPT, file="config.json") == after


def test_keys_keep_their_order_and_the_source_is_untouched():
    before = {"z": 1, "eos_token_id": 7, "a": {"pad_token_id": 3}}
    after = renumber(before, KEPT, file="config.json")
    assert list(after) == ["z", "eos_token_id", "a"]
    assert before == {"z": 1, "eos_token_id": 7, "a": {"pad_token_id": 3}}


def test_a_tower_offset_moves_with_its_block_of_tokens():
    kept = id_map(10, [0, 6, 7, 8])
    after = renumber({"vision_config": {"vocab_size": 3, "vocab_offset": 6}}, kept, file="config.json")
    assert after == {"vision_config": {"vocab_size": 3, "vocab_offset": 1}}


def test_per_layer_size():
    kept = id_map(10, [0, 3, 8], per_layer_size=2, old_per_layer=6)
    assert renumber({"vocab_size_per_layer_input": 6}, kept, file="config.json") == {"vocab_size_per_layer_input": 2}
    with pytest.raises(CheckpointError, match=r"vocab_size_per_layer_input = 7, but the embedding has 6 rows"):
        renumber({"vocab_size_per_layer_input": 7}, kept, file="config.json")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"eos_token_id": 4}, r"config\.json: eos_token_id names token id 4, which the plan drops"),
        ({"text_config": {"eos_token_id": 4}}, r"text_config\.eos_token_id"),
        ({"eos_token_id": 99}, r"eos_token_id = 99, but the model has 10 rows"),
        ({"vocab_size": 11}, r"vocab_size = 11, but the embedding has 10 rows"),
    ],
)
def test_unmapped_ids_stop_the_job(document, message):
    with pytest.raises(CheckpointError, match=message):
        renumber(document, KEPT, file="config.json")


@pytest.mark.parametrize(
    "document", [{"magic_id": 3}, {"special_tokens": [3, 5]}, {"begin_index": 4}, {"stop_ids": [[1, 2], [3]]}]
)
def test_a_field_that_may_hold_ids_stops_the_job(document):
    name = next(iter(document))
    with pytest.raises(UnknownFieldError, match=f"{name} = .* may hold token ids, and is not understood"):
        find_id_fields(document, file="config.json", rows=10)
    assert find_id_fields(document, file="config.json", rows=10, ignore=frozenset({name})) == []


def test_a_string_where_ids_are_expected():
    with pytest.raises(UnknownFieldError, match="is not a token id or a list of them"):
        find_id_fields({"eos_token_id": "</s>"}, file="config.json", rows=10)
