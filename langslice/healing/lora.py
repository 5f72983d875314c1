"""Low-rank adapters (LoRA, Hu et al. 2021) through peft: put on linear layers, trained, and merged into the weights again.

Where a weight is pruned, its adapter's product is masked while it trains, in every forward pass: what is merged at the end is
what was trained, and the zeros stay. Merging a plain adapter and zeroing again would be another function.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from types import MethodType
from typing import Any

from langslice.errors import HealError
from langslice.healing.options import HealOptions
from langslice.healing.zeros import Held

_ADAPTER = "default"


def add_lora(model: Any, settings: HealOptions, held: Held) -> Any:
    """Put adapters on a model, in place; its own parameters train no longer, unless `--train` names them.

    Returns  peft's wrapper, which merges or saves
    Raises   HealError without peft, when nothing matches, and for an adapter alone on pruned weights
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise HealError("--lora needs the package `peft`", 'pip install "langslice[lora]"') from error
    import transformers

    from langslice.model.transformers_classes import quiet_transformers

    targets = linear_layers(model, settings.lora_targets)
    kept = {id(parameter) for parameter, _ in held.masks.values()}
    pruned = [name for name in targets if id(model.get_submodule(name).weight) in kept]
    if pruned and settings.keep_adapter:
        raise HealError(
            f"--keep-adapter: {len(pruned)} layers are pruned, {pruned[0]} for one, and an adapter alone would fill their zeros",
            "leave --keep-adapter out: merged, it is masked",
        )
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    named = dict(model.named_parameters())
    transformers.set_seed(settings.seed)
    config = LoraConfig(
        r=settings.lora, lora_alpha=settings.lora_alpha or 2 * settings.lora, target_modules=targets, lora_dropout=0.0
    )
    with quiet_transformers():
        wrapper = get_peft_model(model, config, adapter_name=_ADAPTER)
    if settings.train != ("all",):
        for name in trained:
            named[name].requires_grad_(True)
    masks = {id(parameter): mask for parameter, mask in held.masks.values()}
    for name in pruned:
        layer = model.get_submodule(name)
        _mask_adapter(layer, masks[id(layer.get_base_layer().weight)])
    return wrapper


def linear_layers(model: Any, patterns: Sequence[str]) -> list[str]:
    """Names of linear layers that match, the output head left out unless a pattern names it.

    Raises  HealError when there are none
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    unmatched = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in linears)]
    if unmatched:
        raise HealError(
            f"--lora-targets {unmatched[0]} matches no linear layer",
            f"names are like {linears[len(linears) // 2]}" if linears else "the model has no linear layers",
        )
    if patterns:
        return [name for name in linears if any(fnmatchcase(name, pattern) for pattern in patterns)]
    found = [name for name in linears if model.get_submodule(name) is not head]
    if not found:
        raise HealError("--lora found no linear layer to adapt", "train the weights themselves: leave --lora out")
    return found


def merge_lora(wrapper: Any) -> Any:
    """The model with the adapters added to its weights, and its modules as they were."""
    return wrapper.merge_and_unload()


def _mask_adapter(layer: Any, mask: Any) -> None:
    """Give a LoRA layer a product that is zero where its weight is, in the forward pass and in the merge."""
    plain = layer.get_delta_weight

    def masked_delta(self: Any, adapter: str) -> Any:
        nonlocal mask
        delta = plain(adapter)
        mask = mask.to(delta.device)  # once: the model moves after this
        return delta.masked_fill(mask, 0)

    def forward(self: Any, x: Any, *arguments: Any, **options: Any) -> Any:
        import torch

        base = self.get_base_layer()
        result = base(x, *arguments, **options)
        if self.disable_adapters or self.merged:
            return result
        delta = self.get_delta_weight(_ADAPTER)
        # Conv1D keeps (in, out), Linear (out, in); peft gives the product as the base layer stores it.
        delta = delta.T if self.fan_in_fan_out else delta
        return result + torch.nn.functional.linear(x, delta.to(x.dtype))

    layer.get_delta_weight = MethodType(masked_delta, layer)
    layer.forward = MethodType(forward, layer)
