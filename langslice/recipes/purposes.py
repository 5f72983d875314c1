"""What people slice a model for: which models are used for it, what a recipe for it keeps, measures and trains.

The models are those of docs/recipes/, by their names on the hub; the first of a purpose is proposed where none is named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from langslice.errors import RecipeError

if TYPE_CHECKING:
    from langslice.model.checkpoint import Checkpoint


@dataclass(frozen=True)
class Purpose:
    """What a recipe is for.

    help   in a few words
    needs  what a model must be for it, in words
    tasks  of `evaluate`, on the sentences of the package; none where no task measures what this model does
    heal   objective of a training on a little text; None where text alone cannot train it
    after  what is usually done with the result
    """

    help: str
    needs: str
    tasks: str
    heal: str | None
    after: str


PURPOSES: Final[Mapping[str, Purpose]] = {
    "search": Purpose(
        "sentences into vectors", "an encoder without a head that classifies", "bitext",
        "contrastive", "langslice export WORK/slice --to onnx -o OUT; langslice evaluate with sts and --data",
    ),
    "reranker": Purpose(
        "scores of a query with a text", "an encoder with a head that classifies (…ForSequenceClassification)", "",
        None, "langslice verify MODEL WORK/slice --text pairs.txt compares the scores on your own text",
    ),
    "llm": Purpose(
        "text that goes on", "a causal language model", "perplexity",
        "causal", "langslice evaluate MODEL WORK/slice --tasks confusion; langslice export WORK/slice --to gguf -o OUT",
    ),
    "translation": Purpose(
        "text into text", "an encoder and a decoder of text", "translation",
        None, "a model for CTranslate2, by its converter, from WORK/slice",
    ),
    "speech": Purpose(
        "speech into text", "an encoder of sound and a decoder of text", "",
        None, "langslice export WORK/slice --to onnx -o OUT",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A model that there is a recipe for.

    model    its name on the hub
    purpose  of PURPOSES
    slice    entries of the slice beside the languages: what its prompts say, what else is usual
    note     what to know before; None where there is nothing
    """

    model: str
    purpose: str
    slice: Mapping[str, Any]
    note: str | None

    @property
    def name(self) -> str:
        """Its name without that of its owner."""
        return self.model.rpartition("/")[2]


@lru_cache
def catalogue() -> tuple[Known, ...]:
    """Every model that there is a recipe for, those that are proposed first."""
    read = json.loads((files("langslice.recipes") / "catalogue.json").read_text(encoding="utf-8"))
    return tuple(Known(one["model"], one["for"], one.get("slice", {}), one.get("note")) for one in read)


def proposed(purpose: str) -> str:
    """The model that is proposed for a purpose."""
    return next(known.model for known in catalogue() if known.purpose == purpose)


def known_model(model: str) -> Known | None:
    """A model of the catalogue, by its name on the hub or by that of a folder that is called like it."""
    last = model.rstrip("/").rpartition("/")[2]
    return next((known for known in catalogue() if last == known.name), None)


def purpose_of(checkpoint: Checkpoint, kind: str) -> str:
    """What a model is for, by its class.

    kind  as `model_kind` says: "causal", "seq2seq" or "encoder"
    """
    config = checkpoint.config
    if kind == "causal":
        return "llm"
    if kind == "seq2seq":
        return "speech" if any("mel" in name for name in config) else "translation"
    names = config.get("architectures") or ()
    return "reranker" if any("ForSequenceClassification" in name for name in names) else "search"


def checked_purpose(asked: str | None, checkpoint: Checkpoint, kind: str) -> str:
    """The purpose that a recipe is written for. Raises RecipeError where the model is not for it."""
    own = purpose_of(checkpoint, kind)
    if asked is not None and asked != own:
        raise RecipeError(
            f"--for {asked}: this is {PURPOSES[own].needs}, and that needs {PURPOSES[asked].needs}",
            f"leave --for out, or name a model such as {proposed(asked)}",
        )
    return own


def healing(objective: str, languages: Sequence[str]) -> dict[str, Any]:
    """Entries of a training towards the model as it was."""
    if objective == "contrastive":
        text: dict[str, Any] = {"parallel": [f"{'-'.join(languages[:2])}.tsv"]}
    else:
        text = {"corpus": [f"{language}.txt" for language in languages]}
    return {**text, "objective": objective, "steps": 1000, "teacher": "$model"}
