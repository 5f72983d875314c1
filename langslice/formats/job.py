"""What an export is given, and the text on which a file is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from langslice.errors import ExportError
from langslice.formats.options import DraftHeadOptions, ExportOptions, GgufOptions
from langslice.model.checkpoint import Checkpoint
from langslice.options import Options, declared, flag, listed
from langslice.progress import Report
from langslice.verification.sample_texts import verification_texts

# Of each text that comes with the package; the user's are read whole.
_OWN_LINES = 200


@dataclass(frozen=True)
class ExportJob:
    """One export.

    staging  folder that becomes the output
    name     of the output, and of the file in it
    texts    name -> text on which both are compared
    request  what a slice was asked for; empty for any other model
    """

    checkpoint: Checkpoint
    staging: Path
    name: str
    options: ExportOptions
    texts: Mapping[str, Callable[[], Iterable[str]]]
    report: Report
    request: Mapping[str, Any] = field(default_factory=dict)


def refuse_unused(options: ExportOptions, used: type[Options], what: str, hint: str) -> None:
    """Refuse options of another format than the one that is written.

    used   the options that this format has
    Raises ExportError
    """
    others = {name for kind in (GgufOptions, DraftHeadOptions) if kind is not used for name in declared(kind)}
    unused = sorted(others & set(options.given()))
    if unused:
        raise ExportError(f"{flag(unused[0])} has no effect on {what}", hint)


def comparison_texts(request: Mapping[str, Any], text: tuple[str, ...]) -> dict[str, Callable[[], Iterable[str]]]:
    """The user's text first; then words and sentences of the languages that were kept, or of all of them.

    request  what a slice was asked for
    """
    # The corpus that tokens were counted on may be of any size.
    found = verification_texts({"languages": request.get("languages")}, text)
    kept = {f"sentences, {code.strip()}" for one in listed(request.get("languages")) for code in one.split(",")}
    own = ("sentences, ", "words of ")
    return {
        name: partial(_first, read) if name.startswith(own) else read
        for name, read in found.items()
        if not kept or not name.startswith(own[0]) or name in kept
    }


def _first(read: Callable[[], Iterable[str]]) -> Iterable[str]:
    """The first lines of a text that comes with the package."""
    return islice(read(), _OWN_LINES)
