"""What a report says, as data: a tree of frozen dataclasses that the page and the model card are two views of.

What was not measured is None or empty here, and named in `Report.unmeasured`; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from langslice.evaluation.results import Score


@dataclass(frozen=True)
class SourceModel:
    """The model that was sliced.

    model        as it was named when it was sliced
    revision     commit on the hub, None for a folder
    public       its id on the hub, None where it was a local folder
    licence      what its card says: {"license": ..., "license_name": ..., "license_link": ...}; empty where it says nothing
    card         file of the slice that holds its card, "" where it had none
    licence_files  files of the slice that hold licences and notices
    metadata     the rest of its card's metadata: pipeline_tag, tags, datasets, ...
    """

    model: str
    revision: str | None
    model_type: str
    public: str | None
    licence: Mapping[str, Any]
    card: str
    licence_files: tuple[str, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Sizes:
    """A number before and after."""

    before: int
    after: int

    @property
    def change(self) -> float:
        """After / before - 1; 0 where there was nothing."""
        return self.after / self.before - 1 if self.before else 0.0


@dataclass(frozen=True)
class PartSizes:
    """Tensors that do one job; bytes are None where the record does not say them."""

    name: str
    tensors: Sizes
    parameters: Sizes
    size_bytes: Sizes | None


@dataclass(frozen=True)
class Script:
    """Tokens of one script or kind, in the source and in the slice."""

    name: str
    label: str
    tokens: Sizes


@dataclass(frozen=True)
class KeptLanguage:
    """Tokens that one language asked for.

    tokens   that its criterion selects in the source; None where the record does not say
    kept     of these
    alone    kept for this language and for no other reason
    covered  share of the occurrences in its criterion that kept tokens make up; None without weights
    examples some of `alone`, by their spelling in the vocabulary
    """

    tag: str
    label: str
    tokens: int | None
    kept: int
    alone: int
    covered: float | None
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    """Coverage of one criterion by its most frequent tokens.

    label    "Korean (word list)", "corpus"
    points   (tokens, share of occurrences), ascending
    tokens   weighed tokens that were kept: the chosen point, whose height is `covered`
    asked    share that was asked for, None where there was no limit
    """

    label: str
    points: tuple[tuple[int, float], ...]
    tokens: int
    covered: float
    asked: float | None


@dataclass(frozen=True)
class Vocabulary:
    """Rows of the vocabulary; `padding` of the rows after are padding, `new` are tokens that the source does not have."""

    rows: Sizes
    padding: int
    new: tuple[str, ...]
    scripts: tuple[Script, ...]
    languages: tuple[KeptLanguage, ...]
    reasons: tuple[tuple[str, int], ...]
    curves: tuple[Curve, ...]

    @property
    def spells_bytes(self) -> bool:
        """Whether tokens for bytes are kept, so that no text can become unknown."""
        return any(reason == "byte" for reason, _ in self.reasons)


@dataclass(frozen=True)
class TextTokens:
    """One text, tokenised by the source and by the slice; fields of langslice.verification.tokenization.TextComparison."""

    name: str
    units: int
    tokens: Sizes
    covered: float
    growth: float
    identical: int
    differing: int
    unknown: Sizes


@dataclass(frozen=True)
class UnitRow:
    """Heads, neurons or experts of one layer: how many there were, and which stay."""

    total: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class HiddenStates:
    """Dimensions of the hidden states before and after; whether they were rotated first, or weights were scaled for fewer."""

    sizes: Sizes
    rotated: bool
    scaled: bool


@dataclass(frozen=True)
class LayerRow:
    """One layer of the source. heads: attention ("self", "cross") -> its heads."""

    layer: int
    new: int | None
    heads: Mapping[str, UnitRow]
    neurons: UnitRow | None
    experts: UnitRow | None = None


@dataclass(frozen=True)
class LayerStack:
    """A stack of layers, in the numbering of the source; `sizes_known` is False in records that do not give them."""

    name: str
    layers: tuple[LayerRow, ...]
    sizes_known: bool = True


@dataclass(frozen=True)
class TensorZeros:
    """Zeros of one tensor."""

    name: str
    asked: float
    zeros: int
    size: int


@dataclass(frozen=True)
class Sparsity:
    """Weight pruning."""

    share: float
    request: Mapping[str, Any]
    prompts: Mapping[str, int]
    tensors: tuple[TensorZeros, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreMap:
    """Scores of layers, heads, neurons or experts, of one place and language ("" for all together), by layer of the source.

    mine  whether they are of the model that was sliced, so that what was removed can be marked
    """

    file: str
    kind: str
    method: str
    place: str
    language: str
    rows: Mapping[int, tuple[float, ...]]
    texts: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class FeatureMaps:
    """Hidden dimensions by condition, from the folder of `langslice features`.

    layers      names, the embeddings first
    magnitudes  condition -> (layers) x (bins): the largest magnitude in each bin of dimensions
    hidden      dimensions; `bin_size` of them are in a bin
    overlap     (large in, small in) -> share of the dimensions, by layer
    particular  set -> rows (layer, dimension, rank, magnitude, prominence)
    ablation    set -> rows (zeroed, condition, dimensions, loss, answer loss); of translations (zeroed, pair, metric, score)
    """

    folder: str
    layers: tuple[str, ...]
    magnitudes: Mapping[str, tuple[tuple[float, ...], ...]]
    hidden: int
    bin_size: int
    overlap: Mapping[tuple[str, str], tuple[float, ...]]
    particular: Mapping[str, tuple[Mapping[str, Any], ...]]
    ablation: Mapping[str, tuple[Mapping[str, Any], ...]]


@dataclass(frozen=True)
class Results:
    """One file of `langslice evaluate`; `models` and `notes` by role, `scores` without speed and size."""

    file: str
    models: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    scores: tuple[Score, ...]
    speed: tuple[Score, ...]
    notes: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Healing:
    """Training after the slice: facts of the record, and named curves of (step, loss)."""

    facts: Mapping[str, Any]
    curves: Mapping[str, tuple[tuple[float, float], ...]]
    unit: str = "loss, nats per token"


@dataclass(frozen=True)
class VerificationCheck:
    """One check: what it compared, its result (None where it could not be made), and what a user must know besides."""

    name: str
    passed: bool | None
    detail: str
    examples: tuple[str, ...]
    warning: str = ""


@dataclass(frozen=True)
class SliceOrigin:
    """Where a slice comes from and how it was made.

    command       as it was typed, () where langslice was called as a library
    equivalent    the command that amounts to what the plan records
    recipe        text of the recipe, None without one
    source_files  file of the source -> size and hashes
    files         file of the slice -> size in bytes, and sha256 where it was computed
    """

    command: tuple[str, ...]
    equivalent: tuple[str, ...]
    recipe: str | None
    versions: Mapping[str, str | None]
    fingerprint: str
    source_files: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, tuple[int, str | None]]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything that is known of a slice; `hidden` are the dimensions of its hidden states, where some were removed."""

    name: str
    source: SourceModel
    parameters: Sizes
    size_bytes: Sizes | None
    parts: tuple[PartSizes, ...]
    vocabulary: Vocabulary | None
    stacks: tuple[LayerStack, ...]
    style: str | None
    sparsity: Sparsity | None
    texts: tuple[TextTokens, ...]
    checks: tuple[VerificationCheck, ...] | None
    proven: bool | None
    healing: Healing | None
    origin: SliceOrigin
    features: FeatureMaps | None = None
    scores: tuple[ScoreMap, ...] = ()
    results: tuple[Results, ...] = ()
    unmeasured: tuple[tuple[str, str], ...] = field(default=())
    hidden: HiddenStates | None = None

    def to_json(self) -> dict[str, Any]:
        """The tree as JSON-ready data; pairs of names as keys are joined by " / "."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {" / ".join(key) if isinstance(key, tuple) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def own_results(report: Report) -> tuple[Results, ...]:
    """Results of this very folder, where some are: those of a slice before it was trained are another model's."""

    def measured(results: Results) -> str:
        return PurePath(str(results.models.get("slice", {}).get("name", ""))).name

    return tuple(results for results in report.results if measured(results) == report.name) or report.results
