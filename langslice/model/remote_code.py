"""Code that a model folder brings along: run only where the user trusts it, then known beside transformers' own classes.

What is imported stays known for the rest of the process, as any module that was imported does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from langslice.errors import CheckpointError
from langslice.model.class_shapes import TRUSTED, quiet_transformers

AUTO_MAP: Final = "auto_map"
_CONFIG: Final = "AutoConfig"
_OPTION: Final = "--trust-remote-code"


def trust_hint(config: Mapping[str, Any]) -> str:
    """What to do about a model type that transformers does not have; "" where its folder brings no code."""
    if not isinstance(config.get(AUTO_MAP), Mapping):
        return ""
    return f"its folder brings code for it: read that, and add {_OPTION}"


def trust_code(folder: Path, config: Mapping[str, Any]) -> str:
    """Import the classes that `auto_map` in config.json names, and make them known; a sentence that says which files ran.

    folder   of the model; nothing is fetched
    Returns  "" where the folder brings no code for models
    Raises   CheckpointError for a model type that transformers has itself, whose class would be replaced, and for code that
             cannot be imported
    """
    named = config.get(AUTO_MAP)
    if not isinstance(named, Mapping) or _CONFIG not in named:
        return ""
    from transformers import CONFIG_MAPPING, AutoConfig

    model_type = str(config.get("model_type"))
    if model_type in CONFIG_MAPPING and model_type not in CONFIG_MAPPING._extra_content:
        raise CheckpointError(
            f"{folder}: its code would take the place of transformers' own `{model_type}`",
            hint=f"leave out {_OPTION} to slice it as that; or give it a model type of its own",
        )
    with quiet_transformers():
        try:
            classes = {auto: _imported(folder, reference) for auto, reference in named.items() if _is_class(auto)}
            AutoConfig.register(model_type, classes[_CONFIG], exist_ok=True)
            _register_models(classes)
        except Exception as error:  # somebody else's code raises anything
            raise CheckpointError(
                f"{folder}: its code cannot be used: {type(error).__name__}: {' '.join(str(error).split())}",
                hint="its modeling files must fit the installed transformers",
            ) from error
    TRUSTED.update({found.__name__: found for found in classes.values()})
    files = sorted({f"{str(named[auto]).rpartition('--')[2].rpartition('.')[0]}.py" for auto in classes})
    return f"code of the model folder was run: {', '.join(files)} ({_OPTION})"


def _is_class(auto: str) -> bool:
    return auto == _CONFIG or auto.startswith("AutoModel")


def _imported(folder: Path, reference: Any) -> Any:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    return get_class_from_dynamic_module(str(reference), str(folder), local_files_only=True)


def _register_models(classes: Mapping[str, Any]) -> None:
    """Let transformers' automatic classes find them, which loads them without another word of trust."""
    import transformers

    for auto, found in classes.items():
        if auto != _CONFIG and hasattr(transformers, auto):
            getattr(transformers, auto).register(classes[_CONFIG], found, exist_ok=True)
