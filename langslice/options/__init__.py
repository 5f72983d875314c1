"""Options: what a user can ask, declared once as fields of frozen dataclasses.

A room declares its own in its options.py: each field says its type and its default, and in an `Entry` what else there is to
know of it. Functions take them as keyword parameters (`taking`), command lines as options, recipes as entries; names and values
are checked here for all of them.

Reading order: values.py (types, in JSON and in words), declaration.py, shared.py (options of several rooms), parameters.py,
choice.py.
"""

from langslice.options.choice import Choice, asks, codes, listed, request_json
from langslice.options.declaration import Declared, Entry, Options, check_value, declared, refuse_unknown, renamed
from langslice.options.parameters import build, by_field, taking
from langslice.options.shared import (
    Corpus,
    HeldOut,
    Processes,
    Ray,
    Revision,
    SourceOptions,
    TextField,
    Threads,
    VerificationOptions,
    Verify,
)

__all__ = [
    "Choice", "Corpus", "Declared", "Entry", "HeldOut", "Options", "Processes", "Ray", "Revision", "SourceOptions", "TextField",
    "Threads", "VerificationOptions", "Verify", "asks", "build", "by_field", "check_value", "codes", "declared", "listed",
    "refuse_unknown", "renamed", "request_json", "taking",
]  # fmt: skip
