"""Which experts go, as a choice asks for it: by number, by score, by language."""

from __future__ import annotations

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.options import Choice, asks, codes, listed
from langslice.planning.chosen_scores import method_for, scores_for
from langslice.progress import Report
from langslice.structure.dropped_parts import Dropped, experts_dropped, merge

EXPERT_CUTS = ("drop_experts", "experts_sparsity", "language_experts")


def experts_to_go(checkpoint: Checkpoint, anatomy: Anatomy, choice: Choice, report: Report) -> Dropped:
    """Experts that go: stack -> layer -> experts.

    Raises   PlanError for a model without experts, or for what cannot go; ScoreError for scores that do not fit
    """
    if not asks(choice, EXPERT_CUTS):
        return {}
    if not any(anatomy.experts.values()):
        raise PlanError(
            "this model has no experts that a router chooses from", hint="its heads, neurons and layers can be pruned"
        )
    _refuse_numbers(checkpoint, anatomy)
    named = experts_dropped(anatomy, listed(choice.get("drop_experts")))
    share, by_language = choice.get("experts_sparsity"), bool(choice.get("language_experts"))
    if bool(named) + (share is not None) + by_language > 1:
        raise PlanError(
            "--drop-experts, --experts-sparsity and --language-experts each say how many experts of a layer stay",
            hint="give one of them",
        )
    keep = codes(choice.get("languages"))
    if by_language and not keep:
        raise PlanError("--language-experts keeps what serves --languages, but none are given", hint="-l ko,en")
    if share is None and not by_language:
        return named
    from langslice.scoring.expert_selection import experts_to_drop, language_experts_to_drop

    scores = scores_for(checkpoint, "experts", method_for("experts", choice), choice, report)
    if by_language:
        return merge(language_experts_to_drop(scores, anatomy, keep))
    return merge(experts_to_drop(scores, anatomy, share or 0.0, keep))


def _refuse_numbers(checkpoint: Checkpoint, anatomy: Anatomy) -> None:
    """Refuse a model with tables of whole numbers beside its routers: they may name experts, whose numbers change."""
    for name, place in anatomy.places.items():
        whole = checkpoint.tensors[name].dtype[0] in "IU"
        if whole and checkpoint.shapes[name] and place.layer in anatomy.experts.get(place.stack, {}):
            raise PlanError(
                f"no expert of this model can be removed: {name} holds whole numbers, which may be those of experts",
                hint="its heads, neurons and layers can be pruned",
            )
