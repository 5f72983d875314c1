"""The text that langslice-mini is trained on, read as documents of parallel lines, with every tenth one held out.

A document is the unit of the split: a news story (NTREX-128, by DOCUMENT_IDS.tsv), an article (XQuAD, UDHR), a file
(Python), a name or phrase in all languages (CLDR through babel), a word (wordfreq). Within each source the documents
are put in a fixed order and those at places 3, 13, 23, ... are held out: neither the tokenizer nor the model sees them.

How documents become training windows is the business of layout.py.
"""

from __future__ import annotations

import json
import sysconfig
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path

LANGUAGES = {
    "en": "English",
    "ko": "Korean",
    "zh": "Chinese",
    "fr": "French",
    "es": "Spanish",
    "ar": "Arabic",
    "hi": "Hindi",
    "sw": "Swahili",
}
CODE = "python"
NTREX_FILES = {
    "en": "newstest2019-src.eng.txt",
    "ko": "newstest2019-ref.kor.txt",
    "zh": "newstest2019-ref.zho-CN.txt",
    "fr": "newstest2019-ref.fra.txt",
    "es": "newstest2019-ref.spa.txt",
    "ar": "newstest2019-ref.arb.txt",
    "hi": "newstest2019-ref.hin.txt",
    "sw": "newstest2019-ref.swa.txt",
}
UDHR_FILES = {
    "en": "udhr_eng.xml",
    "ko": "udhr_kor.xml",
    "zh": "udhr_cmn_hans.xml",
    "fr": "udhr_fra.xml",
    "es": "udhr_spa.xml",
    "ar": "udhr_arb.xml",
    "hi": "udhr_hin.xml",
    "sw": "udhr_swh.xml",
}
XQUAD_LANGUAGES = ("en", "zh", "es", "ar", "hi")
XQUAD_STREAMS = ("xquad", "xquad-questions", "xquad-answers")
HELD_OUT_PLACE, HELD_OUT_EVERY = 3, 10
CODE_BYTES = 4_000_000  # of the standard library's sources, in path order
WORDS_PER_LANGUAGE = 10_000
DATES = 1500
COUNTED_UNITS = (
    "length-kilometer",
    "length-meter",
    "mass-kilogram",
    "duration-hour",
    "duration-day",
    "duration-week",
    "duration-month",
    "duration-year",
    "duration-minute",
    "volume-liter",
    "speed-kilometer-per-hour",
    "temperature-celsius",
    "digital-megabyte",
    "area-square-meter",
    "energy-calorie",
    "mass-gram",
)


@dataclass(frozen=True)
class Document:
    """One unit of the split.

    source    the source's name, such as `ntrex`
    name      unique within the source
    lines     language (or `python`) to lines; where there are several languages, line i of each says the same
    heldout   True: kept from tokenizer and model
    """

    source: str
    name: str
    lines: dict[str, tuple[str, ...]]
    heldout: bool


def read_sources(assets: Path, names: bool = True) -> list[Document]:
    """Read every source.

    assets    folder that holds data/ntrex128, data/xquad and data/udhr
    names     also read CLDR (needs babel)
    Returns   documents in a fixed order, held-out ones included and marked
    Raises    FileNotFoundError where a source's file is missing, ValueError where parallel files disagree
    """
    data = assets / "data"
    found = [*read_ntrex(data / "ntrex128"), *read_xquad(data / "xquad"), *read_udhr(data / "udhr")]
    found += [*read_python(), *read_words()]
    return found + read_cldr() if names else found


def read_ntrex(folder: Path) -> list[Document]:
    """Read NTREX-128: 123 news stories, sentence by sentence in eight languages."""
    ids = (folder / "DOCUMENT_IDS.tsv").read_text(encoding="utf-8").split("\n")
    names = [line.split("\t")[0] for line in ids if line]
    texts = {}
    for language, file in NTREX_FILES.items():
        texts[language] = (folder / file).read_text(encoding="utf-8").rstrip("\n").split("\n")
        if len(texts[language]) != len(names):
            raise ValueError(f"{folder / file}: {len(texts[language])} lines, DOCUMENT_IDS.tsv has {len(names)}")
    stories = []
    for name, places in groupby(range(len(names)), key=lambda place: names[place]):
        rows = list(places)
        stories.append((name, {lang: tuple(lines[row].strip() for row in rows) for lang, lines in texts.items()}))
    return _split("ntrex", stories)


def read_xquad(folder: Path) -> list[Document]:
    """Read XQuAD: 48 articles in five languages as paragraphs, questions and answers, three documents an article.

    The three documents of an article share its side of the split.
    """
    articles = {}
    for language in XQUAD_LANGUAGES:
        text = (folder / f"xquad.{language}.json").read_text(encoding="utf-8")
        articles[language] = json.loads(text)["data"]
    found = []
    for stream in XQUAD_STREAMS:
        rows = []
        for place, article in enumerate(articles["en"]):
            lines = {language: tuple(_xquad_lines(articles[language][place], stream)) for language in XQUAD_LANGUAGES}
            if len({len(own) for own in lines.values()}) != 1:
                raise ValueError(f"{folder}: article {article['title']} differs in length between languages")
            rows.append((article["title"], lines))
        found += _split(stream, rows)
    return found


def _xquad_lines(article: dict, stream: str) -> Iterable[str]:
    """Yield an article's paragraphs, questions, or first answers, each on one line."""
    for paragraph in article["paragraphs"]:
        if stream == "xquad":
            yield " ".join(paragraph["context"].split())
            continue
        for entry in paragraph["qas"]:
            text = entry["question"] if stream == "xquad-questions" else entry["answers"][0]["text"]
            yield " ".join(text.split())


def read_udhr(folder: Path) -> list[Document]:
    """Read the declaration: preamble and 30 articles; paragraph by paragraph where all languages have as many."""
    articles = {language: _udhr_articles(folder / file) for language, file in UDHR_FILES.items()}
    if len({len(own) for own in articles.values()}) != 1:
        raise ValueError(f"{folder}: languages differ in their number of articles")
    rows = []
    for place in range(len(articles["en"])):
        lines = {language: own[place] for language, own in articles.items()}
        if len({len(own) for own in lines.values()}) != 1:
            lines = {language: (join_sentences(language, own),) for language, own in lines.items()}
        rows.append((f"article {place:02d}", lines))
    return _split("udhr", rows)


def _udhr_articles(file: Path) -> list[tuple[str, ...]]:
    """Read the preamble and the articles of one translation as lists of paragraphs."""
    space = "{http://efele.net/udhr}"
    root = ET.parse(file).getroot()
    parts = [*root.findall(f"{space}preamble"), *root.findall(f"{space}article")]
    paragraphs = [[node.text or "" for node in part.iter(f"{space}para")] for part in parts]
    return [tuple(" ".join(text.split()) for text in texts if text.strip()) for texts in paragraphs]


def read_python(limit_bytes: int = CODE_BYTES) -> list[Document]:
    """Read the running interpreter's standard library: files in path order, tests and data tables left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data", "lib2to3", "turtledemo"}
    rows, total = [], 0
    for file in sorted(root.rglob("*.py")):
        if left_out & set(file.relative_to(root).parts) or not 1_000 < file.stat().st_size < 60_000:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        total += len(text)
        if total > limit_bytes:
            break
        rows.append((str(file.relative_to(root)), {CODE: (text,)}))
    return _split("python", rows)


def read_words(per_language: int = WORDS_PER_LANGUAGE) -> list[Document]:
    """Read the most frequent words of each language that wordfreq knows (all but Swahili), most frequent first."""
    import wordfreq

    found = []
    for language in LANGUAGES:
        if language in wordfreq.available_languages("best"):
            words = wordfreq.top_n_list(language, per_language)
            found += _split("words", [(f"{language}/{word}", {language: (word,)}) for word in words])
    return found


def read_cldr() -> list[Document]:
    """Read CLDR's names (lands, languages, cities, months, ...) and phrases built with it (dates, quantities)."""
    from babel import Locale

    locales = {language: Locale.parse(language) for language in LANGUAGES}
    found = []
    for category, table in _cldr_tables().items():
        entries = {language: table(locale) for language, locale in locales.items()}
        rows = []
        for key in sorted(entries["en"], key=str):
            lines = {lang: (own[key],) for lang, own in entries.items() if own.get(key) and str(own[key]).strip()}
            if len(lines) > 1:
                rows.append((f"{category}/{key}", lines))
        found += _split(f"cldr-{category}", rows)
    return found + _split("cldr-dates", _dates(locales)) + _split("cldr-quantities", _quantities(locales))


def _cldr_tables() -> dict[str, Callable]:
    """Name the CLDR tables that translate names, each as a function of a babel locale."""
    return {
        "territories": lambda locale: {key: name for key, name in locale.territories.items() if len(key) == 2},
        "languages": lambda locale: {key: name for key, name in locale.languages.items() if len(key) < 4},
        "currencies": lambda locale: dict(locale.currencies),
        "cities": lambda locale: {key: zone.get("city") for key, zone in locale.time_zones.items()},
        "zones": lambda locale: {
            key: zone.get("long", {}).get("standard") or zone.get("long", {}).get("generic")
            for key, zone in locale.meta_zones.items()
        },
        "months": lambda locale: dict(locale.months["stand-alone"]["wide"]),
        "days": lambda locale: dict(locale.days["stand-alone"]["wide"]),
        "units": lambda locale: {key: names.get("long") for key, names in locale.unit_display_names.items()},
    }


def _dates(locales: dict) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    """Write dates in full in every language; a fixed stride visits all months and weekdays."""
    from babel.dates import format_date

    days = [date(1900, 1, 1) + timedelta(days=place * 73) for place in range(DATES)]
    return [
        (day.isoformat(), {lang: (format_date(day, "full", locale=own),) for lang, own in locales.items()})
        for day in days
    ]


def _quantities(locales: dict) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    """Write amounts with their unit, `5 kilometers`, in every language that has the form."""
    from babel.units import format_unit

    rows = []
    amounts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 24, 30, 45, 50, 60, 75, 100, 150, 200, 500, 1000]
    for unit in COUNTED_UNITS:
        for amount in amounts:
            texts = {lang: format_unit(amount, unit, "long", locale=own) for lang, own in locales.items()}
            # Where a locale lacks the plural form, babel answers with the unit's identifier.
            rows.append((f"{amount} {unit}", {lang: (text,) for lang, text in texts.items() if unit not in text}))
    return rows


def join_sentences(language: str, lines: Iterable[str]) -> str:
    """Join sentences as the language writes them: without a space in Chinese."""
    return ("" if language == "zh" else " ").join(lines)


def _split(source: str, rows: list[tuple[str, dict[str, tuple[str, ...]]]]) -> list[Document]:
    """Mark every tenth row of a source as held out."""
    return [
        Document(source, name, lines, place % HELD_OUT_EVERY == HELD_OUT_PLACE)
        for place, (name, lines) in enumerate(rows)
    ]
