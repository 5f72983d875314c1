"""`langslice mask`: the cuts of `slice` as zeros, so that every client loads the result."""

from __future__ import annotations

from typing import Any

from langslice.commands.options import Choice, HeldOut, Model, Out, Overwrite, Quiet, Verify, choosing
from langslice.commands.output import progress


@choosing(
    Choice, "drop_heads", "heads_sparsity", "heads_by", "drop_neurons", "neurons_sparsity", "neurons_by", "score_texts",
    "prune_rows", "carry", "leave_out", "revision", "token", "cache_dir",
)  # fmt: skip
def mask(
    model: Model,
    out: Out,
    *,
    text: HeldOut = None,
    verify: Verify = True,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    **choice: Any,
) -> None:
    """Zero heads and neurons instead of removing them: same shapes, any client."""
    from langslice import job

    choice["output_style"] = "masked"
    with progress(quiet) as report:
        result = job.slice(model, out, verify=verify, text=text or (), overwrite=overwrite, report=report, **choice)
    if not quiet:
        from langslice.console import print_result

        print_result(result)
