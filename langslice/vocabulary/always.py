"""Tokens that stay whatever the evidence, each with its reason, and the user's own lists of tokens.

Special and added tokens, ids that the configuration names, bytes, digits, punctuation, white space, the tokens of the
chat template, ASCII letters, and the single characters of the kept scripts, without which a word outside the evidence
would become unknown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from langslice.errors import CorpusError, PlanError
from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary.scripts import TokenScripts

# Longer runs of ASCII punctuation are source code ("));\n\n"): thousands of tokens that no prose uses.
PUNCTUATION_LIMIT: Final = 3

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def always_kept(
    tokenizer: SourceTokenizer,
    classes: TokenScripts,
    *,
    protected: Sequence[int] = (),
    chat_template: str | None = None,
) -> dict[str, Mask]:
    """Reason -> tokens kept for it, a mask over the vocabulary (size,), for everything but characters.

    protected      ids from the model's configuration
    chat_template  Jinja source
    Raises         PlanError when a protected id is not in the vocabulary
    """
    size = len(tokenizer.tokens)
    kinds = np.asarray(classes.kinds)
    plain = classes.ascii_only & classes.neutral
    digits = plain & np.isin(kinds, ["digits", "mixed"])
    white = kinds == "whitespace"
    short = classes.characters <= PUNCTUATION_LIMIT
    special = set(tokenizer.special_ids)
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
        "chat template": marked(size, template_tokens(tokenizer, chat_template)),
    }


def characters_of(classes: TokenScripts, scripts: Iterable[str]) -> Mask:
    """Single characters, with and without a word marker, that only these scripts use, and their pieces (size,)."""
    pieces = np.asarray(classes.kinds) == "fragment"
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


def template_tokens(tokenizer: SourceTokenizer, template: str | None) -> set[int]:
    """Tokens of the text that a Jinja chat template writes: its literal parts and its quoted strings."""
    if not template:
        return set()
    pieces = [piece for piece in template_pieces(template) if piece]
    pieces += [stripped for piece in pieces if (stripped := piece.strip()) and stripped != piece]
    return {index for ids in tokenizer.encode(pieces) for index in ids}


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
    """Ids of the tokens in a file, one a line: as the vocabulary spells them, or as the text that they stand for.

    A text that several tokens stand for keeps all of them.
    Raises  CorpusError for a missing or empty file or invalid UTF-8; PlanError for lines that are no token
    """
    try:
        lines = [line for line in path.read_bytes().decode("utf-8-sig").split("\n") if line.strip("\r")]
    except OSError as error:
        raise CorpusError(f"cannot read the list of tokens {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"the list of tokens {path} is not valid UTF-8 (byte {error.start})") from error
    if not lines:
        raise CorpusError(f"the list of tokens {path} is empty", hint="write one token a line")
    exact = {token: index for index, token in enumerate(tokenizer.tokens) if token is not None}
    surfaces: dict[bytes, list[int]] = {}
    for index, token in enumerate(tokenizer.tokens):
        if token is not None and index not in tokenizer.special_ids:
            surfaces.setdefault(tokenizer.surface(index), []).append(index)
    found: set[int] = set()
    unknown: list[str] = []
    for line in (line.rstrip("\r") for line in lines):
        ids = [exact[line]] if line in exact else surfaces.get(line.encode(), [])
        found.update(ids)
        if not ids:
            unknown.append(line)
    if unknown:
        shown = ", ".join(repr(line) for line in unknown[:10])
        raise PlanError(
            f"{path}: {len(unknown):,} of {len(lines):,} lines are no token of this vocabulary: {shown}",
            hint="write tokens as the vocabulary spells them, or as the text that they stand for",
        )
    return found
