"""Every file of a slice other than its weights: made again from source and plan in a temporary folder, and compared.

JSON is compared key by key, everything else byte by byte. A file that nothing names is a difference too, since loaders look
for files by name: a pickle, code or a chat template laid next to a slice would be read.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langslice.verification.check import MAX_EXAMPLES, Check
from langslice.verification.file_names import LATER_FILES

Remake = Callable[[Path], object]
"""Writes the files of a slice other than its weights into an empty folder, as `slice` did."""

# What other programs leave in a folder, and no loader reads.
_NOT_OURS = (".cache/*", ".git/*", "__pycache__/*", "*/__pycache__/*", "*.DS_Store")
_MAX_TEXT = 60


def check_files(out: Path, remake: Remake, weights: Collection[str]) -> Check:
    """Every file is what source and plan make, and none is there that nothing names.

    remake   makes the files again
    weights  names, below `out`, of the files that hold the slice's tensors, the index included
    """
    with TemporaryDirectory(prefix="langslice-verify-") as folder:
        made = Path(folder)
        remake(made)
        expected, found = _names(made), _names(out)
        wrong = [f"{name} is missing" for name in sorted(expected - found)]
        for name in sorted(expected & found):
            wrong += islice(_differences(name, made / name, out / name), MAX_EXAMPLES)
    named = expected | set(weights)
    wrong += [
        f"{name} is no file of this slice: neither its source nor its plan names it"
        for name in sorted(found - named)
        if not any(fnmatch(name, pattern) for pattern in (*LATER_FILES, *_NOT_OURS))
    ]
    detail = f"{len(expected)} files other than the weights made again from source and plan, and compared"
    return Check("files", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))


def _names(folder: Path) -> set[str]:
    """Every file below a folder, a broken link included."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _differences(name: str, made: Path, found: Path) -> Iterator[str]:
    """What differs in one file; nothing where JSON is only laid out in another way."""
    try:
        if filecmp.cmp(made, found, shallow=False):
            return
        if not name.endswith(".json"):
            yield f"{name}: its bytes are not those that source and plan make"
            return
        other = json.loads(found.read_bytes())
    except OSError as error:
        yield f"{name} cannot be read: {error.strerror}"
        return
    except (ValueError, RecursionError) as error:
        yield f"{name} is not valid JSON: {error}"
        return
    yield from _unequal(name, json.loads(made.read_bytes()), other)


def _unequal(place: str, expected: Any, found: Any) -> Iterator[str]:
    """Every place at which two JSON documents differ; `place` names the outermost."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected:
            if key not in found:
                yield f"{place}: {key} is missing, expected {_text(expected[key])}"
            else:
                yield from _unequal(f"{place}: {key}", expected[key], found[key])
        for key in found:
            if key not in expected:
                yield f"{place}: {key} = {_text(found[key])} was added"
    elif isinstance(expected, list) and isinstance(found, list):
        for at, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from _unequal(f"{place}[{at}]", one, other)
        if len(expected) != len(found):
            yield f"{place}: {len(found)} entries, expected {len(expected)}"
    elif expected != found or isinstance(expected, bool) != isinstance(found, bool):
        yield f"{place}: expected {_text(expected)}, found {_text(found)}"


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
