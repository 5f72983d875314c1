"""What is kept in the user's cache is used again, only for the same key, and never trusted when it is damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from langslice.files.user_cache import cache_folder, cached, without_cache
from langslice.tokenizer import open_tokenizer
from langslice.vocabulary.always_kept import tokens_of
from langslice.vocabulary.languages import parse_languages
from langslice.vocabulary.scripts import token_scripts
from langslice.vocabulary.selection_criteria import language_criterion


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LANGSLICE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_made_once_for_a_key(folder):
    made = []

    def make():
        made.append(1)
        return b"result"

    assert [cached("kind", ["a", "b"], make) for _ in range(3)] == [b"result"] * 3
    assert len(made) == 1
    for other in (["a", "c"], ["ab"], ["a\0b"], ["a", "b", ""], ["\ud800"]):
        cached("kind", other, make)
    assert len(made) == 6


def test_a_damaged_entry_is_made_again(folder):
    cached("kind", ["key"], lambda: b"right")
    (entry,) = (folder / "kind").iterdir()
    for damage in (entry.read_bytes()[:-1], b"", entry.read_bytes().replace(b"right", b"wrong")):
        entry.write_bytes(damage)
        assert cached("kind", ["key"], lambda: b"right") == b"right"
        assert entry.read_bytes().endswith(b"right")


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(folder):
    folder.write_text("a file where a folder should be")
    assert cached("kind", ["key"], lambda: b"one") == b"one"
    assert cached("kind", ["key"], lambda: b"two") == b"two"


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("LANGSLICE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "langslice"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/langslice"
    with without_cache():
        assert cache_folder() is None
    assert cache_folder() == tmp_path / ".cache/langslice"
    assert "LANGSLICE_CACHE" not in os.environ


def weights(place):
    tokenizer = open_tokenizer(place)
    language = parse_languages(["ko"])[0]
    return language_criterion(tokenizer, token_scripts(tokenizer), language).weights, tokens_of(tokenizer, ["query: "])


def test_words_and_texts_are_those_of_the_tokenizer_that_is_asked(folder, zoo, tmp_path):
    place = shutil.copytree(zoo("llama"), tmp_path / "model")
    with without_cache():
        expected = weights(place)
    first, second = weights(place), weights(place)
    assert (folder / "words").is_dir() and (folder / "texts").is_dir()
    for found in (first, second):
        assert np.array_equal(found[0], expected[0]) and found[1] == expected[1]
    assert expected[0].any() and expected[1]
    document = json.loads((place / "tokenizer.json").read_text())
    document["model"]["vocab"] = document["model"]["vocab"][:60]
    (place / "tokenizer.json").write_text(json.dumps(document))
    changed = weights(place)
    with without_cache():
        assert np.array_equal(changed[0], weights(place)[0]) and len(changed[0]) < len(expected[0])


def test_a_second_slice_by_languages_loads_neither_torch_nor_the_whole_tokenizer(folder, tmp_path):
    program = (
        "import sys, langslice\n"
        "from langslice.tokenizer import folder\n"
        "loads = []\n"
        "load = folder._load_file\n"
        "folder._load_file = lambda *given: loads.append(1) or load(*given)\n"
        "made = langslice.slice('mini', sys.argv[1], languages='ko,en', verify=False)\n"
        "print('torch' in sys.modules, len(loads), made.plan.checked)"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / str(run))], capture_output=True, text=True, check=True
        ).stdout.split()
        for run in range(2)
    ]
    assert found[0][:2] == ["False", "1"] and found[1][:2] == ["False", "0"]
    assert found[0][2] == found[1][2]
    plans = [json.loads((tmp_path / str(run) / "slice.json").read_text())["plan"] for run in range(2)]
    assert plans[0] == plans[1]
    assert Path(tmp_path / "1" / "model.safetensors").read_bytes() == (tmp_path / "0/model.safetensors").read_bytes()
