"""Options: what a user can ask, declared once as fields of frozen dataclasses.

A room declares its own in its options.py: each field says its type and its default, and in an `Entry` what else there is to
know of it. Functions take them as keyword parameters (`taking`), command lines as options, recipes as entries; names and values
are checked here for all of them.

Reading order: values.py (types, in JSON and in words), declaration.py, shared.py (options of several rooms), parameters.py,
choice.py, typed.py.
"""

from __future__ import annotations

from langslice.options.choice import Choice as Choice
from langslice.options.choice import asks as asks
from langslice.options.choice import codes as codes
from langslice.options.choice import listed as listed
from langslice.options.choice import request_json as request_json
from langslice.options.declaration import Declared as Declared
from langslice.options.declaration import Entry as Entry
from langslice.options.declaration import Options as Options
from langslice.options.declaration import check_value as check_value
from langslice.options.declaration import declared as declared
from langslice.options.declaration import flag as flag
from langslice.options.declaration import flag_of as flag_of
from langslice.options.declaration import refuse_unknown as refuse_unknown
from langslice.options.declaration import renamed as renamed
from langslice.options.parameters import build as build
from langslice.options.parameters import by_field as by_field
from langslice.options.parameters import taking as taking
from langslice.options.shared import Corpus as Corpus
from langslice.options.shared import HeldOut as HeldOut
from langslice.options.shared import Processes as Processes
from langslice.options.shared import Ray as Ray
from langslice.options.shared import Revision as Revision
from langslice.options.shared import SourceOptions as SourceOptions
from langslice.options.shared import TextField as TextField
from langslice.options.shared import Threads as Threads
from langslice.options.shared import VerificationOptions as VerificationOptions
from langslice.options.shared import Verify as Verify
from langslice.options.shared import VerifyLevel as VerifyLevel
from langslice.options.typed import typed_words as typed_words

__all__: list[str] = []
