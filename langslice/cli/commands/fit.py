"""`langslice fit`: the slice that meets a budget and loses least, with the table and the picture of what was tried."""

from __future__ import annotations

from typing import Any

from langslice.budgets.options import FitOptions
from langslice.cli.commands.options import Json, Model, Out, Overwrite, Quiet, choosing
from langslice.cli.commands.output import print_json, progress


@choosing(FitOptions)
def fit(
    model: Model, out: Out, *, json: Json = False, overwrite: Overwrite = False, quiet: Quiet = False, **given: Any
) -> None:
    """Write the slice that meets a budget and loses least.

    What was measured is kept in OUT/points: an interrupted run resumes.
    """
    from langslice.budgets.main import fit as run

    with progress(quiet or json) as report:
        found = run(model, out, overwrite=overwrite, report=report, **given)
    if json:
        print_json(found.to_json())
    elif not quiet:
        from langslice.budgets.table import print_fit

        print_fit(found)
