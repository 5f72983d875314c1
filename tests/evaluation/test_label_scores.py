"""Label scores equal a naive loop over examples and labels, in every family, as trees, with a shared cache, and whole."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from langslice.errors import CheckpointError, TaskError, TokenizerError
from langslice.evaluation import label_scores as label_scores_module
from langslice.evaluation import output_head
from langslice.evaluation import pass_order as sharing
from langslice.evaluation import prefix_tree as packing
from langslice.evaluation.choice_tasks import Example, load_task, read_examples
from langslice.evaluation.label_scores import score_sequences, score_with_encoder
from langslice.evaluation.loaded_model import Loaded, load_model, model_kind
from langslice.evaluation.zero_shot import fill_examples, label_scores, measure_choice
from langslice.mini import mini_model_path
from langslice.model.families import FAMILIES

KINDS = ("paper", "sum", "normalised", "first_token", "pmi")
CAUSAL = [
    "llama", "gpt2", "gpt_neox", "bloom", "xglm", "falcon", "gemma2", "gemma3_text", "qwen3", "qwen3_moe", "cohere2",
    "mistral", "phi", "granite", "olmo3", "smollm3",
]  # fmt: skip
READS_TREES = {name for family in FAMILIES if family.reads_trees for name in family.model_types}
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
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[1:, None])[:, 0].numpy()


def alone(loaded, groups):
    return [[naive(loaded.model, ids) for ids in sequences] for sequences in groups]


def check_scores(expected, found):
    for sequences, scores in zip(expected, found, strict=True):
        for one, two in zip(sequences, scores, strict=True):
            assert one.shape == two.shape
            assert np.abs(one - two).max(initial=0) < TOLERANCE


@pytest.fixture
def short_passes(monkeypatch):
    """Many passes, batches and pieces of the head for a few hundred tokens."""
    monkeypatch.setattr(output_head, "_POSITIONS", {"cpu": 100})
    monkeypatch.setattr(output_head, "_LEAST_POSITIONS", 100)
    monkeypatch.setattr(output_head, "_LEAST_ROWS", 7)
    monkeypatch.setattr(sharing, "_PASS", {"cpu": 12})


@pytest.mark.parametrize("model_type", sorted({*CAUSAL, *READS_TREES}))
def test_every_family_scores_as_alone(model_type, zoo, short_passes, monkeypatch):
    import torch
    import transformers

    from tests.zoo import SHARED_CACHE, lacks

    loaded = loaded_zoo(zoo(model_type), model_type)
    groups = [*random_groups(len(model_type)), [[3]], [[4], [4, 5]]]
    expected = alone(loaded, groups)
    longest = max(len(ids) for sequences in groups for ids in sequences)
    window = getattr(loaded.model.config, "sliding_window", None)
    output_head.try_head(loaded, input_ids=torch.tensor([[3, 4, 5]]))
    if int(transformers.__version__.split(".")[0]) >= 5:
        assert packing.can_pack(loaded, longest) == (model_type in READS_TREES and not (window and longest > window))
    check_scores(expected, score_sequences(loaded, groups))
    check_scores(expected, score_sequences(loaded, groups, share=False))
    monkeypatch.setattr(label_scores_module, "can_pack", lambda loaded, longest: False)
    check_scores(expected, score_sequences(loaded, groups))
    assert bool(loaded.notes) == lacks(model_type, SHARED_CACHE)
    assert loaded.plain_head is (model_type not in ("cohere", "cohere2", "gemma2"))


def test_families_too_large_for_a_tree_are_read_through_the_cache(zoo, monkeypatch):
    monkeypatch.setattr(label_scores_module, "MOST_NODES", 40)
    loaded = loaded_zoo(zoo("llama"), "llama")
    groups = random_groups(3)
    sizes = [family.positions for family in sharing.gather_families(groups)]
    assert min(sizes) <= 40 < max(sizes)
    check_scores(alone(loaded, groups), score_sequences(loaded, groups))


def test_a_tree_holds_every_common_token_once():
    tree = packing.plant(sharing.CandidateGroup(1, ((4, [5, 6, 7]), (9, [5, 6, 8, 2]), (2, [5]), (3, [5, 6, 7]))))
    assert tree.tokens.tolist() == [5, 6, 8]
    assert tree.depths.tolist() == [0, 1, 2]
    assert tree.seen.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert (tree.of.tolist(), tree.targets.tolist()) == ([0, 1, 1, 2], [6, 7, 8, 2])
    assert [(place, path.tolist()) for place, path in tree.paths] == [(4, [0, 1]), (9, [0, 2, 3]), (3, [0, 1])]


def test_branches_do_not_see_each_other():
    tree = packing.plant(sharing.CandidateGroup(1, ((0, [5, 6, 7, 1]), (1, [5, 8, 7, 1]))))
    assert tree.tokens.tolist() == [5, 6, 7, 8, 7]
    assert tree.seen[4].tolist() == [True, False, False, True, True]
    assert tree.depths.tolist() == [0, 1, 2, 1, 2]


def test_passes_are_divided_where_that_is_cheapest(monkeypatch):
    monkeypatch.setattr(sharing, "_PASS", {"cpu": 10})
    # Two more rows padded by 4 cost 8 positions, less than a pass; three cost 12.
    assert list(sharing.batch_rows([3, 3, 7], "cpu", 100)) == [[0, 1, 2]]
    assert list(sharing.batch_rows([7, 3, 3, 3], "cpu", 100)) == [[1, 2, 3], [0]]
    assert list(sharing.batch_rows([3, 3, 7], "cpu", 14)) == [[0, 1], [2]]
    assert list(sharing.batch_rows([], "cpu", 14)) == []


def test_families_are_cut_to_their_shortest_where_that_is_cheapest(monkeypatch):
    monkeypatch.setattr(sharing, "_PASS", {"cpu": 10})

    def family(shared, rows):
        return sharing.CandidateGroup(shared, tuple((0, [1] * (shared + 2)) for _ in range(rows)))

    # Reading six more tokens three times instead of once costs 12, another batch 20; eight tokens four times cost 24.
    near, far = [family(2, 3), family(8, 3)], [family(2, 4), family(10, 4)]
    assert list(sharing.batch_families(near[::-1], "cpu", 1000)) == [near]
    assert list(sharing.batch_families(far, "cpu", 1000)) == [[each] for each in far]
    assert list(sharing.batch_families(near, "cpu", 20)) == [[each] for each in near]


@pytest.mark.parametrize("window", [6, 200])
def test_windows_shorter_than_the_text_are_respected(tmp_path, window):
    from tests.zoo import build

    loaded = loaded_zoo(build("mistral", tmp_path / "mistral", sliding_window=window), "mistral")
    check_scores(alone(loaded, random_groups(5)), score_sequences(loaded, random_groups(5)))
    assert packing.can_pack(loaded, 50) is (window == 200)


def test_a_model_that_drops_the_mask_of_a_tree_is_found_out(zoo):
    loaded = loaded_zoo(zoo("llama"), "llama")
    forward = loaded.model.forward

    def without_mask(**inputs):
        return forward(**{**inputs, "attention_mask": None})

    loaded.model.forward = without_mask
    groups = random_groups(2)
    check_scores(alone(loaded, groups), score_sequences(loaded, groups))
    assert loaded.reads_trees is False


def test_a_model_without_a_cache_says_so_and_scores_the_same(zoo, monkeypatch):
    loaded = loaded_zoo(zoo("llama"), "llama")
    groups = random_groups(1, groups=3)[:2]
    monkeypatch.setattr(label_scores_module, "can_pack", lambda loaded, longest: False)
    expected = score_sequences(loaded, groups)
    assert loaded.notes == []
    forward = loaded.model.forward

    def without_cache(**inputs):
        return forward(**{**inputs, "use_cache": False})

    loaded.model.forward = without_cache
    found = score_sequences(loaded, groups)
    assert loaded.notes == ["the model has no cache that can be shared: every candidate was read whole"]
    check_scores(expected, found)


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


def in_float64(loaded):
    """The same model in a type in which every order of additions gives the same scores, on any processor."""
    exact = copy.deepcopy(loaded.model).double()
    return Loaded(loaded.folder, loaded.kind, exact, loaded.tokenizer, loaded.max_length, loaded.logits_limit)


def check_against_naive_loop(loaded, examples):
    """Each kind of label score, computed from its definition, one label of one example at a time."""
    exact = in_float64(loaded)
    assert packing.can_pack(exact, 99), "the way that float32 takes"
    scores = label_scores(exact, ("t", str(id(examples))), examples, KINDS)
    for number, example in enumerate(examples):
        prompt = loaded.tokenizer(example.prompt).input_ids
        encoded = [loaded.tokenizer(example.prompt + text).input_ids for text in example.candidates]
        parting = next(i for i in range(99) if len({ids[i] for ids in encoded}) > 1)
        for label, (text, ids) in enumerate(zip(example.candidates, encoded, strict=True)):
            log_p = naive(exact.model, ids)
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
                "pmi": total - naive(exact.model, alone)[own - 1 :].sum(),
            }
            for kind, value in expected.items():
                # Sums of some twenty terms near 100 carry the rounding of float32 of each.
                allowed = TOLERANCE * (1 if kind in ("paper", "normalised", "first_token") else 10)
                assert scores[kind][number][label] == pytest.approx(value, abs=allowed), kind


def check_rounding(loaded, examples):
    """In float32 every way is as near to the exact scores as a naive loop in float32 is on this processor."""
    groups = [each.groups for each in fill_examples(loaded, examples)]
    flat = [ids for sequences in groups for ids in sequences]
    model = in_float64(loaded).model
    exact = np.concatenate([naive(model, ids) for ids in flat])

    def error(found):
        return np.abs(np.concatenate(found) - exact).max()

    limit = 2 * error([naive(loaded.model, ids) for ids in flat])
    assert limit < 1e-4
    for share in (True, False):
        assert error([v for scores in score_sequences(loaded, groups, share=share) for v in scores]) < limit


@pytest.mark.assets
def test_kornli_on_the_packaged_model_equals_a_naive_loop(mini, assets):
    examples = read_examples(load_task("xnli"), "ko", assets / "data", limit=9)
    check_against_naive_loop(mini, examples)
    check_rounding(mini, examples)


@pytest.mark.assets
def test_xcopa_on_stories_equals_a_naive_loop(assets):
    loaded = load_model(assets / "weights" / "stories260K-llama", device="cpu")
    examples = read_examples(load_task("xcopa"), "it", assets / "data", limit=8)
    check_against_naive_loop(loaded, examples)
    check_rounding(loaded, examples)


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
