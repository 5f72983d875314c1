"""Valid files made wrong: by hypothesis, and the inputs that once were no clean error. `python -m tests.fuzz.run` does many."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langslice.errors import CheckpointError, LangsliceError, PlanError
from langslice.files.json_forms import Among, FixedList, check_form
from langslice.model.checkpoint import open_checkpoint
from tests.fuzz.example import make_example
from tests.fuzz.targets import TARGETS, Target, attempt, wronged

BY_NAME = {target.name: target for target in TARGETS}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return make_example(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", BY_NAME)
def test_the_valid_example_is_taken(example, name):
    assert attempt(example, BY_NAME[name]) == ""


@pytest.mark.parametrize("name", BY_NAME)
def test_wrong_files_are_refused_cleanly(example, name):
    @settings(
        max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.randoms(use_true_random=False))
    def wrong(choose: random.Random) -> None:
        with wronged(example, BY_NAME[name], choose):
            attempt(example, BY_NAME[name])  # raises whatever is no LangsliceError

    wrong()


def put(*path: Any) -> Callable[[Any], None]:
    """Set the value at a path; the last of `path` is the value."""
    *way, key, value = path

    def change(document: Any) -> None:
        for step in way:
            document = document[step]
        document[key] = value

    return change


def take(*path: Any) -> Callable[[Any], None]:
    *way, key = path

    def change(document: Any) -> None:
        for step in way:
            document = document[step]
        del document[key]

    return change


FOUND = [
    # A vocabulary whose list of tokens by id would have filled the memory.
    ("tokenizer, WordPiece", put("model", "vocab", "ab", 2**40), "token 'ab' has the id 1,099,511,627,776 in a vocabulary"),
    ("tokenizer, WordPiece", put("model", "vocab", "ab", 10**30), "token 'ab' has the id"),
    ("tokenizer, BPE", put("model", "vocab", "a", 7.5), "model.vocab: `a` must be a whole number, found 7.5"),
    ("tokenizer, BPE", put("model", "type", ["BPE"]), "model type ['BPE'] is not understood"),
    ("tokenizer, BPE", put("model", "merges", 0, ["a"]), "model.merges from 0: `0` must be text or a list of 2, found [\"a\"]"),
    ("tokenizer, BPE", put("model", "continuing_subword_prefix", "<0x41>"), "merge 'a' + 'b' lacks the model's prefix '<0x41>'"),
    ("tokenizer, BPE", put("model", "vocab", ["a"]), "model.vocab: the document must be an object, found [\"a\"]"),
    ("tokenizer, BPE", put("added_tokens", [{"id": 3}]), "`added_tokens.0.content` must be text, found nothing"),
    ("tokenizer, Unigram", put("model", "unk_id", "always"), '`model.unk_id` must be null or a whole number, found "always"'),
    ("tokenizer, Unigram", put("model", "vocab", 4, [1.5, -2.0]), "model.vocab from 0: `4.0` must be text, found 1.5"),
    ("tokenizer, Unigram", put("model", "vocab", 4, ["x", "-2"]), '`4.1` must be a number, found "-2"'),
    ("tokenizer, Unigram", put("model", "vocab", 4, ["x", float("nan")]), "the score of 'x' is no number"),
    ("tokenizer, Unigram", put("model", "vocab", 4, ["\ud800", -2.0]), "surrogates not allowed"),
    ("tokenizer, Unigram", put("normalizer", {"type": "\ud800"}), "surrogates not allowed"),
    ("tokenizer, Unigram", put("padding", {"pad_token": "x"}), "`padding.pad_id` must be a whole number, found nothing"),
    ("tokenizer, Unigram", put("padding", 3), "`padding` must be null or an object, found 3"),
    ("tokenizer, Unigram", put("post_processor", []), "`post_processor` must be null or an object, found []"),
    ("tokenizer, Unigram", take("post_processor", "special_tokens"), "`special_tokens` must be an object, found nothing"),
    ("tokenizer, Unigram", take("added_tokens", 0, "single_word"), "`added_tokens.0.single_word` must be true or false"),
    ("tokenizer config", put("eos_token", [[]]), "`eos_token.0` must be null or text or an object, found []"),
    ("tokenizer config", put("x", "\udfff"), "surrogates not allowed"),
    ("index", put("weight_map", "lm_head.weight", "x" * 300), "a shard's name is not a plain file name"),
    ("index", put("weight_map", "lm_head.weight", "../../etc/passwd"), "a shard's name is not a plain file name"),
    ("index", put("weight_map", "lm_head.weight", "/etc/passwd"), "a shard's name is not a plain file name"),
    ("config", put("rope_scaling", {"x": "\ud800"}), "config.json is not valid JSON"),
    ("config", put("dtype", "floa432"), "transformers cannot read config.json"),
    ("config, structure", put("num_attention_heads", 0), "`num_attention_heads` must be a whole number from 1, found 0"),
    ("config, structure", put("num_key_value_heads", [2]), "`num_key_value_heads` must be a whole number from 1, found [2]"),
    # As many numbers as heads would have filled the memory.
    ("config, structure", put("num_key_value_heads", 2**40), "1099511627776 key-value heads (`num_key_value_heads`) for 4"),
    ("plan", put("request", "x"), "`request` must be an object, found \"x\""),
    ("plan", put("request", {"carry": 3}), "`request.carry` must be null or text or a list, found 3"),
    ("plan", put("weights", {"keep_demos": [3]}), "`weights.keep_demos.0` must be text, found 3"),
    ("plan", put("weights", "x"), "`weights` must be null or an object"),
    ("plan", put("kept", 0, ["0", "a", "b"]), "`kept.0.0` must be a whole number, found \"0\""),
    ("plan", put("vocabulary", "padding", [None]), "`vocabulary.padding.0` must be a whole number, found null"),
    ("plan", put("structure", {"stacks": 3}), "plan.json"),
    ("record", put("new_to_old", None), "`new_to_old` must be a list, found null"),
    ("adapter config", put("alpha_pattern", 10**400), "adapter_config.json: `alpha_pattern` must be null or an object"),
    ("adapter config", put("alpha_pattern", {"(": 1}), "`alpha_pattern`: '(' is no pattern"),
    ("adapter config", put("trainable_token_indices", 2**64), "`trainable_token_indices` must be null or a list or an object"),
    ("adapter config", put("trainable_token_indices", "embed_tokens", 1, [0]), "`trainable_token_indices.embed_tokens.1` must be"),
    ("adapter config, back", put("trainable_token_indices", "x"), "`trainable_token_indices` must be null or a list or an object"),
    ("record, of an adapter", take("source"), "`source.config` must be an object, found NoneType"),
    ("record, of an adapter", put("source", "x"), "slice.json: `source.config` must be an object, found NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), FOUND)
def test_inputs_that_were_found(example, name, change, message):
    target = BY_NAME[name]
    document = json.loads((example / target.file).read_bytes())
    change(document)
    assert message in refused(example, target, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("ending", "tensor", "message"),
    [
        ("lora_A.weight", torch.zeros(()), "lora_A.weight has shape (), expected 2 dimensions"),
        ("lora_A.weight", torch.zeros(2, 8, 1), "lora_A.weight has shape (2, 8, 1), expected 2 dimensions"),
        ("tokens_delta", torch.zeros(()), "trainable_tokens_delta has shape (), expected 2 dimensions"),
        (
            "lora_B.weight",
            torch.zeros(2, 2).to(torch.float8_e4m3fn),
            "lora_B.weight is torch.float8_e4m3fn, expected numbers of 16",
        ),
    ],
)
@pytest.mark.parametrize("name", ["adapter weights", "adapter weights, back", "adapter weights, by a plan"])
def test_adapters_with_other_tensors(example, name, ending, tensor, message):
    from safetensors.torch import load, save

    tensors = load((example / BY_NAME[name].file).read_bytes())
    found = next(each for each in sorted(tensors) if each.endswith(ending))
    assert message in refused(example, BY_NAME[name], save({**tensors, found: tensor}))


def test_an_adapter_whose_base_is_no_path(example):
    target = BY_NAME["adapter config"]
    config = json.loads((example / target.file).read_bytes())
    message = refused(example, target, json.dumps({**config, "base_model_name_or_path": "\x00"}).encode())
    assert "the adapter fits the original and the slice, and says that it belongs to" in message


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ('model: "~no.such.user"', "~no.such.user cannot be looked up"),
        (f"model: {'x' * 5000}", "cannot be looked up: File name too long"),
        ("model: mini\nslice: {corpus: /}", "/ is the whole file system"),
    ],
)
def test_runs_that_name_what_is_no_place(example, part, message):
    text = part + ("\nslice: {languages: en}" if "slice" not in part else "")
    assert message in refused(example, BY_NAME["recipe of a run"], text.encode())


@pytest.mark.parametrize(
    "entry", ['sparsify: {linears: "/"}', "heal: {corpus: x, train: '**'}", f"heal: {{corpus: '{'[' * 100_000}'}}"]
)
def test_runs_whose_patterns_read_no_files(example, entry):
    text = f"model: {example / 'model'}\nslice: {{keep_tokens: {example / 'keep.txt'}}}\n{entry}\n"
    assert refused(example, BY_NAME["recipe of a run"], text.encode()) == ""


def refused(example: Path, target: Target, raw: bytes) -> str:
    with wronged(example, Target(target.name, target.file, lambda right, choose: raw, target.work), random.Random(0)):
        return attempt(example, target)


@pytest.mark.parametrize(
    "name", ["plan", "record", "config", "tokenizer, BPE", "tokenizer config", "recipe of a sweep"]
)
@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"a": ' * 200_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff{}", b"{"])
def test_endless_nests_and_numbers(example, name, raw):
    message = refused(example, BY_NAME[name], raw)
    assert Path(BY_NAME[name].file).name in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("&a [*a]", "once its aliases are unfolded"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)), "unfolded"),
        ("model: m\nevaluate: {tasks: [a, b, c]}\nslice: {"
         + ", ".join(f"x{n}: [{', '.join(map(str, range(10)))}]" for n in range(9)) + "}", "the grid has more than 100,000"),
        ("model: [null]\nevaluate: {tasks: speed}\n", "a point of the grid has no `model`"),
        ("model: m\nevaluate: [null, {tasks: speed}]\n", "a point of the grid has no `evaluate`"),
    ],
)  # fmt: skip
def test_recipes_that_never_end(example, text, message):
    assert message in refused(example, BY_NAME["recipe of a sweep"], text.encode())


def test_a_header_that_claims_an_exabyte(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    header = b'{"a": {"dtype": "F32", "shape": [1152921504606846976], "data_offsets": [0, 4611686018427387904]}}'
    for length in (2**60, 2**64 - 1, len(header)):
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + header)
        with pytest.raises(CheckpointError, match=r"damaged weight file model.safetensors"):
            open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("value", "form", "message"),
    [
        ({"a": [1, "x"]}, {"a": [int]}, 'f.json: `a.1` must be a whole number, found "x"'),
        ({"a": True}, {"a": int}, "f.json: `a` must be a whole number, found true"),
        ({"a": 2**63}, {"a": int}, f"f.json: `a` must be a whole number, found {2**63}"),
        ({"a": float("inf")}, {"a": float}, "f.json: `a` must be a number, found Infinity"),
        ({}, {"a": (None, str)}, "f.json: `a` must be null or text, found nothing"),
        ({"a": {"b": {}}}, {"a": (None, {"b": str})}, "f.json: `a.b` must be text, found {}"),
        ({"b": 1, "c": "x"}, {"b": int, "*": int}, 'f.json: `c` must be a whole number, found "x"'),
        ([1], [FixedList(int, int)], "f.json: `0` must be a list of 2, found 1"),
        ("z", Among("x", "y"), 'f.json: the document must be x or y, found "z"'),
        ({"a": "y" * 99}, {"a": bool}, f'f.json: `a` must be true or false, found "{"y" * 59}…'),
        ({"a": 10**5000}, {"a": str}, "f.json: `a` must be text, found int"),
    ],
)
def test_forms(value, form, message):
    with pytest.raises(PlanError) as caught:
        check_form(value, form, "f.json", PlanError)
    assert caught.value.message == message
    assert issubclass(PlanError, LangsliceError)


def test_forms_that_fit():
    check_form({"a": 1, "more": []}, {"a": float, "b?": int}, "f", PlanError)
    check_form([["x", 0.5], None], [(None, FixedList(str, float))], "f", PlanError)
    check_form("x", Among("x", "y"), "f", PlanError)
