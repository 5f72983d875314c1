"""Tokens that stay whatever the criteria, each with its reason, and the user's own lists of tokens.

Special and added tokens, ids that the configuration names, bytes, digits, punctuation, white space, the tokens of texts that
the model is always called with, ASCII letters, pieces that steer the model, and the single characters of the kept scripts,
without which a word outside the criteria would become unknown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from langslice.errors import CorpusError, PlanError
from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.document import read_document
from langslice.vocabulary.kept_results import kept_tokens
from langslice.vocabulary.scripts import TokenScripts

# Longer runs of ASCII punctuation are source code ("));\n\n"): thousands of tokens that no prose uses.
PUNCTUATION_LIMIT: Final = 3
NO_TEXTS: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def always_kept(
    tokenizer: SourceTokenizer,
    classes: TokenScripts,
    *,
    protected: Sequence[int] = (),
    texts: Mapping[str, Sequence[str]] = NO_TEXTS,
    released: Collection[int] = (),
) -> dict[str, Mask]:
    """Reason -> tokens kept for it, a mask over the vocabulary (size,), for everything but characters and pieces that steer.

    protected  ids from the model's configuration
    texts      reason -> what the model is always called with
    released   special tokens that need not stay
    Raises     PlanError when a protected id is not in the vocabulary
    """
    size = len(tokenizer.tokens)
    kinds = classes.kind_array
    plain = classes.ascii_only & classes.neutral
    digits = plain & np.isin(kinds, ["digits", "mixed"])
    white = kinds == "whitespace"
    short = classes.characters <= PUNCTUATION_LIMIT
    special = set(tokenizer.special_ids) - set(released)
    if tokenizer.unknown_id is not None:
        special.add(tokenizer.unknown_id)
    outside = [index for index in protected if not 0 <= index < size or tokenizer.tokens[index] is None]
    if outside:
        raise PlanError(
            f"the configuration names token ids that the tokenizer does not have: {outside[:10]}",
            hint=f"the tokenizer of {tokenizer.folder} has {size:,} ids; does it belong to this model?",
        )
    return {
        "special": marked(size, special),
        "protected": marked(size, protected),
        "byte": marked(size, tokenizer.byte_ids),
        "digits": digits,
        "whitespace": white,
        "punctuation": plain & short & ~digits & ~white,
        "letter": classes.ascii_only & (classes.characters == 1) & ~classes.neutral,
        **{reason: marked(size, tokens_of(tokenizer, each)) for reason, each in texts.items()},
    }


def characters_of(classes: TokenScripts, scripts: Iterable[str]) -> Mask:
    """Single characters, with and without a word marker, that only these scripts use, and their pieces (size,)."""
    pieces = classes.kind_array == "fragment"
    single = classes.characters == 1
    return np.asarray((single | pieces) & classes.within(scripts) & ~classes.neutral, dtype=bool)


def symbols_of(classes: TokenScripts, scripts: Iterable[str]) -> Mask:
    """Punctuation and symbols that are everyone's, or that these scripts share, of at most three characters (size,)."""
    short = classes.characters <= PUNCTUATION_LIMIT
    return np.asarray(classes.neutral & short & classes.within(scripts), dtype=bool)


def marked(size: int, ids: Iterable[int]) -> Mask:
    """A mask that is true at these ids: (size,)."""
    mask = np.zeros(size, dtype=bool)
    mask[list(ids)] = True
    return mask


def tokens_of(tokenizer: SourceTokenizer, texts: Iterable[str]) -> set[int]:
    """Tokens of texts, with the white space at their ends and without."""
    spellings = dict.fromkeys(spelling for text in texts for spelling in (text, text.strip()) if spelling)
    return kept_tokens(tokenizer, spellings)


def template_pieces(template: str) -> Iterator[str]:
    """Literal text outside {{ }}, {% %} and {# #}, and the string constants inside the first two."""
    for part in re.split(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", template, flags=re.DOTALL):
        if not part.startswith(("{{", "{%", "{#")):
            yield part
        elif not part.startswith("{#"):
            for quoted in re.findall(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", part, flags=re.DOTALL):
                yield _unquote(quoted)


def _unquote(quoted: str) -> str:
    """The value of a Jinja string constant; Jinja reads the escapes of Python."""
    try:
        return str(ast.literal_eval(quoted.replace("\n", "\\n").replace("\r", "\\r")))
    except (SyntaxError, ValueError):
        return quoted[1:-1]


def listed_tokens(tokenizer: SourceTokenizer, path: Path) -> set[int]:
    """Ids of the tokens in a file, one per line: as the vocabulary spells them, or as the text that they stand for.

    A text that several tokens stand for keeps all of them. A tokenizer.json stands for all its tokens.
    Raises  CorpusError for a missing or empty file or invalid UTF-8; PlanError for entries that are no token
    """
    exact: dict[str, list[int]] = {}
    for index, token in enumerate(tokenizer.tokens):
        if token is not None:
            exact.setdefault(token, []).append(index)
    if path.suffix == ".json":
        entries, spelled = _tokens_of_file(path), {}
    else:
        entries, spelled = lines_of_list(path), _surfaces(tokenizer)
    found: set[int] = set()
    unknown: list[str] = []
    for entry in entries:
        ids = exact.get(entry) or spelled.get(entry.encode(), [])
        found.update(ids)
        if not ids:
            unknown.append(entry)
    if unknown:
        shown = ", ".join(repr(entry) for entry in unknown[:10])
        raise PlanError(
            f"{path}: {len(unknown):,} of {len(entries):,} entries are no token of this vocabulary: {shown}",
            hint="write tokens as the vocabulary spells them, or as the text that they stand for",
        )
    return found


def lines_of_list(path: Path) -> list[str]:
    """Lines of a list of tokens, the empty ones left out.

    Raises  CorpusError for a missing or empty file or invalid UTF-8
    """
    try:
        lines = [line.rstrip("\r") for line in path.read_bytes().decode("utf-8-sig").split("\n") if line.strip("\r")]
    except OSError as error:
        raise CorpusError(f"cannot read the list of tokens {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"the list of tokens {path} is not valid UTF-8 (byte {error.start})") from error
    if not lines:
        raise CorpusError(f"the list of tokens {path} is empty", hint="write one token per line")
    return lines


def _tokens_of_file(path: Path) -> list[str]:
    """Every token of a tokenizer.json."""
    try:
        return [token for token in read_document(path).tokens if token is not None]
    except OSError as error:
        raise CorpusError(f"cannot read the list of tokens {path}: {error.strerror}") from error


def _surfaces(tokenizer: SourceTokenizer) -> dict[bytes, list[int]]:
    """Text -> ids of the tokens that stand for it."""
    surfaces: dict[bytes, list[int]] = {}
    for index, token in enumerate(tokenizer.tokens):
        if token is not None and index not in tokenizer.special_ids:
            surfaces.setdefault(tokenizer.surface(index), []).append(index)
    return surfaces
