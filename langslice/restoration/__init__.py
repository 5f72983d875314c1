"""The way back of `slice`: trained weights into the full model, and adapters between original and slice."""

from __future__ import annotations

from langslice.restoration.adapters import AdapterResult, carry_adapter
from langslice.restoration.main import RestoreResult, restore

__all__ = ["AdapterResult", "RestoreResult", "carry_adapter", "restore"]
