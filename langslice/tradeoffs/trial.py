"""One text, as a model and smaller vocabularies of it spell it, and what each answers to it; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from langslice.errors import CheckpointError
from langslice.evaluation.answers import ModelAnswer, answer
from langslice.evaluation.loaded_model import Loaded
from langslice.files.memory import available_bytes
from langslice.formatting import bytes_text
from langslice.mini import heldout_languages, heldout_text
from langslice.model.checkpoint import open_checkpoint
from langslice.options import Choice, asks, codes, declared, taking
from langslice.planning.build import make_plan
from langslice.planning.plan import SlicePlan
from langslice.planning.slice_files import write_files
from langslice.planning.source import Source, settled
from langslice.progress import Report, silent
from langslice.structure.options import StructureOptions
from langslice.tokenizer import SourceTokenizer, open_tokenizer
from langslice.tradeoffs.in_memory import load_original, slice_in_memory
from langslice.tradeoffs.options import TrialOptions, sizes_of
from langslice.vocabulary.languages import parse_languages

_SENTENCES: Final = 60


@dataclass(frozen=True)
class Piece:
    """A token of a text.

    text   what it adds to the text; for a part of a character its bytes, such as `EA B0`
    whole  False for a part of a character
    """

    text: str
    whole: bool


@dataclass(frozen=True)
class TextReading:
    """How one vocabulary spells a text, and what the model answers with it.

    rows    of the vocabulary
    pieces  of the text
    same    whether they are those of the original
    answer  None where it was not asked for
    """

    rows: int
    pieces: tuple[Piece, ...]
    same: bool
    answer: ModelAnswer | None


@dataclass(frozen=True)
class TextTrial:
    """A text, read by a model and by smaller ones.

    readings  from the largest vocabulary to the smallest
    notes     what a reader should know
    """

    text: str
    original: TextReading
    readings: tuple[TextReading, ...]
    notes: tuple[str, ...] = ()


@taking(TrialOptions)
def try_text(
    model: str | Path, text: str, *, options: TrialOptions, answers: bool = True, report: Report = silent
) -> TextTrial:
    """Read a text with a model and with slices of it, in memory.

    options  see TrialOptions: what is kept, and the sizes of the vocabulary to try; without any, that of the whole choice
    answers  also ask each model: a causal one goes on, an encoder-decoder writes, an encoder finds the nearest of the package's
             sentences in the languages. Each is loaded in float32
    Raises   PlanError, LanguageError for what was asked; TaskError for the text; CheckpointError, TokenizerError for the model
    """
    checkpoint = open_checkpoint(model, **options.source())
    choice = options.choice()
    source = settled(checkpoint, choice, needs_tokenizer=True)
    if answers:
        _refuse_too_large(source)
    among = _sentences(choice)
    report("reading with the original", 0, 0)
    whole = _pieces(source.tokenizer, text)
    loaded = load_original(checkpoint) if answers else None
    original = TextReading(source.rows, whole, True, None if loaded is None else answer(loaded, text, among=among))
    choice, notes = _tried(source, choice, loaded)
    readings = []
    for plan in _plans(source, choice, sizes_of(options.sizes)):
        report(f"reading with {len(plan.new_to_old):,} rows", 0, 0)
        with _small(source, plan, answers) as (tokenizer, small):
            pieces = _pieces(tokenizer, text)
            said = None if small is None else answer(small, text, among=among)
        readings.append(TextReading(len(plan.new_to_old), pieces, pieces == whole, said))
    return TextTrial(text, original, tuple(readings), notes)


def _refuse_too_large(source: Source) -> None:
    """Refuse to load a model, and next to it a slice, that memory does not hold in float32. Raises CheckpointError."""
    needed = 8 * sum(prod(shape) for shape in source.checkpoint.shapes.values())
    free = available_bytes()
    if free is not None and needed > free:
        raise CheckpointError(
            f"{source.checkpoint.model_id} and a slice of it need {bytes_text(needed)} of memory, and {bytes_text(free)} are free",
            hint="see how the text is spelled, without answers",
        )


def _plans(source: Source, choice: Choice, sizes: Sequence[int]) -> list[SlicePlan]:
    """A plan for each size, largest first; one for the whole choice where none is named."""
    limits = [{"max_vocab": size} for size in sorted(set(sizes), reverse=True)] or [{}]
    return [make_plan(source, {**choice, **limit}, silent) for limit in limits]


@contextmanager
def _small(source: Source, plan: SlicePlan, answers: bool) -> Any:
    """The tokenizer of a plan's slice, and the slice in memory where it is to answer."""
    model_type = source.checkpoint.config.get("model_type")
    with TemporaryDirectory(prefix="langslice-trial-") as name:
        write_files(source, plan, Path(name))
        inner = Path(name) / source.checkpoint.model_folder.relative_to(source.checkpoint.folder)
        tokenizer = open_tokenizer(inner, model_type=model_type)
        opened: AbstractContextManager[Loaded | None] = slice_in_memory(source, plan) if answers else nullcontext()
        with opened as small:
            yield tokenizer, small


def _pieces(tokenizer: SourceTokenizer, text: str) -> tuple[Piece, ...]:
    return tuple(_piece(tokenizer.surface(token)) for token in tokenizer.encode([text])[0])


def _piece(surface: bytes) -> Piece:
    try:
        return Piece(surface.decode(), True)
    except UnicodeDecodeError:
        return Piece(surface.hex(" ").upper(), False)


def _sentences(choice: Mapping[str, Any]) -> list[str]:
    """Sentences of the package in the languages that are kept; in all of them where it has none of these."""
    tags = [language.tag for language in parse_languages(codes(choice.get("languages")))]
    known = [tag for tag in tags if tag in heldout_languages()] or list(heldout_languages())
    return [line for tag in known for line in heldout_text(tag)[:_SENTENCES]]


def _tried(source: Source, choice: Choice, loaded: Loaded | None) -> tuple[Choice, tuple[str, ...]]:
    """The choice as far as it can be tried in memory, and a note of what cannot."""
    if not asks(choice, declared(StructureOptions)):
        return choice, ()
    structure = make_plan(source, choice, silent).structure
    if loaded is None or (loaded.kind != "encoder" and structure is not None and structure.style == "stock"):
        return choice, ()
    rest = {name: value for name, value in choice.items() if name not in declared(StructureOptions)}
    why = "of an encoder" if loaded.kind == "encoder" else "in other numbers from layer to layer, or as zeros,"
    return rest, (
        f"layers and heads that go {why} are not tried here: the answers are of the smaller vocabulary alone",
    )
