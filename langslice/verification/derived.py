"""What a slice by a derived row must show: a row read off a class is a proposal, and outputs compared with the source decide."""

from __future__ import annotations

from dataclasses import replace

from langslice.errors import PlanError
from langslice.planning.plan import SlicePlan
from langslice.verification.check import Check


def refuse_unproven(plan: SlicePlan, *, verify: bool, level: str) -> None:
    """Refuse to write a slice by a derived row without all of its verification."""
    asked = "" if verify and level == "full" else "--verify-level quick" if verify else "--no-verify"
    if plan.row and asked:
        raise PlanError(
            f"{asked}: the row of `{plan.model_type}` was derived from its class, and a slice by such a row is only made "
            "with its verification",
            hint=f"leave out {asked}; `langslice inspect MODEL --row` prints the row, to be checked and put into the table",
        )


def required(outputs: Check, plan: SlicePlan) -> Check:
    """The check of outputs; for a derived row it failed where it could not be made."""
    if outputs.passed is not None or not plan.row:
        return outputs
    return replace(
        outputs,
        passed=False,
        detail=f"{outputs.detail}; the row of `{plan.model_type}` was derived from its class, so outputs must be compared",
    )
