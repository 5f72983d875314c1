"""What a fit leaves: the verified slice in its folder, healed if asked, and what both lose as they were written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from langslice.budgets.narrowing import widened
from langslice.budgets.options import FitOptions
from langslice.budgets.points import Points
from langslice.errors import OutputError
from langslice.files.atomic_output import check_output
from langslice.model.checkpoint import open_checkpoint
from langslice.options import SourceOptions, declared, listed
from langslice.planning.plan import SlicePlan, save_plan
from langslice.progress import Report
from langslice.slicing.main import slice as write
from langslice.slicing.options import SliceOptions
from langslice.tradeoffs.in_memory import load_original
from langslice.tradeoffs.losses import Loss, line_items, losses
from langslice.verification.narrowed_source import hidden_dims

SLICE, HEALED, PLAN, RESULT, PICTURE = "slice", "healed", "plan.json", "fit.json", "fit.svg"
# Two losses that are no further apart are the same, measured by other sums.
_SAME: Final = 1e-3
# What a folder of an earlier fit holds.
_OWN = frozenset({SLICE, HEALED, PLAN, RESULT, PICTURE, "points"})


def check_folder(out: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is not of a fit, or whose fit is finished; one that was interrupted goes on.

    Raises  OutputError
    """
    if not out.exists():
        check_output(out, source=source)
        return
    names = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else [""]
    foreign = sorted(set(names) - _OWN)
    if foreign:
        raise OutputError(f"the output exists and is no folder of a fit\n  {out / foreign[0]}", "choose another name")
    finished = (out / RESULT).exists()
    if finished and not overwrite:
        raise OutputError(f"the output exists\n  {out / RESULT}", "choose another name, or pass --overwrite")
    for name in (SLICE, HEALED):
        check_output(out / name, source=source, overwrite=True)


def write_slice(
    points: Points, model: str | Path, made: SlicePlan, out: Path, options: FitOptions, report: Report
) -> Mapping[str, Loss]:
    """Write the plan, and the slice by it; what the slice loses as it is read back from the disk."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULT).unlink(
        missing_ok=True
    )  # that of an earlier fit; whoever finds none knows that this one is unfinished
    if options.heal is None:
        shutil.rmtree(out / HEALED, ignore_errors=True)
    partial = out / f".{PLAN}.partial"
    save_plan(made, partial)
    partial.replace(out / PLAN)
    source = {name: value for name, value in options.given().items() if name in declared(SourceOptions)}
    write(model, out / SLICE, options=SliceOptions(**source), plan=made, overwrite=True, report=report)
    return _losses_of(points, made, out / SLICE, report)


def difference_note(measured: Mapping[str, Loss], written: Mapping[str, Loss]) -> tuple[str, ...]:
    """A note where the slice loses other than what was measured in memory, which it should not."""
    most = max((abs(one.value - measured[code].value) for code, one in written.items()), default=0.0)
    return (f"the written slice loses {most:.4f} other than was measured in memory",) if most > _SAME else ()


def heal_slice(
    points: Points, made: SlicePlan, out: Path, options: FitOptions, report: Report
) -> Mapping[str, Loss] | None:
    """Train the slice towards the model that it is of, where that is asked; what it loses then."""
    if options.heal is None:
        return None
    from langslice.healing.main import heal
    from langslice.healing.options import HealOptions

    corpus = listed(options.heal_corpus) or listed(options.corpus)
    teacher = str(points.ladder.source.checkpoint.folder)
    settings = HealOptions(corpus=corpus, text_field=options.text_field, steps=options.heal, teacher=teacher)
    heal(out / SLICE, out / HEALED, settings, overwrite=True, report=report)
    return _losses_of(points, made, out / HEALED, report)


def _losses_of(points: Points, made: SlicePlan, folder: Path, report: Report) -> Mapping[str, Loss]:
    report(f"measuring {folder.name}", 0, 0)
    found = line_items(load_original(open_checkpoint(folder)), points.ladder.texts.measured)
    if points.kind == "encoder" and made.structure is not None:
        source = points.ladder.source
        dims = hidden_dims(source.checkpoint, made.structure)
        found = {language: widened(items, dims, source.anatomy) for language, items in found.items()}
    return losses(points.kind, points.before, found)
