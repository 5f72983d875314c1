"""Let atheris search for bytes that reach new code in our own parsers, and end in anything but a clean error.

    pip install atheris
    python -m tests.fuzz.guided header -max_total_time=300         # or tokenizer, plan, recipe, run, demonstrations

Begin with the valid files: name a folder of them as the last argument. Options are libFuzzer's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["langslice"]):
    from langslice.demonstrations.demonstration import read_demonstrations
    from langslice.errors import LangsliceError
    from langslice.files.safetensors_header import read_header
    from langslice.planning.plan import plan_from_json
    from langslice.recipes.steps import steps_of
    from langslice.recipes.validation import load_recipe as load_run
    from langslice.sweeps.recipe import expand, load_grid
    from langslice.tokenizer.document import parse_document

FILE = Path(tempfile.mkdtemp(prefix="langslice-guided-")) / "input"


def as_file(raw: bytes) -> Path:
    """The bytes as a file."""
    FILE.write_bytes(raw)
    return FILE


def read_plan(raw: bytes) -> None:
    """Only documents are of interest: JSON itself is not ours."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return
    plan_from_json(document, place="plan")


READERS = {
    "header": lambda raw: read_header(as_file(raw)),
    "tokenizer": lambda raw: parse_document(raw, "tokenizer.json"),
    "plan": read_plan,
    "recipe": lambda raw: expand(load_grid(as_file(raw))),
    "run": lambda raw: steps_of(load_run(as_file(raw))),
    "demonstrations": lambda raw: read_demonstrations(as_file(raw)),
}


def main() -> None:
    """Search until libFuzzer's limits, or a fault."""
    read = READERS[sys.argv.pop(1)]

    def once(raw: bytes) -> None:
        try:
            read(raw)
        except LangsliceError as error:
            assert str(error).strip()

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
