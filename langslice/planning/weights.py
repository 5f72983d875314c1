"""Weight pruning as a step of a slice: from a choice to a request, and from a staged slice to its check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import PlanError
from langslice.model.checkpoint import Checkpoint
from langslice.options import Choice, flag_of, listed
from langslice.progress import Report
from langslice.sparsity.options import WeightOptions

if TYPE_CHECKING:
    from langslice.sparsity.report import SparsityReport

_HOW = ("keep_demos", "avoid_demos", "score", "epsilon", "allocation", "linears", "offload", "compute")


def weights_request(choice: Choice) -> dict[str, Any] | None:
    """What a choice says of weights, as JSON-ready fields of SparsityRequest; None where it prunes none.

    Raises   PlanError for a contradiction, or an entry that would have no effect
    """
    given: Mapping[str, Any] = choice
    if given.get("sparsity") is None and given.get("pattern") is None:
        idle = [name for name in _HOW if given.get(name)]
        if idle:
            raise PlanError(
                f"{flag_of(WeightOptions, idle[0])} has no effect: no weight is pruned",
                hint="add --sparsity 0.3, or --pattern 2:4",
            )
        return None
    fields: dict[str, Any] = {}
    for name in ("sparsity", "pattern", "score", "epsilon", "allocation", "compute"):
        if given.get(name) is not None:
            fields[name] = given[name]
    for name in ("keep_demos", "avoid_demos", "linears"):
        if listed(given.get(name)):
            fields[name] = [
                str(Path(item).absolute()) if name != "linears" else item for item in listed(given.get(name))
            ]
    if given.get("offload"):
        fields["offload"] = True
    prune_request(fields)
    return fields


def refuse_unprunable(checkpoint: Checkpoint) -> None:
    """Refuse a source whose weights cannot be pruned before anything of the slice is written.

    Raises   CheckpointError
    """
    from langslice.sparsity.skeleton import refuse_what_cannot_stream

    refuse_what_cannot_stream(checkpoint)


def prune_request(fields: Mapping[str, Any]) -> Any:
    """A SparsityRequest of a plan's fields, checked.

    Raises   PlanError
    """
    from langslice.sparsity.request import SparsityRequest, check_request

    try:
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list | tuple)}
        request = SparsityRequest(**{**fields, **lists})
    except TypeError as error:
        raise PlanError(f"the plan's `weights` are not understood: {error}") from error
    check_request(request)
    return request


def prune_staged(
    staging: Path, fields: Mapping[str, Any], work: Path, ray: str | None, report: Report
) -> SparsityReport:
    """Prune the weights of a slice that is in its staging folder.

    ray   see `sparsify`
    work  folder of the journal; where an earlier run left one, pruning continues after its last finished block
    """
    from langslice.sparsity.main import sparsify

    return sparsify(staging, prune_request(fields), work=work, ray=ray, report=report)
