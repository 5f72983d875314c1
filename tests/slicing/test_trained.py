"""Trained checkpoints of the assets, sliced and used through the libraries that their users use."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest

import langslice

pytestmark = pytest.mark.assets


def lines_of(assets, code, count=200):
    name = "newstest2019-src.eng.txt" if code == "eng" else f"newstest2019-ref.{code}.txt"
    return (assets / "data/ntrex128" / name).read_text(encoding="utf-8").splitlines()[:count]


def test_minilm_through_sentence_transformers(assets, tmp_path):
    source, out = assets / "weights/all-MiniLM-L6-v2", tmp_path / "out"
    result = langslice.slice(source, out, languages="en", coverage=0.999)
    assert result.verification.passed
    assert len(result.plan.kept) < 0.95 * result.plan.rows
    assert not any("model_O" in name for name in result.left_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        before, after = SentenceTransformer(str(source), device="cpu"), SentenceTransformer(str(out), device="cpu")
        kept = set(result.plan.kept.tolist())
        tokenizer = before.tokenizer
        covered = [line for line in lines_of(assets, "eng") if set(tokenizer(line)["input_ids"]) <= kept]
        assert len(covered) > 100
        left, right = before.encode(covered, batch_size=8), after.encode(covered, batch_size=8)
    assert np.array_equal(left, right)
    assert (out / "1_Pooling/config.json").read_bytes() == (source / "1_Pooling/config.json").read_bytes()
    assert (out / "modules.json").is_file()


def test_a_dense_module_in_a_pickle_becomes_safetensors(assets, tmp_path):
    import json

    import torch

    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(assets / "weights/all-MiniLM-L6-v2", source)
    modules = json.loads((source / "modules.json").read_text())
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    (source / "modules.json").write_text(json.dumps([*modules, dense]))
    (source / "3_Dense").mkdir()
    settings = {
        "in_features": 384,
        "out_features": 5,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (source / "3_Dense/config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    layer = torch.nn.Linear(384, 5)
    torch.save(
        {f"linear.{name}": value for name, value in layer.state_dict().items()}, source / "3_Dense/pytorch_model.bin"
    )
    langslice.slice(source, out, languages="en", coverage=0.999, verify=False)
    assert sorted(path.name for path in (out / "3_Dense").iterdir()) == ["config.json", "model.safetensors"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        text = ["A small test."]
        vectors = [SentenceTransformer(str(folder), device="cpu").encode(text) for folder in (source, out)]
    assert vectors[0].shape == (1, 5)
    assert np.array_equal(*vectors)


def test_stories_generates_the_same_tokens(assets, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, out = assets / "weights/stories260K-llama", tmp_path / "out"
    stories = tmp_path / "stories.txt"
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source)
    prompts = ["Once upon a time", "Lily and Tom went to the park", "The little dog was sad because"]
    written = [
        model.generate(
            **tokenizer(prompt, return_tensors="pt", return_token_type_ids=False),
            max_new_tokens=80,
            do_sample=False,
            pad_token_id=2,
        )[0]
        for prompt in prompts
    ]
    # What the original writes is the corpus: its tokens stay, rarer ones may go.
    stories.write_text("\n".join(tokenizer.decode(ids, skip_special_tokens=True) for ids in written))
    result = langslice.slice(source, out, corpus=str(stories))
    assert result.verification.passed
    assert len(result.plan.kept) < result.plan.rows
    sliced, smaller = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    rows = torch.from_numpy(result.plan.new_to_old)
    for prompt, expected in zip(prompts, written, strict=True):
        ids = smaller.generate(
            **sliced(prompt, return_tensors="pt", return_token_type_ids=False),
            max_new_tokens=80,
            do_sample=False,
            pad_token_id=2,
        )[0]
        assert rows[ids].tolist() == expected.tolist()
        assert sliced.decode(ids) == tokenizer.decode(expected)


def test_a_model_with_its_characters_in_the_config(assets, tmp_path):
    import json

    import torch
    from transformers import BartForConditionalGeneration

    source, out = assets / "weights/misaki-bart-us", tmp_path / "out"
    words = tmp_path / "words.txt"
    words.write_text("hello world this is a small test of sounds\n" * 3)
    result = langslice.slice(source, out, corpus=str(words))
    assert result.verification.passed
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, out))
    kept = result.plan.kept.tolist()
    assert after["grapheme_chars"] == "".join(
        before["grapheme_chars"][old] for old in kept if old < len(before["grapheme_chars"])
    )
    assert len(kept) < before["vocab_size"]
    original, sliced = (BartForConditionalGeneration.from_pretrained(folder).eval() for folder in (source, out))
    old = torch.tensor([[1, *[before["grapheme_chars"].index(letter) for letter in "hello"], 2]])
    new = torch.tensor([[kept.index(token) for token in old[0].tolist()]])
    with torch.no_grad():
        left = original(input_ids=old, decoder_input_ids=old).logits[..., torch.tensor(kept)]
        right = sliced(input_ids=new, decoder_input_ids=new).logits
    assert torch.allclose(left, right[..., : len(kept)], atol=1e-5)


def test_the_source_is_untouched(assets, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(assets / "weights/stories260K-llama", source)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()}
    langslice.slice(source, tmp_path / "out", languages="en", link=True)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()} == before
