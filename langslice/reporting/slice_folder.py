"""From a slice's folder to the data of its report: slice.json, the source's card and the files that lie there.

Weights are not read. What other commands measured (results, scores, features, healing) is read in measurements.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from langslice.errors import LangsliceError, ReportError
from langslice.model.checkpoint import open_checkpoint
from langslice.model.layer_fields import table_body
from langslice.options import codes, flag_of
from langslice.planning.options import PlanOptions
from langslice.planning.plan import SlicePlan
from langslice.reporting.data import (
    Curve,
    Healing,
    HiddenStates,
    KeptLanguage,
    LayerRow,
    LayerStack,
    PartSizes,
    Report,
    Script,
    Sizes,
    SliceOrigin,
    SourceModel,
    Sparsity,
    TensorZeros,
    TextTokens,
    UnitRow,
    VerificationCheck,
    Vocabulary,
)
from langslice.reporting.source_card import read_card, source_card
from langslice.verification.record import read_whole_record

# Name of the report in a slice's folder.
REPORT = "report.html"
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "*USE_POLICY*")
# Entries of a request that the command line takes as one text of codes with commas.
_ONE_TEXT = ("languages", "scripts", "drop_scripts")
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|block|h)\.(\d+)\.")


def open_slice(folder: Path) -> tuple[Report, SlicePlan, dict[str, Any]]:
    """Read everything that a slice's own folder says of it.

    Returns  the data, the plan, and the rest of slice.json
    Raises   PlanError when it is no slice; ReportError for a record that contradicts itself
    """
    head, plan = read_whole_record(folder)
    return read_slice(folder, head, plan), plan, head


def read_slice(folder: Path, head: Mapping[str, Any], plan: SlicePlan, *, name: str = "") -> Report:
    """The data of a report from a record that is in memory.

    head    slice.json without the plan and its map
    name    of the slice, where the folder does not have its final name yet
    Raises  ReportError
    """
    try:
        parts = _parts(folder, head, plan)
        verification = head.get("proof")
        known = [part.size_bytes for part in parts]
        sizes = [size for size in known if size is not None]
        return Report(
            name=name or folder.resolve().name,
            source=_source(folder, head, plan),
            parameters=_sum([part.parameters for part in parts]),
            size_bytes=_sum(sizes) if len(sizes) == len(known) else None,
            parts=parts,
            vocabulary=None if plan.keeps_vocabulary else _vocabulary(plan),
            stacks=_stacks(plan),
            hidden=_hidden(plan),
            style=None if plan.structure is None else plan.structure.style,
            sparsity=_sparsity(head.get("sparsity")),
            texts=tuple(_text(entry) for entry in (verification or {}).get("texts", ())),
            checks=None if verification is None else tuple(_check(entry) for entry in verification["checks"]),
            proven=None if verification is None else bool(verification["passed"]),
            healing=None if head.get("healed") is None else Healing(dict(head["healed"]), {}),
            origin=_origin(folder, head, plan, name or folder.resolve().name),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ReportError(
            f"{folder}: slice.json is damaged: {type(error).__name__}: {error}", hint="slice again, or restore the file"
        ) from error


def _sum(sizes: list[Sizes]) -> Sizes:
    return Sizes(sum(size.before for size in sizes), sum(size.after for size in sizes))


def _parts(folder: Path, head: Mapping[str, Any], plan: SlicePlan) -> tuple[PartSizes, ...]:
    """Parts as recorded; of records that lack them, parameters from the plan and the tensors on disk."""
    recorded = head.get("parts")
    if recorded:
        parts = [
            PartSizes(name, Sizes(*row["tensors"]), Sizes(*row["parameters"]), Sizes(*row["size_bytes"]))
            for name, row in recorded.items()
        ]
    else:
        found = open_checkpoint(folder).shapes
        sums: dict[str, list[int]] = {}
        for name, tensor in plan.tensors.items():
            after = None if tensor.action == "drop" else found.get(tensor.name or name)
            row = (1, int(after is not None), prod(tensor.shape), 0 if after is None else prod(after))
            sums[tensor.part] = [x + y for x, y in zip(sums.get(tensor.part, [0] * 4), row, strict=True)]
        parts = [PartSizes(name, Sizes(*row[:2]), Sizes(*row[2:]), None) for name, row in sums.items()]
    return tuple(sorted(parts, key=lambda part: -part.parameters.before))


def _source(folder: Path, head: Mapping[str, Any], plan: SlicePlan) -> SourceModel:
    card = source_card(folder)
    metadata = read_card(card)[0] if card else {}
    licence = {
        key: metadata.pop(key) for key in ("license", "license_name", "license_link") if metadata.get(key) is not None
    }
    files = sorted({path.name for pattern in LICENCE_FILES for path in folder.glob(pattern) if path.is_file()})
    return SourceModel(
        model=plan.model,
        revision=plan.revision,
        model_type=plan.model_type,
        public=_public(head["source"]),
        licence=licence,
        card=card.name if card else "",
        licence_files=tuple(files),
        metadata=metadata,
    )


def _public(source: Mapping[str, Any] | None) -> str | None:
    """Hub id of the source, or of what it was itself sliced from; a model with a commit came from the hub."""
    while source:
        if source.get("revision"):
            return str(source["model"])
        source = (source.get("slice") or {}).get("source")
    return None


def _vocabulary(plan: SlicePlan) -> Vocabulary:
    scripts = plan.facts.get("scripts", {})
    criteria = plan.facts.get("evidence", [])
    return Vocabulary(
        rows=Sizes(plan.rows, len(plan.new_to_old)),
        padding=len(plan.padding),
        new=tuple(one.token for one in plan.extension),
        scripts=tuple(Script(name, script_label(name), Sizes(*counts)) for name, counts in scripts.items()),
        languages=_languages(plan, {entry["reason"]: entry for entry in criteria}),
        reasons=tuple(_reasons(plan).most_common()),
        curves=tuple(
            Curve(
                label=criterion_label(entry["reason"]),
                points=tuple((int(tokens), float(share)) for tokens, share in entry["curve"]),
                tokens=int(entry["weighed"]),
                covered=float(entry["covered"]),
                asked=None if plan.request.get("coverage") is None else float(plan.request["coverage"]),
            )
            for entry in criteria
            if "curve" in entry
        ),
    )


def _reasons(plan: SlicePlan) -> Counter[str]:
    """Tokens by kind of reason; a token may have several."""
    found: Counter[str] = Counter()
    for reason, count in Counter(plan.reasons).items():
        for kind in {part.split(" of ")[0].split(" by ")[0] for part in reason.split(", ")}:
            found[kind] += count
    return found


def _languages(plan: SlicePlan, criteria: Mapping[str, Mapping[str, Any]]) -> tuple[KeptLanguage, ...]:
    reasons = _reasons(plan)
    alone = Counter(plan.reasons)
    found = []
    for reason in dict.fromkeys([*(name for name in criteria if name.startswith("language:")), *reasons]):
        if reason.startswith("language:"):
            entry = criteria.get(reason, {})
            tag = reason.partition(":")[2]
            kept = int(entry.get("kept", reasons[reason]))
            found.append(
                KeptLanguage(
                    tag, language_label(tag), entry.get("tokens"), kept, alone[reason], entry.get("covered"), ()
                )
            )
    return tuple(found)


def script_label(code: str) -> str:
    """English name of a script; kinds of tokens that are no script keep their own.

    Example  "Hang" -> "Hangul", "Zyyy" -> "shared by scripts", "byte" -> "byte"
    """
    from fontTools.unicodedata import Scripts

    if code == "Zyyy":
        return "shared by scripts"
    name = Scripts.NAMES.get(code)
    return code if name is None else str(name).replace("_", " ")


def language_label(tag: str) -> str:
    """English name of a language, or its tag where it has none."""
    from langslice.vocabulary.languages import parse_languages

    try:
        return parse_languages([tag])[0].name
    except LangsliceError:
        return tag


def criterion_label(reason: str) -> str:
    """Name of a criterion for people: "language:ko" -> "Korean, word list"."""
    kind, _, rest = reason.partition(":")
    return f"{language_label(rest)}, word list" if kind == "language" else f"{rest}, {kind}" if rest else kind


def _stacks(plan: SlicePlan) -> tuple[LayerStack, ...]:
    """Layers of the source, heads, neurons and experts in them, and which stay; nothing where no layer was touched."""
    kept = plan.structure
    if kept is None:
        return ()
    sizes = plan.facts.get("sizes")
    if not sizes:
        return _stacks_by_name(plan)
    stacks = []
    for stack, count in sizes["layers"].items():
        rows = []
        for layer in range(count):
            stays = kept.keeps_layer(stack, layer)
            heads = {}
            for place, by_layer in sizes["heads"].items():
                if place.rpartition(".")[0] == stack and str(layer) in by_layer:
                    total = int(by_layer[str(layer)][0])
                    left = kept.heads.get(place, {}).get(layer, tuple(range(total))) if stays else ()
                    heads[place.rpartition(".")[2]] = UnitRow(total, tuple(left))
            neurons, experts = (
                _unit_row(sizes.get(kind, {}).get(stack, {}).get(str(layer)), by_stack.get(stack, {}).get(layer), stays)
                for kind, by_stack in (("neurons", kept.neurons), ("experts", kept.experts))
            )
            rows.append(LayerRow(layer, kept.new_layer(stack, layer) if stays else None, heads, neurons, experts))
        stacks.append(LayerStack(stack, tuple(rows)))
    return tuple(stacks)


def _hidden(plan: SlicePlan) -> HiddenStates | None:
    """Dimensions of the hidden states, where some were removed."""
    before, kept = plan.facts.get("sizes", {}).get("hidden"), plan.structure
    if kept is None or not kept.hidden or before is None:
        return None
    body = table_body(plan.model_type)
    scaled = body is not None and body.residual is not None and body.residual.norm != "layer"
    return HiddenStates(Sizes(before, len(kept.hidden)), bool(kept.rotation), scaled)


def _unit_row(total: int | None, kept: tuple[int, ...] | None, stays: bool) -> UnitRow | None:
    """Parts of a layer; None where it has none of the kind."""
    if total is None:
        return None
    left = tuple(range(total)) if kept is None else kept
    return UnitRow(int(total), left if stays else ())


def _stacks_by_name(plan: SlicePlan) -> tuple[LayerStack, ...]:
    """Layers alone, by the numbers in the tensors' names, where the record does not give the source's sizes."""
    kept = plan.structure
    if kept is None:
        return ()
    counts: dict[str, int] = {}
    for name in plan.tensors:
        found = _LAYER.search(name)
        if found:
            side = next(
                (side for side in ("encoder", "decoder") if f"{side}." in name and side in kept.layers), "layers"
            )
            counts[side] = max(counts.get(side, 0), int(found[1]) + 1)
    return tuple(
        LayerStack(
            stack,
            tuple(
                LayerRow(layer, kept.new_layer(stack, layer) if kept.keeps_layer(stack, layer) else None, {}, None)
                for layer in range(count)
            ),
            sizes_known=False,
        )
        for stack, count in counts.items()
    )


def _sparsity(done: Mapping[str, Any] | None) -> Sparsity | None:
    if not done:
        return None
    tensors = [
        TensorZeros(name, float(entry["asked"]), int(entry["zeros"]), int(entry["size"]))
        for name, entry in done["tensors"].items()
    ]
    return Sparsity(
        float(done["sparsity"]), done["request"], done["prompts"], tuple(tensors), tuple(done.get("notes", ()))
    )


def _text(entry: Mapping[str, Any]) -> TextTokens:
    return TextTokens(
        str(entry["name"]), int(entry["units"]), Sizes(int(entry["tokens_before"]), int(entry["tokens_after"])),
        float(entry["covered"]), float(entry["growth"]), int(entry["identical"]), int(entry["differing"]),
        Sizes(int(entry["unknown_before"]), int(entry["unknown_after"])),
    )  # fmt: skip


def _check(entry: Mapping[str, Any]) -> VerificationCheck:
    examples = tuple(entry.get("examples", ()))
    return VerificationCheck(
        str(entry["name"]), entry["passed"], str(entry["detail"]), examples, str(entry.get("warning", ""))
    )


def _origin(folder: Path, head: Mapping[str, Any], plan: SlicePlan, name: str) -> SliceOrigin:
    return SliceOrigin(
        command=tuple(head.get("command") or ()),
        equivalent=equivalent_command(plan, name),
        recipe=None,
        versions=head["versions"],
        fingerprint=plan.fingerprint,
        source_files=head["source"]["files"],
        files=_files(folder),
        left_out=head.get("left_out", {}),
        notes=tuple(plan.notes),
    )


def _files(folder: Path) -> dict[str, tuple[int, str | None]]:
    """Sizes of the slice's files, the report itself left out."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, None)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() != REPORT
    }


def with_hashes(report: Report, folder: Path) -> Report:
    """The report with size and sha256 of every file of the slice as it is now: reads all of them."""
    from langslice.files.hashing import file_sha256

    files: dict[str, tuple[int, str | None]] = {
        name: (size, file_sha256(folder / name)) for name, (size, _) in _files(folder).items()
    }
    return replace(report, origin=replace(report.origin, files=files))


def equivalent_command(plan: SlicePlan, out: str) -> tuple[str, ...]:
    """The command line that asks for what a plan records."""
    words = ["langslice", "slice", plan.model]
    if plan.revision:
        words += ["--revision", plan.revision]
    for name, value in plan.request.items():
        option = flag_of(PlanOptions, name)
        if value is True:
            words.append(option)
        elif name in _ONE_TEXT:
            words += [option, ",".join(codes(value))]
        elif isinstance(value, list | tuple):
            words += [word for item in value for word in (option, str(item))]
        else:
            words += [option, str(value)]
    return (*words, "-o", out)
