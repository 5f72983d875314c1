"""Translation: sacreBLEU's own command gives the same figures, batches write what single prompts write."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from langslice.errors import TaskError
from langslice.evaluation.generation import decode, generate, line_break_ids
from langslice.evaluation.loaded_model import encode_texts, load_model
from langslice.evaluation.parallel import ParallelText, read_parallel
from langslice.evaluation.translation import make_pair, measure_translation, score_translations, translate
from langslice.mini import heldout_text, mini_model_path
from tests.zoo import add_tokenizer, build


@pytest.fixture(scope="module")
def mini():
    return load_model(mini_model_path(), device="cpu")


def pair_of(source="ko", target="en", *, shots=2, limit=5):
    return make_pair(read_parallel("t", [source, target], None), source, target, shots=shots, limit=limit)


@pytest.mark.parametrize(("target", "tokenisation"), [("en", "13a"), ("zh", "zh"), ("ko", "char")])
def test_scores_equal_sacrebleus_own_command(tmp_path, target, tokenisation):
    references = heldout_text(target)[:60]
    words = {line: line.split() for line in references}
    hypotheses = [" ".join(words[line][::-1][: 5 + n % 3]) if n % 2 else line for n, line in enumerate(references)]
    (tmp_path / "hyp").write_text("\n".join(hypotheses) + "\n", encoding="utf-8")
    (tmp_path / "ref").write_text("\n".join(references) + "\n", encoding="utf-8")
    found = score_translations(f"ko-{target}", target, hypotheses, references, {})
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-m", "bleu", "chrf", "--chrf-word-order", "2"]
    command += ["-tok", tokenisation, "--width", "6"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    for score, expected in zip(found, json.loads(done.stdout), strict=True):
        assert score.metric == expected["name"]
        assert round(score.value, 6) == expected["score"]
        assert score.details["signature"] == expected["signature"]
        assert len(score.items) == 60


def test_demonstrations_are_short_and_not_translated_again():
    lines = ["x" * 120, "a", "b", "c", "d", "e"]
    text = ParallelText("t", {"ko": lines, "en": [line.upper() for line in lines]}, {})
    pair = make_pair(text, "ko", "en", shots=2, limit=3)
    assert pair.shots == (("a", "A"), ("b", "B"))
    assert pair.sources == ("x" * 120, "c", "d")
    assert pair.name == "ko-en"
    apart = ParallelText("t", {"ko": ["p"], "en": ["P"]}, {"ko": lines, "en": lines})
    assert make_pair(apart, "ko", "en", shots=4, limit=None).sources == ("p",)
    with pytest.raises(TaskError, match="t has 5 lines under 100 characters in ko, expected 6"):
        make_pair(text, "ko", "en", shots=6, limit=3)


def test_a_batch_writes_what_each_prompt_writes_alone(mini):
    prompts = encode_texts(mini, heldout_text("ko")[:3] + heldout_text("en")[:4])
    together = generate(mini, prompts, new_tokens=8)
    alone = [generate(mini, [ids], new_tokens=8)[0] for ids in prompts]
    assert together == alone
    assert any(together)


def test_the_line_ends_a_few_shot_answer(mini):
    stops = line_break_ids(mini)
    assert stops
    assert all("\n" in mini.tokenizer.decode([number]) for number in stops)
    texts = translate(mini, pair_of(), new_tokens=12)
    assert len(texts) == 5
    assert not any("\n" in text for text in texts)


def test_prompts_that_do_not_fit_lose_demonstrations(mini):
    long = ParallelText("t", {"ko": ["가나다 " * 24] * 30, "en": ["word " * 19] * 30}, {})
    pair = make_pair(long, "ko", "en", shots=12, limit=2)
    found = measure_translation(mini, pair, new_tokens=2)
    assert found[0].details["prompts_with_fewer_shots"] == 2
    assert found[0].details["shots"] == 12


def test_a_translation_is_measured_with_its_details(mini):
    bleu, chrf = measure_translation(mini, pair_of(limit=4), new_tokens=6)
    assert (bleu.metric, chrf.metric) == ("BLEU", "chrF2++")
    assert bleu.language == "ko-en"
    assert "tok:13a" in bleu.details["signature"]
    assert len(bleu.details["examples"]) == 3
    assert 0 <= chrf.value <= 100


def test_without_demonstrations_the_model_is_asked(mini, monkeypatch):
    pair = pair_of(shots=0, limit=2)
    asked = []
    monkeypatch.setattr(
        "langslice.evaluation.translation.generate", lambda loaded, prompts, **_: asked.extend(prompts) or [[5]] * 2
    )
    translate(mini, pair)
    assert mini.tokenizer.decode(asked[0]).startswith("Translate this Korean text to English.")
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{% if add_generation_prompt %}[me] {% endif %}"
    monkeypatch.setattr(mini.tokenizer, "chat_template", template)
    translate(mini, pair)
    assert mini.tokenizer.decode(asked[2]).startswith("[user] Translate this Korean")
    assert mini.tokenizer.decode(asked[2]).rstrip().endswith("[me]")


def test_encoder_decoders_get_an_instruction_or_language_tokens(zoo, monkeypatch, tmp_path):
    # As many layers on both sides: generate() of transformers 5.23 sizes T5's cache by its encoder.
    plain = load_model(add_tokenizer(build("t5", tmp_path / "t5", num_decoder_layers=2)), device="cpu")
    assert plain.kind == "seq2seq"
    assert len(translate(plain, pair_of(limit=3), new_tokens=4)) == 3
    coded = load_model(zoo("m2m_100"), device="cpu")
    coded.tokenizer.src_lang = ""
    with pytest.raises(TaskError, match="its tokenizer has no token for the language ko"):
        translate(coded, pair_of(limit=2))
    coded.tokenizer.add_special_tokens({"additional_special_tokens": ["<extra_0>", "kor_Hang", "__en__"]})
    told = {}

    def fake(loaded, prompts, *, new_tokens, forced_first):
        told.update(forced=forced_first, source=loaded.tokenizer.src_lang)
        return [[11]] * len(prompts)

    monkeypatch.setattr("langslice.evaluation.translation.generate", fake)
    translate(coded, pair_of(limit=2))
    assert told == {"forced": coded.tokenizer.convert_tokens_to_ids("__en__"), "source": "kor_Hang"}


def test_an_encoder_decoder_begins_with_the_forced_token(zoo):
    loaded = load_model(zoo("m2m_100"), device="cpu")
    written = generate(loaded, [[20, 21, 22], [30, 31]], new_tokens=4, forced_first=17)
    assert [ids[0] for ids in written] == [17, 17]
    assert len(decode(loaded, written)) == 2


@pytest.mark.assets
def test_ntrex_on_stories(assets):
    loaded = load_model(assets / "weights" / "stories260K-llama", device="cpu")
    text = read_parallel("t", ["ko", "en"], assets / "data")
    found = measure_translation(loaded, make_pair(text, "ko", "en", shots=1, limit=3), new_tokens=4)
    assert 0 <= found[0].value < 20
    assert len(found[0].items) == 3
