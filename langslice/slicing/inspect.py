"""What is in a model, and what keeping a set of languages would save."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from langslice.errors import LanguageError, PlanError, UnknownTensorError
from langslice.model.axes import refuse_packed
from langslice.model.body import is_routed
from langslice.model.checkpoint import Checkpoint
from langslice.model.folder_kinds import LAYERLESS
from langslice.planning.plan import TensorPlan
from langslice.planning.source import Source
from langslice.planning.tensors import plan_tensors
from langslice.planning.token_free_rows import live_rows
from langslice.tokenizer.absent import ABSENT, NOTE

if TYPE_CHECKING:
    from langslice.model.anatomy import Anatomy
    from langslice.structure.kept import Kept

# What people most often need of a multilingual model; `--languages` asks for another set.
COMMON_SETS = (
    ("en",),
    ("en", "ko"),
    ("en", "zh"),
    ("en", "ja"),
    ("en", "ar"),
    ("en", "hi"),
    ("en", "es"),
    ("de", "en", "fr"),
)


@dataclass(frozen=True)
class ModelPart:
    """Tensors that do one job."""

    name: str
    tensors: int
    parameters: int
    size_bytes: int


@dataclass(frozen=True)
class Saving:
    """What keeping only these languages would leave.

    rows         vocabulary rows kept
    parameters   of the whole model after the slice
    size_bytes   of all its tensors after the slice
    """

    languages: tuple[str, ...]
    rows: int
    parameters: int
    size_bytes: int


@dataclass(frozen=True)
class Unit:
    """What removing one layer, attention head, neuron or expert would save.

    name        "layer", "head", "group of 2 heads" (that share a key-value head), "neuron", "expert"
    place       stack or attention that it is in
    count       how many of them there are
    parameters  of one
    size_bytes  of one
    flops       floating-point operations a token that go with one: two for each weight of a matrix
    """

    name: str
    place: str
    count: int
    parameters: int
    size_bytes: int
    flops: int


@dataclass(frozen=True)
class Inspection:
    """A model by part, its vocabulary by script and kind, and what vocabulary slices would save."""

    model: str
    model_type: str
    architectures: tuple[str, ...]
    parameters: int
    size_bytes: int
    parts: tuple[ModelPart, ...]
    rows: int
    tokens: int
    tokenizer: str
    scripts: dict[str, int]
    kinds: dict[str, int]
    savings: tuple[Saving, ...]
    units: tuple[Unit, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The inspection as JSON-ready data."""
        return asdict(self)


def inspect_model(
    source: Source,
    *,
    sets: Sequence[Sequence[str]] = COMMON_SETS,
    report: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Inspection:
    """Look at a model without loading a weight.

    sets  language sets whose savings are computed, each by the same choice that `slice --languages` makes
    """
    from langslice.vocabulary.scripts import token_scripts

    checkpoint, tokenizer = source.checkpoint, source.tokenizer
    tensors = plan_tensors(source)
    report("reading the vocabulary", 0, 0)
    scripts = token_scripts(tokenizer)
    parts = _parts(checkpoint, tensors)
    savings: list[Saving] = []
    absent = tokenizer.kind == ABSENT
    notes = [NOTE] if absent else []
    try:
        refuse_packed(source.axes, checkpoint.shapes)
    except UnknownTensorError as error:  # a quantised table
        notes.append(error.message.replace("; nothing was written", ""))
        sets = ()
    for number, languages in enumerate(() if absent else sets):
        report(f"what {'+'.join(languages)} would save", number, len(sets))
        try:
            savings.append(_saving(source, tensors, languages))
        except LanguageError as error:
            notes.append(f"{'+'.join(languages)}: {error.message}")
    return Inspection(
        model=checkpoint.model_id,
        model_type=str(checkpoint.config["model_type"]),
        architectures=tuple(checkpoint.config.get("architectures") or ()),
        parameters=sum(part.parameters for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        parts=parts,
        rows=source.rows,
        tokens=sum(token is not None for token in tokenizer.tokens),
        tokenizer=tokenizer.kind,
        scripts=dict(scripts.by_script().most_common()),
        kinds=dict(scripts.by_kind().most_common()),
        savings=tuple(savings),
        units=_units(source, notes),
        left_out={file.name: file.reason for file in source.files if file.action == "leave out"},
        notes=tuple(notes),
    )


def _parts(checkpoint: Checkpoint, tensors: dict[str, TensorPlan]) -> tuple[ModelPart, ...]:
    count: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for name, entry in checkpoint.tensors.items():
        if name in checkpoint.aliases:
            continue
        part = tensors[name].part
        count[part] += 1
        parameters[part] += prod(entry.shape)
        size[part] += entry.size_bytes
    return tuple(ModelPart(name, count[name], parameters[name], size[name]) for name, _ in parameters.most_common())


def _units(source: Source, notes: list[str]) -> tuple[Unit, ...]:
    """What a layer, a head, a neuron and an expert of each stack are worth, measured on its first layer."""
    from langslice.structure.kept import Kept

    checkpoint = source.checkpoint
    if checkpoint.config["model_type"] in LAYERLESS:
        return ()
    try:
        anatomy = source.anatomy
    except PlanError as error:
        notes.append(error.message)
        return ()
    units: list[Unit] = []
    for stack, count in anatomy.layers.items():
        if anatomy.fields(stack).layers and count > 1:
            units.append(
                _unit(checkpoint, anatomy, "layer", stack, count, Kept(layers={stack: tuple(range(1, count))}))
            )
    for place, rows in anatomy.heads.items():
        first = min(rows)
        heads = rows[first]
        if heads.query > heads.group or heads.key_value == 1 < heads.query:
            gone = 1 if heads.key_value == 1 else heads.group
            kept = Kept(
                heads={place: {first: tuple(range(gone, heads.query))}},
                key_value={place: {first: (0,) if heads.key_value == 1 else tuple(range(1, heads.key_value))}},
            )
            name = "head" if gone == 1 else f"group of {gone} heads"
            number = sum(one.query // gone for one in rows.values())
            units.append(_unit(checkpoint, anatomy, name, place, number, kept))
    for stack, widths in anatomy.neurons.items():
        first = min(widths, default=0)
        if widths.get(first, 0) > 1:
            kept = Kept(neurons={stack: {first: tuple(range(1, widths[first]))}})
            units.append(_unit(checkpoint, anatomy, "neuron", stack, sum(widths.values()), kept))
    for stack, counts in anatomy.experts.items():
        first = min(counts, default=0)
        if counts.get(first, 0) > 1:
            kept = Kept(experts={stack: {first: tuple(range(1, counts[first]))}})
            units.append(_unit(checkpoint, anatomy, "expert", stack, sum(counts.values()), kept))
    return tuple(units)


def _unit(checkpoint: Checkpoint, anatomy: Anatomy, name: str, place: str, count: int, kept: Kept) -> Unit:
    """Compare the tensors of the layers with what is left of them."""
    from langslice.files.gather_rows import sliced_shape
    from langslice.structure.edits import layer_edits
    from langslice.structure.kept import Kept

    parameters = size_bytes = 0
    flops = 0.0
    tensors, shapes = checkpoint.tensors, checkpoint.shapes
    for tensor, edit in layer_edits(anatomy, kept, shapes).items():
        before = prod(shapes[tensor])
        gone = before if edit.action == "drop" else before - prod(sliced_shape(shapes[tensor], edit.indices))
        parameters += gone
        size_bytes += gone * tensors[tensor].size_bytes // max(before, 1)
        if len(shapes[tensor]) > 1:
            flops += 2 * (before * _used(anatomy, tensor, Kept()) - (before - gone) * _used(anatomy, tensor, kept))
    return Unit(name, place, count, parameters, size_bytes, round(flops))


def _used(anatomy: Anatomy, name: str, kept: Kept) -> float:
    """The share of a tensor that a token is multiplied with: of the experts that stay, those that the router chooses."""
    place = anatomy.places.get(name)
    if place is None or not is_routed(place.rest, anatomy.axes[name] or ()):
        return 1.0
    routing = anatomy.fields(place.stack).routing
    count = anatomy.experts[place.stack].get(place.layer, 0)
    chosen = anatomy.config.get(routing.chosen) if routing is not None and count else None
    if type(chosen) is not int:
        return 1.0
    stay = kept.experts.get(place.stack, {}).get(place.layer)
    return chosen / (count if stay is None else len(stay))


def _saving(source: Source, tensors: dict[str, TensorPlan], languages: Sequence[str]) -> Saving:
    from langslice.vocabulary.fixed_texts import with_template_pieces
    from langslice.vocabulary.vocabulary import VocabularyRequest, choose_vocabulary

    texts = with_template_pieces(source.fixed_texts(), source.templates)
    request = VocabularyRequest(languages=tuple(languages))
    kept = len(choose_vocabulary(source.tokenizer, request, texts=texts).reasons)
    kept += len(live_rows(source.family.live_rows, source.tokenizer, source.rows))
    parameters = size = 0
    for name, entry in source.checkpoint.tensors.items():
        if name in source.checkpoint.aliases:
            continue
        share = kept / source.rows if tensors[name].action == "slice" else 1.0
        parameters += round(prod(entry.shape) * share)
        size += round(entry.size_bytes * share)
    return Saving(tuple(languages), kept, parameters, size)
