"""Ready recipes for the models of the catalogue, which are written without a look at the model: docs/recipes/."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from langslice.recipes.draft import on, turned_off
from langslice.recipes.purposes import PURPOSES, Known, healing


def catalogued_recipe(known: Known, languages: Sequence[str], said: Sequence[str]) -> str:
    """A ready recipe for a model of the catalogue, which was not looked at.

    said  lines of comment: what to expect
    """
    purpose = PURPOSES[known.purpose]
    lines = [
        f"{known.model}: {purpose.help}. langslice run {known.name}.yaml -o WORK",
        *(line for text in (*said, *([known.note] if known.note else [])) for line in textwrap.wrap(text, 116)),
    ]
    parts = [
        "".join(f"## {line}\n" for line in lines) + on({"model": known.model}),
        on({"slice": {"languages": ",".join(languages), **known.slice}}),
    ]
    if purpose.tasks:
        parts.append(on({"evaluate": {"tasks": purpose.tasks, "languages": ",".join(languages), "limit": 50}}))
    if purpose.heal:
        parts.append(turned_off({"heal": healing(purpose.heal, languages)}))
    parts.append(f"# report: true\n## Then: {purpose.after}")
    return "\n\n".join(parts) + "\n"
