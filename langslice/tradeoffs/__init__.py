"""What a smaller vocabulary costs a model, measured without writing one.

Reading order: in_memory.py (the slice of a plan as a model in memory), losses.py (what it loses on text), costs.py (which tokens
are dear), ladder.py (one size after another), trial.py (one text, spelled and answered), main.py (the flow), table.py and
picture.py (what people see).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.tradeoffs.ladder import Rung
    from langslice.tradeoffs.losses import Loss
    from langslice.tradeoffs.main import Tradeoff
    from langslice.tradeoffs.options import TradeoffOptions, TrialOptions
    from langslice.tradeoffs.trial import TextTrial, try_text

__all__ = ["Loss", "Rung", "TextTrial", "Tradeoff", "TradeoffOptions", "TrialOptions", "try_text"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.tradeoffs.ladder": ("Rung",),
        "langslice.tradeoffs.losses": ("Loss",),
        "langslice.tradeoffs.main": ("Tradeoff",),
        "langslice.tradeoffs.options": ("TradeoffOptions", "TrialOptions"),
        "langslice.tradeoffs.trial": ("TextTrial", "try_text"),
    },
)
