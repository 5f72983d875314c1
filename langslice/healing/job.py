"""What every healing run does around its training: parts that train, adapters, zeros, and the model that comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langslice.errors import HealError
from langslice.healing.options import HealOptions
from langslice.healing.student import choose_parts, load_student
from langslice.healing.trainer import Trained
from langslice.healing.zeros import Held, hold
from langslice.model.checkpoint import Checkpoint


@dataclass(frozen=True)
class Job:
    """A trained model, before it is written.

    model     with adapters merged; None where the adapter alone is written
    wrapper   peft's, where there is an adapter
    names     parameters that trained
    """

    model: Any
    wrapper: Any
    names: tuple[str, ...]
    trained: Trained
    wait: Any
    notes: tuple[str, ...] = ()


def prepare(
    model: Any, checkpoint: Checkpoint, settings: HealOptions, zeros: Mapping[str, int]
) -> tuple[Any, Any, tuple[str, ...], Held]:
    """Hold zeros, choose what trains, and put adapters on.

    Returns  the model, peft's wrapper or None, names that train, and the zeros that are held
    """
    names = tuple(choose_parts(model, model.config, settings.train))
    held = hold(model, dict(zeros))
    wrapper = None
    if settings.lora:
        from langslice.healing.lora import add_lora, linear_layers

        adapted = [f"{name}.weight" for name in linear_layers(model, settings.lora_targets)]
        names = tuple(dict.fromkeys([*adapted, *(names if settings.train != ("all",) else ())]))
        wrapper = add_lora(model, settings, held)
    return model, wrapper, names, held


def finish(trainer: Any, checkpoint: Checkpoint, settings: HealOptions, wrapper: Any, trained: Trained) -> Any:
    """The trained model, adapters merged; None where the adapter alone is kept."""
    if trained.state is not None:
        if wrapper is not None or settings.objective in ("contrastive", "mse"):
            raise HealError(
                "adapters and embedding models cannot be gathered from parameters spread over devices",
                "launch without FSDP and DeepSpeed",
            )
        return load_student(checkpoint)
    if wrapper is None:
        return trainer.model
    return None if settings.keep_adapter else wrapper.merge_and_unload()


def eval_every_steps(settings: HealOptions) -> int:
    """Steps between two measurements on held-out text."""
    return settings.eval_every or max(settings.steps // 10, 1)


def heldout_loss(trainer: Any) -> float:
    """Loss on the text that was held out, nats per token."""
    return float(trainer.evaluate()["eval_loss"])


def no_loss() -> None:
    """What is measured where no text is held out."""
