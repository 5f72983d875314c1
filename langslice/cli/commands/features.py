"""`langslice features`: which hidden dimensions are large while a model translates, and small otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import Model, Quiet, ShowRecipe, Source, choosing
from langslice.cli.commands.options import option as _option
from langslice.cli.commands.output import print_recipe, progress, refuse_existing

if TYPE_CHECKING:
    from langslice.evaluation.translation import Pair
    from langslice.features import AblatedTranslation, Ablation, Magnitudes
    from langslice.features.overlap import Marks


@choosing(Source)
def features(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of tables and pictures.", show_default=False)],
    demos: Annotated[
        list[str] | None,
        _option(
            "--demos",
            help="Demonstrations of what is looked for, such as translation. NAME=FILE names them.",
            metavar="FILE",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        _option("--against", help="Demonstrations of everything else, such as each language alone.", metavar="FILE"),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Bars for each layer.", min=1)] = 20,
    share: Annotated[
        float, typer.Option("--share", help="Share of the dimensions that count as large, and as small.")
    ] = 0.4,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Zero the dimensions found, others, and random ones, and compare the loss.")
    ] = False,
    stand_out: Annotated[
        int | None,
        _option(
            "--stand-out",
            help="Instead of those small in every other set: so many of each layer that stand out most.",
        ),
    ] = None,
    ablation_count: Annotated[
        int, typer.Option("--ablation-count", help="Demonstrations of each set for --ablate.", min=1)
    ] = 20,
    translate: Annotated[
        int | None,
        _option(
            "--translate",
            help="With --ablate: also translate so many held-out lines of each pair, and compare BLEU and chrF++.",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        _option("--pairs", help="For --translate: fr-en,es-en; else the languages of --demos.", metavar="PAIRS"),
    ] = None,
    data: Annotated[
        Path | None,
        _option(
            "--data",
            help="For --translate: folder of NTREX-128 or FLORES-200; else the package's lines.",
            metavar="DIR",
        ),
    ] = None,
    shots: Annotated[int, typer.Option("--shots", help="For --translate: demonstrations in a prompt; 0 asks.")] = 4,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", help="For --translate: most tokens that the model writes.", min=1)
    ] = 64,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest demonstration.", min=1)] = 512,
    offload: Annotated[bool, typer.Option("--offload", help="Keep activations on disk, not in memory.")] = False,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw PNG files.")] = True,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into an existing folder.")] = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **source: Any,
) -> None:
    """Measure hidden dimensions on sets of demonstrations, compare them, and draw the result."""
    if show_recipe:
        print_recipe(features, "features", model, {**locals(), **source})
        return
    from tempfile import TemporaryDirectory

    from langslice.features import ablate as measure_ablation
    from langslice.features import measure_magnitudes, overlap, particular_dimensions, standing_out, translate_ablated
    from langslice.features.pictures import check_matplotlib
    from langslice.files.atomic_output import staging_results
    from langslice.model.checkpoint import open_checkpoint

    refuse_existing(out, overwrite)
    wanted, others = _sets(demos, "--demos"), _sets(against, "--against")
    _check_sets(wanted, others)
    if pictures:
        check_matplotlib()
    folder = open_checkpoint(model, **source).model_folder
    asked = _to_translate(folder, wanted, others, translate, pairs, data, shots, ablate=ablate)
    conditions: dict[str, Sequence[Any]] = {name: [path] for name, path in (*wanted.items(), *others.items())}
    with progress(quiet) as report, TemporaryDirectory(prefix="langslice-") as scratch:
        measured = measure_magnitudes(
            folder, conditions, max_tokens=max_tokens, offload=Path(scratch) if offload else None, report=report
        )
        compared = overlap(measured, share)
        marks = {}
        for name in wanted if others else ():
            if stand_out is None:
                marks[name] = particular_dimensions(measured, name, list(others), share)
            else:
                marks[name] = standing_out(measured, name, list(others), stand_out, share)
        rows = {
            name: measure_ablation(
                folder, measured, conditions, name, marks[name], share=share, limit=ablation_count,
                max_tokens=max_tokens, report=report,
            )
            for name in marks
            if ablate
        }  # fmt: skip
        translations = {
            name: translate_ablated(
                folder, measured, name, marks[name], lines, share=share, new_tokens=new_tokens, report=report
            )
            for name, lines in asked.items()
        }
    with staging_results(out) as partial:
        _write_tables(partial, measured, compared, marks, list(others), rows, translations)
        if pictures:
            _draw(partial, measured, compared, marks, rows, translations, top, share)
    if not quiet:
        _print(out, measured, marks, rows, translations)


def _to_translate(
    folder: Path, wanted: dict[str, Path], others: dict[str, Path], count: int | None, pairs: str | None,
    data: Path | None, shots: int, *, ablate: bool,
) -> dict[str, list[Pair]]:  # fmt: skip
    """Pairs to translate with the dimensions of each wanted set zeroed, read before anything slow begins."""
    from langslice.demonstrations import read_demonstrations
    from langslice.errors import PlanError
    from langslice.features.ablated_translation import check_translates, read_pairs_to_translate

    if count is None:
        given = next((name for name, value in (("--pairs", pairs), ("--data", data)) if value is not None), None)
        if given is not None:
            raise PlanError(f"{given} is for --translate, which was not given", hint="pass --translate 100")
        return {}
    if not ablate or not others:
        missing = "--against" if ablate else "--ablate"
        raise PlanError(f"--translate compares what is zeroed, and {missing} was not given", hint=f"pass {missing} too")
    check_translates(folder)
    return {
        name: read_pairs_to_translate(
            pairs or (), count, data=data, shots=shots, demonstrations=read_demonstrations(path)
        )
        for name, path in wanted.items()
    }


def _sets(given: Sequence[str] | None, option: str) -> dict[str, Path]:
    """Name -> file; a set without a name is called as its file is."""
    from langslice.errors import PlanError

    found: dict[str, Path] = {}
    for item in given or ():
        name, equals, path = item.partition("=")
        file = Path(path if equals else item)
        name = name if equals else file.stem
        if name in found:
            raise PlanError(f"two sets of demonstrations are called {name!r}", hint=f"name them: {option} NAME=FILE")
        found[name] = file
    return found


def _check_sets(wanted: dict[str, Path], others: dict[str, Path]) -> None:
    from langslice.errors import PlanError

    if not wanted:
        raise PlanError("no demonstrations were given", hint="pass --demos FILE, made by `langslice demonstrations`")
    twice = sorted(wanted.keys() & others.keys())
    if twice:
        raise PlanError(f"two sets of demonstrations are called {twice[0]!r}", hint="name them: --against NAME=FILE")


def _write_tables(
    out: Path,
    measured: Magnitudes,
    compared: Any,
    marks: dict[str, Marks],
    others: list[str],
    rows: dict[str, list[Ablation]],
    translations: dict[str, list[AblatedTranslation]],
) -> None:
    from langslice.features.pictures import file_name
    from langslice.features.tables import (
        PARTICULAR_COLUMNS,
        particular_rows,
        write_ablation,
        write_magnitudes,
        write_overlap,
        write_rows,
    )

    write_magnitudes(measured, out / "magnitudes.parquet")
    write_overlap(measured, compared, out / "overlap.parquet")
    for name, marked in marks.items():
        found = particular_rows(measured, marked, name, others)
        write_rows(found, PARTICULAR_COLUMNS, out / f"particular-{file_name(name)}.parquet")
    for name, measurements in rows.items():
        write_ablation(measurements, out / f"ablation-{file_name(name)}.parquet", translations.get(name, ()))


def _draw(
    out: Path,
    measured: Magnitudes,
    compared: Any,
    marks: dict[str, Marks],
    rows: dict[str, list[Ablation]],
    translations: dict[str, list[AblatedTranslation]],
    top: int,
    share: float,
) -> None:
    from langslice.features import pictures

    for name in measured.conditions:
        path = out / f"bars-{pictures.file_name(name)}.png"
        pictures.draw_bars(measured, name, path, top=top, marks=marks.get(name))
    if len(measured.conditions) > 1:
        pictures.draw_overlap(measured, compared, out / "overlap.png", share=share)
        pictures.draw_overlap_by_layer(measured, compared, out / "overlap-layers.png")
    for name, measurements in rows.items():
        pictures.draw_ablation(
            measurements, out / f"ablation-{pictures.file_name(name)}.png", translations.get(name, ())
        )


def _print(
    out: Path,
    measured: Magnitudes,
    marks: dict[str, Marks],
    rows: dict[str, list[Ablation]],
    translations: dict[str, list[AblatedTranslation]],
) -> None:
    from langslice.cli.commands.feature_tables import print_ablation, print_particular, print_translations

    for name, marked in marks.items():
        print_particular(measured, name, marked)
    for name, measurements in rows.items():
        print_ablation(name, measurements)
    for name, translated in translations.items():
        print_translations(name, translated)
    typer.echo(f"{out}: tables and pictures", err=True)
