"""Memory and speed, measured in processes that take turns."""

from __future__ import annotations

import os

import pytest

from langslice.errors import TaskError
from langslice.evaluation.speed import _map, _mapped_pages, _memory, speed_rounds


def test_a_model_that_does_not_run_is_named(zoo, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TaskError, match=f"speed of {tmp_path} could not be measured\n  .*\nhint: leave `speed` out"):
        speed_rounds({"damaged": tmp_path, "waiting": zoo("llama")}, rounds=1)


def test_a_fork_has_the_pages_of_files_in_memory_that_it_was_forked_with():
    """Otherwise those that it reads again are counted as memory of its model, some 7 MB of 60 for the packaged model."""
    import torch  # noqa: F401

    pages = _mapped_pages()
    assert len(pages) * os.sysconf("SC_PAGE_SIZE") > 16_000_000
    reading, writing = os.pipe()
    held = _memory("VmRSS")
    child = os.fork()
    if child == 0:
        before = _memory("VmRSS")
        _map(pages)
        os.write(writing, f"{before} {_memory('VmRSS')}".encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    before, after = map(int, os.read(reading, 100).split())
    assert before < 0.95 * held
    assert after == pytest.approx(held, rel=0.02)
