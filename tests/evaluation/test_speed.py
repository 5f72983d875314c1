"""Memory and speed, measured in processes that take turns."""

from __future__ import annotations

import pytest

from langslice.errors import TaskError
from langslice.evaluation.speed import speed_rounds


def test_a_model_that_does_not_run_is_named(zoo, tmp_path):
    """The processes of the others wait for a turn that never comes: they are ended."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TaskError, match=f"speed of {tmp_path} could not be measured\n  .*\nhint: leave `speed` out"):
        speed_rounds({"damaged": tmp_path, "waiting": zoo("llama")}, rounds=1)
