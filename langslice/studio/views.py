"""What the pages show: each answer of the library, as the values of a template. Nothing is worked out here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor
from threading import Lock
from typing import Any, Final

from langslice.errors import LangsliceError, PlanError
from langslice.mini import heldout_languages
from langslice.studio.commands import (
    SCORES,
    SLICE,
    TRADEOFF,
    WORK,
    job_request,
    slice_command,
    slice_recipe,
)
from langslice.studio.jobs import DONE, Jobs, StudioJob
from langslice.studio.shelf import Offer, Shelf
from langslice.studio.wish import Wish

# Shades that the style sheet has.
_SHADES: Final = 6
_MOST_SCRIPTS: Final = 12
Values = dict[str, Any]


@dataclass(frozen=True)
class Studio:
    """What is served: models, and jobs; one answer of the library is worked out at a time."""

    shelf: Shelf
    jobs: Jobs
    working: Lock

    def home(self, wish: Wish) -> Values:
        """The models, and the jobs."""
        return {"offers": list(self.shelf.offers()), "jobs": self.jobs.all()}

    def model(self, wish: Wish) -> Values:
        """What is in a model."""
        offer = self.shelf.find(wish.model)
        found = self._worked_out(_inspected, offer, offer.state(), wish.languages)
        scripts = list(found.scripts.items())
        rest = len(scripts) - _MOST_SCRIPTS
        others = [(f"{rest} others", sum(count for _, count in scripts[_MOST_SCRIPTS:]))] if rest > 0 else []
        suggested = wish.languages or ("ko,en" if "ko" in heldout_languages() else "en")
        return {"found": found, "scripts": scripts[:_MOST_SCRIPTS] + others, "suggested": suggested}

    def size(self, wish: Wish) -> Values:
        """What smaller vocabularies cost, where that was measured; else the job that measures it."""
        offer = self.shelf.find(wish.model)
        if not wish.languages:
            raise PlanError("no language is chosen", "name some, such as ko,en")
        job = self.jobs.find(job_request(TRADEOFF, wish, offer).name)
        return {"job": job, "measured": self._measured(job), "kind": TRADEOFF}

    def sentence(self, wish: Wish) -> Values:
        """How each size spells a text, and what the model answers before and after."""
        offer = self.shelf.find(wish.model)
        if not wish.text:
            return {"spelled": None, "asked": None}
        sizes = tuple(dict.fromkeys(filter(None, [wish.rows, *self._sizes(wish, offer)])))
        vocabulary = Wish(wish.model, wish.languages)
        spelled = self._worked_out(_tried, offer, offer.state(), vocabulary, wish.text, sizes, False)
        asked = self._worked_out(_tried, offer, offer.state(), wish, wish.text, (), True) if wish.ask else None
        return {"spelled": spelled, "asked": asked}

    def parts(self, wish: Wish) -> Values:
        """The map of layers and heads, shaded by their scores where there are any."""
        from langslice.structure.options import STYLE_NAMES

        offer = self.shelf.find(wish.model)
        stacks = self._worked_out(_map, offer, offer.state())
        job = self.jobs.find(job_request(SCORES, wish, offer).name)
        shades, method = _shades(job, offer) if job is not None and job.status == DONE else ({}, {})
        return {"stacks": stacks, "job": job, "shades": shades, "method": method, "forms": STYLE_NAMES, "kind": SCORES}

    def start(self, wish: Wish) -> Values:
        """The command and the recipe that a choice amounts to, and what it would make."""
        offer = self.shelf.find(wish.model)
        with self.working:
            command, recipe = slice_command(wish, offer), slice_recipe(wish, offer)
        plan, sizes, stored = self._worked_out(_planned, offer, offer.state(), replace(wish, text="", ask=False))
        job = self.jobs.find(job_request(SLICE, wish, offer).name)
        totals = [sum(pair[at] for pair in sizes.values()) for at in range(2)]
        return {
            "command": command, "recipe": recipe, "plan": plan, "sizes": sizes, "totals": totals, "stored": stored, "job": job,
            "kind": SLICE,
        }  # fmt: skip

    def job(self, name: str) -> Values:
        """A job as it is now. Raises PlanError where there is none."""
        job = self.jobs.find(name)
        if job is None:
            raise PlanError(f"there is no job {name[:40]!r}")
        return {"job": job, "report": job.result(f"{WORK}/report.html"), "picture": job.result("tradeoff.svg")}

    def begin(self, kind: str, wish: Wish) -> StudioJob:
        """Start a job, or let it go on."""
        with self.working:
            request = job_request(kind, wish, self.shelf.find(wish.model))
        return self.jobs.start(request)

    def _measured(self, job: StudioJob | None) -> Any:
        path = job.result("tradeoff.json") if job is not None and job.status == DONE else None
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))

    def _sizes(self, wish: Wish, offer: Offer) -> list[int]:
        if not wish.languages:
            return []
        measured = self._measured(self.jobs.find(job_request(TRADEOFF, wish, offer).name))
        return [] if measured is None else [rung["rows"] for rung in measured["rungs"]]

    def _worked_out(self, work: Callable[..., Any], *arguments: Any) -> Any:
        with self.working:
            return work(*arguments)


# Each remembers what it found of a model as its files are; `state` is a digest of these.
@lru_cache(maxsize=16)
def _inspected(offer: Offer, state: str, languages: str) -> Any:
    from langslice.slicing.inspect import COMMON_SETS
    from langslice.slicing.main import inspect

    return inspect(offer.source, languages=[*([languages] if languages else []), *map(",".join, COMMON_SETS)])


@lru_cache(maxsize=16)
def _tried(offer: Offer, state: str, wish: Wish, text: str, sizes: tuple[int, ...], answers: bool) -> Any:
    from langslice.files.memory import return_freed_memory
    from langslice.tradeoffs.trial import try_text

    asked = wish.given() if answers else {"languages": wish.languages or None}
    found = try_text(offer.source, text, sizes=list(sizes), answers=answers, **asked)
    return_freed_memory()
    return found


@lru_cache(maxsize=16)
def _map(offer: Offer, state: str) -> Any:
    """Stack -> layer -> attention -> its heads."""
    from langslice.model.checkpoint import open_checkpoint
    from langslice.planning.source import Source

    anatomy = Source(open_checkpoint(offer.source), needs_tokenizer=False).anatomy
    places = {stack: [key for key in anatomy.heads if key.partition(".")[0] == stack] for stack in anatomy.layers}
    return {
        stack: {layer: {key: anatomy.heads[key].get(layer) for key in places[stack]} for layer in range(count)}
        for stack, count in anatomy.layers.items()
    }


@lru_cache(maxsize=16)
def _planned(offer: Offer, state: str, wish: Wish) -> Any:
    """A plan, parameters by part before and after, and bytes of the weights now."""
    from langslice.model.checkpoint import open_checkpoint
    from langslice.planning.source import settled
    from langslice.planning.tensors import part_sizes, tensor_edits
    from langslice.slicing.main import plan

    made = plan(offer.source, **wish.given())
    checkpoint = open_checkpoint(offer.source)
    source = settled(checkpoint, made.request, needs_tokenizer=made.names_tokens)
    return (
        made,
        part_sizes(made, tensor_edits(made, source)),
        sum(each.size_bytes for each in checkpoint.tensors.values()),
    )


def _shades(job: StudioJob, offer: Offer) -> tuple[dict[tuple[str, int, int], int], dict[str, str]]:
    """(place, layer, head) -> shade by rank, -1 for a layer as a whole; and what was scored, by which method."""
    from langslice.model.checkpoint import open_checkpoint
    from langslice.scoring import load_scores

    found: dict[tuple[str, int, int], int] = {}
    methods = {}
    for kind in ("heads", "layers"):
        path = job.result(f"{WORK}/score/{kind}.parquet")
        if path is None:
            continue
        try:
            scores = load_scores(path, open_checkpoint(offer.source))
        except LangsliceError:  # of a model that has changed since
            continue
        methods[kind] = scores.method
        values = scores.values()
        every = [
            (value, place, layer, -1 if kind == "layers" else index)
            for place, layers in values.items()
            for layer, row in layers.items()
            for index, value in enumerate(row.tolist())
        ]
        for rank, (_, place, layer, index) in enumerate(sorted(every)):
            found[place, layer, index] = floor(rank * _SHADES / len(every))
    return found, methods
