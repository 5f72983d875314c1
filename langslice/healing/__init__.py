"""Heal a slice: train it on, alone or towards the model that it was cut from; pruned weights stay zero.

The files, in reading order:

    options.py      what a run is asked to do
    main.py       the main flow: check → read text → teach → train → write
    student.py       the model in float32, and which of its parameters train
    sequences.py          text → rows of tokens, in an order that the seed fixes
    objectives.py    rows → what the model reads and what it should say
    teacher.py       the original: is it the right one, and how its rows and layers map to the slice's
    teacher_cache.py its best guesses, kept on disk
    distillation.py  losses towards it
    lora.py          low-rank adapters, also on pruned weights
    zeros.py         weights that stay zero
    trainer.py      transformers' Trainer, with exact resume
    work_folder.py          the folder that a killed run goes on from
    sentence_embeddings.py     the same for sentence embedding models
    trained_weights.py       trained weights into a copy of the slice
    curves.py        loss curves as table and picture
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langslice.healing.main import HealResult, heal
    from langslice.healing.options import HealSettings

__all__ = ["HealResult", "HealSettings", "heal"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used."""
    if name == "HealSettings":
        from langslice.healing.options import HealSettings

        return HealSettings
    if name in __all__:
        from langslice.healing import main as healing

        return getattr(healing, name)
    raise AttributeError(f"module 'langslice.healing' has no attribute {name!r}")
