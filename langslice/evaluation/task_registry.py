"""Tasks by name, with their data read: each becomes a function that measures a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from langslice.errors import NoDataError, TaskError
from langslice.evaluation.choice_tasks import ChoiceTask, Example, load_task, preset_names, read_examples
from langslice.evaluation.loaded_model import Loaded
from langslice.evaluation.measurement import Measurement
from langslice.evaluation.options import EvaluateOptions
from langslice.evaluation.settings import ALIASES, BUILT_IN, HARNESS, directions

if TYPE_CHECKING:
    from langslice.evaluation.translation import Pair

Step = Callable[[Loaded], list[Measurement]]
_Examples = dict[str, tuple[ChoiceTask, dict[str, list[Example]]]]
_Key = TypeVar("_Key")
_Data = TypeVar("_Data")


@dataclass(frozen=True)
class Prepared:
    """Tasks whose data has been read.

    kinds  of models that every one of them fits
    steps  name -> what measures a loaded model
    notes  what was left out for want of data, where the settings allow it
    """

    steps: Mapping[str, Step]
    kinds: Mapping[str, tuple[str, ...]]
    speed: bool
    harness: tuple[str, ...]
    notes: tuple[str, ...] = ()


def prepare(settings: EvaluateOptions) -> Prepared:
    """Read the data of every task.

    Raises  TaskError for unknown tasks and missing data
    """
    steps: dict[str, Step] = {}
    kinds: dict[str, tuple[str, ...]] = {}
    harness: list[str] = []
    shared: _Examples = {}
    notes: list[str] = []
    for name in settings.tasks:
        base = name.split(":")[0]
        if name.startswith(HARNESS):
            harness.append(name.removeprefix(HARNESS))
        elif name == "speed":
            continue
        elif base == "rankc":
            step = _prepare_rankc(settings, notes, name.partition(":")[2] or "xnli", shared)
            _add(steps, kinds, name, step, ("causal", "seq2seq"))
        elif name in _PREPARE:
            _add(steps, kinds, name, _PREPARE[name](settings, notes), _KINDS[name])
        elif name in preset_names() or name.endswith((".yaml", ".yml")):
            _add(steps, kinds, name, _prepare_choice(settings, notes, name, shared), ("causal", "seq2seq"))
        else:
            check_task(name)
    if not steps and not harness and "speed" not in settings.tasks:
        raise NoDataError("no task has data\n  " + "\n  ".join(notes), "name a folder of data sets with --data")
    return Prepared(steps, kinds, "speed" in settings.tasks, tuple(harness), tuple(dict.fromkeys(notes)))


def _add(
    steps: dict[str, Step], kinds: dict[str, tuple[str, ...]], name: str, step: Step | None, fitting: tuple[str, ...]
) -> None:
    """Add a task, unless it has no data in any language and may be left out."""
    if step is not None:
        steps[name], kinds[name] = step, fitting


def _each(
    settings: EvaluateOptions, notes: list[str], items: Iterable[_Key], read: Callable[[_Key], _Data]
) -> dict[_Key, _Data]:
    """Data of each item; one without any is left out and noted where the settings say so, and refused elsewhere."""
    found: dict[_Key, _Data] = {}
    for item in items:
        try:
            found[item] = read(item)
        except NoDataError as error:
            if not settings.available:
                raise
            notes.append(f"left out: {error.message.splitlines()[0]}")
    return found


def check_task(name: str) -> None:
    """Raises TaskError for a name that is no task's; the data is not looked for."""
    from difflib import get_close_matches

    known = (*BUILT_IN, *preset_names())
    if name in known or name in ALIASES or name.startswith((HARNESS, "rankc:")) or name.endswith((".yaml", ".yml")):
        return
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise TaskError(f"unknown task {name!r}", f"{hint}tasks are {', '.join(known)}, FILE.yaml and lm-eval:NAME")


def _prepare_choice(settings: EvaluateOptions, notes: list[str], name: str, shared: _Examples) -> Step | None:
    task, examples = _examples(settings, notes, name, shared)

    def step(loaded: Loaded) -> list[Measurement]:
        from langslice.evaluation.zero_shot import measure_choice

        kinds = settings.scores or (task.score,)
        return [
            m for language in examples for m in measure_choice(loaded, task.name, language, examples[language], kinds)
        ]

    return step if examples else None


def _examples(
    settings: EvaluateOptions, notes: list[str], name: str, shared: _Examples
) -> tuple[ChoiceTask, dict[str, list[Example]]]:
    if name not in shared:
        task = load_task(name)

        def read(code: str) -> list[Example]:
            return read_examples(task, code, settings.folder, limit=settings.limit)

        shared[name] = (task, _each(settings, notes, settings.languages, read))
    return shared[name]


def _prepare_rankc(settings: EvaluateOptions, notes: list[str], name: str, shared: _Examples) -> Step | None:
    task, examples = _examples(settings, notes, name, shared)
    if len(examples) < 2 and settings.available:
        notes.append(f"left out: rankc:{name}, which has data in {len(examples)} of the languages")
        return None
    if len(examples) < 2:
        raise TaskError("rankc compares languages, and only one was given", "name two or more with --languages")
    answers = {code: [example.answer for example in found] for code, found in examples.items()}
    first = next(iter(answers))
    for code, found in answers.items():
        if found != answers[first]:
            raise TaskError(
                f"rankc:{name}: the rows of {code} and {first} are not parallel: their answers differ",
                "RankC needs the same items in the same order in every language",
            )

    def step(loaded: Loaded) -> list[Measurement]:
        from langslice.evaluation.rankc import measure_rankc

        kind = (settings.scores or (task.score,))[0]
        orders = (False, True) if settings.reference else (False,)
        return [
            m for ascending in orders for m in measure_rankc(loaded, task.name, examples, kind, ascending=ascending)
        ]

    return step


def _prepare_perplexity(settings: EvaluateOptions, notes: list[str]) -> Step | None:
    lines = _lines(settings, notes, "perplexity")

    def step(loaded: Loaded) -> list[Measurement]:
        from langslice.evaluation.perplexity import measure_perplexity

        return [found for language in lines for found in measure_perplexity(loaded, language, lines[language])]

    return step if lines else None


def _lines(settings: EvaluateOptions, notes: list[str], task: str) -> dict[str, list[str]]:
    from langslice.evaluation.parallel import read_lines

    def read(code: str) -> list[str]:
        return read_lines(task, [code], settings.folder, hub=settings.hub, limit=settings.lines(task))[code]

    return _each(settings, notes, settings.languages, read)


def _prepare_sts(settings: EvaluateOptions, notes: list[str]) -> Step | None:
    from langslice.evaluation.embedding import measure_sts, read_pairs

    def read(code: str) -> tuple[list[str], list[str], np.ndarray]:
        return read_pairs(code, settings.folder, limit=settings.limit)

    pairs = _each(settings, notes, settings.languages, read)

    def step(loaded: Loaded) -> list[Measurement]:
        return [found for code, pair in pairs.items() for found in measure_sts(loaded.model, code, *pair)]

    return step if pairs else None


def _prepare_bitext(settings: EvaluateOptions, notes: list[str]) -> Step | None:
    from langslice.evaluation.embedding import measure_bitext
    from langslice.evaluation.parallel import ParallelText, read_parallel

    def read(pair: tuple[str, str]) -> ParallelText:
        return read_parallel("bitext", pair, settings.folder, hub=settings.hub)

    texts = _each(settings, notes, directions(settings), read)
    limit = settings.lines("bitext")

    def step(loaded: Loaded) -> list[Measurement]:
        found = []
        for pair, text in texts.items():
            first, second = (text.lines[code][:limit] for code in pair)
            found += measure_bitext(loaded.model, pair, first, second)
        return found

    return step if texts else None


def _prepare_translation(settings: EvaluateOptions, notes: list[str]) -> Step | None:
    from langslice.evaluation.translation import measure_translation, sacrebleu_metrics

    pairs = _pairs(settings, notes, "translation")
    sacrebleu_metrics("en")  # refuses early where the package is missing

    def step(loaded: Loaded) -> list[Measurement]:
        ended = _separator(settings, loaded)
        return [
            found
            for pair in pairs.values()
            for found in measure_translation(loaded, pair, new_tokens=settings.new_tokens, separator=ended)
        ]

    return step if pairs else None


def _prepare_translation_loss(settings: EvaluateOptions, notes: list[str]) -> Step | None:
    pairs = _pairs(settings, notes, "translation_loss")

    def step(loaded: Loaded) -> list[Measurement]:
        from langslice.evaluation.translation_loss import measure_translation_loss

        ended = _separator(settings, loaded)
        return [found for pair in pairs.values() for found in measure_translation_loss(loaded, pair, separator=ended)]

    return step if pairs else None


def _pairs(settings: EvaluateOptions, notes: list[str], task: str) -> dict[tuple[str, str], Pair]:
    from langslice.evaluation.parallel import read_parallel
    from langslice.evaluation.translation import make_pair

    def read(pair: tuple[str, str]) -> Pair:
        text = read_parallel(task, pair, settings.folder, hub=settings.hub)
        return make_pair(text, *pair, shots=settings.shots, limit=settings.lines(task))

    return _each(settings, notes, directions(settings), read)


def _separator(settings: EvaluateOptions, loaded: Loaded) -> str:
    """What ends a line of a translation prompt."""
    ended = loaded.tokenizer.eos_token if settings.separator == "eos" else settings.separator
    if ended is None:
        raise TaskError("the tokenizer has no end-of-text token to part lines with", "leave `separator` out")
    return str(ended)


def _prepare_confusion(settings: EvaluateOptions, notes: list[str]) -> Step | None:
    from langslice.evaluation.confusion import language_detector, measure_confusion

    prompts = _lines(settings, notes, "confusion")
    detector = language_detector()

    def step(loaded: Loaded) -> list[Measurement]:
        return [
            found
            for code, lines in prompts.items()
            for found in measure_confusion(loaded, code, lines, new_tokens=settings.new_tokens, detector=detector)
        ]

    return step if prompts else None


_PREPARE: Final[Mapping[str, Callable[[EvaluateOptions, list[str]], Step | None]]] = {
    "perplexity": _prepare_perplexity,
    "sts": _prepare_sts,
    "bitext": _prepare_bitext,
    "translation": _prepare_translation,
    "translation_loss": _prepare_translation_loss,
    "confusion": _prepare_confusion,
}
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "perplexity": ("causal",),
    "sts": ("encoder",),
    "bitext": ("encoder",),
    "translation": ("causal", "seq2seq"),
    "translation_loss": ("causal",),
    "confusion": ("causal",),
}
