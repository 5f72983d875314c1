"""One text, read by the packaged model and by slices of it in memory: as those on disk read it."""

from __future__ import annotations

import pytest

import langslice
from langslice.errors import CheckpointError, FewerRowsError, TaskError
from langslice.evaluation.answers import answer
from langslice.evaluation.loaded_model import load_model
from langslice.tradeoffs import try_text

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_text_is_read_as_the_slice_on_disk_reads_it(tmp_path):
    text = "The weather 날씨 뷁"
    asked = {"languages": "ko,en", "drop_layers": "2"}
    found = try_text("mini", text, sizes="1700,12288", **asked)
    assert "".join(piece.text for piece in found.original.pieces if piece.whole).replace(" ", "") == "Theweather날씨"
    assert {piece.text for piece in found.original.pieces if not piece.whole} <= {
        "20 EB",
        "EB",
        "B7",
        "81",
        "EB B7",
        "B7 81",
    }
    whole, small = found.readings
    assert (whole.same, small.same) == (True, False) and len(small.pieces) > len(whole.pieces)
    out = langslice.slice("mini", tmp_path / "out", max_vocab=1700, verify=False, **asked).out
    there = load_model(out)
    assert answer(there, text) == small.answer
    assert len(there.tokenizer(text, add_special_tokens=False).input_ids) == len(small.pieces)
    assert small.rows == there.model.config.vocab_size
    with pytest.raises(TaskError, match="no token"):
        answer(there, "")
    with pytest.raises(TaskError, match="and the model reads"):
        answer(there, "word " * 600)


def test_what_cannot_be_tried_is_said(monkeypatch):
    found = try_text("mini", "a", languages="en", drop_heads="3:0,1")
    assert "not tried here" in found.notes[0] and found.readings[0].answer == found.original.answer
    with pytest.raises(FewerRowsError):
        try_text("mini", "a", languages="en", sizes="10", answers=False)
    monkeypatch.setattr("langslice.tradeoffs.trial.available_bytes", lambda: 1 << 20)
    with pytest.raises(CheckpointError, match=r"need .* of memory"):
        try_text("mini", "a", languages="en")
