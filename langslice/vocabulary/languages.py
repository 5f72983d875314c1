"""Language codes as users write them, and the scripts that CLDR gives each language.

Codes are BCP 47 ("ko", "zh-Hant", "pt-BR"), ISO 639-3 ("swh", "arb", "cmn") or the codes of NLLB and FLORES
("kor_Hang"). The likely script comes from CLDR through langcodes. Whether a language has a lexicon is lexicon.py's
to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from langslice.errors import LanguageError
from langslice.vocabulary.scripts import resolve_scripts

if TYPE_CHECKING:
    import langcodes

# Languages that are everyday written in a second script too, which CLDR's likely script, one for a language, hides.
SECOND_SCRIPTS: Final = {"sr": ("Latn",)}

# Members of a macrolanguage, and relatives, whose words are in the list of another code: (code -> wordfreq's code).
WORD_LISTS: Final = {"no": "nb", "sr": "sh", "hr": "sh", "bs": "sh", "cnr": "sh", "hbs": "sh", "tl": "fil", "in": "id"}


# Country codes and the like that people type for a language.
ALIASES: Final = {"jp": "ja", "kp": "ko", "cn": "zh", "gr": "el", "cz": "cs", "dk": "da", "ua": "uk", "vn": "vi"}

# Which Han characters a language uses: KS X 1001, JIS X 0208, GB 2312, Big5 with the Hong Kong supplement.
HAN_CHARACTERS: Final = {
    "Kore": "euc_kr",
    "Jpan": "shift_jis",
    "Hans": "gb2312",
    "Hant": "big5hkscs",
    "Hani": "gb18030",
}


@dataclass(frozen=True)
class Language:
    """One language that the user asked for.

    tag      normalised BCP 47 tag ("ko", "zh-Hant")
    name     English name ("Korean")
    scripts  Unicode scripts it is written in, ISO 15924 codes; the likely one first
    lexicon  whether there is a list of its words
    han      Python codec of the national character set that holds its Han characters, None where it has none
    """

    tag: str
    name: str
    scripts: tuple[str, ...]
    lexicon: bool
    han: str | None = None


def parse_languages(codes: Iterable[str]) -> tuple[Language, ...]:
    """Read language codes; each item may itself hold several, separated by commas. Repeated ones count once.

    Raises  LanguageError for a code that names no language, with the nearest one that does
    """
    languages: dict[str, Language] = {}
    for item in codes:
        for code in filter(None, (part.strip() for part in item.split(","))):
            language = _parse(code)
            languages.setdefault(language.tag, language)
    return tuple(languages.values())


def word_list_code(tag: str) -> str | None:
    """Name of wordfreq's list for a language tag ("sr-Latn" -> "sh", "sw" -> None)."""
    import langcodes
    import wordfreq

    language = langcodes.Language.get(tag).prefer_macrolanguage().language
    code = WORD_LISTS.get(language, language)
    return code if code in wordfreq.available_languages("small") else None


def _parse(code: str) -> Language:
    import langcodes

    try:
        parsed = langcodes.Language.get(code)
        known = bool(parsed.is_valid() and parsed.language not in (None, "und", "mul", "zxx", "mis"))
    except ValueError:
        known = False
    if not known:
        raise LanguageError(f"unknown language code {code!r}", hint=_suggestion(code))
    parsed = parsed.prefer_macrolanguage()
    tag = str(parsed.simplify_script().to_tag())
    name = str(parsed.display_name()) if _has_names() else tag
    scripts = _scripts(parsed)
    han = HAN_CHARACTERS.get(str(parsed.maximize().script)) if "Hani" in scripts else None
    return Language(tag, name, scripts, word_list_code(tag) is not None, han)


def _has_names() -> bool:
    """Whether langcodes' table of names (its `data` extra) is installed."""
    from importlib.util import find_spec

    return find_spec("language_data") is not None


def _scripts(parsed: langcodes.Language) -> tuple[str, ...]:
    likely = parsed.maximize().script
    if likely is None:
        raise LanguageError(
            f"CLDR names no script for the language {parsed.to_tag()!r}",
            hint=f"write the script into the code, for instance {parsed.language}-Latn",
        )
    more = SECOND_SCRIPTS.get(parsed.language, ()) if parsed.script is None else ()
    return resolve_scripts((likely, *more))


def _suggestion(code: str) -> str:
    """The language whose English name or code is nearest to what was typed."""
    from difflib import get_close_matches

    general = "languages are BCP 47 codes such as ko, en, zh-Hant, pt-BR, or NLLB codes such as kor_Hang"
    by_name = _names()
    if parsed := ALIASES.get(code.lower()):
        return f"did you mean {parsed}? {general}"
    spelled = code.lower().replace("_", "-").split("-")[0]
    if spelled in by_name:
        return f"did you mean {by_name[spelled]}? {general}"
    near = get_close_matches(spelled, by_name, n=1, cutoff=0.75)
    if near:
        return f"did you mean {by_name[near[0]]} ({near[0].title()})? {general}"
    codes = get_close_matches(spelled, sorted(set(by_name.values()), key=lambda tag: (len(tag), tag)), n=1, cutoff=0.5)
    return f"did you mean {codes[0]}? {general}" if codes else general


def _names() -> dict[str, str]:
    """English name in lower case -> code, for the languages that wordfreq or CLDR's population data know."""
    import langcodes
    import wordfreq

    codes = set(wordfreq.available_languages("small"))
    if _has_names():
        from language_data.population_data import LANGUAGE_WRITING_POPULATION

        codes |= {code for code in LANGUAGE_WRITING_POPULATION if "-" not in code and code != "und"}
    else:
        return {code: code for code in codes}
    names: dict[str, str] = {}
    for code in sorted(codes, key=lambda code: (len(code), code)):
        names.setdefault(str(langcodes.Language.get(code).display_name()).lower(), code)
    return names
