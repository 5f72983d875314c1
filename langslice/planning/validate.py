"""Whether a plan that was read still fits: its source, its tokens, and what is asked together with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langslice.errors import PlanError
from langslice.model.checkpoint import Checkpoint
from langslice.model.row_text import derived_text
from langslice.model.token_id_fields import check_ignored
from langslice.options import Choice, flag_of
from langslice.planning.options import PlanOptions
from langslice.planning.plan import SlicePlan, digest_rows
from langslice.planning.source import Source
from langslice.planning.weights import refuse_unprunable

if TYPE_CHECKING:
    from langslice.tokenizer import SourceTokenizer


def fitting_plan(made: SlicePlan, source: Source) -> SlicePlan:
    """The plan, when it was made for this source; what a person edited in it is checked, and its facts are brought up to date.

    Raises   PlanError
    """
    check_source(made, source)
    check_ignored(made.ignore_fields)
    _check_row(made, source.checkpoint)
    tokenizer = source.tokenizer
    size = len(tokenizer.tokens)
    own = tuple(tokenizer.tokens[old] if old < size else None for old in made.kept.tolist())
    if made.checked != digest_rows(made.kept) or made.tokens != own:
        check_edited(made, tokenizer)
        made = replace(made, facts=_facts_of_edited(made, tokenizer))
    if made.weights is not None:
        refuse_unprunable(source.checkpoint)
    return made


def _facts_of_edited(made: SlicePlan, tokenizer: SourceTokenizer) -> dict[str, Any]:
    """A plan's facts after a person changed its tokens: scripts are counted again, criteria speak of other tokens."""
    from langslice.vocabulary.facts import script_facts

    kept = {name: value for name, value in made.facts.items() if name != "evidence"}
    return {**kept, "scripts": script_facts(tokenizer, made.kept)} if "scripts" in kept else kept


def _check_row(made: SlicePlan, checkpoint: Checkpoint) -> None:
    """Refuse a plan whose derived row is not what the class says here."""
    if made.row != derived_text(checkpoint.config, structure=made.structure is not None):
        raise PlanError(
            f"the plan's `row` is not the row of `{made.model_type}` here: another version of transformers may have made it",
            hint="make a new plan with `langslice plan`",
        )


def refuse_beside_plan(choice: Choice) -> None:
    """Refuse a choice that a plan has settled already, rather than leave it unheard."""
    beside = sorted(set(choice) - {"carry", "leave_out", "revision", "token", "cache_dir"})
    if beside:
        flags = ", ".join(flag_of(PlanOptions, name) for name in beside)
        raise PlanError(
            f"--plan says what to keep, so {flags} cannot be given together with it",
            hint="make a new plan with `langslice plan`",
        )


def check_edited(made: SlicePlan, tokenizer: SourceTokenizer) -> None:
    """Refuse an edited plan whose tokens cannot do without one that it drops, or whose lines contradict the model."""
    size = len(tokenizer.tokens)
    for old, token in zip(made.kept.tolist(), made.tokens, strict=True):
        expected = tokenizer.tokens[old] if old < size else None
        if token != expected:
            raise PlanError(
                f"the plan calls token {old} {token!r}, the model calls it {expected!r}",
                hint="a line is [old id, token, reasons]; ids are those of the source",
            )
    from langslice.tokenizer import missing_closure

    rows = [old for old in made.kept.tolist() if old < size]
    missing = missing_closure(tokenizer, rows, lowest="only_tokens" not in made.request)
    if missing:
        lines = [f"  {old} {tokenizer.tokens[old]!r}: {reason}" for old, reason in list(missing.items())[:10]]
        raise PlanError(
            f"the plan drops {len(missing)} tokens that kept ones need\n" + "\n".join(lines),
            hint="add their lines again, or drop the tokens that need them",
        )


def check_source(plan: SlicePlan, source: Source) -> None:
    """Refuse a plan that was made for another source."""
    model_type = source.checkpoint.config.get("model_type")
    if plan.model_type != model_type:
        raise PlanError(
            f"the plan was made for a `{plan.model_type}` model ({plan.model}), this is a `{model_type}` model",
            hint="make a new plan for this model with `langslice plan`",
        )
    found = source.fingerprint
    if plan.fingerprint != found:
        raise PlanError(
            f"the plan was made for another source: {plan.model}\n"
            f"  fingerprint in the plan {plan.fingerprint[:16]}, of this model {found[:16]}",
            hint="config, tensor shapes or tokenizer differ; make a new plan with `langslice plan`",
        )
