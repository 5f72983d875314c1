"""Tasks by name, with their data read: each becomes a function that measures a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from langslice.errors import TaskError
from langslice.evaluate.choice_tasks import ChoiceTask, Example, load_task, preset_names, read_examples
from langslice.evaluate.loading import Loaded
from langslice.evaluate.measurement import Measurement
from langslice.evaluate.settings import BUILT_IN, HARNESS, Settings, directions

Step = Callable[[Loaded], list[Measurement]]
_Examples = dict[str, tuple[ChoiceTask, dict[str, list[Example]]]]


@dataclass(frozen=True)
class Prepared:
    """Tasks whose data has been read.

    kinds  of models that every one of them fits
    steps  name -> what measures a loaded model
    """

    steps: Mapping[str, Step]
    kinds: Mapping[str, tuple[str, ...]]
    speed: bool
    harness: tuple[str, ...]


def prepare(settings: Settings) -> Prepared:
    """Read the data of every task.

    Raises  TaskError for unknown tasks and missing data
    """
    steps: dict[str, Step] = {}
    kinds: dict[str, tuple[str, ...]] = {}
    harness: list[str] = []
    shared: _Examples = {}
    for name in settings.tasks:
        base = name.split(":")[0]
        if name.startswith(HARNESS):
            harness.append(name.removeprefix(HARNESS))
        elif name == "speed":
            continue
        elif base == "rankc":
            steps[name] = _prepare_rankc(settings, name.partition(":")[2] or "xnli", shared)
            kinds[name] = ("causal", "seq2seq")
        elif name in _PREPARE:
            steps[name] = _PREPARE[name](settings)
            kinds[name] = _KINDS[name]
        elif name in preset_names() or name.endswith((".yaml", ".yml")):
            steps[name] = _prepare_choice(settings, name, shared)
            kinds[name] = ("causal", "seq2seq")
        else:
            raise TaskError(f"unknown task {name!r}", _near_task(name))
    return Prepared(steps, kinds, "speed" in settings.tasks, tuple(harness))


def _near_task(name: str) -> str:
    from difflib import get_close_matches

    known = (*BUILT_IN, *preset_names())
    near = get_close_matches(name, known, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"tasks are {', '.join(known)}, FILE.yaml and lm-eval:NAME"


def _prepare_choice(settings: Settings, name: str, shared: _Examples) -> Step:
    task, examples = _examples(settings, name, shared)

    def step(loaded: Loaded) -> list[Measurement]:
        from langslice.evaluate.zero_shot import measure_choice

        kinds = settings.scores or (task.score,)
        return [
            m for language in examples for m in measure_choice(loaded, task.name, language, examples[language], kinds)
        ]

    return step


def _examples(settings: Settings, name: str, shared: _Examples) -> tuple[ChoiceTask, dict[str, list[Example]]]:
    if name not in shared:
        task = load_task(name)
        data = settings.folder
        shared[name] = (
            task,
            {code: read_examples(task, code, data, limit=settings.limit) for code in settings.languages},
        )
    return shared[name]


def _prepare_rankc(settings: Settings, name: str, shared: _Examples) -> Step:
    task, examples = _examples(settings, name, shared)
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
        from langslice.evaluate.rankc import measure_rankc

        kind = (settings.scores or (task.score,))[0]
        return measure_rankc(loaded, task.name, examples, kind)

    return step


def _prepare_perplexity(settings: Settings) -> Step:
    from langslice.evaluate.parallel import read_lines

    lines = read_lines(
        "perplexity", settings.languages, settings.folder, hub=settings.hub, limit=settings.lines("perplexity")
    )

    def step(loaded: Loaded) -> list[Measurement]:
        from langslice.evaluate.perplexity import measure_perplexity

        return [found for language in lines for found in measure_perplexity(loaded, language, lines[language])]

    return step


def _prepare_sts(settings: Settings) -> Step:
    from langslice.evaluate.embedding import measure_sts, read_pairs

    pairs = {code: read_pairs(code, settings.folder, limit=settings.limit) for code in settings.languages}

    def step(loaded: Loaded) -> list[Measurement]:
        return [found for code, pair in pairs.items() for found in measure_sts(loaded.model, code, *pair)]

    return step


def _prepare_bitext(settings: Settings) -> Step:
    from langslice.evaluate.embedding import measure_bitext
    from langslice.evaluate.parallel import read_parallel

    pairs = directions(settings)
    languages = list(dict.fromkeys(code for pair in pairs for code in pair))
    text = read_parallel("bitext", languages, settings.folder, hub=settings.hub)
    limit = settings.lines("bitext")

    def step(loaded: Loaded) -> list[Measurement]:
        found = []
        for pair in pairs:
            first, second = (text.lines[code][:limit] for code in pair)
            found += measure_bitext(loaded.model, pair, first, second)
        return found

    return step


def _prepare_translation(settings: Settings) -> Step:
    from langslice.evaluate.parallel import read_parallel
    from langslice.evaluate.translation import make_pair, sacrebleu_metrics

    wanted = directions(settings)
    languages = list(dict.fromkeys(code for pair in wanted for code in pair))
    text = read_parallel("translation", languages, settings.folder, hub=settings.hub)
    limit = settings.lines("translation")
    pairs = [make_pair(text, *pair, shots=settings.shots, limit=limit) for pair in wanted]
    sacrebleu_metrics("en")  # refuses early where the package is missing

    def step(loaded: Loaded) -> list[Measurement]:
        from langslice.evaluate.translation import measure_translation

        ended = loaded.tokenizer.eos_token if settings.separator == "eos" else settings.separator
        return [
            found
            for pair in pairs
            for found in measure_translation(loaded, pair, new_tokens=settings.new_tokens, separator=ended)
        ]

    return step


def _prepare_confusion(settings: Settings) -> Step:
    from langslice.evaluate.confusion import language_detector, measure_confusion
    from langslice.evaluate.parallel import read_lines

    limit = settings.lines("confusion")
    prompts = read_lines("confusion", settings.languages, settings.folder, hub=settings.hub, limit=limit)
    detector = language_detector()

    def step(loaded: Loaded) -> list[Measurement]:
        return [
            found
            for code, lines in prompts.items()
            for found in measure_confusion(loaded, code, lines, new_tokens=settings.new_tokens, detector=detector)
        ]

    return step


_PREPARE: Final[Mapping[str, Callable[[Settings], Step]]] = {
    "perplexity": _prepare_perplexity,
    "sts": _prepare_sts,
    "bitext": _prepare_bitext,
    "translation": _prepare_translation,
    "confusion": _prepare_confusion,
}
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "perplexity": ("causal",),
    "sts": ("encoder",),
    "bitext": ("encoder",),
    "translation": ("causal", "seq2seq"),
    "confusion": ("causal",),
}
