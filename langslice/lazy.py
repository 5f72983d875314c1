"""Public names that are imported when they are first used, so that a package stays light."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, Sequence[str] | Mapping[str, str]]) -> Callable[[str], Any]:
    """A package's `__getattr__`.

    package  its name, for the message about a name that it has not
    homes    module -> the names that are there, or the public name -> the one that it has there
    Example  __getattr__ = lazy_names(__name__, {"langslice.healing.main": ("heal", "HealResult")})
    """
    places = {
        name: (module, names[name] if isinstance(names, Mapping) else name)
        for module, names in homes.items()
        for name in names
    }

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, there = places[name]
        return getattr(import_module(module), there)

    return find
