"""Run a notebook's cells as they are written, and tell or save what each shows.

python -m tests.project.notebooks [notebooks/NAME.ipynb ...]    run these, or all, and save what they show

A cell shows what it prints and the value of its last expression, as text and, where it has one, as a table in HTML. There is
no kernel: the notebooks use Python alone.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of code, in order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run_cell(code: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell among the names of those before it; its outputs, in the form of the file."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        lines = printed.getvalue().splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines})
    if value is not None:
        data = {"text/plain": [repr(value)]}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": [value._repr_html_()], **data}
        outputs.append({"data": data, "execution_count": None, "metadata": {}, "output_type": "execute_result"})
    return outputs


def run_notebook(notebook: Path, model: str | None = None) -> list[list[dict[str, Any]]]:
    """Run all cells in the current folder; what each shows.

    model  another one than the `MODEL` that the notebook names
    """
    names: dict[str, Any] = {}
    shown = []
    for cell in code_cells(notebook):
        code = "".join(cell["source"])
        if model is not None:
            code = code.replace('MODEL = "mini"', f"MODEL = {model!r}")
        shown.append(run_cell(code, names))
    return shown


def without_counts(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs without the numbers that a kernel gives them, each text in one piece."""
    plain = []
    for each in outputs:
        data = {kind: "".join(text) for kind, text in each.get("data", {}).items()}
        plain.append({"type": each["output_type"], "text": "".join(each.get("text", [])), "data": data})
    return plain


def save(notebook: Path, shown: list[list[dict[str, Any]]]) -> None:
    """Write what the cells showed into the file."""
    document = json.loads(notebook.read_text(encoding="utf-8"))
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for number, (cell, outputs) in enumerate(zip(cells, shown, strict=True), start=1):
        cell["outputs"], cell["execution_count"] = outputs, number
        for each in outputs:
            if each["output_type"] == "execute_result":
                each["execution_count"] = number
    notebook.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main(words: list[str]) -> int:
    """See the head of this file."""
    import torch

    torch.set_num_threads(1)
    os.environ["LANGSLICE_CACHE"] = ""
    for notebook in [Path(word).resolve() for word in words] or NOTEBOOKS:
        start = os.times()
        before = Path.cwd()
        with TemporaryDirectory() as folder:
            os.chdir(folder)
            shown = run_notebook(notebook)
            os.chdir(before)
        save(notebook, shown)
        ended = os.times()
        print(f"{notebook.name}: {ended.user + ended.system - start.user - start.system:.1f} CPU s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
