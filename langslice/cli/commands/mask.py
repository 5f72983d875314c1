"""`langslice mask`: the cuts of `slice` as zeros, so that every client loads the result."""

from __future__ import annotations

from typing import Any

from langslice.cli.commands.options import Choice, HeldOut, Model, Out, Overwrite, Quiet, ShowRecipe, Verify, choosing
from langslice.cli.commands.output import print_recipe, progress


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
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **choice: Any,
) -> None:
    """Zero heads and neurons instead of removing them: same shapes, any client."""
    choice["output_style"] = "masked"
    if show_recipe:
        more = {} if verify and not text else {"verify": {"text": list(text or ())} if verify else False}
        print_recipe(mask, "slice", model, choice, more=more)
        return
    from langslice.slicing import main as job

    with progress(quiet) as report:
        result = job.slice(model, out, verify=verify, text=text or (), overwrite=overwrite, report=report, **choice)
    if not quiet:
        from langslice.cli.console import print_result

        print_result(result)
