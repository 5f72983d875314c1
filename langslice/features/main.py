"""The main flow of feature analysis: measure every set, compare them, zero what stands out, steer, and write it all down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from langslice.demonstrations.demonstration import read_demonstrations
from langslice.errors import PlanError
from langslice.features import pictures
from langslice.features.ablated_translation import (
    AblatedTranslation,
    check_translates,
    read_pairs_to_translate,
    translate_ablated,
)
from langslice.features.ablation import Ablation, ablate
from langslice.features.magnitudes import Magnitudes, measure_magnitudes
from langslice.features.options import FeatureOptions
from langslice.features.overlaps import Marks, overlap, particular_dimensions, standing_out
from langslice.features.tables import (
    PARTICULAR_COLUMNS,
    particular_rows,
    write_ablation,
    write_magnitudes,
    write_overlap,
    write_rows,
)
from langslice.files.atomic_output import refuse_existing, staging_results
from langslice.model.checkpoint import open_checkpoint
from langslice.options import codes, listed, taking
from langslice.progress import Report, silent
from langslice.steering.adapter import Steering
from langslice.steering.main import check_asked, fold_steering, make_steering, read_texts

if TYPE_CHECKING:
    from langslice.evaluation.translation import Pair


@dataclass(frozen=True)
class Features:
    """What was measured.

    measured      of every set
    overlaps      (sets, sets, layers) shares of the dimensions that are large in one and small in the other
    marks         set -> (layers, dimensions), what stands out in it; empty where there is nothing to compare with
    ablations     set -> loss with these zeroed
    translations  set -> what is translated with these zeroed
    steering      what the model is steered by; None unless asked for
    """

    measured: Magnitudes
    overlaps: Any
    marks: Mapping[str, Marks]
    ablations: Mapping[str, list[Ablation]]
    translations: Mapping[str, list[AblatedTranslation]]
    steering: Steering | None = None


_NOTHING: Final = Features(Magnitudes((), (), np.zeros((0, 0, 0)), ()), np.zeros((0, 0, 0)), {}, {}, {})
FOLDED: Final = "folded"
"""Folder of the checkpoint whose biases steer, in that of the adapter."""


@taking(FeatureOptions)
def find_features(
    model: str | Path,
    out: str | Path | None = None,
    *,
    options: FeatureOptions,
    overwrite: bool = False,
    report: Report = silent,
) -> Features:
    """Measure hidden dimensions on sets of demonstrations, compare them, and zero those that stand out; or steer to a language.

    out        folder of tables and plots, and of the adapter; none unless given
    options    see FeatureOptions
    overwrite  write into an existing folder
    Raises     PlanError, CorpusError, LanguageError, ScoreError, CheckpointError, OutputError, TaskError
    """
    if out is not None:
        refuse_existing(Path(out), overwrite)
    elif options.fold:
        raise PlanError("--fold writes a checkpoint, and no folder was given for it", "pass --out DIR")
    check_asked(options)
    wanted, others = _sets(options.demos, "--demos"), _sets(options.against, "--against")
    if wanted or others or options.steer is None:
        _check_sets(wanted, others)
    if out is not None and options.pictures and wanted:
        pictures.check_matplotlib()
    texts = None if options.steer is None else read_texts(options, options.data)
    checkpoint = open_checkpoint(model, **options.source())
    asked = _to_translate(checkpoint.model_folder, wanted, others, options)
    found = _measure(checkpoint.model_folder, wanted, others, asked, options, report) if wanted else _NOTHING
    if texts is not None:
        steered = make_steering(checkpoint, texts, options, max_tokens=options.max_tokens, report=report)
        found = replace(found, steering=steered)
    if out is not None:
        with staging_results(Path(out)) as partial:
            if texts is not None and found.steering is not None:
                found.steering.save(partial)
                if options.fold:
                    fold_steering(checkpoint, found.steering, texts, partial / FOLDED)
            if wanted:
                _write_tables(partial, found, list(others))
            if wanted and options.pictures:
                _draw(partial, found, options)
    return found


def _measure(
    folder: Path, wanted: Mapping[str, Path], others: Mapping[str, Path], asked: Mapping[str, list[Pair]],
    options: FeatureOptions, report: Report,
) -> Features:  # fmt: skip
    conditions: dict[str, Sequence[Any]] = {name: [path] for name, path in (*wanted.items(), *others.items())}
    share = options.share
    with TemporaryDirectory(prefix="langslice-") as scratch:
        measured = measure_magnitudes(
            folder, conditions, max_tokens=options.max_tokens, offload=Path(scratch) if options.offload else None,
            report=report,
        )  # fmt: skip
        compared = overlap(measured, share)
        marks = {}
        for name in wanted if others else ():
            if options.stand_out is None:
                marks[name] = particular_dimensions(measured, name, list(others), share)
            else:
                marks[name] = standing_out(measured, name, list(others), options.stand_out, share)
        ablations = {
            name: ablate(
                folder, measured, conditions, name, marks[name], share=share, limit=options.ablation_count,
                max_tokens=options.max_tokens, report=report,
            )
            for name in marks
            if options.ablate
        }  # fmt: skip
        translations = {
            name: translate_ablated(
                folder, measured, name, marks[name], lines, share=share, new_tokens=options.new_tokens, report=report
            )
            for name, lines in asked.items()
        }
    return Features(measured, compared, marks, ablations, translations)


def _to_translate(
    folder: Path, wanted: Mapping[str, Path], others: Mapping[str, Path], options: FeatureOptions
) -> dict[str, list[Pair]]:
    """Pairs to translate with the dimensions of each wanted set zeroed, read before anything slow begins."""
    count, pairs = options.translate, codes(options.pairs)
    if count is None:
        given = "--pairs" if pairs else "--data" if options.data is not None and options.steer is None else None
        if given is not None:
            raise PlanError(f"{given} is for --translate, which was not given", hint="pass --translate 100")
        return {}
    if not options.ablate or not others:
        missing = "--against" if options.ablate else "--ablate"
        raise PlanError(f"--translate compares what is zeroed, and {missing} was not given", hint=f"pass {missing} too")
    check_translates(folder)
    data = None if options.data is None else Path(options.data)
    return {
        name: read_pairs_to_translate(
            pairs, count, data=data, shots=options.shots, demonstrations=read_demonstrations(path)
        )
        for name, path in wanted.items()
    }


def _sets(given: str | Sequence[str], option: str) -> dict[str, Path]:
    """Name -> file; a set without a name is called as its file is."""
    found: dict[str, Path] = {}
    for item in listed(given):
        name, equals, path = item.partition("=")
        file = Path(path if equals else item)
        name = name if equals else file.stem
        if name in found:
            raise PlanError(f"two sets of demonstrations are called {name!r}", hint=f"name them: {option} NAME=FILE")
        found[name] = file
    return found


def _check_sets(wanted: Mapping[str, Path], others: Mapping[str, Path]) -> None:
    if not wanted:
        raise PlanError(
            "no demonstrations were given",
            hint="pass --demos FILE, made by `langslice demonstrations`; or --steer CODE for an adapter",
        )
    twice = sorted(wanted.keys() & others.keys())
    if twice:
        raise PlanError(f"two sets of demonstrations are called {twice[0]!r}", hint="name them: --against NAME=FILE")


def _write_tables(out: Path, found: Features, others: list[str]) -> None:
    write_magnitudes(found.measured, out / "magnitudes.parquet")
    write_overlap(found.measured, found.overlaps, out / "overlap.parquet")
    for name, marked in found.marks.items():
        rows = particular_rows(found.measured, marked, name, others)
        write_rows(rows, PARTICULAR_COLUMNS, out / f"particular-{pictures.file_name(name)}.parquet")
    for name, measurements in found.ablations.items():
        path = out / f"ablation-{pictures.file_name(name)}.parquet"
        write_ablation(measurements, path, found.translations.get(name, ()))


def _draw(out: Path, found: Features, options: FeatureOptions) -> None:
    measured = found.measured
    for name in measured.conditions:
        path = out / f"bars-{pictures.file_name(name)}.png"
        pictures.draw_bars(measured, name, path, top=options.top, marks=found.marks.get(name))
    if len(measured.conditions) > 1:
        pictures.draw_overlap(measured, found.overlaps, out / "overlap.png", share=options.share)
        pictures.draw_overlap_by_layer(measured, found.overlaps, out / "overlap-layers.png")
    for name, measurements in found.ablations.items():
        path = out / f"ablation-{pictures.file_name(name)}.png"
        pictures.draw_ablation(measurements, path, found.translations.get(name, ()))
