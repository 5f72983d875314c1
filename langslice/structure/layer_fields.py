"""What config.json says layer by layer, for the layers that stay: counts, lists, maps by number, and strings of kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy
from langslice.model.derived_layers import is_by_number

# Lists that may be as long as the model has layers, and have nothing to do with them.
_OTHER_LISTS = frozenset({"architectures", "pos_att_type", "id2label", "suppress_tokens", "begin_suppress_tokens"})
# A character for each layer: what kind it is of.
_PATTERN = "hybrid_override_pattern"


def layer_fields(anatomy: Anatomy, layers: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Fields that change with the layers: counts, lists with one entry per layer, places of layers."""
    config: dict[str, Any] = {}
    if layers and anatomy.config.get("scale_attn_by_inverse_layer_idx"):
        raise PlanError(
            "layers of this model cannot be removed: `scale_attn_by_inverse_layer_idx` makes each depend on its number",
            hint="heads and neurons can be pruned",
        )
    for stack, stay in layers.items():
        fields = anatomy.fields(stack)
        count = anatomy.layers[stack]
        config[fields.layers] = len(stay)
        _refuse_unknown_lists(anatomy, count)
        _refuse_unwritten_lists(anatomy, stay)
        for name in anatomy.body.lists:
            values = anatomy.config.get(name)
            if name == "mlp_only_layers":
                dense = [layer for layer in stay if layer not in anatomy.expert_layers[stack]]
                config[name] = [stay.index(layer) for layer in dense]
                config["decoder_sparse_step"] = 1
            elif isinstance(values, list) and len(values) == count:
                config[name] = [values[layer] for layer in stay]
            elif isinstance(values, Mapping):
                by_layer = {int(key): value for key, value in values.items()}
                config[name] = {str(new): by_layer[old] for new, old in enumerate(stay) if old in by_layer}
        pattern = anatomy.given.get(_PATTERN)
        if isinstance(pattern, str) and len(pattern) == count:
            config[_PATTERN] = "".join(pattern[layer] for layer in stay)
        first_sliding = anatomy.config.get("max_window_layers")
        if isinstance(first_sliding, int):
            config["max_window_layers"] = sum(layer < first_sliding for layer in stay)
    return config


def _refuse_unwritten_lists(anatomy: Anatomy, stay: tuple[int, ...]) -> None:
    """A list that neither config.json nor its class writes out: early versions of transformers know it by a layer's place.

    Without the last layers every layer keeps its place.
    """
    if stay == tuple(range(len(stay))) or not anatomy.body.alternates:
        return
    for name in anatomy.body.lists:
        if name not in anatomy.config:
            import transformers

            raise PlanError(
                f"only the last layers of this model can be removed here: config.json has no `{name}`, and transformers "
                f"{transformers.__version__} derives it from a layer's place",
                hint="transformers 5 writes the list out: update it, or drop only the last layers",
            )


def _refuse_unknown_lists(anatomy: Anatomy, count: int) -> None:
    """A list with as many entries as there are layers may hold one for each."""
    from langslice.model.token_id_fields import is_id_field

    for name, value in anatomy.config.items():
        if name in anatomy.body.lists or name in _OTHER_LISTS or is_id_field(name):
            continue
        by_number = isinstance(value, Mapping) and is_by_number(value)
        if by_number or (isinstance(value, list) and len(value) == count):
            raise PlanError(
                f"config.json: `{name}` may hold one entry for each of the {count} layers, and is not in the table",
                hint="add it to the family's `lists` in langslice/model/layer_fields.py if it holds one entry per layer",
            )
