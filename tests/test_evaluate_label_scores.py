"""Label scores equal a naive loop over examples and labels, in every family, with and without a shared cache."""

from __future__ import annotations

import numpy as np
import pytest

from langslice.errors import CheckpointError, TaskError, TokenizerError
from langslice.evaluate.choice_tasks import Example, load_task, read_examples
from langslice.evaluate.label_scores import score_sequences, score_with_encoder
from langslice.evaluate.loading import Loaded, load_model, model_kind
from langslice.evaluate.zero_shot import fill_examples, label_scores, measure_choice
from langslice.mini import mini_model_path

KINDS = ("paper", "sum", "normalised", "first_token", "pmi")
CAUSAL = [
    "llama", "gpt2", "gpt_neox", "bloom", "xglm", "falcon", "gemma2", "gemma3_text", "qwen3", "qwen3_moe", "cohere2",
    "mistral", "phi", "granite", "olmo3", "smollm3",
]  # fmt: skip
TOLERANCE = 1e-5


def loaded_zoo(folder, model_type):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = model_kind(folder)
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSeq2SeqLM
    model = auto.from_pretrained(folder).eval()
    return Loaded(folder, kind, model, None, 96, 1 << 14)


def random_groups(seed, *, groups=9, tokens=125):
    """Candidates that share beginnings of many lengths, some with other groups, one with none."""
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return rng.integers(10, tokens, int(rng.integers(low, high))).tolist()

    made = []
    for number in range(groups):
        prefix = made[0][0][:9] if number % 4 == 1 else draw(1, 30) if number else draw(9, 20)
        made.append([prefix + draw(1, 12) for _ in range(int(rng.integers(2, 5)))])
    return [*made, [draw(3, 9), draw(3, 9)], [[5, 6, 7], [5, 6, 7, 8]]]


def naive(model, ids):
    """(length - 1,) log probabilities of one sequence read alone."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[1:, None])[:, 0].numpy()


@pytest.mark.parametrize("model_type", CAUSAL)
def test_every_family_scores_as_alone(model_type, zoo):
    from tests.zoo import FAMILIES, SHARED_CACHE_FROM_5, lacks

    if model_type not in FAMILIES:
        pytest.fail(f"the zoo has no {model_type}")
    loaded = loaded_zoo(zoo(model_type), model_type)
    groups = random_groups(len(model_type))
    shared = score_sequences(loaded, groups)
    whole = score_sequences(loaded, groups, share=False)
    assert bool(loaded.notes) == lacks(model_type, SHARED_CACHE_FROM_5)
    for sequences, one, two in zip(groups, shared, whole, strict=True):
        for ids, first, second in zip(sequences, one, two, strict=True):
            expected = naive(loaded.model, ids)
            assert np.abs(first - expected).max() < TOLERANCE
            assert np.abs(second - expected).max() < TOLERANCE


def test_windows_shorter_than_the_common_part_are_respected(tmp_path):
    from tests.zoo import build

    loaded = loaded_zoo(build("mistral", tmp_path / "mistral", sliding_window=6), "mistral")
    for sequences, scores in zip(random_groups(5), score_sequences(loaded, random_groups(5)), strict=True):
        for ids, found in zip(sequences, scores, strict=True):
            assert np.abs(found - naive(loaded.model, ids)).max() < TOLERANCE


def test_a_model_without_a_cache_says_so_and_scores_the_same(zoo):
    loaded = loaded_zoo(zoo("llama"), "llama")
    groups = random_groups(1, groups=3)
    expected = score_sequences(loaded, groups)
    forward = loaded.model.forward

    def without_cache(**inputs):
        output = forward(**{**inputs, "use_cache": False})
        output.past_key_values = None
        return output

    loaded.model.forward = without_cache
    found = score_sequences(loaded, groups)
    assert loaded.notes == ["the model has no cache that can be shared: every candidate was read whole"]
    for one, two in zip(expected, found, strict=True):
        for first, second in zip(one, two, strict=True):
            assert np.abs(first - second).max() < TOLERANCE


@pytest.mark.parametrize("model_type", ["t5", "mt5", "mbart", "m2m_100", "marian", "bart"])
def test_encoder_decoders_score_as_alone(model_type, zoo):
    import torch

    loaded = loaded_zoo(zoo(model_type), model_type)
    rng = np.random.default_rng(7)
    prompts = [rng.integers(10, 125, size).tolist() for size in (3, 11, 7, 20, 5)]
    candidates = [[rng.integers(10, 125, size).tolist() for size in (2, 5, 1)] for _ in prompts]
    found = score_with_encoder(loaded, prompts, candidates)
    start = loaded.model.config.decoder_start_token_id
    for prompt, group, scores in zip(prompts, candidates, found, strict=True):
        for ids, values in zip(group, scores, strict=True):
            with torch.inference_mode():
                logits = loaded.model(
                    input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *ids[:-1]]])
                ).logits[0]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0].numpy()
            assert np.abs(values - expected).max() < TOLERANCE


@pytest.fixture(scope="module")
def mini():
    return load_model(mini_model_path(), device="cpu")


def check_against_naive_loop(loaded, examples):
    """Each kind of label score, computed from its definition, one label of one example at a time."""
    scores = label_scores(loaded, ("t", str(id(examples))), examples, KINDS)
    for number, example in enumerate(examples):
        prompt = loaded.tokenizer(example.prompt).input_ids
        encoded = [loaded.tokenizer(example.prompt + text).input_ids for text in example.candidates]
        parting = next(i for i in range(99) if len({ids[i] for ids in encoded}) > 1)
        for label, (text, ids) in enumerate(zip(example.candidates, encoded, strict=True)):
            log_p = naive(loaded.model, ids).astype(np.float64)
            start = next(i for i in range(len(ids)) if i >= len(prompt) or ids[i] != prompt[i])
            alone = loaded.tokenizer(example.neutral + text).input_ids
            neutral = loaded.tokenizer(example.neutral).input_ids
            own = next(i for i in range(len(alone)) if i >= len(neutral) or alone[i] != neutral[i])
            total = log_p[start - 1 :].sum()
            expected = {
                "paper": log_p.sum() / len(ids),
                "sum": total,
                "normalised": total / len(text.encode()),
                "first_token": log_p[parting - 1],
                "pmi": total - naive(loaded.model, alone).astype(np.float64)[own - 1 :].sum(),
            }
            for kind, value in expected.items():
                # Sums of some twenty terms near 100 carry the rounding of float32 of each.
                allowed = TOLERANCE * (1 if kind in ("paper", "normalised", "first_token") else 10)
                assert scores[kind][number][label] == pytest.approx(value, abs=allowed), kind


@pytest.mark.assets
def test_kornli_on_the_packaged_model_equals_a_naive_loop(mini, assets):
    check_against_naive_loop(mini, read_examples(load_task("xnli"), "ko", assets / "data", limit=9))


@pytest.mark.assets
def test_xcopa_on_stories_equals_a_naive_loop(assets):
    loaded = load_model(assets / "weights" / "stories260K-llama", device="cpu")
    check_against_naive_loop(loaded, read_examples(load_task("xcopa"), "it", assets / "data", limit=8))


def test_ties_share_the_credit(mini):
    examples = [Example("Bread is", (" good", " good", " bad"), 0, "")]
    found = measure_choice(mini, "t", "en", examples, ("sum",))[0]
    assert found.items[0, 0] in (0.0, 0.5)
    assert label_scores(mini, ("t", "en"), examples, ("sum",))["sum"][0][0] == pytest.approx(
        label_scores(mini, ("t", "en"), examples, ("sum",))["sum"][0][1], abs=1e-6
    )


def test_long_prompts_lose_their_beginning_and_are_counted(mini):
    long = Example("bread and milk " * 400, ("yes", "no"), 0, "x")
    filled = fill_examples(mini, [long])[0]
    assert filled.cut > 0
    assert max(map(len, filled.groups)) == mini.max_length == 512
    found = measure_choice(mini, "long", "en", [long], ("paper",))[0]
    assert found.details["prompts_cut"] == 1
    with pytest.raises(TaskError, match="a candidate alone is longer than the 512 tokens"):
        fill_examples(mini, [Example("We eat", (" bread and milk" * 400, " no"), 0, "x")])


def test_a_candidate_without_a_token_of_its_own_is_refused(mini):
    with pytest.raises(TaskError, match="adds no token to its prompt"):
        fill_examples(mini, [Example("We eat bread", ("", " and"), 0, "x")])


def test_pmi_needs_a_neutral_prompt(mini):
    with pytest.raises(TaskError, match="the pmi score needs a prompt with words of its own"):
        label_scores(mini, ("t", "neutral"), [Example("We eat", (" a", " b"), 0, " ")], ("pmi",))


@pytest.mark.assets
def test_kinds_of_models(assets, zoo):
    assert model_kind(mini_model_path()) == "causal"
    assert model_kind(assets / "weights" / "all-MiniLM-L6-v2") == "encoder"
    assert model_kind(zoo("bert")) == "encoder"
    assert model_kind(zoo("mbart")) == "seq2seq"


@pytest.mark.assets
def test_a_folder_without_a_tokenizer_is_refused(assets):
    with pytest.raises(TokenizerError, match="holds no tokenizer that transformers reads"):
        load_model(assets / "weights" / "misaki-bart-us", device="cpu")


def test_an_unknown_class_is_refused(zoo, tmp_path):
    import json
    import shutil

    shutil.copytree(zoo("llama"), tmp_path / "odd")
    path = tmp_path / "odd" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["SlicedLlamaForCausalLM"]}))
    with pytest.raises(CheckpointError, match="transformers has no class SlicedLlamaForCausalLM"):
        model_kind(tmp_path / "odd")
