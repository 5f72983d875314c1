"""Text for verification: the counted corpus, the user's held-out files, and sentences that come with the package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.options import listed

if TYPE_CHECKING:
    from langslice.planning.source import Source

# Name of the text that a plan was counted on.
CORPUS = "corpus"
# Words to a line and lines to a language of what a word list adds; every line is one text to encode.
_WORDS_PER_LINE = 12
_WORD_LINES = 400


def verification_texts(request: Mapping[str, Any], text: Sequence[str]) -> dict[str, Callable[[], Iterable[str]]]:
    """Name every text that a slice is verified on.

    request  what the plan was asked for: its corpus is read again, whole
    text     held-out files of the user
    Returns  name -> a function that reads the units from their beginning
    """
    from langslice.corpus import corpus_units, read_texts

    field = str(request.get("text_field", "text"))
    texts: dict[str, Callable[[], Iterable[str]]] = {}
    corpus = listed(request.get("corpus"))
    if corpus:
        languages = _languages(request) if request.get("language_id") else ()
        texts[CORPUS] = partial(corpus_units, corpus, text_field=field, languages=languages)
    for path in text:
        name = Path(path).name
        texts[path if name in texts else name] = partial(read_texts, [path], text_field=field)
    for name, lines in packaged_texts().items():
        texts[name] = partial(iter, lines)
    for language in _languages(request):
        words = word_lines(language)
        if words:
            texts[f"words of {language}"] = partial(iter, words)
    return texts


def always_read(source: Source, request: Mapping[str, Any]) -> dict[str, Callable[[], Iterable[str]]]:
    """What the model is always called with: prompts, chats, and texts that the plan was asked to keep whole."""
    texts = source.fixed_texts(listed(request.get("keep_text")))
    return {f"always read: {reason}": partial(iter, lines) for reason, lines in texts.items()}


def packaged_texts() -> dict[str, list[str]]:
    """The package's own parallel sentences, every language, also the dropped ones: these must at least round-trip."""
    from langslice.mini import heldout_languages, heldout_text

    return {f"sentences, {language}": heldout_text(language) for language in heldout_languages()}


def word_lines(language: str) -> list[str]:
    """Frequent words of a language in lines of twelve; empty where there is no word list."""
    from langslice.vocabulary.languages import word_list_code

    code = word_list_code(language)
    if code is None:
        return []
    import wordfreq

    words = wordfreq.top_n_list(code, _WORDS_PER_LINE * _WORD_LINES)
    wordfreq.get_frequency_list.cache_clear()  # every word of the language, tens of megabytes
    return [" ".join(words[start : start + _WORDS_PER_LINE]) for start in range(0, len(words), _WORDS_PER_LINE)]


def prompts_of(source: Source, request: Mapping[str, Any]) -> list[str]:
    """What a model is always called with in front of a text, and texts that the plan was asked to keep whole."""
    return [*dict.fromkeys(listed(request.get("keep_text"))), *source.prompts]


def _languages(request: Mapping[str, Any]) -> tuple[str, ...]:
    from langslice.vocabulary.languages import parse_languages

    return tuple(language.tag for language in parse_languages(listed(request.get("languages"))))
