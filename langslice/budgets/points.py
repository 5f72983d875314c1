"""What a combination loses: evaluated in memory, and remembered by content in a folder, so that a killed run goes on.

The vocabulary is really cut: text is encoded anew, and rows are gathered. A layer that goes passes its input on, and heads and
neurons that go give zeros, and experts that go are closed to their routers, which is what the slice without them computes.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from langslice.budgets.cut import Cut
from langslice.budgets.parts import Dropped, Parts
from langslice.evaluation.loaded_model import Loaded, model_kind
from langslice.healing.teacher import content_digest
from langslice.planning.plan import SlicePlan
from langslice.scoring.model_runs import hooked, silencing, skipping_layers
from langslice.scoring.routing import closing
from langslice.scoring.sites import find_sites
from langslice.tradeoffs.in_memory import load_original, slice_in_memory, transformer_of
from langslice.tradeoffs.ladder import Ladder
from langslice.tradeoffs.losses import Items, Loss, line_items, losses
from langslice.version import __version__

_KEY_LENGTH = 24


@dataclass
class Points:
    """A model whose cuts are measured.

    folder  holds a file for each point
    parts   what can go of it, with the scores that say which first
    """

    ladder: Ladder
    parts: Parts
    folder: Path
    _open: tuple[str, Loaded] | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def kind(self) -> str:
        """Of the model: causal, seq2seq or encoder."""
        return model_kind(self.ladder.source.checkpoint.model_folder)

    @cached_property
    def content(self) -> str:
        """Digest of the model and of the text: what every point depends on."""
        lines = json.dumps([__version__, self.ladder.texts.measured], sort_keys=True, ensure_ascii=False)
        model = content_digest(self.ladder.source.checkpoint, self.ladder.source.tokenizer)
        return hashlib.sha256(f"{model}\n{lines}".encode()).hexdigest()

    def score_file(self, kind: str) -> Path:
        """Where scores of heads, neurons or experts are kept, by what they depend on."""
        return self.folder / f"{kind}-{self._key(self.ladder.texts.learned)}.parquet"

    @cached_property
    def before(self) -> Mapping[str, Items]:
        """What the whole model gives on the text: language -> items, as `line_items` gives them, (n, 2) or (n, size)."""
        self.ladder.report("measuring the original", 0, 0)
        original = load_original(self.ladder.source.checkpoint)
        found = line_items(original, self.ladder.texts.measured)
        del original
        gc.collect()
        return found

    def plan(self, cut: Cut) -> SlicePlan:
        """The plan of a cut's vocabulary."""
        return self.ladder.plan(None if cut.rows >= self.full else cut.rows - self.beyond)

    @cached_property
    def full(self) -> int:
        """Rows of the whole choice of tokens."""
        return len(self.ladder.plan(None).new_to_old)

    @cached_property
    def beyond(self) -> int:
        """Rows that stay and have no token: a limit on tokens does not count them."""
        size = len(self.ladder.source.tokenizer.tokens)
        return int((self.ladder.plan(None).kept >= size).sum())

    def losses(self, cut: Cut) -> Mapping[str, Loss]:
        """Language -> what a cut loses; measured once, also over several runs."""
        plan = self.plan(cut)
        dropped = {kind: self.parts.dropped(kind, share) for kind, share in cut.shares().items()}
        gone = {"layers": cut.to_json()["layers"], **{kind: _plain(each) for kind, each in dropped.items()}}
        path = self.folder / f"{self._key([plan.checked, gone])}.json"
        known = _read(path)
        if known is None:
            self.ladder.report(f"measuring {cut.text()}", 0, 0)
            known = losses(self.kind, self.before, self._items(cut, plan, dropped))
            _write(path, {"cut": cut.to_json(), "loss": {code: asdict(loss) for code, loss in known.items()}})
        return known

    def close(self) -> None:
        """Let go of the slice in memory."""
        self._open = None
        self._stack.close()

    def _key(self, what: Any) -> str:
        text = json.dumps([self.content, what], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]

    def _items(self, cut: Cut, plan: SlicePlan, dropped: Mapping[str, Dropped]) -> Mapping[str, Items]:
        before = self.before  # the original goes before a slice comes
        small = self._slice(plan)
        anatomy = self.parts.source.anatomy if cut.axes else None
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
            return line_items(small, {language: self.ladder.texts.measured[language] for language in before})

    def _slice(self, plan: SlicePlan) -> Loaded:
        """The slice of a vocabulary; the last one stays in memory, for many structures are measured on one vocabulary."""
        if self._open is None or self._open[0] != plan.checked:
            self.close()
            self._open = (plan.checked, self._stack.enter_context(slice_in_memory(self.ladder.source, plan)))
        return self._open[1]


def _plain(dropped: Mapping[str, Mapping[int, Sequence[int]]]) -> dict[str, dict[str, list[int]]]:
    return {
        place: {str(at): [int(one) for one in gone] for at, gone in rows.items()} for place, rows in dropped.items()
    }


def _read(path: Path) -> dict[str, Loss] | None:
    """A point that was measured; None where it was not, or its file is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {code: Loss(**loss) for code, loss in found["loss"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
