"""The longest text that config.json promises is the longest that the unmodified class reads."""

from __future__ import annotations

import warnings

import pytest
import torch

from langslice.model.families import FAMILIES as TABLE
from langslice.model.families import reading_of
from langslice.model.positions import longest_text
from tests.zoo import FAMILIES, PLAIN

OFFSET = sorted(name for family in TABLE if family.offset_positions for name in family.model_types)


def stock(model_type):
    import transformers

    settings = FAMILIES.get(model_type, ("", PLAIN))[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(model_type, **settings)
        return transformers.AutoModel.from_config(config).eval()


def reads(model, length):
    ids = torch.full((1, length), 7)
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    try:
        with torch.no_grad():
            model(input_ids=ids, **decoder)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize(
    "model_type",
    [*OFFSET, "bert", "megatron-bert", "distilbert", "electra", "albert", "rembert", "gpt2", "opt", "bart"],
)
def test_the_longest_text_is_read_and_no_longer_one(model_type):
    model = stock(model_type)
    longest = longest_text(model.config.to_dict())
    assert longest is not None
    assert reads(model, longest)
    assert not reads(model, longest + 1)


def test_which_families_count_from_behind_the_padding_token():
    assert OFFSET == ["camembert", "data2vec-text", "roberta", "xlm-roberta", "xlm-roberta-xl"]


def test_a_limit_is_where_the_configuration_says_it():
    assert longest_text({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}) == 512
    assert longest_text({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}) == 512
    assert longest_text({"model_type": "mpt", "max_seq_len": 2048}) == 2048
    assert longest_text({"model_type": "whisper", "max_target_positions": 448}) == 448
    assert longest_text({"model_type": "mt5", "n_positions": 512}) is None
    assert longest_text({"model_type": "bloom"}) is None
    assert longest_text({"model_type": "gemma3", "text_config": {"max_position_embeddings": 96}}) == 96
    # Facts of reading are asked of models that are not in the table, too.
    assert longest_text({"model_type": "not-in-the-table", "max_position_embeddings": 64}) == 64
    assert reading_of({}).model_types == ()


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bart", "llama"])
def test_scores_read_as_much_as_the_model_does(model_type, zoo):
    from langslice.model.anatomy import read_anatomy
    from langslice.model.checkpoint import open_checkpoint
    from langslice.scoring.model_runs import open_running

    checkpoint = open_checkpoint(zoo(model_type))
    running = open_running(checkpoint, read_anatomy(checkpoint), whole=False, max_tokens=1000)
    assert running.reader.max_tokens == (94 if model_type == "xlm-roberta" else 96)


def test_no_other_place_lists_model_types():
    """Names of model types are in the two tables of model/ and nowhere else in the code."""
    import ast
    from pathlib import Path

    import langslice
    from langslice.model.folder_kinds import DRAFT, DRAFT_WHOLE, LAYERLESS
    from langslice.model.layer_fields import BODIES

    # What folder_kinds.py calls folders without a configuration is no model type of transformers.
    known = {name for row in (*TABLE, *BODIES) for name in row.model_types} - {*LAYERLESS, DRAFT, DRAFT_WHOLE}
    root = Path(langslice.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        if path.name in ("families.py", "layer_fields.py") and path.parent.name == "model":
            continue
        if "formats" in path.relative_to(root).parts:  # what llama.cpp and others have a name and a computation for
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in known:
                found.append((path.relative_to(root).as_posix(), node.value))
    # Kinds of tokenizers that are called like the family that they come from.
    assert {
        place
        for place in found
        if place[1] not in ("marian", "m2m_100") or not place[0].startswith(("tokenizer/", "vocabulary/"))
    } == set()
