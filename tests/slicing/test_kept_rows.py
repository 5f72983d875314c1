"""Which tokens and rows a slice keeps, on real models: time stamps, prompts, exactly the listed tokens, reserved ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

import langslice
from langslice.errors import PlanError
from langslice.planning.plan import load_plan, save_plan
from langslice.tokenizer import open_tokenizer

WHISPER = pytest.mark.models("whisper-base")
E5 = pytest.mark.models("multilingual-e5-small")
SIBLINGS = pytest.mark.models("multilingual-e5-small", "multilingual-e5-small-enpt")
GEMMA = pytest.mark.models("gemma-3-270m")


def tensors(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def sounds():
    """Four seconds of a tone that rises and falls, with pauses: (samples,) float32 at 16 kHz."""
    time = np.arange(64000) / 16000
    pitch = 220 + 120 * np.sin(2 * np.pi * 0.7 * time)
    voiced = np.sin(2 * np.pi * np.cumsum(pitch) / 16000) * (np.sin(2 * np.pi * 1.3 * time) > -0.3)
    return (0.3 * voiced).astype(np.float32)


@WHISPER
def test_whisper_writes_the_time_stamps_that_it_wrote(models, tmp_path):
    """The slice transcribes as its source does when the dropped tokens are forbidden: same tokens, same time stamps."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    source = models / "whisper-base"
    result = langslice.slice(source, tmp_path / "out", languages="ko", verify=False)
    rows = result.plan.new_to_old
    begin = json.loads((tmp_path / "out" / "generation_config.json").read_text())["no_timestamps_token_id"] + 1
    assert rows[begin:].tolist() == list(range(50364, 51865))
    features = WhisperFeatureExtractor.from_pretrained(source)(sounds(), sampling_rate=16000, return_tensors="pt")
    before = WhisperForConditionalGeneration.from_pretrained(source)
    after = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        start = torch.tensor([[50258, 50264, 50359, 50364]])
        new = torch.tensor([[int(np.searchsorted(rows, old)) for old in start[0].tolist()]])
        stored = before(features.input_features, decoder_input_ids=start).logits[0, :, 50364:]
        assert torch.equal(after(features.input_features, decoder_input_ids=new).logits[0, :, begin:], stored)
    gone = np.setdiff1d(np.arange(51865), rows).tolist()
    before.generation_config.suppress_tokens = sorted({*before.generation_config.suppress_tokens, *gone})
    asked = {"return_timestamps": True, "language": "ko", "task": "transcribe", "max_new_tokens": 24}
    expected = before.generate(features.input_features, **asked)[0].tolist()
    assert rows[after.generate(features.input_features, **asked)[0].numpy()].tolist() == expected
    assert sum(old >= 50364 for old in expected) >= 1


@SIBLINGS
def test_exactly_the_listed_tokens_make_somebody_elses_cut(models, tmp_path):
    theirs = models / "multilingual-e5-small-enpt"
    pieces = [token for token in open_tokenizer(theirs).tokens if token is not None]
    (tmp_path / "pieces.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    source = models / "multilingual-e5-small"
    result = langslice.slice(source, tmp_path / "out", only_tokens=tmp_path / "pieces.txt", verify=False)
    assert len(result.plan.new_to_old) == len(pieces) == 47_284
    ours, expected = tensors(tmp_path / "out"), tensors(theirs)
    assert set(ours) == set(expected)
    assert all(np.array_equal(ours[name].numpy(), expected[name].numpy()) for name in ours)
    own, other = (json.loads((folder / "tokenizer.json").read_text()) for folder in (tmp_path / "out", theirs))
    assert own == other
    assert langslice.plan(source, only_tokens=theirs / "tokenizer.json").kept.tolist() == result.plan.kept.tolist()
    assert any("35 are padding" in note for note in result.plan.notes)


@SIBLINGS
def test_a_plan_of_exact_tokens_may_be_edited(models, tmp_path):
    source, theirs = models / "multilingual-e5-small", models / "multilingual-e5-small-enpt" / "tokenizer.json"
    made = langslice.plan(source, only_tokens=theirs)
    save_plan(made, tmp_path / "plan.json")
    lines = (tmp_path / "plan.json").read_text().splitlines(keepends=True)
    gone = next(line for line in lines if line.startswith("[") and '"▁the"' in line)
    (tmp_path / "plan.json").write_text("".join(line for line in lines if line != gone))
    edited = load_plan(tmp_path / "plan.json")
    result = langslice.slice(source, tmp_path / "out", plan=edited, verify=False)
    assert len(result.plan.kept) == len(made.kept) - 1


@E5
def test_the_prefixes_of_e5_are_read_as_in_the_source(models, tmp_path):
    from transformers import AutoTokenizer

    source = models / "multilingual-e5-small"
    result = langslice.slice(source, tmp_path / "out", languages="ko", verify=False, keep_text="제목: ")
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (source, tmp_path / "out"))
    for text in ("query: 안녕하세요", "passage: 안녕하세요", "제목: 안녕하세요"):
        assert after.tokenize(text) == before.tokenize(text)
    assert before.tokenize("query: ")[:3] == ["▁que", "ry", ":"]
    assert "always read, so kept whole: '제목: ', 'query: ', 'passage: '" in result.plan.notes
    assert result.plan.request["keep_text"] == "제목: "


@GEMMA
def test_reserved_tokens_go_where_asked(models):
    kept = langslice.plan(models / "gemma-3-270m", languages="ko")
    dropped = langslice.plan(models / "gemma-3-270m", languages="ko", drop_reserved=True)
    assert len(kept.kept) - len(dropped.kept) == 6242
    assert not any(token.startswith("<unused") for token in dropped.tokens)
    assert {"<start_of_turn>", "<end_of_turn>", "<pad>"} <= set(dropped.tokens)
    offer = (
        "6,242 reserved tokens (such as <unused0>; 8.0 MB) stay; --drop-reserved drops the 6,242 that nothing refers to"
    )
    assert offer in kept.notes
    assert "6,242 reserved tokens (such as <unused0>; 8.0 MB): 6,242 dropped" in dropped.notes


@E5
def test_nothing_beside_only_tokens(models, tmp_path):
    (tmp_path / "one.txt").write_text("▁the\n")
    refused = {
        "languages": "ko", "keep_code": True, "max_size": "200MB", "keep_text": "query: ", "drop_reserved": True,
        "corpus": str(tmp_path / "one.txt"),
    }  # fmt: skip
    for name, value in refused.items():
        with pytest.raises(PlanError, match=f"so `{name}` together with it has no effect"):
            langslice.plan(models / "multilingual-e5-small", only_tokens=tmp_path / "one.txt", **{name: value})
