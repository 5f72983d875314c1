"""Lay sentences out as demonstrations.

The preset `KIM2024` is the layout of Kim et al. 2024, arXiv 2409.16911: 100 prompts of four shots,
"{Language}: {sentence}{eos}" without line ends, pairs in the order of the file with one skipped after each prompt,
text in one language shuffled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from langslice.demonstrations.demonstration import EOS, Demonstration
from langslice.demonstrations.options import ORDERS
from langslice.errors import CorpusError

TEMPLATE = "{language}: {text}"


@dataclass(frozen=True)
class Layout:
    """How demonstrations are laid out.

    shots      sentences, or pairs of sentences, in each
    count      demonstrations
    separator  after every part; `{eos}` is the model's end-of-sequence token
    template   of each part; {language} and {text} are filled in
    order      "file" or "shuffled"; None is "file" for pairs and "shuffled" for text in one language
    skip       pairs passed over after each demonstration, in the order of the file
    seed       of the shuffle
    chat       messages of a conversation, for the model's chat template, instead of parts
    """

    shots: int = 4
    count: int = 100
    separator: str = "\n"
    template: str = TEMPLATE
    order: str | None = None
    skip: int = 0
    seed: int = 0
    chat: bool = False


KIM2024 = Layout(shots=4, count=100, separator=EOS, template=TEMPLATE, skip=1, seed=0)


def parallel_demonstrations(
    pairs: Sequence[tuple[str, str]],
    languages: tuple[str, str],
    layout: Layout,
    *,
    names: tuple[str, str] | None = None,
    condition: str = "mt",
) -> list[Demonstration]:
    """Show translation: source and target of each shot, in turn.

    pairs      (source, target) sentences
    languages  BCP 47 codes of both
    names      what the languages are called in the prompts; English names unless given
    Raises     CorpusError when there are too few pairs
    """
    source, target = names or (language_name(languages[0]), language_name(languages[1]))
    made = []
    for group in _groups(pairs, layout, layout.order or "file", f"{languages[0]}-{languages[1]} pairs"):
        if layout.chat:
            messages = [
                message
                for left, right in group
                for message in (("user", f"Translate from {source} to {target}:\n{left}"), ("assistant", right))
            ]
            made.append(Demonstration(condition, languages=languages, messages=tuple(messages), answer=True))
        else:
            parts = [
                _filled(layout.template, language, text)
                for pair in group
                for language, text in zip((source, target), pair, strict=True)
            ]
            made.append(Demonstration(condition, tuple(parts), layout.separator, languages, answer=True))
    return made


def text_demonstrations(
    sentences: Sequence[str], language: str, layout: Layout, *, name: str | None = None, condition: str = "mono"
) -> list[Demonstration]:
    """Show one language alone: sentences that do not belong together.

    Raises  CorpusError when there are too few sentences
    """
    name = name or language_name(language)
    made = []
    for group in _groups(sentences, layout, layout.order or "shuffled", f"sentences in {language}"):
        if layout.chat:
            messages = tuple(
                message for text in group for message in (("user", f"Write a sentence in {name}."), ("assistant", text))
            )
            made.append(Demonstration(condition, languages=(language,), messages=messages))
        else:
            parts = tuple(_filled(layout.template, name, text) for text in group)
            made.append(Demonstration(condition, parts, layout.separator, (language,)))
    return made


def code_demonstrations(sources: Sequence[str], layout: Layout, *, condition: str = "code") -> list[Demonstration]:
    """Show source code: each file raw, from its beginning; how much of it counts is settled in tokens later.

    Raises  CorpusError when there are too few files
    """
    if len(sources) < layout.count:
        raise _too_few("source files", len(sources), layout.count, layout)
    chosen = list(sources)
    if layout.order == "shuffled":
        random.Random(layout.seed).shuffle(chosen)
    return [Demonstration(condition, (text,)) for text in chosen[: layout.count]]


def language_name(code: str) -> str:
    """English name of a language.

    Example  language_name("fr") == "French"
    Raises   CorpusError for a code that no language has
    """
    from langcodes import Language
    from langcodes.tag_parser import LanguageTagError

    try:
        language = Language.get(code)
        known = language.is_valid()
    except LanguageTagError:
        known = False
    if not known:
        raise CorpusError(
            f"unknown language code {code!r}", "BCP 47 codes such as fr or zh; or give names with --names"
        )
    return str(language.display_name("en"))


def _filled(template: str, language: str, text: str) -> str:
    # Not str.format: a sentence may hold braces, and so may a template that shows JSON.
    return template.replace("{language}", language, 1).replace("{text}", text, 1)


def _groups(items: Sequence[object], layout: Layout, order: str, what: str) -> Iterator[list]:  # type: ignore[type-arg]
    """Cut items into groups of `shots`, as many as asked for."""
    if layout.shots < 1 or layout.count < 1:
        raise CorpusError(
            f"{layout.count} demonstrations of {layout.shots} shots hold nothing", "both must be 1 or more"
        )
    if order not in ORDERS:
        raise CorpusError(f"unknown order {order!r}", f"one of {', '.join(ORDERS)}")
    if "{text}" not in layout.template:
        raise CorpusError(f"the template {layout.template!r} has no place for {{text}}", f"such as {TEMPLATE!r}")
    skip = layout.skip if order == "file" else 0
    step = layout.shots + skip
    needed = layout.count * step - skip
    if len(items) < needed:
        raise _too_few(what, len(items), needed, layout)
    chosen = list(items)
    if order == "shuffled":
        random.Random(layout.seed).shuffle(chosen)
    for first in range(0, layout.count * step, step):
        yield chosen[first : first + layout.shots]


def _too_few(what: str, found: int, needed: int, layout: Layout) -> CorpusError:
    return CorpusError(
        f"too few {what}: expected {needed}, found {found}\n  for {layout.count} demonstrations of {layout.shots} shots",
        "ask for fewer with --count or --shots, or give more text",
    )
