"""Every public name has an example, which runs as it stands there, and stands in the reference."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
from functools import cache
from pathlib import Path

import pytest

import langslice
from langslice.mini import heldout_text

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"


@cache
def generate():
    return runpy.run_path(str(DOCS / "generate.py"))


def test_every_public_name_has_an_example_that_names_it():
    names = {f"{package}.{name}" for package, found in generate()["public_names"]().items() for name in found}
    examples = generate()["read_examples"]()
    assert set(examples) == names
    for name, code in examples.items():
        assert re.search(rf"\b{name.rpartition('.')[2]}\b", code), name


def test_every_public_function_is_called_with_parameters_that_it_has():
    for name, code in generate()["read_examples"]().items():
        short = name.removeprefix("langslice.")
        function = getattr(langslice, short, None) if "." not in short else None
        if not inspect.isfunction(function):
            continue
        calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
        called = [call for call in calls if ast.unparse(call.func) == name]
        assert called, name
        if short not in ("slice", "shrink"):
            for call in called:
                inspect.signature(function).bind(*call.args, **{each.arg: each.value for each in call.keywords})


@pytest.mark.usefixtures("one_thread")
def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in ("ko", "en"):
        Path(f"{code}.txt").write_text("\n".join(heldout_text(code)[:40]), encoding="utf-8")
    pairs = zip(heldout_text("fr")[:20], heldout_text("en")[:20], strict=True)
    Path("fr-en.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in pairs), encoding="utf-8")
    names: dict[str, object] = {}
    for name in ("functions.py", "rooms.py"):
        exec(compile((EXAMPLES / name).read_text(encoding="utf-8"), name, "exec"), names)
    made = {"ko-en", "masked", "features", "healed", "restored", "work", "sweep", "pruned", "tokenizer", "grid"}
    assert made <= {path.name for path in Path().iterdir()}
