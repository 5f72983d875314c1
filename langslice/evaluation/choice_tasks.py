"""Zero-shot tasks: what is asked, in which words, and what the right answer is. A task is a small YAML file.

    name: sentiment
    prompt: "{review|words:128} It is"          # filters: words:N, without_end, uncapitalised
    candidate: " {label}"                       # what follows the prompt, once for each label
    labels: {negative: negative, positive: positive}
    sources:
      - file: sentiment/test.{language}.tsv     # below --data
        columns: {review: text}                 # field of the template -> column
        label: polarity
        values: {"0": negative, "1": positive}  # value of that column -> label

In a multiple choice the text of a label is a field: `labels: {a: "{choice1}", b: "{choice2}"}`. `texts` replaces values of a
field by words, if need be by language; `neutral` is the prompt without its content, for the PMI score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from langslice.errors import TaskError
from langslice.evaluation.data_sets import DataSource, Row, missing_column, read_source

PRESETS: Final = Path(__file__).parent / "tasks"
LABEL_SCORES: Final = ("paper", "sum", "normalised", "first_token", "pmi")
_FIELD = re.compile(r"\{(\w+)((?:\|\w+(?::\d+)?)*)\}")
_ENTRIES: Final = ("name", "prompt", "candidate", "labels", "texts", "neutral", "score", "sources", "note")
_SOURCE_ENTRIES: Final = tuple(field.name for field in fields(DataSource))


@dataclass(frozen=True)
class ChoiceTask:
    """A task whose answer is the label with the highest score.

    prompt     template of what is common to all labels
    candidate  template of what follows; `{label}` is the label's text
    labels     label -> text, itself a template
    texts      field -> value -> word, or language -> word with `default`
    neutral    template of the prompt without content
    score      which label score decides unless others are asked for, one of LABEL_SCORES
    """

    name: str
    prompt: str
    candidate: str
    labels: Mapping[str, str]
    texts: Mapping[str, Mapping[str, Any]]
    neutral: str
    score: str
    sources: tuple[DataSource, ...]


@dataclass(frozen=True)
class Example:
    """One question, filled in: what is common, what each label adds, which label is right, and the neutral prompt."""

    prompt: str
    candidates: tuple[str, ...]
    answer: int
    neutral: str


def preset_names() -> tuple[str, ...]:
    """Tasks that come with the package."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))


def load_task(name: str) -> ChoiceTask:
    """A preset by name, or a task from a YAML file.

    Raises  TaskError for a file that is missing or not understood
    """
    path = PRESETS / f"{name}.yaml" if name in preset_names() else Path(name)
    import yaml

    try:
        # Every scalar stays text: as YAML, an unquoted Yes would be a truth value.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except FileNotFoundError:
        raise TaskError(f"no task file {name}", f"presets are {', '.join(preset_names())}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TaskError(f"{name}: not readable as YAML\n  {error}", "see the guide on evaluation") from error
    return parse_task(document, place=str(name))


def parse_task(document: Any, *, place: str) -> ChoiceTask:
    """Build a task from its YAML form; `place` names it in errors."""
    if not isinstance(document, dict):
        raise TaskError(f"{place}: expected a mapping, found {type(document).__name__}", "see the guide on evaluation")
    _refuse_unknown(place, document, _ENTRIES)
    for entry in ("prompt", "candidate", "labels", "sources"):
        if not document.get(entry):
            raise TaskError(f"{place}: `{entry}` is missing", "a task needs prompt, candidate, labels and sources")
    labels = document["labels"]
    if not isinstance(labels, dict) or len(labels) < 2:
        raise TaskError(f"{place}: `labels` needs at least two, as label: text", "labels: {no: No, yes: Yes}")
    score = document.get("score", "paper")
    if score not in LABEL_SCORES:
        raise TaskError(f"{place}: score {score!r} is not one of {', '.join(LABEL_SCORES)}", "leave `score` out")
    texts = document.get("texts", {})
    templates = [document["prompt"], document["candidate"], *labels.values(), document.get("neutral", "")]
    for template in templates:
        _check_template(place, template)
    if "label" not in field_names(document["candidate"]):
        raise TaskError(f"{place}: `candidate` must hold {{label}}", 'candidate: " {label}"')
    sources = document["sources"]
    if not isinstance(sources, list):
        raise TaskError(f"{place}: `sources` must be a list", "begin each source with a dash")
    neutral = document.get(
        "neutral", _FIELD.sub(lambda found: found[0] if found[1] in texts else "", document["prompt"])
    )
    return ChoiceTask(
        str(document.get("name", Path(place).stem)), document["prompt"], document["candidate"], labels, texts, neutral,
        score, tuple(_source(source, place, labels) for source in sources),
    )  # fmt: skip


def read_examples(task: ChoiceTask, language: str, data: Path | None, *, limit: int | None = None) -> list[Example]:
    """Fill a task's template with the rows of a language, in file order.

    limit   use the first so many
    Raises  TaskError for a language without data, a row without a column, or a label that the verbaliser does not know
    """
    source, rows, place = read_source(task.sources, task.name, language, data)
    examples: list[Example] = []
    for number, row in enumerate(rows):
        if limit is not None and len(examples) >= limit:
            break
        answer = _answer(task, source, row, f"{place}, row {number + 1}")
        if answer is not None:
            examples.append(_fill_example(task, source, row, language, answer, place))
    if not examples:
        raise TaskError(f"task {task.name}: {place} has no rows in language {language}", "leave the language out")
    return examples


def field_names(template: str) -> set[str]:
    """Names of the fields of a template."""
    return {found[1] for found in _FIELD.finditer(template)}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into a template, filtered; texts that hold braces stay as they are."""

    def put(found: re.Match[str]) -> str:
        text = values[found[1]]
        for name in filter(None, found[2].split("|")):
            text = _filtered(text, name)
        return text

    return _FIELD.sub(put, template)


def _filtered(text: str, name: str) -> str:
    if name.startswith("words:"):
        return " ".join(text.split()[: int(name[len("words:") :])])
    if name == "without_end":
        return text.strip()[:-1]
    return text[:1].lower() + text[1:]


def _check_template(place: str, template: Any) -> None:
    if not isinstance(template, str):
        raise TaskError(f"{place}: a template must be text, found {type(template).__name__}", "put it into quotes")
    for found in _FIELD.finditer(template):
        for name in filter(None, found[2].split("|")):
            if name not in ("without_end", "uncapitalised") and not re.fullmatch(r"words:\d+", name):
                raise TaskError(
                    f"{place}: unknown filter {name!r} in {template!r}", "filters: words:N, without_end, uncapitalised"
                )
    rest = _FIELD.sub("", template)
    if "{" in rest or "}" in rest:
        raise TaskError(f"{place}: a brace that is no field in {template!r}", "a field is {name} or {name|filter}")


def _source(entry: Any, place: str, labels: Mapping[str, str]) -> DataSource:
    if not isinstance(entry, dict):
        raise TaskError(f"{place}: a source must be a mapping", "each source has file or hub, columns and label")
    _refuse_unknown(f"{place}, sources", entry, _SOURCE_ENTRIES)
    for name in ("label",):
        if not entry.get(name):
            raise TaskError(f"{place}: a source needs `{name}`, the column of the answer", "label: gold_label")
    if bool(entry.get("file")) == bool(entry.get("hub")):
        raise TaskError(f"{place}: a source needs either `file` or `hub`", "file: name/test.{language}.jsonl")
    values = entry.get("values", {})
    wrong = [label for label in values.values() if label not in labels]
    if wrong:
        raise TaskError(
            f"{place}: `values` names the label {wrong[0]!r}, which the verbaliser does not have",
            f"labels are {', '.join(labels)}",
        )
    plain = {
        name: entry[name] for name in ("label", "file", "hub", "config", "split", "language_column") if name in entry
    }
    several: dict[str, Any] = {name: tuple(entry[name]) for name in ("drop", "languages", "header") if name in entry}
    return DataSource(columns=entry.get("columns", {}), values=values, **plain, **several)


def _refuse_unknown(place: str, document: Mapping[str, Any], known: Sequence[str]) -> None:
    for entry in document:
        if entry not in known:
            near = get_close_matches(str(entry), known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"entries are {', '.join(known)}"
            raise TaskError(f"{place}: unknown entry `{entry}`", hint)


def _answer(task: ChoiceTask, source: DataSource, row: Row, place: str) -> int | None:
    """Index of the right label; None for a row that the source drops."""
    if source.label not in row:
        raise missing_column(place, source.label, row)
    value = str(row[source.label])
    if value in source.drop:
        return None
    label = source.values.get(value, value)
    if label not in task.labels:
        known = source.values or task.labels
        raise TaskError(
            f"{place}: label {value!r} is unknown to the verbaliser of task {task.name}\n  known: {', '.join(known)}",
            "add it to `values` or `labels`, or to `drop`",
        )
    return list(task.labels).index(label)


def _fill_example(task: ChoiceTask, source: DataSource, row: Row, language: str, answer: int, place: str) -> Example:
    needed = field_names(task.prompt) | field_names(task.candidate) | field_names(task.neutral)
    for text in task.labels.values():
        needed |= field_names(text)
    values: dict[str, str] = {}
    for name in needed - {"label"}:
        column = source.columns.get(name, name)
        if column not in row:
            raise missing_column(place, column, row)
        values[name] = _worded(task, name, str(row[column]), language, place)
    words = [fill(text, values) for text in task.labels.values()]
    candidates = tuple(fill(task.candidate, {**values, "label": word}) for word in words)
    return Example(fill(task.prompt, values), candidates, answer, fill(task.neutral, values))


def _worded(task: ChoiceTask, name: str, value: str, language: str, place: str) -> str:
    if name not in task.texts:
        return value
    if value not in task.texts[name]:
        raise TaskError(
            f"{place}: {name} {value!r} has no text in task {task.name}\n  known: {', '.join(task.texts[name])}",
            "add it to `texts`",
        )
    word = task.texts[name][value]
    return str(word.get(language, word["default"]) if isinstance(word, dict) else word)
