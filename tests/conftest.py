"""Fixtures for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real tokenizers, weights and text; skips where it is absent, but not in continuous integration."""
    folder = Path(os.environ.get("LANGSLICE_ASSETS", Path(__file__).parents[1] / ".." / "shared" / "assets"))
    if not (folder / "tokenizers").is_dir():
        reason = f"no real tokenizers at {folder}: set LANGSLICE_ASSETS"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
