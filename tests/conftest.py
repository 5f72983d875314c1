"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real tokenizers, weights and text; skips where it is absent, but fails in CI."""
    default = Path(__file__).parents[1] / ".." / "shared" / "assets"
    folder = Path(os.environ.get("LANGSLICE_ASSETS", default)).resolve()
    if not (folder / "tokenizers").is_dir():
        reason = f"no real tokenizers and text at {folder}; set LANGSLICE_ASSETS"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
