"""The text of a model card: what was removed, how to load it, verification, scores, limits, the command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from math import isfinite
from pathlib import PurePath

from langslice.evaluation.tables import number_text
from langslice.formatting import bytes_text, count_text
from langslice.model.draft_head import is_draft
from langslice.reporting.data import Report, Sizes, own_results
from langslice.reporting.markup import visible
from langslice.reporting.numbers import change_text, figures, percent
from langslice.reporting.sections.overview import hidden_text, unit_totals
from langslice.tokenizer.absent import NOTE as NO_TOKENIZER

_VERDICTS = {True: "equal", False: "**different**", None: "not checked"}
_CLASSES = {
    "ForCausalLM": "AutoModelForCausalLM", "ForMaskedLM": "AutoModelForMaskedLM", "LMHeadModel": "AutoModelForCausalLM",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM", "MTModel": "AutoModelForSeq2SeqLM",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
}  # fmt: skip
# Models that share out probability among tokens.
_SHARES_OUT = {"ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel"}
# Below this a text's growth would be written as none.
_GROWN = 1.005
# Classes that sentence-transformers names in its configuration; the first where it names none.
SENTENCE_CLASSES = ("SentenceTransformer", "SparseEncoder", "CrossEncoder", "MultiVectorEncoder")
# In place of architectures: a tokenizer with or without a matrix, and a model that another library wraps.
NO_MODEL, OWN_LIBRARY = "(no model)", "(own library)"
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~])")


def plain(text: object) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(visible(str(text)).split())).replace("\\<", "&lt;").replace("\\>", "&gt;")


def card_body(report: Report, names: Sequence[str]) -> str:
    """Everything below the metadata."""
    sections = [
        _opening(report), _what(report), _loading(report, names), _proof(report), _quality(report), _limits(report, names),
        _licence(report), _making(report),
    ]  # fmt: skip
    return "\n\n".join(section for section in sections if section)


def _opening(report: Report) -> str:
    source = plain(report.source.public or PurePath(report.source.model).name)
    of = f"[{source}](https://huggingface.co/{source})" if report.source.public else source
    kept = []
    if report.vocabulary is not None and report.vocabulary.languages:
        kept.append("the vocabulary of " + ", ".join(plain(one.label) for one in report.vocabulary.languages))
    for stack in report.stacks:
        stay = sum(row.new is not None for row in stack.layers)
        kept.append(
            f"{stay} of {len(stack.layers)} layers" + ("" if stack.name == "layers" else f" of the {stack.name}")
        )
    kept += [hidden_text(report.hidden)] if report.hidden is not None else []
    what = f", with {', '.join(kept)}" if kept else ""
    return f"# {plain(report.name)}\n\nA slice of {of}{what}, sliced with langslice. {weights_text(report)}"


def weights_text(report: Report) -> str:
    """What happened to the weights that were kept."""
    if report.healing is not None:
        return "It was trained after the slice."
    if report.sparsity is not None and report.sparsity.request.get("score") == "sparsegpt":
        return "Nothing was trained; SparseGPT adjusted the weights that it left."
    if report.hidden is not None and report.hidden.rotated:
        return "Nothing was trained: weights are the source's, rotated and cut."
    if report.hidden is not None and report.hidden.scaled:
        return "Nothing was trained: every weight that is left is the source's, scaled where fewer hidden dimensions ask for it."
    return "Nothing was trained: every weight that is left is the source's."


def _what(report: Report) -> str:
    lines = ["## What was removed", "", "| | before | after | change |", "|---|---:|---:|---:|"]
    lines.append(_row("parameters", report.parameters))
    if report.size_bytes is not None:
        sizes = report.size_bytes
        change = change_text(sizes.change)
        lines.append(f"| weights | {bytes_text(sizes.before)} | {bytes_text(sizes.after)} | {change} |")
    if report.vocabulary is not None:
        lines.append(_row("vocabulary rows", report.vocabulary.rows))
    lines += [_row(f"parameters of {plain(part.name)}", part.parameters) for part in report.parts]
    for stack in report.stacks:
        stay = sum(row.new is not None for row in stack.layers)
        lines.append(
            _row(
                "layers" if stack.name == "layers" else f"layers of the {plain(stack.name)}",
                Sizes(len(stack.layers), stay),
            )
        )
    totals = {label: sizes for label, sizes in unit_totals(report).items() if label != "Layers"}
    lines += [_row(label.lower(), sizes) for label, sizes in totals.items() if sizes.before != sizes.after]
    if report.sparsity is not None:
        how = report.sparsity.request.get("score", "")
        lines += [
            "",
            f"{percent(report.sparsity.share, 2)} of the weights of its linear layers are zero (score: {plain(how)}).",
        ]
    return "\n".join(lines)


def _row(name: str, sizes: Sizes) -> str:
    return f"| {name} | {sizes.before:,} | {sizes.after:,} | {change_text(sizes.change)} |"


LOADING_LINE = re.compile(r"^name = .*  # this folder, or its id on the hub$", re.MULTILINE)


def loading_line(name: str) -> str:
    """The line of the example that names the model."""
    return f"name = {json.dumps(name)}  # this folder, or its id on the hub"


def _loading(report: Report, names: Sequence[str]) -> str:
    own_code = ", trust_remote_code=True" if report.style == "sliced" else ""
    if OWN_LIBRARY in names:
        beside = ", next to the slice of its target" if is_draft({"model_type": report.source.model_type}) else ""
        return f"## How to load it\n\nAs its source is loaded{beside}: files and names are the source's."
    if set(names) & set(SENTENCE_CLASSES):
        code = (
            f"from sentence_transformers import {names[0]}\n\n{loading_line(report.name)}\n"
            f"model = {names[0]}(name{own_code})"
        )
    elif list(names) == ["StaticModel"]:
        code = f"from model2vec import StaticModel\n\n{loading_line(report.name)}\nmodel = StaticModel.from_pretrained(name)"
    elif NO_MODEL in names:
        code = (
            "import numpy as np\nfrom transformers import AutoTokenizer\n\n"
            f"{loading_line(report.name)}\ntokenizer = AutoTokenizer.from_pretrained(name)\n"
            'rows = np.load(f"{name}/kept_ids.npy")  # the old id of every new one: table[rows] is the table of the slice'
        )
    else:
        auto = next((auto for name in names for ending, auto in _CLASSES.items() if name.endswith(ending)), "AutoModel")
        absent = NO_TOKENIZER in report.origin.notes
        code = (
            f"from transformers import {auto}{'' if absent else ', AutoTokenizer'}\n\n{loading_line(report.name)}\n"
            + ("" if absent else "tokenizer = AutoTokenizer.from_pretrained(name)\n")
            + f"model = {auto}.from_pretrained(name{own_code})"
        )
    text = f"## How to load it\n\n```python\n{code}\n```"
    if own_code:
        text += "\n\nIts layers differ in size: `modeling_sliced.py` in this folder builds them, hence `trust_remote_code=True`."
    notes = [note for note in report.origin.notes if note.startswith("loads ")]
    return text + "".join(f"\n\nIt {plain(note)}." for note in notes)


def _proof(report: Report) -> str:
    if report.checks is None:
        return "## Verification\n\n**Not verified**: this slice was not compared with its source."
    lines = [
        "## Verification",
        "",
        "Compared with the model that it was sliced from:",
        "",
        "| check | source and slice | what was compared |",
    ]
    lines.append("|---|---|---|")
    lines += [f"| {plain(check.name)} | {_VERDICTS[check.passed]} | {plain(check.detail)} |" for check in report.checks]
    for check in report.checks:
        lines += ["", f"**Warning**: {plain(check.warning)}."] if check.warning else []
    if report.healing is not None:
        lines += ["", "Verification describes the slice as it was written; its weights were trained afterwards."]
    return "\n".join(lines)


def _quality(report: Report) -> str:
    lines = []
    for results in own_results(report):
        for score in results.scores:
            metric = score.metric
            original = _value(score.original.value, metric)
            if score.slice is None:
                lines.append(
                    f"| {plain(score.task)} | {plain(score.language)} | {plain(metric)} | {score.original.n:,} | {original} | | |"
                )
                continue
            found = score.difference
            p = "" if found is None or not isfinite(found.p) else f"{found.p:.3f}"
            row = [plain(score.task), plain(score.language), plain(metric), f"{score.original.n:,}", original]
            lines.append("| " + " | ".join([*row, _value(score.slice.value, metric), p]) + " |")
    if not lines:
        return "## Quality\n\nNot measured yet: `langslice evaluate SOURCE SLICE -o results.json`, then `langslice report`."
    head = ["## Quality", "", "Source and slice on the same items; p of the paired bootstrap.", ""]
    head += ["| task | language | metric | items | source | slice | p |", "|---|---|---|---:|---:|---:|---:|"]
    return "\n".join([*head, *lines])


def _value(value: float, metric: str) -> str:
    return number_text(value, metric) if isfinite(value) else "–"


def _endings(names: Sequence[str]) -> set[str]:
    return {ending for name in names for ending in _CLASSES if name.endswith(ending)}


def _limits(report: Report, names: Sequence[str]) -> str:
    lines = ["## Limits", ""]
    grown = [text for text in report.texts if text.growth >= _GROWN]
    if report.vocabulary is not None:
        fate = "still round-trips" if report.vocabulary.spells_bytes else "loses characters that were dropped"
        pieces = ", ".join(f"{plain(text.name)} ×{figures(text.growth, 3)} tokens" for text in grown)
        lines.append(
            f"- Text of other languages is spelled in smaller pieces and {fate}{': ' + pieces if pieces else ''}."
        )
        if not _SHARES_OUT.isdisjoint(_endings(names)):
            lines.append("- Perplexities are of fewer tokens than the source's: compare them per byte, not per token.")
    if report.stacks or report.sparsity is not None:
        lines.append("- What was removed below the vocabulary changes outputs; only the scores above say by how much.")
    if not any(results.scores for results in report.results):
        lines.append("- Its quality was not measured.")
    lines.append("- What the source's card says of its data, bias and use holds for this slice too.")
    return "\n".join(lines)


def _licence(report: Report) -> str:
    source = report.source
    said = ", ".join(plain(value) for value in source.licence.values())
    text = (
        f"The source's licence applies: {said}."
        if said
        else "The source's card states no licence; ask its authors before use."
    )
    if source.licence_files:
        text += f" Its files are carried: {', '.join(plain(name) for name in source.licence_files)}."
    if source.card:
        text += f" The source's own card is [{source.card}]({source.card})."
    return f"## Licence\n\n{text}"


def _making(report: Report) -> str:
    command = report.origin.command or report.origin.equivalent
    words = [_without_folders(word) for word in command]
    made = report.origin.versions.get("langslice")
    lines = [
        "## How it was made",
        "",
        "```",
        _fenced(shlex.join(words)),
        "```",
        "",
        f"langslice {made}; fingerprint of the source",
    ]
    commit = f", commit `{report.source.revision}`" if report.source.revision else ""
    lines[-1] += (
        f" `{report.origin.fingerprint[:16]}`{commit}. `slice.json` holds every kept token with its reason, the maps"
    )
    lines[-1] += " back to the source, hashes and versions."
    parts = f"{count_text(report.parameters.before)} to {count_text(report.parameters.after)} parameters"
    lines[-1] += f" {parts}."
    return "\n".join(lines)


def _fenced(text: str) -> str:
    """Text that stays inside a block of code, on one line."""
    return " ".join(visible(text).split()).replace("```", "` ` `")


def _without_folders(word: str) -> str:
    """A path without the folders that it is in on the machine of who made the slice, for a page that is public."""
    name, equals, path = word.rpartition("=")
    if PurePath(path).is_absolute() or path.startswith("~"):
        return f"{name}{equals}{PurePath(path).name}"
    return word
