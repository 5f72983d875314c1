"""The model and the held-out text that ship with the package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from langslice.errors import CorpusError
from langslice.mini import heldout_languages, heldout_text, mini_model_path

TRAINING = Path(__file__).parents[2] / "training"
MARGIN = 0.75  # of the unigram perplexity, at most
LANGUAGES = ("ar", "en", "es", "fr", "hi", "ko", "sw", "zh")
SCRIPTS = {"ar": "[\u0600-\u06ff]", "hi": "[\u0900-\u097f]", "ko": "[\uac00-\ud7a3]", "zh": "[\u4e00-\u9fff]"}


@pytest.fixture(scope="module")
def measure():
    """The measurements of training/, which tests and the model's card share."""
    sys.path.insert(0, str(TRAINING))
    import measure

    yield measure
    sys.path.remove(str(TRAINING))


@pytest.fixture(scope="module")
def loaded(measure):
    return measure.load_model(mini_model_path())


@pytest.fixture(scope="module")
def documents(assets, measure):
    return measure.read_sources(assets, names=False)


def test_size_and_config_fit_the_package():
    folder = mini_model_path()
    config = json.loads((folder / "config.json").read_text())
    assert (folder / "model.safetensors").stat().st_size < 20_000_000
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20_000_000
    assert config["rope_theta"] == 10000.0
    assert "rope_parameters" not in config
    assert config["tie_word_embeddings"] is True
    assert config["num_attention_heads"] > config["num_key_value_heads"]
    assert config["num_hidden_layers"] >= 6
    assert config["num_attention_heads"] * config["head_dim"] != config["hidden_size"]


def test_loads_in_stock_transformers_with_no_key_missing_or_left_over():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, report = AutoModelForCausalLM.from_pretrained(mini_model_path(), output_loading_info=True)
    assert {key: list(found) for key, found in report.items() if found} == {}
    assert type(model).__name__ == "LlamaForCausalLM"
    assert sum(weight.numel() for weight in model.parameters()) <= 12_000_000
    tokenizer = AutoTokenizer.from_pretrained(mini_model_path())
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (0, 0, 1)
    assert len(tokenizer) == model.config.vocab_size
    ids = tokenizer("Good morning.", return_tensors="pt").input_ids
    assert 0 not in ids
    out = model.float().generate(ids, max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(ids))
    assert out.shape[1] > ids.shape[1]


def test_any_text_survives_the_tokenizer(loaded):
    _, tokenizer = loaded
    rng = np.random.default_rng(0)
    codes = [code for code in rng.integers(1, 0x110000, 4000) if not 0xD800 <= code < 0xE000]
    texts = [line for language in heldout_languages() for line in heldout_text(language)]
    texts += ["".join(map(chr, codes)), "\t\r\n  ", "a" * 3000, "한국어 العربية हिन्दी 中文 Kiswahili"]
    assert [tokenizer.decode(tokenizer.encode(text).ids) for text in texts] == texts
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(ByteLevel.alphabet()) <= set(tokenizer.get_vocab())


def test_held_out_lines_are_parallel_and_distinct():
    assert heldout_languages() == LANGUAGES
    columns = {language: heldout_text(language) for language in LANGUAGES}
    assert len({len(lines) for lines in columns.values()}) == 1
    assert len(columns["en"]) >= 200
    for language, lines in columns.items():
        assert len(set(lines)) == len(lines)
        assert all(line == line.strip() and len(line) > 4 for line in lines)
        if language in SCRIPTS:
            assert all(re.search(SCRIPTS[language], line) for line in lines)
    # Wherever one language writes a number of two or more digits, all do.
    for rows in zip(*columns.values(), strict=True):
        assert len({tuple(sorted(re.findall(r"\d\d+", row))) for row in rows}) == 1, rows


def test_unknown_language_is_refused_by_name():
    with pytest.raises(CorpusError, match="no held-out text in `de`: expected one of ar, en, es, fr, hi, ko, sw, zh"):
        heldout_text("de")


def test_the_loader_imports_no_torch():
    code = "import sys, langslice.mini; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_token_losses_agree_with_the_loss_of_transformers(measure, loaded):
    import torch

    model, tokenizer = loaded
    sequences = measure.line_sequences(tokenizer, heldout_text("sw")[:5])
    for sequence, losses in zip(sequences, measure.token_losses(model, sequences), strict=True):
        ids = torch.tensor([sequence])
        with torch.no_grad():
            expected = model(input_ids=ids, labels=ids).loss.item()
        assert losses.mean() == pytest.approx(expected, abs=1e-4)
        assert len(losses) == len(sequence) - 1


def test_unigram_loss_by_hand(measure):
    # Counts 3, 0, 1 become 4, 1, 2 of 7; the first token of a sequence is context only.
    counts = np.array([3, 0, 1])
    expected = -(np.log(4 / 7) + np.log(1 / 7)) / 2
    assert measure.unigram_losses(counts, [[2, 0, 1]]) == pytest.approx(expected)


def test_a_prompt_is_the_written_format(measure, loaded):
    _, tokenizer = loaded
    ids, size = measure.prompt(tokenizer, ["un", "deux"], ["one", "two"], ("French", "English"))
    text = tokenizer.decode(ids, skip_special_tokens=False)
    end = "<|endoftext|>"
    assert text == f"{end}French: un{end}English: one{end}French: deux{end}English: two{end}"
    assert tokenizer.decode(ids[-size:], skip_special_tokens=False) == f" two{end}"
    assert ids == tokenizer.encode(text).ids


@pytest.mark.assets
def test_perplexity_is_below_a_unigram_model_in_every_language(measure, loaded, documents):
    model, tokenizer = loaded
    counts = measure.training_counts(documents, tokenizer)
    texts = {language: measure.line_sequences(tokenizer, heldout_text(language)) for language in LANGUAGES}
    table = measure.perplexity_table(model, counts, texts)
    assert set(table) == set(LANGUAGES)
    for language, row in table.items():
        assert row["perplexity"] < MARGIN * row["unigram_perplexity"], (language, row)


@pytest.mark.assets
def test_no_held_out_line_is_in_the_training_text(documents):
    trained = [document for document in documents if not document.heldout and document.source != "words"]
    for language in LANGUAGES:
        text = "\n".join(line for document in trained for line in document.lines.get(language, ()))
        assert [line for line in heldout_text(language) if line in text] == []


def held_out_dates() -> list[dict[str, str]]:
    """Dates in full that the training held out (places 3, 13, ... of its list), written as CLDR writes them."""
    months = {
        "en": "January February March April May June July August September October November December",
        "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "sw": "Januari Februari Machi Aprili Mei Juni Julai Agosti Septemba Oktoba Novemba Desemba",
    }
    days = {
        "en": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "fr": "lundi mardi mercredi jeudi vendredi samedi dimanche",
        "es": "lunes martes miércoles jueves viernes sábado domingo",
        "sw": "Jumatatu Jumanne Jumatano Alhamisi Ijumaa Jumamosi Jumapili",
    }
    shapes = {
        "en": "{d}, {m} {n}, {y}",
        "fr": "{d} {n} {m} {y}",
        "es": "{d}, {n} de {m} de {y}",
        "sw": "{d}, {n} {m} {y}",
    }
    rows = []
    for place in range(3, 1500, 10):
        day = date(1900, 1, 1) + timedelta(days=place * 73)
        rows.append(
            {
                language: shape.format(
                    d=days[language].split()[day.weekday()],
                    m=months[language].split()[day.month - 1],
                    n=day.day,
                    y=day.year,
                )
                for language, shape in shapes.items()
            }
        )
    return rows


def test_right_demonstrations_lower_the_loss_of_the_next_target(measure, loaded):
    model, tokenizer = loaded
    found = [
        measure.demonstration_effect(model, tokenizer, held_out_dates(), direction, prompts=40)
        for direction in (("fr", "en"), ("en", "es"), ("sw", "en"), ("fr", "sw"))
    ]
    assert [one["prompts"] for one in found] == [40] * 4
    for kind in ("shuffled", "swapped_query"):
        gaps = np.array([one[f"{kind}_minus_paired"] for one in found])
        errors = np.array([one[f"{kind}_standard_error"] for one in found])
        assert (gaps > 0).all(), found
        assert gaps.mean() > 5 * np.sqrt((errors**2).sum()) / len(found), found


def test_the_committed_results_are_of_these_weights(measure, loaded):
    model, tokenizer = loaded
    table = json.loads((TRAINING / "results.json").read_text(encoding="utf-8"))["packaged_lines"]
    for language in ("en", "sw"):
        losses = measure.token_losses(model, measure.line_sequences(tokenizer, heldout_text(language)))
        assert np.concatenate(losses).mean() == pytest.approx(table[language]["loss"], abs=1e-3)
        card = (mini_model_path() / "README.md").read_text(encoding="utf-8")
        assert f"| {table[language]['perplexity']:.0f} | {table[language]['unigram_perplexity']:.0f} |" in card
