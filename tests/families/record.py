"""What the sweep found of every type, kept in record.json: read, compared, and written as a page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("record.json")
AXES = ("vocabulary", "layers", "heads", "neurons")
MIXTURE_AXES = ("experts",)
HEAD = "<!-- Written by `make families` and docs/generate.py; do not edit. -->\n\n"

Found = dict[str, dict[str, dict[str, str]]]
"""Model type -> class -> axis -> "exact", "refused: why", "wrong: how", "not built: why"."""


def read_record() -> dict[str, Any]:
    """The record: version of transformers, and what was found."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def lost(before: Found, after: Found) -> list[str]:
    """What was exact and is not any more."""
    return [
        f"{model_type}, {name}: {axis} was exact, now {after[model_type][name].get(axis, 'not tried')}"
        for model_type, classes in before.items()
        for name, axes in classes.items()
        for axis, said in axes.items()
        if said == "exact" and model_type in after and name in after[model_type]
        if after[model_type][name].get(axis) != "exact"
    ]


def merged(known: Found, found: Found) -> Found:
    """What is known, with what a part of a sweep found in its place."""
    types: Found = {}
    for name in {**known, **found}:
        classes = {**known.get(name, {}), **found.get(name, {})}
        types[name] = {one: {**known.get(name, {}).get(one, {}), **said} for one, said in classes.items()}
    return types


def page(record: dict[str, Any]) -> str:
    """docs/reference/families.md."""
    reasons: dict[str, int] = {}
    lines = [
        "# Model types",
        "",
        f"Every class of transformers {record['transformers']} that writes text, as a tiny random model: its vocabulary is sliced,",
        "a layer removed, heads and neurons removed from every layer, each compared with the source. Types without a row in the",
        "tables are sliced by a row that is read off their class ([Add a model family](../adding-a-family.md)). A refused slice",
        "writes nothing and says why. A model *has none* where its class has no such part: no attention, no feed-forward layers,",
        "or one set of weights for all layers.",
        "",
        *_tables(record["types"], AXES, reasons),
    ]
    if mixtures := _mixtures({**record["types"], **record.get("towers", {})}):
        lines += [
            "## Mixtures of experts",
            "",
            "One expert removed from every layer that has some, another one of each, and the slice compared with the source whose",
            "routers are closed to them; every model whose routers choose from experts, text models inside of others among them.",
            "",
            *_tables(mixtures, MIXTURE_AXES, reasons),
        ]
    if record.get("towers"):
        lines += [
            "## With pictures or sound",
            "",
            "Models that read or write pictures or sound next to text, pairs of towers, and text towers alone: the text model",
            "inside, and towers untouched; of a tower that reads pictures or sound no part can go. Where a model does not run on",
            "text alone, the text model inside is compared, with the pooled output of CLIP and SigLIP.",
            "",
            *_tables(record["towers"], AXES, reasons),
        ]
    return HEAD + "\n".join([*lines, "## Reasons", "", *(f"{number}. {why}" for why, number in reasons.items()), ""])


def _mixtures(types: Found) -> Found:
    """The classes that have experts, of those that could be built."""
    found = {
        name: {
            one: said
            for one, said in classes.items()
            if not said.get("experts", "has none").startswith(("has none", "not built"))
        }
        for name, classes in types.items()
    }
    return {name: classes for name, classes in found.items() if classes}


def _tables(types: Found, axes: tuple[str, ...], reasons: dict[str, int]) -> list[str]:
    """How often each word was found, and a row for every class.

    reasons  reason -> its number; new ones are added
    """
    rows = []
    counts: dict[str, Counter[str]] = {axis: Counter() for axis in axes}
    for model_type, classes in sorted(types.items()):
        for name, said in classes.items():
            cells = []
            for axis in axes:
                word, _, why = said.get(axis, "not tried").partition(": ")
                counts[axis][word] += 1
                note = f" [{reasons.setdefault(_plain(why), len(reasons) + 1)}]" if why else ""
                cells.append(f"{word}{note}")
            rows.append(f"| `{model_type}` | {name} | " + " | ".join(cells) + " |")
    words = ("exact", "refused", "wrong", "failed", "has none", "not built", "not tried")
    sums = [
        f"| {word} | " + " | ".join(str(counts[axis][word]) for axis in axes) + " |"
        for word in words
        if word == "wrong" or any(counts[axis][word] for axis in axes)
    ]
    head, bar = " | ".join(axes), " | ".join("---" for _ in axes)
    return [
        f"| | {head} |",
        f"| --- | {bar} |",
        *sums,
        "| exact, of those that have it | " + " | ".join(_share(counts[axis]) for axis in axes) + " |",
        "",
        f"| type | class | {head} |",
        f"| --- | --- | {bar} |",
        *rows,
        "",
    ]


def _share(counts: Counter[str]) -> str:
    """Exact in percent of what could be built, was tried and has such a part."""
    tried = sum(counts[word] for word in ("exact", "refused", "wrong", "failed"))
    return f"{counts['exact'] / max(tried, 1):.1%}"


def _plain(why: str) -> str:
    """A reason as it stands on a page."""
    return why.replace("|", "\\|").replace("<", "&lt;")[:240]
