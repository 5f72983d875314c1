"""Which dimensions of the hidden states stay, as a choice asks for it, and what stands in the way."""

from __future__ import annotations

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy
from langslice.model.axes import describe_tensors, find_vocabulary_size
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.options import Choice, asks, listed
from langslice.planning.sentence_modules import refuse_fixed_width
from langslice.progress import Report
from langslice.structure.hidden_size import check_hidden
from langslice.structure.output_form import express
from langslice.structure.rotation import packed, refuse_rotation


def check_hidden_choice(checkpoint: Checkpoint, anatomy: Anatomy, choice: Choice) -> None:
    """Refuse a hidden size that cannot be written, before anything is measured.

    Raises   PlanError
    """
    number = choice.get("hidden_size")
    if number is None:
        if choice.get("hidden_by"):
            raise PlanError("--hidden-by has no effect: no hidden dimension goes", hint="add --hidden-size N")
        return
    check_hidden(anatomy, number)
    if listed(choice.get("prune_rows")):
        raise PlanError(
            "--prune-rows zeroes rows by their place in the source's matrices, and --hidden-size changes these places",
            hint="prune rows of the slice in a second job",
        )
    refuse_fixed_width(checkpoint)
    if choice.get("hidden_by") == "rotation":
        family, shapes = family_of(checkpoint.config), checkpoint.shapes
        refuse_rotation(anatomy, describe_tensors(family, shapes, find_vocabulary_size(family, shapes)))
    if not asks(choice, ("drop_heads", "heads_sparsity", "language_neurons")):
        style = choice.get("output_style") or "auto"
        express(anatomy, layers={}, heads={}, neurons={}, hidden=tuple(range(number)), style=style)


def hidden_to_keep(
    checkpoint: Checkpoint, anatomy: Anatomy, choice: Choice, report: Report
) -> tuple[tuple[int, ...], str]:
    """Hidden dimensions that stay, ascending, () where all do; and the rotation before that, as text.

    Raises   PlanError, ScoreError, CorpusError
    """
    number = choice.get("hidden_size")
    if number is None:
        return (), ""
    from langslice.scoring.hidden_dimensions import hidden_scores, principal_directions

    texts = listed(choice.get("score_texts"))
    method = choice.get("hidden_by") or ("activation" if texts else "l2")
    if method == "rotation":
        directions = principal_directions(checkpoint, anatomy, texts, report)
        return tuple(range(number)), packed(directions[:, :number])
    scores = hidden_scores(checkpoint, anatomy, method, texts, report)
    return tuple(sorted(scores.argsort(kind="stable")[::-1][:number].tolist())), ""
