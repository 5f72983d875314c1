"""adapter_config.json of a LoRA that moves between a model and its slice: what is carried, what must be said anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langslice.errors import PlanError
from langslice.files.json_forms import check_form

# Settings that mean the same for another number of tokens, layers, heads and neurons.
_PLAIN = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "exclude_modules",
    "eva_config", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
    "lora_alpha", "lora_bias", "lora_dropout", "megatron_core", "modules_to_save", "peft_type", "peft_version",
    "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules", "task_type",
    "trainable_token_indices", "use_dora", "use_rslora",
})  # fmt: skip
# Ways to begin that change the base's weights, so that the adapter fits only those.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_FORM = {
    "r?": (None, int), "lora_alpha?": (None, float), "rank_pattern?": (None, {"*": int}), "alpha_pattern?": (None, {"*": float}),
    "base_model_name_or_path?": (None, str), "fan_in_fan_out?": (None, bool), "init_lora_weights?": (None, bool, str),
    "target_modules?": (None, str, [str]), "trainable_token_indices?": (None, [int], {"*": [int]}),
}  # fmt: skip


def refuse_unknown(config: Mapping[str, Any], path: Path) -> None:
    """Stop at a kind of adapter, or a setting, of which nobody knows what it means for a slice.

    Raises   PlanError that names it
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise PlanError(f"{path}: an adapter of type {kind!r} cannot be carried", "LoRA can, with DoRA and rsLoRA")
    for key, value in config.items():
        if key not in _PLAIN and value not in (None, False, [], {}, "", 0):
            raise PlanError(
                f"{path}: setting `{key}` = {value!r} is not understood, and may name layers, sizes or tokens",
                "train without it, or merge the adapter into the model first",
            )
    check_form(dict(config), _FORM, str(path), PlanError, "peft wrote something else; save the adapter again")
    for pattern in config.get("alpha_pattern") or ():
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise PlanError(f"{path}: `alpha_pattern`: {pattern!r} is no pattern: {error}", None) from None
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise PlanError(
            f"{path}: the adapter was begun with `{start}`, which changes the base's weights",
            "convert it with peft's path_initial_model_for_weight_conversion first",
        )


def carried_config(
    config: Mapping[str, Any],
    modules: Mapping[str, str],
    ranks: Mapping[str, int],
    token_ids: Mapping[str, list[int]],
    base: str,
    *,
    renumbered: bool,
) -> dict[str, Any]:
    """The configuration of the carried adapter.

    modules      module in the adapter -> module in the output, of all that were carried
    ranks        module in the output -> rank
    token_ids    module of trained tokens ("" for a plain list) -> their new ids
    base         what the carried adapter belongs to
    renumbered   whether layers were: then modules are named one by one
    """
    result = {**config, "base_model_name_or_path": base, "revision": None}
    if token_ids:
        given = config["trainable_token_indices"]
        result["trainable_token_indices"] = dict(token_ids) if isinstance(given, dict) else token_ids[""]
    if not renumbered:
        return result
    default_alpha = config.get("lora_alpha")
    patterns: Mapping[str, Any] = config.get("alpha_pattern") or {}
    alphas = {new: _by_pattern(old, patterns, default_alpha) for old, new in modules.items() if new in ranks}
    result["target_modules"] = sorted(ranks)
    result["rank_pattern"] = {name: rank for name, rank in sorted(ranks.items()) if rank != config.get("r")}
    result["alpha_pattern"] = {name: alpha for name, alpha in sorted(alphas.items()) if alpha != default_alpha}
    for key in ("layers_to_transform", "layers_pattern", "exclude_modules"):
        if key in result:
            result[key] = None
    return result


def _by_pattern(module: str, patterns: Mapping[str, Any], default: Any) -> Any:
    """The value of the first pattern that fits a module's whole path or its end, as peft looks it up."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
