"""The flow of a trade-off: choose, read text, measure one size after another; and the plan that a greatest loss asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from langslice.errors import PlanError
from langslice.files.atomic_output import staging_file
from langslice.model.checkpoint import open_checkpoint
from langslice.options import Choice, codes, declared, taking
from langslice.planning.build import make_plan
from langslice.planning.criteria import read_criteria
from langslice.planning.options import RowOptions
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source, settled
from langslice.progress import Report, silent
from langslice.tradeoffs.ladder import EXPECTED, FREQUENCY, Ladder, Rung, ladder_sizes, smallest_within
from langslice.tradeoffs.losses import measure_of
from langslice.tradeoffs.options import TradeoffOptions, sizes_of
from langslice.tradeoffs.texts import read_texts
from langslice.version import __version__
from langslice.vocabulary.languages import parse_languages
from langslice.vocabulary.options import VocabularyOptions

FORMAT: Final = "langslice-tradeoff/1"
# What of a choice the size of a vocabulary depends on; layers, heads, neurons and weights are not measured.
_OF_VOCABULARY: Final = {*declared(VocabularyOptions), *declared(RowOptions)}


@dataclass(frozen=True)
class Tradeoff:
    """What smaller vocabularies of a model cost.

    measure  what losses are in
    text     where the lines are from
    lines    language -> lines that were measured
    before   rows, bytes and float32 bytes of the original
    rungs    from the largest vocabulary to the smallest, by either order of dropping
    chosen   the smallest rung below the greatest loss that was asked for; None where none was, or none is
    notes    what a user should know
    """

    model: str
    measure: str
    text: str
    lines: Mapping[str, int]
    before: Mapping[str, int]
    rungs: tuple[Rung, ...]
    chosen: Rung | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"format": FORMAT, "langslice": __version__, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write the JSON file."""
        with staging_file(Path(path)) as partial:
            partial.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def best(self, rows: int) -> Rung:
        """Of the rungs of one size, the one whose worst language loses least."""
        return min((rung for rung in self.rungs if rung.rows == rows), key=lambda rung: rung.worst)


@taking(TradeoffOptions)
def tradeoff(model: str | Path, *, options: TradeoffOptions, report: Report = silent) -> Tradeoff:
    """Measure what smaller vocabularies cost a model, without writing any.

    model    a local folder, the id of a model on the hub, or `mini`
    options  see TradeoffOptions; evidence for tokens is as for `plan`
    Returns  loss by language, bytes and rows for one size after another
    Raises   PlanError, LanguageError, CorpusError for what was asked; CheckpointError, TokenizerError for the model
    """
    checkpoint = open_checkpoint(model, **options.source())
    choice = options.choice()
    rungs = []
    with open_ladder(settled(checkpoint, choice, needs_tokenizer=True), choice, report) as ladder:
        orders, notes = _orders(ladder, options.drop_by)
        for size in _sizes(options.sizes, ladder):
            for order in orders:
                rungs.append(ladder.measure(ladder.plan(size, order), order))
    limit = options.max_loss
    fitting = [rung for rung in rungs if limit is not None and rung.worst < limit]
    rows = max(tensor.shape[0] for tensor in ladder.plan(None).tensors.values() if tensor.action == "slice")
    stored = sum(tensor.size_bytes for tensor in checkpoint.tensors.values())
    return Tradeoff(
        checkpoint.model_id, measure_of(ladder.original.kind), ladder.texts.source,
        {code: len(lines) for code, lines in ladder.texts.measured.items()},
        {"rows": rows, "size_bytes": stored}, tuple(rungs),
        min(fitting, key=lambda rung: rung.rows) if fitting else None, tuple(notes),
    )  # fmt: skip


def plan_within_loss(source: Source, choice: Choice, report: Report) -> tuple[SlicePlan, str]:
    """The plan of the smallest vocabulary that loses less than `max_loss` of a choice, and a note of what was measured."""
    limit = float(choice["max_loss"])
    with open_ladder(source, choice, report) as ladder:
        plan, rung = smallest_within(ladder, limit, FREQUENCY)
    whole = {name: value for name, value in choice.items() if name != "max_loss"}
    made = make_plan(source, {**whole, "max_vocab": len(plan.kept)}, report)
    lost = ", ".join(
        f"{code or 'text'} {one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]" for code, one in rung.loss.items()
    )
    lines = sum(map(len, ladder.texts.measured.values()))
    measure = measure_of(ladder.original.kind)
    note = (
        f"--max-loss {limit:g}: {rung.rows:,} rows lose {lost} ({measure}, 95% intervals; {lines} lines of "
        f"{ladder.texts.source})"
    )
    if made.structure is not None or made.weights is not None:
        note += "; what layers, heads, neurons and weights cost comes on top"
    return made, note


@contextmanager
def open_ladder(source: Source, choice: Choice, report: Report) -> Iterator[Ladder]:
    """A ladder of what a choice says of the vocabulary; its corpus is counted once, not for each rung."""
    languages = [language.tag for language in parse_languages(codes(choice.get("languages")))]
    texts = read_texts(choice.get("loss_texts"), languages, int(choice.get("loss_lines") or 100))
    asked = {name: value for name, value in choice.items() if name in _OF_VOCABULARY}
    with TemporaryDirectory(prefix="langslice-counts-") as folder:
        counts = read_criteria(source.tokenizer, asked, report)
        if counts is not None:
            path = Path(folder) / "counts.parquet"
            counts.save(path)
            asked = {
                name: value for name, value in asked.items() if name not in ("corpus", "text_field", "language_id")
            }
            asked["counts"] = str(path)
        yield Ladder(source, asked, texts, report)


def _orders(ladder: Ladder, asked: str) -> tuple[list[str], list[str]]:
    """The orders to drop by, and what is to be said of them."""
    if asked == FREQUENCY:
        return [FREQUENCY], []
    if ladder.learn(ladder.least):
        return ([EXPECTED] if asked == EXPECTED else [FREQUENCY, EXPECTED]), []
    if asked == EXPECTED:
        raise PlanError(
            f"--drop-by {EXPECTED}: {ladder.source.checkpoint.model_id} does not predict text token by token, so it does not tell "
            "what a token costs",
            hint=f"--drop-by {FREQUENCY}",
        )
    return [FREQUENCY], ["tokens are dropped by frequency alone: the model does not predict text token by token"]


def _sizes(asked: str | Sequence[int | str], ladder: Ladder) -> list[int]:
    """The sizes that are asked for, or those of the whole choice downwards."""
    full = len(ladder.plan(None).kept)
    sizes = sizes_of(asked) or ladder_sizes(full, ladder.least)
    return sorted({min(size, full) for size in sizes}, reverse=True)
