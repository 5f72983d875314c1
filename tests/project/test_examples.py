"""Every public function has an example, which runs as it stands there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import langslice
from langslice.mini import heldout_text

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def blocks(name):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^# (\w+)\n(.*?)(?=^# \w+\n|\Z)", text, re.M | re.S))


def test_every_public_function_has_an_example_that_calls_it():
    found = {**blocks("functions.py"), **blocks("functions_elsewhere.py")}
    assert set(found) == {name for name in langslice.__all__ if inspect.isfunction(getattr(langslice, name))}
    for name, code in found.items():
        calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
        called = [call for call in calls if ast.unparse(call.func) == f"langslice.{name}"]
        assert called, name
        signature = inspect.signature(getattr(langslice, name))
        if name not in ("slice", "shrink"):
            for call in called:
                signature.bind(*call.args, **{each.arg: each.value for each in call.keywords})


@pytest.mark.usefixtures("one_thread")
def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in ("ko", "en"):
        Path(f"{code}.txt").write_text("\n".join(heldout_text(code)[:40]), encoding="utf-8")
    pairs = zip(heldout_text("fr")[:20], heldout_text("en")[:20], strict=True)
    Path("fr-en.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in pairs), encoding="utf-8")
    names: dict[str, object] = {}
    exec(compile((EXAMPLES / "functions.py").read_text(encoding="utf-8"), "functions.py", "exec"), names)
    assert {"ko-en", "masked", "features", "healed", "restored", "work", "sweep"} <= {
        path.name for path in Path().iterdir()
    }
