"""Scores of a model that is named, by one method: what `langslice score` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from langslice.model.checkpoint import open_checkpoint
from langslice.options import listed, taking
from langslice.progress import Report, silent
from langslice.scoring.methods import check_method, compute, default_method
from langslice.scoring.options import ScoreOptions, ScoreSettings
from langslice.scoring.table import Scores


@taking(ScoreOptions, "kind", "method")
def score(model: str | Path, *, options: ScoreOptions, report: Report = silent) -> Scores:
    """Score the layers, heads, neurons or experts of a model, for slices to choose by.

    model    a local folder, or the id of a model on the hub
    options  see ScoreOptions
    Returns  scores that `Scores.save` writes and `plan(heads_by=...)` and its like read
    Raises   ScoreError, CheckpointError, CorpusError, PlanError
    """
    texts = options.texts if isinstance(options.texts, Mapping) else listed(options.texts)
    method = options.method or default_method(options.kind, text=bool(texts))
    check_method(options.kind, method)
    settings = ScoreSettings(**{field.name: getattr(options, field.name) for field in fields(ScoreSettings)})
    return compute(
        open_checkpoint(model, **options.source()), options.kind, method, texts, settings=settings,
        text_field=options.text_field, report=report,
    )  # fmt: skip
