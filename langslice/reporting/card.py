"""The model card of a slice: README.md with the metadata that the hub reads, from the same data as the report.

A card ends in a comment with the hash of what is above it: a card that a person has edited since is never replaced
without being asked to.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from langslice.files.atomic_output import staging_file
from langslice.model.folder_kinds import draft_kind
from langslice.planning.side_files import KEPT_IDS
from langslice.reporting.card_mark import card_edited, marked, text_above_mark, written_by_langslice
from langslice.reporting.card_text import (
    LOADING_LINE,
    NO_MODEL,
    OWN_LIBRARY,
    SENTENCE_CLASSES,
    card_body,
    loading_line,
    weights_text,
)
from langslice.reporting.data import Report, own_results
from langslice.reporting.source_card import CARD, set_source_card_aside

__all__ = [
    "card_edited",
    "card_text",
    "name_in_card",
    "outdated",
    "refresh_card",
    "set_source_card_aside",
    "write_card",
    "written_by_langslice",
]

_TASKS = {
    "perplexity": "text-generation", "translation": "translation", "confusion": "text-generation", "sts": "sentence-similarity",
    "xnli": "text-classification", "marc": "text-classification", "xcopa": "multiple-choice", "belebele": "multiple-choice",
}  # fmt: skip
_PACKAGED = ("perplexity", "translation", "confusion", "bitext")
# The last part of an architecture's name -> the hub's name of the task.
PIPELINES = {
    "ForCausalLM": "text-generation", "ForMaskedLM": "fill-mask", "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification", "ForQuestionAnswering": "question-answering",
}  # fmt: skip


def write_card(folder: Path, report: Report, *, overwrite: bool = False) -> bool:
    """Write README.md, unless a person wrote or edited the one that is there.

    overwrite  replace it all the same
    Returns    whether it was written
    """
    path = folder / CARD
    if path.exists() and not overwrite and card_edited(path):
        return False
    with staging_file(path) as partial:  # a card that a kill truncated would pass for one that a person edited
        partial.write_text(card_text(report, architectures(folder)), encoding="utf-8")
    return True


def refresh_card(folder: Path, name: str = "") -> bool:
    """Write the card again from slice.json alone, as after training, unless a person edited it; whether it was written.

    name  of the model, where the folder does not have its final name yet
    """
    from langslice.reporting.slice_folder import read_slice
    from langslice.verification.record import read_whole_record

    return write_card(folder, read_slice(folder, *read_whole_record(folder), name=name))


def outdated(path: Path, report: Report) -> bool:
    """Whether a card that nobody edited says of the weights what is no longer so: that nothing was trained."""
    return not card_edited(path) and weights_text(report) not in path.read_text(encoding="utf-8")


def name_in_card(path: Path, name: str) -> None:
    """Give a card that nobody has edited another name to load the model by, such as its id on the hub."""
    text = path.read_text(encoding="utf-8")
    own = text_above_mark(text)
    if own is not None:
        path.write_text(marked(LOADING_LINE.sub(lambda _: loading_line(name), own, count=1)), encoding="utf-8")


def card_text(report: Report, names: tuple[str, ...]) -> str:
    """The whole card.

    names  architectures of config.json, by which the class to load it with is told
    """
    return marked(f"---\n{metadata(report, names).to_yaml()}\n---\n{card_body(report, names)}\n")


def architectures(folder: Path) -> tuple[str, ...]:
    """Class names in config.json; that of sentence-transformers, NO_MODEL or OWN_LIBRARY for others."""
    if (folder / "modules.json").is_file():
        return (_sentence_class(folder),)
    if (folder / KEPT_IDS).is_file():
        return (NO_MODEL,)
    path = folder / "config.json"
    if not path.is_file():
        return (OWN_LIBRARY,)
    config = json.loads(path.read_text(encoding="utf-8"))
    if draft_kind(config, {}) is not None:  # whatever class it names
        return (OWN_LIBRARY,)
    return tuple(map(str, config.get("architectures") or ()))


def _sentence_class(folder: Path) -> str:
    """The class that sentence-transformers says that it saved the folder with."""
    path = folder / "config_sentence_transformers.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("model_type") if path.is_file() else None
    return str(named) if named in SENTENCE_CLASSES else SENTENCE_CLASSES[0]


def metadata(report: Report, names: tuple[str, ...]) -> Any:
    """What the hub reads, as its own ModelCardData; what is not known is left out."""
    from huggingface_hub.repocard_data import ModelCardData

    known = report.source.metadata
    extra: dict[str, Any] = {}
    if report.source.public:
        # The hub knows adapter, merge, quantized and finetune; a slice is nearest to the last.
        extra["base_model_relation"] = "finetune"
    results = _eval_results(report)
    return ModelCardData(
        language=_languages(report) or None,
        license=_text_or_none(report.source.licence.get("license")),
        license_name=_text_or_none(report.source.licence.get("license_name")),
        license_link=_text_or_none(report.source.licence.get("license_link")),
        base_model=report.source.public,
        library_name=_text_or_none(known.get("library_name")) or _library(names),
        pipeline_tag=_text_or_none(known.get("pipeline_tag")) or _pipeline(names),
        tags=_tags(report),
        model_name=report.name if results else None,
        eval_results=results or None,
        **extra,
    )


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _library(names: tuple[str, ...]) -> str | None:
    if OWN_LIBRARY in names:
        return None
    if names == ("StaticModel",):
        return "model2vec"
    return "sentence-transformers" if set(names) & set(SENTENCE_CLASSES) else "transformers"


def _pipeline(names: tuple[str, ...]) -> str | None:
    if names == ("SentenceTransformer",):
        return "sentence-similarity"
    return next((task for name in names for ending, task in PIPELINES.items() if name.endswith(ending)), None)


def _languages(report: Report) -> list[str]:
    """Codes of the kept languages; the source's own where the whole vocabulary stays."""
    if report.vocabulary is not None and report.vocabulary.languages:
        return list(dict.fromkeys(one.tag.partition("-")[0] for one in report.vocabulary.languages))
    if report.vocabulary is not None:
        return []
    given = report.source.metadata.get("language", [])
    return [str(code) for code in ([given] if isinstance(given, str) else given or [])]


def _tags(report: Report) -> list[str]:
    tags = ["langslice"]
    if report.vocabulary is not None:
        tags.append("vocabulary-pruning")
    if report.stacks or report.sparsity is not None:
        tags.append("pruning")
    return tags


def _eval_results(report: Report) -> list[Any]:
    """Scores of the slice in the form of the hub's model-index."""
    from huggingface_hub.repocard_data import EvalResult

    found = []
    for results in own_results(report):
        local = bool(results.settings.get("data") or results.settings.get("hub"))
        for score in results.scores:
            value = score.slice or (score.original if "original" not in results.models else None)
            if value is None or value.value != value.value:
                continue
            packaged = score.task in _PACKAGED and not local
            found.append(
                EvalResult(
                    task_type=_TASKS.get(score.task, "other"),
                    dataset_type=score.task,
                    dataset_name="langslice held-out sentences" if packaged else score.task,
                    dataset_config=score.language or None,
                    metric_type=re.sub(r"[^a-z0-9]+", "_", score.metric.lower()).strip("_"),
                    metric_name=f"{score.metric} ({score.language})" if score.language else score.metric,
                    metric_value=float(f"{value.value:.6g}"),
                )
            )
    return found
