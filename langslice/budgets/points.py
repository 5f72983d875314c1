"""What combinations lose: measured once, and remembered by content in a folder, so that a killed run goes on."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from langslice.budgets.cut import Cut
from langslice.budgets.evaluator import Evaluator
from langslice.budgets.parts import Dropped, Parts
from langslice.files.atomic_output import staging_file
from langslice.planning.plan import SlicePlan
from langslice.structure.kept import Kept
from langslice.tradeoffs.in_memory import load_original
from langslice.tradeoffs.ladder import Ladder
from langslice.tradeoffs.losses import Items, Loss, line_items, losses
from langslice.version import __version__

_KEY_LENGTH = 24


@dataclass(frozen=True)
class FullCut:
    """A cut in full: with the plan of its vocabulary, the heads, neurons and experts that go, the hidden states that stay.

    path  of the file that remembers what it loses
    """

    cut: Cut
    plan: SlicePlan
    dropped: Mapping[str, Dropped]
    narrowed: Kept
    path: Path


@dataclass
class Points:
    """A model whose cuts are measured.

    folder  holds a file for each point
    parts   what can go of it, with the scores that say which first
    ahead   measures several points at once, elsewhere, and saves each; None where they are measured here, one by one
    """

    ladder: Ladder
    parts: Parts
    folder: Path
    ahead: Callable[[Sequence[FullCut]], None] | None = None
    evaluator: Evaluator = field(init=False)

    def __post_init__(self) -> None:
        self.evaluator = Evaluator(self.ladder.source, self.ladder.texts.measured)

    @property
    def kind(self) -> str:
        """Of the model: causal, seq2seq or encoder."""
        return self.evaluator.kind

    @cached_property
    def content(self) -> str:
        """Digest of the model and of the text: what every point depends on."""
        lines = json.dumps([__version__, self.ladder.texts.measured], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(f"{self.evaluator.model_digest}\n{lines}".encode()).hexdigest()

    def learned_file(self, name: str, ending: str) -> Path:
        """Where what is learned from the other lines is kept, such as scores of heads, by what it depends on."""
        return self.folder / f"{name}-{self._key(self.ladder.texts.learned)}.{ending}"

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
        point = self.point(cut)
        known = _read(point.path)
        if known is None:
            self.ladder.report(f"measuring {cut.text()}", 0, 0)
            before = self.before  # the original goes before a slice comes
            known = losses(self.kind, before, self.evaluator.items(cut, point.plan, point.dropped, point.narrowed))
            save_point(point, known)
        return known

    def prepare(self, cuts: Sequence[Cut]) -> None:
        """Have cuts measured that do not depend on one another, and are asked for next, where that can be done at once."""
        if self.ahead is not None:
            points = {point.path: point for point in map(self.point, cuts)}
            self.ahead([point for point in points.values() if _read(point.path) is None])

    def point(self, cut: Cut) -> FullCut:
        """A cut in full."""
        plan, dropped, narrowed = self.plan(cut), self.parts.gone(cut), self.parts.narrowed(cut)
        gone = {"layers": cut.to_json()["layers"], **{kind: _plain(each) for kind, each in dropped.items()}}
        if narrowed.hidden:
            gone["hidden"] = [list(narrowed.hidden), narrowed.rotation]
        return FullCut(cut, plan, dropped, narrowed, self.folder / f"{self._key([plan.checked, gone])}.json")

    def close(self) -> None:
        """Let go of the slice in memory."""
        self.evaluator.close()

    def _key(self, what: Any) -> str:
        text = json.dumps([self.content, what], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def save_point(point: FullCut, known: Mapping[str, Loss]) -> None:
    """Remember what a point loses: language -> loss."""
    _write(point.path, {"cut": point.cut.to_json(), "loss": {code: asdict(loss) for code, loss in known.items()}})


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
    with staging_file(path) as partial:
        partial.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
