"""The way back of `slice`: trained weights into the full model, and adapters between original and slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.restoration.adapters import AdapterResult
    from langslice.restoration.adapters import carry_adapter as carry_adapter
    from langslice.restoration.main import RestoreResult
    from langslice.restoration.main import restore as restore
    from langslice.restoration.options import AdapterOptions, RestoreOptions

__all__ = ["AdapterOptions", "AdapterResult", "RestoreOptions", "RestoreResult"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.restoration.adapters": (
            "AdapterResult",
            "carry_adapter",
        ),
        "langslice.restoration.main": (
            "RestoreResult",
            "restore",
        ),
        "langslice.restoration.options": (
            "AdapterOptions",
            "RestoreOptions",
        ),
    },
)
