"""The files of a slice whose layers have sizes of their own: `sliced_shapes` in config.json, and model/modeling_sliced.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langslice.errors import PlanError
from langslice.files.gather_rows import sliced_shape
from langslice.model.anatomy import Anatomy
from langslice.structure.edits import layer_edits
from langslice.structure.kept import Kept
from langslice.structure.output_form import key_values, queries

MODULE = "modeling_sliced"
# Auto class -> transformers' own table of its classes.
_AUTO_CLASSES = {
    "AutoModel": "MODEL_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForSpeechSeq2Seq": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
}


def stock_classes(model_type: str, architectures: tuple[str, ...]) -> dict[str, str]:
    """Auto class -> unmodified class, for all tasks that transformers has the model type for.

    Raises   PlanError where transformers knows none
    """
    import transformers
    from transformers.models.auto import modeling_auto

    found: dict[str, str] = {}
    for auto, table in _AUTO_CLASSES.items():
        names = getattr(modeling_auto, table, {}).get(model_type)
        name = names[0] if isinstance(names, list | tuple) else names
        if name and hasattr(transformers, name):
            found[auto] = name
    for name in architectures:
        if name not in found.values() and hasattr(transformers, name):
            found.setdefault("AutoModelForPreTraining", name)
    if not found:
        raise PlanError(
            f"this version of transformers has no class for `{model_type}`, so per-layer sizes cannot be written",
            hint="--output-style masked writes zeros instead",
        )
    return found


def sliced_fields(
    anatomy: Anatomy, kept: Kept, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields that config.json needs next to those of the plan: `sliced_shapes`, `auto_map`.

    shapes  of the source's tensors
    """
    classes = stock_classes(str(config["model_type"]), tuple(config.get("architectures") or ()))
    prefix = _body_prefix(classes)
    parameters: dict[str, list[int]] = {}
    for name, edit in layer_edits(anatomy, kept, shapes).items():
        if edit.action == "slice" and name in anatomy.places:
            parameters[(edit.name or name).removeprefix(prefix)] = list(sliced_shape(shapes[name], edit.indices))
    sizes: dict[str, Any] = {"parameters": parameters, "attributes": _attributes(anatomy, kept, prefix)}
    if anatomy.body.slopes and kept.heads:
        sizes["slopes"] = {
            module: list(queries(anatomy, kept, place, layer))
            for place, layer, module in _attention_modules(anatomy, kept, prefix)
        }
    if anatomy.body.first_bias and kept.heads:
        sizes |= _biases(anatomy, kept, prefix)
    return {
        "sliced_shapes": sizes,
        "auto_map": {auto: f"{MODULE}.{name}" for auto, name in classes.items()},
    }


def _biases(anatomy: Anatomy, kept: Kept, prefix: str) -> dict[str, Any]:
    """Which columns of block 0's position bias each self-attention takes, and how many a cross-attention."""
    own: dict[str, Any] = {}
    cross: dict[str, int] = {}
    modules = _modules(anatomy, kept, prefix)
    for (place, layer), module in modules.items():
        stay = list(queries(anatomy, kept, place, layer))
        if place.endswith(".cross"):
            cross[module] = len(stay)
            continue
        layers = sorted(number for key, number in modules if key == place)
        before = layers[max(layers.index(layer) - 1, 0)]
        heads = {"own": stay, "before": list(queries(anatomy, kept, place, before))}
        own[module] = {"first": modules[place, layers[0]], "heads": heads}
    return {"position_bias": own, "cross_bias": cross}


def _body_prefix(classes: Mapping[str, str]) -> str:
    """What is before the names of the body's tensors in a model with a head."""
    import transformers

    prefix: str = getattr(transformers, next(iter(classes.values()))).base_model_prefix
    return f"{prefix}." if prefix else ""


def _attention_modules(anatomy: Anatomy, kept: Kept, prefix: str) -> list[tuple[str, int, str]]:
    """Attention, old layer and new module name of every attention that lost heads."""
    return [
        (place, layer, module)
        for (place, layer), module in _modules(anatomy, kept, prefix).items()
        if layer in kept.heads.get(place, {})
    ]


def _modules(anatomy: Anatomy, kept: Kept, prefix: str) -> dict[tuple[str, int], str]:
    """Attention and old layer -> new name of the module that holds its query projection, for all layers that stay."""
    found: dict[tuple[str, int], str] = {}
    for name, place in anatomy.places.items():
        axes = set(anatomy.axes[name] or ())
        if not kept.keeps_layer(place.stack, place.layer) or "output" in place.rest:
            continue
        if axes & {"heads", "qkv"} and "hidden" in axes:
            number = kept.new_layer(place.stack, place.layer)
            module = f"{place.before}{number}.{place.rest}".rpartition(".")[0].rpartition(".")[0]
            found.setdefault((place.attention_key, place.layer), module.removeprefix(prefix))
    return found


def _attributes(anatomy: Anatomy, kept: Kept, prefix: str) -> dict[str, dict[str, int]]:
    """What attention modules of the unmodified class remember of their number of heads."""
    attributes: dict[str, dict[str, int]] = {}
    for place, layer, module in _attention_modules(anatomy, kept, prefix):
        heads = anatomy.heads[place][layer]
        query, key_value = len(queries(anatomy, kept, place, layer)), len(key_values(anatomy, kept, place, layer))
        own = dict.fromkeys(anatomy.body.head_counts, query)
        own.update(dict.fromkeys(anatomy.body.head_widths, query * heads.size))
        if anatomy.fields(place.split(".")[0]).kv_heads:
            own.update(num_key_value_groups=query // key_value, num_kv_heads=key_value, num_key_value_heads=key_value)
        if own:
            attributes[module] = own
    return attributes


def write_module(folder: Path, config: Mapping[str, Any]) -> None:
    """Write model/modeling_sliced.py, with one class for each unmodified class that config.json maps."""
    source = (Path(__file__).parents[1] / "model" / f"{MODULE}.py").read_text(encoding="utf-8")
    names = sorted({entry.rpartition(".")[2] for entry in config["auto_map"].values()})
    lines = [f"{name} = sliced(transformers.{name}, __file__)" for name in names]
    source = source.replace("from torch import empty, nn\n", "import transformers\nfrom torch import empty, nn\n", 1)
    (folder / f"{MODULE}.py").write_text(source + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
