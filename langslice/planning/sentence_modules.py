"""What a sentence-transformers folder says of the layers of its transformer, next to config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langslice.errors import PlanError
from langslice.files.json_forms import parse_json
from langslice.model.anatomy import Anatomy
from langslice.model.checkpoint import Checkpoint

# Modules with a weight for the output of every layer.
_COUNTS_LAYERS = frozenset({"WeightedLayerPooling"})
# Modules without weights, for states of any size.
_ANY_WIDTH = frozenset({"Transformer", "Pooling", "Normalize", "Dropout"})
# Entries of sentence_bert_config.json and its like that take the place of fields of config.json when the model is loaded.
_OVERRIDES = ("config_kwargs", "config_args", "model_kwargs", "model_args")


def refuse_what_they_fix(checkpoint: Checkpoint, anatomy: Anatomy, *, layers: bool) -> None:
    """Refuse a structural slice that a module of sentence-transformers would contradict.

    layers   whether layers are to go
    Raises   PlanError that names the module or the file
    """
    if layers:
        _refuse_counted_layers(checkpoint.folder)
    stacks = anatomy.body.stacks.values()
    fields = {name for one in stacks for name in (one.layers, one.heads, one.neurons, one.kv_heads, one.experts)}
    fields |= {name for one in stacks if one.routing is not None for name in (one.routing.experts, one.routing.groups)}
    residual = anatomy.body.residual
    fields |= {anatomy.body.head_size, *anatomy.body.lists, *([residual.size] if residual is not None else [])}
    for path in sorted(checkpoint.model_folder.glob("sentence_*_config.json")):
        document = parse_json(path.read_bytes())
        for entry in _OVERRIDES:
            given = document.get(entry) if isinstance(document, dict) else None
            for name in sorted(fields & set(given if isinstance(given, dict) else ())):
                raise PlanError(
                    f"{path.name}: `{entry}` sets `{name}` in the place of config.json, so no size of this model can be sliced",
                    hint=f"write `{name}` into config.json and take it out of {path.name}",
                )


def _refuse_counted_layers(root: Path) -> None:
    listing = root / "modules.json"
    modules: Any = parse_json(listing.read_bytes()) if listing.is_file() else []
    for module in modules if isinstance(modules, list) else []:
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        if kind in _COUNTS_LAYERS:
            raise PlanError(
                f"no layer of this model can be removed: `{module.get('path')}` ({kind}) holds a weight for the output of each",
                hint="its heads, neurons and vocabulary can be sliced; layers once another pooling was trained in its place",
            )


def refuse_fixed_width(checkpoint: Checkpoint) -> None:
    """Refuse fewer hidden dimensions where a module after the transformer has weights for each.

    Raises   PlanError that names the module
    """
    listing = checkpoint.folder / "modules.json"
    modules: Any = parse_json(listing.read_bytes()) if listing.is_file() else []
    for module in modules if isinstance(modules, list) else []:
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        if kind not in _ANY_WIDTH:
            raise PlanError(
                f"no hidden dimension of this model can be removed: `{module.get('path')}` ({kind}) after the transformer may have "
                "weights for each",
                hint="slice the transformer inside as a model of its own, and train the module anew",
            )
