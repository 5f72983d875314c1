"""A combination, evaluated in memory: what the slice of it gives on text, without writing one.

The vocabulary is really cut: text is encoded anew, and rows are gathered. A layer that goes passes its input on, and heads and
neurons that go give zeros, experts that go are closed to their routers, and hidden dimensions that go are held at zero, which is
what the slice without them computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langslice.budgets.cut import Cut
from langslice.budgets.parts import Dropped
from langslice.evaluation.loaded_model import Loaded, model_kind
from langslice.healing.teacher import content_digest
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.scoring.model_runs import hooked, silencing, skipping_layers
from langslice.scoring.routing import closing
from langslice.scoring.sites import find_sites
from langslice.structure.kept import Kept
from langslice.tradeoffs.in_memory import slice_in_memory, transformer_of
from langslice.tradeoffs.losses import Items, line_items
from langslice.verification.narrowed_source import narrow


@dataclass
class Evaluator:
    """A model whose cuts are evaluated on lines of text, by language."""

    source: Source
    texts: Mapping[str, Sequence[str]]
    _open: tuple[Any, Loaded] | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def kind(self) -> str:
        """Of the model: causal, seq2seq or encoder."""
        return model_kind(self.source.checkpoint.model_folder)

    @cached_property
    def model_digest(self) -> str:
        """sha256 of the model, its tokenizer included."""
        return content_digest(self.source.checkpoint, self.source.tokenizer)

    def items(self, cut: Cut, plan: SlicePlan, dropped: Mapping[str, Dropped], narrowed: Kept) -> Mapping[str, Items]:
        """What a cut gives on the text: language -> items, as `line_items` gives them, (n, 2) or (n, size).

        plan      of its vocabulary
        dropped   kind -> heads, neurons or experts that go
        narrowed  the hidden states that stay
        """
        small = self._slice(plan, narrowed)
        anatomy = self.source.anatomy if cut.axes else None
        hooks: list[Any] = []
        if anatomy is not None:
            model = transformer_of(small)
            sites = find_sites(model, anatomy)
            gone: dict[str, list[int]] = {}
            for stack, layer in cut.layers:
                gone.setdefault(stack, []).append(layer)
            hooks = [*skipping_layers(sites, gone), *silencing(sites, anatomy, dropped["heads"], dropped["neurons"])]
            hooks += closing(model, sites, anatomy, dropped["experts"])
        with hooked(hooks):
            return line_items(small, self.texts)

    def close(self) -> None:
        """Let go of the slice in memory."""
        self._open = None
        self._stack.close()

    def _slice(self, plan: SlicePlan, narrowed: Kept) -> Loaded:
        """The slice of a vocabulary; the last one stays in memory, for many structures are measured on one vocabulary."""
        wanted = (plan.checked, narrowed.hidden, narrowed.rotation)
        if self._open is None or self._open[0] != wanted:
            self.close()
            small = self._stack.enter_context(slice_in_memory(self.source, plan))
            if narrowed.hidden:
                narrow(transformer_of(small), self.source.anatomy, narrowed)
            self._open = (wanted, small)
        return self._open[1]
