"""Heal a slice: train it on, alone or towards the model that it was sliced from; pruned weights stay zero.

The files, in reading order:

    options.py      what a run is asked to do
    main.py       the main flow: check → read text → teach → train → write
    student.py       the model in float32, and which of its parameters train
    sequences.py          text → sequences of tokens, in an order that the seed fixes
    objectives.py    sequences → what the model reads and what it should say
    teacher.py       the original: is it the right one, and how its rows and layers map to the slice's
    teacher_cache.py its top-k logits, kept on disk
    distillation.py  losses towards it
    lora.py          low-rank adapters, also on pruned weights
    zeros.py         weights that stay zero
    trainer.py      transformers' Trainer, with exact resume
    work_folder.py          the folder that a killed run goes on from
    sentence_embeddings.py     the same for sentence embedding models
    trained_weights.py       trained weights into a copy of the slice
    curves.py        loss curves as table and plot
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.healing.main import HealResult
    from langslice.healing.main import heal as heal
    from langslice.healing.options import HealOptions

__all__ = ["HealOptions", "HealResult"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.healing.main": (
            "HealResult",
            "heal",
        ),
        "langslice.healing.options": ("HealOptions",),
    },
)
