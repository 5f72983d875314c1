"""The model card of a restored model: the base's card stays next to it, as it does not describe the trained weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from langslice.model.checkpoint import Checkpoint
from langslice.planning.plan import SlicePlan
from langslice.reporting.source_card import CARD, read_card, set_source_card_aside, source_card

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# What a card says of its model that stays so after training.
_STAYS = ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag")


def write_restored_card(folder: Path, name: str, base: Checkpoint, plan: SlicePlan, cut: bool) -> None:
    """Set the base's card aside and write README.md: what was trained, and in which part of the model.

    cut   whether the structure of the slice stays
    """
    import yaml

    set_source_card_aside(folder)
    aside = source_card(folder)
    known = read_card(aside)[0] if aside is not None else {}
    metadata: dict[str, Any] = {key: known[key] for key in _STAYS if known.get(key)}
    public = base.revision is not None and _HUB_ID.fullmatch(base.model_id) is not None
    if public:
        metadata |= {"base_model": base.model_id, "base_model_relation": "finetune"}
    metadata["tags"] = ["langslice"]
    model = base.model_id if public else Path(base.model_id).name
    lines = [
        f"# {name}",
        "",
        f"{model} with weights that were trained on a slice of it, put back by langslice: {len(plan.kept):,} of its "
        f"{plan.rows:,} tokens were in the slice, the rows of the others are {model}'s own.",
        "",
        "Layers, heads and neurons are those of the slice."
        if cut
        else "Everything that the slice did not have is the base's, byte for byte.",
        "",
        "`restore.json` says from what it was put together, and holds its verification.",
    ]
    if aside is not None:
        lines += ["", f"The base's own card: [{aside.name}]({aside.name})."]
    head = yaml.safe_dump(metadata, allow_unicode=True, sort_keys=False)
    (folder / CARD).write_text(f"---\n{head}---\n" + "\n".join(lines) + "\n", encoding="utf-8")
