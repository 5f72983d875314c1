"""Modules of sentence-transformers behind the transformer that know how many layers it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langslice.errors import PlanError
from langslice.files.json_forms import parse_json

# Modules with a weight for the output of every layer.
_COUNTS_LAYERS = frozenset({"WeightedLayerPooling"})


def refuse_counted_layers(root: Path) -> None:
    """Refuse to cut layers where a module behind the model weighs their outputs one by one.

    root     folder with modules.json, where there is one
    Raises   PlanError that names the module
    """
    listing = root / "modules.json"
    modules: Any = parse_json(listing.read_bytes()) if listing.is_file() else []
    for module in modules if isinstance(modules, list) else []:
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        if kind in _COUNTS_LAYERS:
            raise PlanError(
                f"no layer of this model can be cut: `{module.get('path')}` ({kind}) holds a weight for the output of each",
                hint="its heads, neurons and vocabulary can be cut; layers once another pooling was trained in its place",
            )
