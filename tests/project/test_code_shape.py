"""The shape of the code: array functions say shapes, functions and files stay short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "langslice"
# A shape in parentheses, such as (n,), (size,), (layers, dimensions) or (out, in).
SHAPE = re.compile(r"\(\.{3}\)|\([\w .*+×-]+,\)|\((?:[\w .*+×-]+, )+[\w .*+×-]+\)|\(size\)")
LINES_OF_A_FUNCTION, LINES_OF_A_FILE = 60, 400


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def array_names(path: Path) -> frozenset[str]:
    """Names that a module uses for arrays: its own aliases, and those that it imports from another module."""
    names = {"ndarray", "NDArray", "Tensor"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("langslice."):
            home = PACKAGE.parent / f"{str(node.module).replace('.', '/')}.py"
            if home.is_file() and home != path:
                names |= own_aliases(home) & {name.asname or name.name for name in node.names}
    return frozenset(names | own_aliases(path))


def own_aliases(path: Path) -> set[str]:
    aliases: set[str] = set()
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and re.search(r"\b(ndarray|NDArray)\b", ast.unparse(node.value)):
            aliases |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return aliases


def public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Functions and methods whose names, and whose classes' names, do not begin with an underscore."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child)
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield child


def array_functions(path: Path) -> Iterator[ast.FunctionDef]:
    pattern = re.compile(rf"\b({'|'.join(array_names(path))})\b")
    for function in public_functions(tree(path)):
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        annotations = [each.annotation for each in every if each is not None and each.annotation is not None]
        if function.returns is not None:
            annotations.append(function.returns)
        if any(pattern.search(ast.unparse(each)) for each in annotations):
            yield function


def test_functions_of_arrays_say_shapes():
    functions = [(path, each) for path in files() for each in array_functions(path)]
    assert len(functions) > 100
    silent = [f"{path.relative_to(PACKAGE)}: {each.name}" for path, each in functions if not says_shape(each)]
    assert silent == [], "a docstring names the shape of each array: weight (out, in), counts (size,), ..."


def says_shape(function: ast.FunctionDef) -> bool:
    return SHAPE.search(ast.get_docstring(function) or "") is not None


def test_a_docstring_without_a_shape_is_found():
    for text, says in (
        ("counts (size,) int64", True), ("(layers, dimensions) float64", True), ("weight (out, in)", True),
        ("the marked (see `x`)", False), ("prompts (of any length)", False), ("", False),
    ):  # fmt: skip
        function = ast.parse(f"def f(x: np.ndarray) -> None:\n    '''{text}'''").body[0]
        assert isinstance(function, ast.FunctionDef) and says_shape(function) is says, text


def lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Lines of a file and of each of its functions, decorators left out and docstrings counted."""
    place = path.relative_to(PACKAGE).as_posix()
    yield place, len(path.read_text(encoding="utf-8").splitlines())
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{place}: {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_functions_and_files_are_short():
    longer = {
        name
        for path in files()
        for name, count in lengths(path)
        if count > (LINES_OF_A_FUNCTION if ": " in name else LINES_OF_A_FILE)
    }
    assert longer == set(), "split what does two things"


def test_no_two_classes_are_called_alike():
    seen: dict[str, list[str]] = {}
    for path in files():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                seen.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    assert {name: places for name, places in seen.items() if len(places) > 1} == {}
