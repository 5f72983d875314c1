"""The plan: what a slice keeps, as a file that people read and edit.

A plan starts from the tensors found in the checkpoint's headers, never from a family's list, so that nothing can vanish
unseen. `slice` does exactly what the plan says, after checking that it still fits its source. Kept tokens are one a
line, `[old id, token, reasons]`: delete a line to drop a token, add one to keep it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import PlanError
from langslice.files.atomic_output import staging_file
from langslice.files.json_forms import FixedList, check_form, read_json
from langslice.formatting import number_runs
from langslice.model.token_id_fields import IdMap
from langslice.planning.extension_form import NEW_TOKEN, check_extension, extension_from_json, extension_json, mean_rows
from langslice.planning.facts import checked_facts
from langslice.planning.summary import html_table, reason_counts
from langslice.structure.kept import Kept, kept_from_json, kept_json
from langslice.tokenizer.extension import NewToken
from langslice.version import __version__
from langslice.writing.new_rows import RowMean

FORMAT = "langslice-plan/1"
_WINDOW = 4096  # kept tokens written at a time


@dataclass(frozen=True)
class TensorPlan:
    """What happens to one tensor: its shape in the source, its named axes, and keep, slice or drop.

    name   in the output, where it is another: layers are counted anew
    """

    shape: tuple[int, ...]
    part: str
    action: str
    axes: tuple[str, ...] | None = None
    reason: str = ""
    name: str = ""


@dataclass(frozen=True, repr=False)
class SlicePlan:
    """Everything that a slice does.

    model, revision  what the source was called when the plan was made
    model_type       of config.json
    fingerprint      sha256 over config, tensor headers and tokenizer files of the source
    rows             rows of the source's vocabulary tensors
    per_layer_rows   rows of its per-layer table, None where there is none
    kept             (n,) int64 ascending old rows; new id = position
    tokens           (n,) token strings, None for rows without a token
    reasons          (n,) why each is kept
    padding          old rows repeated after the kept ones, to reach a multiple
    extension        tokens that the source does not have, directly after the kept ones; their rows are made of their pieces'
    checked          digest of `kept` for which the closure was checked; a plan edited by hand is checked again
    implied_ids      file -> field -> value: ids and sizes that the source leaves to its class's defaults, written out
    ignore_fields    configuration fields declared not to hold token ids
    request          what the user asked for, as typed
    coverage         text -> share of token occurrences that are kept
    structure        layers, heads, neurons, experts and hidden dimensions that are kept; None where all are
    weights          how weights are pruned, as fields of SparsityRequest; None where they are not
    pruned           what pruning did, from a slice's record: tensor -> zeros, size and share; not part of the plan's file
    trained          whether the slice was trained since, by its record; not part of the plan's file
    row              the row of the model type as Python, where it was derived from the class; "" where the table has it
    facts            what the choice rests on, for reports: tokens by script, criteria with their coverage curves, sizes of
                     the source's layers; nothing in it changes what a slice does
    """

    model: str
    revision: str | None
    model_type: str
    fingerprint: str
    rows: int
    kept: np.ndarray
    tokens: tuple[str | None, ...]
    reasons: tuple[str, ...]
    tensors: Mapping[str, TensorPlan]
    per_layer_rows: int | None = None
    padding: tuple[int, ...] = ()
    extension: tuple[NewToken, ...] = ()
    checked: str = ""
    implied_ids: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ignore_fields: tuple[str, ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict)
    coverage: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    structure: Kept | None = None
    weights: Mapping[str, Any] | None = None
    pruned: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    row: str = ""

    @property
    def names_tokens(self) -> bool:
        """Whether the plan was made with a tokenizer; without one its rows are numbers alone."""
        return any(token is not None for token in self.tokens)

    @property
    def keeps_vocabulary(self) -> bool:
        """Whether all rows of the vocabulary stay as they are."""
        return len(self.kept) == self.rows and not self.padding and not self.extension

    @property
    def new_to_old(self) -> np.ndarray:
        """(new rows,) int64: the old row of every new one, padding included.

        That of a new token is the row that it is written over: its own in the source, or that of its first piece.
        """
        first = [one.pieces[0] if one.origin is None else one.origin for one in self.extension]
        return np.concatenate([self.kept, np.asarray([*first, *self.padding], dtype=np.int64)])

    @property
    def per_layer_new_to_old(self) -> np.ndarray | None:
        """(new rows of the per-layer table,) int64: the leading new rows whose old row the table has."""
        if self.per_layer_rows is None:
            return None
        beyond = np.flatnonzero(self.new_to_old >= self.per_layer_rows)
        return self.new_to_old[: int(beyond[0])] if beyond.size else self.new_to_old

    @property
    def averaged_rows(self) -> dict[int, RowMean]:
        """Row of the slice -> old rows that it is the mean of: new tokens that have no row of their own in the source."""
        first = len(self.kept)
        return {first + at: mean_rows(one) for at, one in enumerate(self.extension) if one.origin is None}

    def __repr__(self) -> str:
        return f"SlicePlan({self.model}: keeps {kept_text(self)})"

    def _repr_html_(self) -> str:
        counts = [(kind, f"{number:,}") for kind, number in reason_counts(self.reasons).items()]
        return html_table(f"{self.model}: keeps {kept_text(self)}", ("kept for", "tokens"), counts[:12])

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, one kept token a line, to be read, edited, and done with `slice(plan=...)`."""
        save_plan(self, Path(path))

    def id_map(self) -> IdMap:
        """Old id to new id, for configuration files."""
        new_of = np.full(self.rows, -1, dtype=np.int64)
        new_of[self.kept] = np.arange(self.kept.shape[0])
        per_layer = self.per_layer_new_to_old
        return IdMap(
            new_of,
            size=int(self.new_to_old.shape[0]),
            per_layer_size=None if per_layer is None else int(per_layer.shape[0]),
            old_per_layer=self.per_layer_rows,
        )


def digest_rows(kept: np.ndarray) -> str:
    """sha256 of the kept rows, to see whether a plan was edited after its closure was checked.

    kept  (n,) int64 old rows, in the order of the new ones
    """
    return hashlib.sha256(np.ascontiguousarray(kept, dtype="<i8").tobytes()).hexdigest()


def save_plan(plan: SlicePlan, path: Path) -> None:
    """Write a plan as JSON, one kept token a line."""
    with staging_file(path) as partial:
        write_plan(plan, partial)


def write_plan(plan: SlicePlan, path: Path, before: str = "", after: str = "") -> None:
    """Write a plan as JSON, a few thousand kept tokens at a time, between two pieces of text."""
    with path.open("wb") as file:
        for part in (before, *plan_parts(plan), after):
            # Lone surrogates cannot be encoded; JSON escapes them.
            file.write(part.encode("utf-8", "backslashreplace"))


def plan_text(plan: SlicePlan) -> str:
    """A plan as JSON text."""
    return "".join(plan_parts(plan)).encode("utf-8", "backslashreplace").decode("utf-8")


def plan_parts(plan: SlicePlan) -> Iterator[str]:
    """A plan as JSON text in parts; lone surrogates stay as they are."""
    head = {
        "format": FORMAT,
        "langslice": __version__,
        "source": {
            "model": plan.model,
            "revision": plan.revision,
            "model_type": plan.model_type,
            "fingerprint": plan.fingerprint,
        },
        "request": dict(plan.request),
        "coverage": dict(plan.coverage),
        "notes": list(plan.notes),
        "ignore_fields": list(plan.ignore_fields),
        **({"row": plan.row.splitlines()} if plan.row else {}),
        "implied_ids": {file: dict(fields) for file, fields in plan.implied_ids.items()},
        "structure": None if plan.structure is None else kept_json(plan.structure),
        "weights": None if plan.weights is None else dict(plan.weights),
        "vocabulary": {
            "rows": plan.rows,
            "per_layer_rows": plan.per_layer_rows,
            "kept_rows": int(plan.kept.shape[0]),
            "padding": list(plan.padding),
            "checked": plan.checked,
        },
    }
    quote = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` would make an encoder for every call
    facts = quote(dict(plan.facts))  # on one line: curves are for pictures, not for reading
    yield json.dumps(head, ensure_ascii=False, indent=1)[:-2] + f',\n "facts": {facts},\n "kept": [\n'
    reasons = {reason: quote(reason) for reason in set(plan.reasons)}  # a few texts, many times
    for start in range(0, len(plan.tokens), _WINDOW):
        part = slice(start, start + _WINDOW)
        kept = zip(plan.kept[part].tolist(), plan.tokens[part], plan.reasons[part], strict=True)
        rows = ",\n".join(f"[{old}, {quote(token)}, {reasons[reason]}]" for old, token, reason in kept)
        yield rows + (",\n" if start + _WINDOW < len(plan.tokens) else "")
    if plan.extension:
        yield '\n ],\n "extension": [\n' + ",\n".join(map(quote, extension_json(plan.extension)))
    tensors = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(_tensor_json(tensor))}" for name, tensor in plan.tensors.items()
    )
    yield f'\n ],\n "tensors": {{\n{tensors}\n }}\n}}\n'


def _tensor_json(tensor: TensorPlan) -> dict[str, Any]:
    entry: dict[str, Any] = {"action": tensor.action, "part": tensor.part, "shape": list(tensor.shape)}
    if tensor.axes is not None:
        entry["axes"] = list(tensor.axes)
    if tensor.reason:
        entry["reason"] = tensor.reason
    if tensor.name:
        entry["name"] = tensor.name
    return entry


def load_plan(path: str | Path) -> SlicePlan:
    """Read a plan, checking its form."""
    try:
        document = read_json(Path(path), PlanError, halves=True)
    except FileNotFoundError as error:
        raise PlanError(
            f"{path}: no such plan", hint="write one with `langslice plan MODEL ... -o plan.json`"
        ) from error
    return plan_from_json(document, place=str(path))


_PATTERNS = (None, str, [str])
_OF_TENSOR = {"shape": [int], "part": str, "action": str, "axes?": (None, [str]), "reason?": str, "name?": str}
_FORM = {
    "source": {"model": str, "revision": (None, str), "model_type": str, "fingerprint": str},
    "request": {"carry?": _PATTERNS, "leave_out?": _PATTERNS},
    "coverage": {"*": float},
    "notes": [str],
    "ignore_fields": [str],
    "row?": [str],
    "implied_ids": {"*": {"*": (int, [int])}},
    "structure?": (None, dict),
    "weights?": (None, {"keep_demos?": _PATTERNS, "avoid_demos?": _PATTERNS}),
    "vocabulary": {"rows": int, "per_layer_rows": (None, int), "padding": [int], "checked": str},
    "kept": [FixedList(int, (None, str), str)],
    "extension?": [NEW_TOKEN],
    "tensors": {"*": _OF_TENSOR},
}


def plan_from_json(document: Any, *, place: str) -> SlicePlan:
    """Build a plan from its JSON form; `place` names it in errors."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise PlanError(f"{place}: expected format {FORMAT}, found {found}", hint="is this a plan of another version?")
    known = {
        "format", "langslice", "source", "request", "coverage", "notes", "ignore_fields", "implied_ids", "structure",
        "weights", "facts", "vocabulary", "kept", "extension", "tensors", "row",
    }  # fmt: skip
    unknown = sorted(set(document) - known)
    if unknown:
        raise PlanError(f"{place}: unknown entry `{unknown[0]}`", hint=f"a plan has: {', '.join(sorted(known))}")
    check_form(document, _FORM, place, PlanError, "correct that place, or make a new plan with `langslice plan`")
    try:
        source, vocabulary, structure = document["source"], document["vocabulary"], document.get("structure")
        kept = np.array([row[0] for row in document["kept"]], dtype=np.int64)
        plan = SlicePlan(
            model=source["model"],
            revision=source["revision"],
            model_type=source["model_type"],
            fingerprint=source["fingerprint"],
            rows=int(vocabulary["rows"]),
            per_layer_rows=vocabulary["per_layer_rows"],
            kept=kept,
            tokens=tuple(row[1] for row in document["kept"]),
            reasons=tuple(sys.intern(row[2]) for row in document["kept"]),  # a few texts, many times
            padding=tuple(vocabulary["padding"]),
            extension=extension_from_json(document.get("extension", ())),
            checked=vocabulary["checked"],
            tensors={name: _tensor_from_json(entry) for name, entry in document["tensors"].items()},
            implied_ids=document["implied_ids"],
            ignore_fields=tuple(document["ignore_fields"]),
            request=document["request"],
            coverage=document["coverage"],
            notes=tuple(document["notes"]),
            structure=None if structure is None else kept_from_json(structure, place=place),
            weights=document.get("weights"),
            facts=checked_facts(document.get("facts", {})),
            row="\n".join(document.get("row", ())),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise PlanError(f"{place}: the plan is damaged: {type(error).__name__}: {error}") from error
    _check_rows(plan, place)
    return plan


def _tensor_from_json(entry: Mapping[str, Any]) -> TensorPlan:
    axes = entry.get("axes")
    return TensorPlan(
        shape=tuple(int(size) for size in entry["shape"]),
        part=str(entry["part"]),
        action=str(entry["action"]),
        axes=None if axes is None else tuple(axes),
        reason=str(entry.get("reason", "")),
        name=str(entry.get("name", "")),
    )


def _check_rows(plan: SlicePlan, place: str) -> None:
    if plan.kept.ndim != 1 or plan.kept.shape[0] == 0:
        raise PlanError(f"{place}: the plan keeps no tokens")
    steps = np.diff(plan.kept)
    if (steps <= 0).any():
        at = int(np.flatnonzero(steps <= 0)[0])
        raise PlanError(
            f"{place}: kept ids must ascend, but {int(plan.kept[at + 1])} follows {int(plan.kept[at])}",
            hint="the order of tokens is never changed; sort the lines by id and remove doubles",
        )
    for label, values in (("kept", plan.kept), ("padding", np.asarray(plan.padding, dtype=np.int64))):
        outside = values[(values < 0) | (values >= plan.rows)]
        if outside.size:
            raise PlanError(f"{place}: {label} id {int(outside[0])} is outside the {plan.rows} rows of the model")
    check_extension(plan.extension, plan.tokens, plan.kept, plan.rows)


def kept_text(plan: SlicePlan) -> str:
    """What a plan keeps, in a line."""
    padding = f" and {len(plan.padding)} rows of padding" if plan.padding else ""
    new = f"{',' if padding else ' and'} {len(plan.extension):,} new tokens" if plan.extension else ""
    share = len(plan.kept) / max(plan.rows, 1)
    vocabulary = f"{len(plan.kept):,} of {plan.rows:,} vocabulary rows ({share:.1%}){new}{padding}"
    if plan.keeps_vocabulary:
        vocabulary = f"all {plan.rows:,} vocabulary rows"
    return vocabulary if plan.structure is None else f"{_structure_text(plan.structure)}, {vocabulary}"


def _structure_text(structure: Kept) -> str:
    """Which layers stay, and in how many of them heads, neurons and experts go."""
    parts = [f"{stack} {','.join(number_runs(layers))}" for stack, layers in structure.layers.items()]
    cut = {"heads": structure.heads, "neurons": structure.neurons, "experts": structure.experts}
    for unit, places in cut.items():
        for place, rows in places.items():
            sizes = sorted({len(stay) for stay in rows.values()})
            span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
            parts.append(f"{span} {unit} in {len(rows)} {'layer' if len(rows) == 1 else 'layers'} of {place}")
    parts += (
        [f"{len(structure.hidden):,} {'rotated' if structure.rotation else 'hidden'} dimensions"]
        if structure.hidden
        else []
    )
    return f"{'; '.join(parts) or 'all layers'} ({structure.style})"
