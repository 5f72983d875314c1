"""How a checkpoint says that its weights are stored quantised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def quantisation(config: Mapping[str, Any]) -> str:
    """The method that config.json names, in its top or in the part of a text model; "" for plain weights.

    Example  {"quantization_config": {"quant_method": "gptq"}} gives "gptq"
    """
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        given = part.get("quantization_config")
        if given:
            return str(given.get("quant_method") or "unnamed") if isinstance(given, dict) else "unnamed"
    return ""
