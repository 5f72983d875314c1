"""What unmodified transformers makes of a folder: its class, the keys it misses, the ids it supplies by itself.

Everything that asks transformers is here and in verification/outputs.py; code in a checkpoint is run
only where the user trusts it (remote_code.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version as installed
from inspect import signature
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError
from langslice.files.user_cache import cached
from langslice.model.checkpoint import Checkpoint
from langslice.model.class_shapes import named_class, stock_config
from langslice.model.class_shapes import quiet_transformers as quiet_transformers
from langslice.model.token_id_fields import find_id_fields, find_sizes, value_at
from langslice.version import __version__


def model_class(folder: Path) -> Any:
    """The class that config.json names and transformers has; None where there is none.

    For a slice with per-layer sizes it is that class with those sizes, built by this package: the modeling_sliced.py in the
    folder, which does the same for clients, is not run.

    Raises   CheckpointError for a configuration that its class does not take
    """
    import transformers

    if not (folder / "config.json").is_file():
        return None
    with quiet_transformers():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except ValueError:
            # A model type that this version of transformers does not have.
            return None
        except Exception as error:  # validators of configurations raise what is no ValueError
            raise CheckpointError(
                f"{folder}: transformers {transformers.__version__} cannot read its config.json: {' '.join(str(error).split())}"
            ) from error
    for name in config.architectures or ():
        if (stock := named_class(name)) is not None:
            if getattr(config, "sliced_shapes", None) is None:
                return stock
            from langslice.model.modeling_sliced import sliced

            return sliced(stock)
    return None


def dtype_option(dtype: Any) -> dict[str, Any]:
    """The option of `from_pretrained` for the type that weights are loaded in; its name changed in transformers 4.56."""
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    return {"dtype" if version >= (4, 56) else "torch_dtype": dtype}


# The argument that takes a cache, newest name first; transformers 5.24 renamed it.
_CACHE_NAMES = ("cache", "past_key_values")


def cache_option(model: Any, cache: Any) -> dict[str, Any]:
    """The argument of a model's forward that hands it a cache, under the name that its class takes; {} for None."""
    if cache is None:
        return {}
    known = signature(type(model).forward).parameters
    return {next((name for name in _CACHE_NAMES if name in known), _CACHE_NAMES[-1]): cache}


def cache_of(output: Any) -> Any:
    """The cache in what a model returns; None where there is none."""
    # Looked up among what is stored: asked for by its old name, an attribute would log a deprecation.
    stored = vars(output)
    cache = next((stored[name] for name in _CACHE_NAMES if name in stored), None)
    if not isinstance(cache, tuple):
        return cache
    # Some classes of transformers before 5 return plain tuples, and log a deprecation where they are handed one.
    from transformers import DynamicCache, EncoderDecoderCache

    return (EncoderDecoderCache if len(cache[0]) == 4 else DynamicCache).from_legacy_cache(cache)


def loading_report(checkpoint: Checkpoint) -> dict[str, set[str]] | None:
    """Keys that the unmodified class misses, does not expect, or finds in another shape; no weight is read.

    transformers reads the headers and fills the class on the meta device with tensors that have a shape and no data.
    Given the folder itself it would read every weight in versions before 5.

    Returns  {"missing": names, "unexpected": names, "mismatched": names with both shapes}, or None where no unmodified class
             is named
    Raises   CheckpointError when the class cannot be built from the tensors at all
    """
    folder = checkpoint.model_folder
    stock = model_class(folder)
    if stock is None:
        return None
    import transformers
    from transformers.modeling_utils import load_state_dict

    tensors: dict[str, Any] = {}
    with quiet_transformers():
        try:
            for path in {entry.path: None for entry in checkpoint.tensors.values()}:
                tensors |= load_state_dict(str(path), map_location="meta")
            # A mismatch is then listed by name, as the rest is; otherwise it raises, and hides the other two lists.
            model, info = stock.from_pretrained(
                None,
                config=transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False),
                state_dict=tensors,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:  # constructors raise anything, from KeyError to ImportError
            raise CheckpointError(
                f"{folder}: transformers {transformers.__version__} cannot build {stock.__name__} from its tensors: {error!r}"
            ) from error
    return {
        "missing": set(info["missing_keys"]),
        "unexpected": set(info["unexpected_keys"]),
        "mismatched": {_mismatch(entry, tensors, model) for entry in info["mismatched_keys"]},
    }


def _mismatch(entry: tuple[str, Any, Any] | str, tensors: Mapping[str, Any], model: Any) -> str:
    """The name of a tensor with the shape that is stored and the one that its class expects.

    entry  as transformers lists it; versions around 4.55 give the name in the class alone
    """
    if isinstance(entry, str):
        prefix = f"{model.base_model_prefix}."
        names = (entry, entry.removeprefix(prefix), f"{prefix}{entry}")
        entry = next((name, tensors[name].shape, model.state_dict()[entry].shape) for name in names if name in tensors)
    name, stored, expected = entry
    return f"{name}, stored {tuple(stored)}, expected {tuple(expected)}"


def implied_fields(
    config: Mapping[str, Any], *, rows: int, per_layer_rows: int | None, ignore: frozenset[str]
) -> tuple[dict[str, int | list[int]], dict[str, int]]:
    """What the unmodified configuration class supplies where config.json is silent: token ids, and sizes of the vocabulary.

    A slice that moves such a token, or has fewer rows, must write them out, or a client would go on using the old ones.
    Published Gemma 3 checkpoints, for one, leave their vocabulary's size to the class.

    rows            rows of the vocabulary; ids beyond it are not this model's and are left alone
    per_layer_rows  rows of the per-layer table, None where there is none
    Returns         dotted path -> id or ids, and dotted path -> size, as they are in the source
    """
    full = full_config(config)
    ids: dict[str, int | list[int]] = {}
    # Defaults may lie beyond a small vocabulary, where they name nothing.
    for field in find_id_fields(full, file="defaults", rows=1 << 62, ignore=ignore):
        value = value_at(full, field.path)
        flat = isinstance(value, int) or (isinstance(value, list) and all(isinstance(item, int) for item in value))
        if flat and field.ids and max(field.ids) < rows and not _is_given(config, field.path):
            ids[".".join(field.path)] = value
    sizes = {
        ".".join(path): size
        for path, size, expected in find_sizes(full, rows=rows, per_layer_rows=per_layer_rows)
        if size == expected and not _is_given(config, path)
    }
    return ids, sizes


def full_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with its class's defaults; empty where this version of transformers cannot read it.

    What the class says is kept in the user's cache, and asked of another process: importing it here would import torch, which
    takes a second or two and 200 MB, and has no part in configurations.
    """
    text = json.dumps(config)
    if {"transformers", "torch"} & sys.modules.keys():  # imported, and perhaps with classes that somebody registered
        return _full_config(config)
    versions = [installed(name) for name in ("transformers", "huggingface_hub")]
    found = cached(
        "configs",
        [text, *versions, __version__],
        lambda: _asked_apart(text) or json.dumps(_full_config(config)).encode(),
    )
    document: dict[str, Any] = json.loads(found)
    return document


_WITHOUT_TORCH = """
import importlib.util, json, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find(name, package)
from langslice.model.transformers_classes import _full_config
print(json.dumps(_full_config(json.load(sys.stdin))))
"""


def _asked_apart(text: str) -> bytes:
    """What a process that does not see torch says of a config.json, as JSON; b"" where it cannot say: it is asked here then."""
    if not sys.executable:  # Python inside another program
        return b""
    paths = [str(Path(entry).absolute()) for entry in sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", _WITHOUT_TORCH]
    try:
        done = subprocess.run(
            command, input=text.encode(), env=environment, capture_output=True, timeout=60, check=True
        )
        json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return b""
    return done.stdout


def _full_config(config: Mapping[str, Any]) -> dict[str, Any]:
    with quiet_transformers():
        try:
            full = stock_config(config).to_dict()
        except (ValueError, TypeError, KeyError):
            return {}
        except (AttributeError, IndexError, ArithmeticError, RecursionError) as error:  # what a wrong value runs into
            raise CheckpointError(
                f"transformers cannot read config.json\n  {type(error).__name__}: {error}",
                hint="correct the source's config.json",
            ) from None
        except _invalid_field() as error:
            raise CheckpointError(
                "transformers does not accept config.json\n  " + " ".join(str(error).split()),
                hint="correct that field of the source's config.json",
            ) from None
    document: dict[str, Any] = json.loads(json.dumps(full, default=str))
    return document


def config_error(config: Mapping[str, Any]) -> str:
    """What the configuration class has against a config.json; "" when it takes it, or this version does not know it."""
    from transformers import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        return ""
    with quiet_transformers():
        try:
            stock_config(config)
        except (ValueError, TypeError, KeyError, _invalid_field()) as error:
            return " ".join(str(error).split())
    return ""


def _invalid_field() -> type[Exception]:
    """What a field of the wrong type raises: an error of huggingface_hub's own since its version 1."""
    from huggingface_hub import errors

    found: type[Exception] = getattr(errors, "StrictDataclassError", TypeError)
    return found


def _is_given(config: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    try:
        value_at(config, path)
    except (KeyError, TypeError, IndexError):
        return False
    return True


def ties_embeddings(config: Mapping[str, Any]) -> bool:
    """Whether the unmodified class uses one table for the input embedding and the output head."""
    with quiet_transformers():
        full = stock_config(config)
    return bool(getattr(full, "tie_word_embeddings", False))
