"""The unmodified class of a checkpoint with its buffers and without its weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from langslice.errors import CheckpointError
from langslice.model.checkpoint import Checkpoint
from langslice.model.transformers_classes import model_class, quiet_transformers


def empty_model(checkpoint: Checkpoint) -> Any:
    """The unmodified class with its buffers and without its weights."""
    import transformers
    from accelerate import init_empty_weights

    stock = model_class(checkpoint.model_folder)
    if stock is None:
        raise CheckpointError(
            f"transformers {transformers.__version__} has no class for this model\n  {checkpoint.model_folder}\n"
            f"  architectures: {checkpoint.config.get('architectures')}",
            "code of a model folder is run only with --trust-remote-code",
        )
    with quiet_transformers(), init_empty_weights(include_buffers=False):
        config = transformers.AutoConfig.from_pretrained(checkpoint.model_folder, trust_remote_code=False)
        for one in (config, *(getattr(config, name, None) for name in ("text_config", "decoder", "encoder"))):
            if hasattr(one, "use_cache"):
                one.use_cache = False
            if hasattr(one, "_experts_implementation"):
                one._experts_implementation = "eager"  # one expert after another, whose inputs can be told apart
        model = stock._from_config(config)
    if model.main_input_name != "input_ids":
        raise CheckpointError(
            f"{stock.__name__} reads {model.main_input_name}, expected a model that reads text",
            "calibration data is text; speech and vision models cannot be calibrated with it",
        )
    return model.eval()


def position_tables(model: Any) -> Iterator[tuple[str, Any]]:
    """Tables of a block that later blocks read anew: T5's position biases, where blocks keep different heads."""
    body = getattr(model, model.base_model_prefix, model)
    entries = (getattr(model.config, "sliced_shapes", None) or {}).get("position_bias", {}).values()
    tables = {id(body.get_submodule(entry["first"]).relative_attention_bias) for entry in entries}
    return ((path, module) for path, module in model.named_modules() if id(module) in tables)


def compute_positions(module: Any) -> bool:
    """Fill a table of sinusoidal positions that checkpoints leave out (Marian, Pegasus); False for any other module."""
    import torch

    fill = getattr(module, "create_weight", None) or getattr(module, "_init_weight", None)
    if fill is None or not isinstance(module, torch.nn.Embedding):
        return False
    module._parameters["weight"] = torch.nn.Parameter(torch.empty(module.weight.shape), requires_grad=False)
    # Versions before 4.51 fill a parameter that they are given.
    made = fill(module.weight) if inspect.signature(fill).parameters else fill()
    if isinstance(made, torch.Tensor):
        module._parameters["weight"] = torch.nn.Parameter(made, requires_grad=False)
    return True
