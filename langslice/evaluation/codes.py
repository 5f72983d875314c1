"""How data sets spell languages: ISO 639-1 and -3, territories, and the codes of FLORES-200."""

from __future__ import annotations

from typing import Final

from langslice.errors import LanguageError
from langslice.vocabulary.languages import Language, parse_languages

# The member of a macrolanguage that FLORES-200 and NTREX mean by it (ISO 639-3).
MEMBERS: Final = {
    "ar": "arb", "az": "azj", "et": "est", "fa": "pes", "ku": "kmr", "lv": "lvs", "mg": "plt", "mn": "khk", "ms": "zsm",
    "ne": "npi", "no": "nob", "om": "gaz", "ps": "pbt", "sq": "als", "sw": "swh", "uz": "uzn", "yi": "ydd", "tl": "fil",
}  # fmt: skip
# Scripts that FLORES-200 writes where CLDR names a system of several.
_SCRIPTS: Final = {"Kore": "Hang"}


def one_language(code: str) -> Language:
    """Read one code. Raises LanguageError for none, several or unknown ones."""
    found = parse_languages([code])
    if len(found) != 1:
        raise LanguageError(f"expected one language, found {code!r}", "name each language by itself: ko")
    return found[0]


def flores_code(tag: str) -> str:
    """Write a language as FLORES-200 does: ko -> kor_Hang, zh -> zho_Hans, ar -> arb_Arab."""
    import langcodes

    parsed = langcodes.Language.get(tag)
    full = parsed.maximize()
    code = MEMBERS.get(parsed.language or "", parsed.to_alpha3())
    return f"{code}_{_SCRIPTS.get(full.script, full.script)}"


def spellings(tag: str) -> tuple[str, ...]:
    """Every way in which a file name may spell a language, the likeliest first.

    Example  pt -> pt, por, por_Latn, pt_BR, pt-BR, por-BR
    """
    import langcodes

    parsed = langcodes.Language.get(tag)
    full = parsed.maximize()
    three = parsed.to_alpha3()
    member = MEMBERS.get(parsed.language or "", three)
    bare = [str(parsed.language), three, member] if _is_default_script(parsed) else []
    names = [tag, *bare, flores_code(tag), f"{three}_{full.script}"]
    if full.territory:
        names += [f"{part}{mark}{full.territory}" for part in (parsed.language, three, member) for mark in "_-"]
    return tuple(dict.fromkeys(names))


def _is_default_script(parsed: object) -> bool:
    """Whether a bare code means this language: `zh` is not Traditional Chinese."""
    import langcodes

    language, full = getattr(parsed, "language", None), parsed.maximize()  # type: ignore[attr-defined]
    return bool(langcodes.Language.get(str(language)).maximize().script == full.script)
