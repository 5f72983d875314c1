"""Single checks, on what no corruption of a finished slice shows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest

import langslice
from langslice.cli.console import print_warnings
from langslice.errors import LangsliceError, PlanError, VerificationError
from langslice.model.checkpoint import open_checkpoint
from langslice.model.source_tokenizer import source_tokenizer
from langslice.verification.clients import check_clients, state
from langslice.verification.derived import refuse_unproven
from langslice.verification.main import Verification
from langslice.verification.outputs import _long_sample
from langslice.verification.record import read_record
from langslice.verification.sentence_pipeline import knows_no_vocabulary
from langslice.verification.tokenization import TextComparison, check_prompts, summarise_texts
from langslice.vocabulary.chats import read_templates
from tests.verification.sources import edit, make_embedder, make_mini, make_rembert, make_windowed

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini")
    langslice.slice(make_mini(root / "source"), root / "out", scripts="Latn")
    return root


def text_proof(**counts: int) -> TextComparison:
    return TextComparison("news", 9, 90, 95, 0.9, 5, 0, counts["before"], counts["after"], 0)


@pytest.mark.parametrize("kind", ["marian", "unigram"])
def test_a_vocabulary_with_bytes_that_gains_unknowns_fails_and_another_warns(kind, mini, capsys):
    source = source_tokenizer(open_checkpoint(mini / "source"))
    spelled = tuple(f"<0x{byte:02X}>" for byte in range(256))
    with_bytes = replace(source, kind=kind, byte_ids=frozenset(), tokens=("<unk>", *spelled, "a"))
    without = replace(with_bytes, tokens=("<unk>", *spelled[:-1], "a"))
    risen, known = text_proof(before=0, after=3), text_proof(before=2, after=3)

    failing = summarise_texts([risen], with_bytes)
    assert failing.passed is False
    assert failing.examples == ("news: 0 unknowns became 3",)
    assert summarise_texts([known], without).warning == ""
    warned = summarise_texts([known, risen], without)
    assert warned.passed
    assert "becomes unknown: news 0 → 3; the vocabulary has no bytes" in warned.warning
    print_warnings(Verification((warned,)))
    assert "WARNING text that the source reads becomes unknown" in capsys.readouterr().err


@pytest.mark.parametrize("thorough", [False, True])
def test_a_chat_whose_roles_are_not_kept_fails(thorough, mini, tmp_path):
    """The template writes a role of which the slice keeps no token."""
    for name in ("source", "out"):
        shutil.copytree(mini / name, tmp_path / name)
        edit(
            tmp_path / name / "tokenizer_config.json",
            chat_template="{{ '한국어 사용자' }}: {{ messages[0]['content'] }}",
        )
    source, out = open_checkpoint(tmp_path / "source"), open_checkpoint(tmp_path / "out")
    plan = read_record(tmp_path / "out")
    stated = state(source_tokenizer(source), plan, [], read_templates(source.model_folder), {}, thorough=thorough)
    check = check_clients(source, out, stated, plan)
    assert check.passed is False
    assert check.examples[0].startswith("the chat '한국어 사용자: 1' needs tokens that are not kept")


@pytest.mark.parametrize("thorough", [False, True])
def test_special_tokens_that_the_slice_forgets_fail(thorough, tmp_path):
    """What a tokenizer file does not say, and the source's settings do: AutoTokenizer alone sees it."""
    source = make_windowed(tmp_path / "source")
    edit(source / "tokenizer_config.json", additional_special_tokens=["<extra_0>", "<extra_1>"])
    langslice.slice(source, tmp_path / "out", scripts="Latn")
    edit(tmp_path / "out/tokenizer_config.json", additional_special_tokens=["<extra_0>"])
    before, after = open_checkpoint(source), open_checkpoint(tmp_path / "out")
    plan = read_record(tmp_path / "out")
    stated = state(source_tokenizer(before), plan, [], read_templates(source), {}, thorough=thorough)
    check = check_clients(before, after, stated, plan)
    assert check.passed is False
    assert "special token '<extra_1>': id None, expected 5" in check.examples


def test_prompts_that_fall_apart_fail_unless_every_token_was_named(mini):
    source = source_tokenizer(open_checkpoint(mini / "source"))
    result = source_tokenizer(open_checkpoint(mini / "out"))
    plan = read_record(mini / "out")
    assert check_prompts(source, result, plan, ["the "]).passed
    check = check_prompts(source, result, plan, ["검색어: "])
    assert check.passed is False
    assert "'검색어: 1': was [" in check.examples[0]
    named = check_prompts(source, result, replace(plan, request={"only_tokens": "list.txt"}), ["검색어: "])
    assert named.passed
    assert "'검색어: 1'" in named.warning


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sliding_window": 512, "max_position_embeddings": 32768}, (528, 0)),
        ({"sliding_window": 4096, "max_position_embeddings": 32768}, (24, 4096)),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, (512, 0)),
        ({"ngram": 2, "max_position_embeddings": 512}, (511, 0)),
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, (512, 0)),
        ({"model_type": "mt5", "n_positions": 512, "relative_attention_max_distance": 128}, (144, 0)),
        ({"text_config": {"sliding_window": 100}, "vision_config": {"window_size": 900}}, (116, 0)),
        ({"attention_window": [32, 64], "max_position_embeddings": 70}, (70, 0)),
        ({}, (24, 0)),
    ],
)
def test_one_sample_is_longer_than_every_window(config, expected):
    assert _long_sample(config) == expected


def test_a_layer_cut_runs_the_whole_pipeline_against_the_masked_source(tmp_path):
    result = langslice.slice(make_embedder(tmp_path / "source"), tmp_path / "out", drop_layers="1")
    (check,) = (check for check in result.verification.checks if check.name == "pipeline")
    assert check.passed
    assert "5 sentences through all sentence-transformers modules" in check.detail


def test_a_pooling_that_counts_layers_is_never_passed_over(tmp_path):
    """After a layer slice it is sliced along, refused, or seen by verification: a slice that is written embeds."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import WeightedLayerPooling

    source, place = make_embedder(tmp_path / "source"), "3_WeightedLayerPooling"
    edit(source / "config.json", output_hidden_states=True)
    (source / place).mkdir()
    weights = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    WeightedLayerPooling(24, num_hidden_layers=3, layer_start=1, layer_weights=weights).save(str(source / place))
    modules = json.loads((source / "modules.json").read_text())
    modules.insert(1, {"path": place, "type": "sentence_transformers.models.WeightedLayerPooling"})
    numbered = [{**module, "idx": at, "name": str(at)} for at, module in enumerate(modules)]
    (source / "modules.json").write_text(json.dumps(numbered))
    assert langslice.slice(source, tmp_path / "tokens", languages="en").verification.passed
    try:
        langslice.slice(source, tmp_path / "out", drop_layers="1")
    except LangsliceError as error:
        assert "WeightedLayerPooling" in str(
            error
        ) or "pipeline: the source's pipeline runs, the slice's does not" in str(error)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(["1"]).shape == (1, 16)


def test_an_id_that_a_tokenizer_class_has_built_in_never_moves_unseen(tmp_path):
    """RemBERT's class writes id 2 for unknown characters, whatever the file says: [UNK] stays there, or verification fails."""
    source = make_rembert(tmp_path / "source")
    try:
        result = langslice.slice(source, tmp_path / "out", scripts="Latn")
    except VerificationError as error:
        assert "clients: 5 special tokens" in str(error)
        assert "is encoded as [2, 5, 2, 5" in str(error)
    else:
        assert result.plan.tokens[2] == "[UNK]"


def test_the_pipeline_runs_in_slice_where_its_modules_may_know_tokens_and_always_in_verify(tmp_path):
    """Pooling and what follows see hidden states alone: `slice` compares their files and leaves running them to `verify`."""
    source = make_embedder(tmp_path / "source")

    def pipeline(verification):
        (check,) = (check for check in verification.checks if check.name == "pipeline")
        return check.passed

    assert pipeline(langslice.slice(source, tmp_path / "out", languages="en").verification) is None
    assert pipeline(langslice.verify(source, tmp_path / "out")) is True
    modules = json.loads((source / "modules.json").read_text())
    modules[-1]["type"] = "langslice_tests.OwnModule"
    (source / "modules.json").write_text(json.dumps(modules))
    assert not knows_no_vocabulary(source)


def test_quick_checks_load_no_model_and_are_no_whole_verification(tmp_path, capsys):
    script = (
        "import sys, langslice\n"
        f"made = langslice.slice('mini', {str(tmp_path / 'out')!r}, languages='ko', verify_level='quick')\n"
        "print([check.name for check in made.verification.checks if check.passed is None])\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['clients', 'loading', 'outputs']", "set()"]
    head = json.loads((tmp_path / "out/slice.json").read_text())
    assert [check["name"] for check in head["proof"]["checks"] if "--verify-level quick" in check["detail"]] == [
        "clients", "loading", "outputs"
    ]  # fmt: skip
    with pytest.raises(PlanError, match="`verify_level` has no effect with `verify=False`"):
        langslice.slice("mini", tmp_path / "second", languages="ko", verify_level="quick", verify=False)
    assert not (tmp_path / "second").exists()
    with pytest.raises(PlanError, match="row of `mini` was derived"):
        refuse_unproven(SimpleNamespace(row={"x": 1}, model_type="mini"), verify=True, level="quick")
