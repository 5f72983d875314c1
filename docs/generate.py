"""Write docs/reference/ from the code: every command's help, the docstring of every name in `__all__`, the schema of recipes;
docs/recipes/ from the catalogue of models; langslice/__init__.pyi, which tells editors the parameters of the public functions.

python docs/generate.py            write the pages
python docs/generate.py --check    fail when a page is not what the code says
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent / "reference"
EXAMPLES = Path(__file__).parent / "examples"
HEAD = "<!-- Written by docs/generate.py; do not edit. -->\n\n"


def command_pages() -> str:
    """Help of the program and of each command, as it prints at 100 columns."""
    from typer.testing import CliRunner

    from langslice.cli.app import app

    runner = CliRunner()
    # The width of the terminal must not show in the page.
    os.environ.update({"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    names = [""] + [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
    pages = ["# Commands\n"]
    for name in names:
        arguments = [name, "--help"] if name else ["--help"]
        result = runner.invoke(app, arguments, prog_name="langslice", terminal_width=100)
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        pages.append(f"## langslice {name}".rstrip() + f"\n\n```\n{text}\n```\n")
    return HEAD + "\n".join(pages)


def public_names() -> dict[str, list[str]]:
    """Package -> what its `__all__` says: langslice itself, then each room that has public names."""
    import importlib
    import pkgutil

    import langslice

    rooms = sorted(each.name for each in pkgutil.iter_modules(langslice.__path__) if each.ispkg)
    packages = ["langslice", *(f"langslice.{room}" for room in rooms)]
    said = {package: list(importlib.import_module(package).__all__) for package in packages}
    return {package: names for package, names in said.items() if names}


def function_pages() -> str:
    """Signature and docstring of every public name."""
    import importlib

    pages, examples = ["# Python\n"], read_examples()
    for package, names in public_names().items():
        pages.append(f"## {package}\n")
        for name in names:
            item = getattr(importlib.import_module(package), name)
            described = "The version of langslice." if isinstance(item, str) else item.__doc__ or ""
            documentation = inspect.cleandoc(described) + _entries(item)
            signature = _signature(item) if inspect.isroutine(item) else ""
            shown = f"```text\n{documentation}\n```\n\n```python\n{examples[f'{package}.{name}']}\n```\n"
            pages.append(f"### {name}{signature}\n\n{shown}")
    return HEAD + "\n".join(pages)


def read_examples() -> dict[str, str]:
    """Public name -> its example in docs/examples, which the tests run."""
    found: dict[str, str] = {}
    for name in ("functions", "functions_elsewhere", "rooms", "rooms_elsewhere"):
        text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        for title, code in re.findall(r"^# ([\w.]+)\n(.*?)(?=^# [\w.]+\n|\Z)", text, re.M | re.S):
            found[title if "." in title else f"langslice.{title}"] = code.strip()
    return found


def _entries(item: object) -> str:
    """The options of a dataclass of them, each with its type and default; nothing for what has none."""
    from langslice.options import Options, declared

    if not (inspect.isclass(item) and issubclass(item, Options)):
        return ""
    lines, group = ["", ""], ""
    for option in declared(item).values():
        if option.group != group:
            group = option.group
            lines += [f"{group}:"]
        default = "" if option.required else f" = {option.default!r}"
        lines += [f"  {option.called}: {type_words(option.accepted)}{default}", f"      {option.entry.help}"]
    return "\n".join(lines)


def type_words(kind: object) -> str:
    """A type as it is written in Python."""
    words = kind.__name__ if inspect.isclass(kind) and not hasattr(kind, "__origin__") else str(kind)
    return re.sub(r"\b(collections\.abc|pathlib|typing)\.", "", words)


def _signature(function: object) -> str:
    text = str(inspect.signature(function))  # type: ignore[arg-type]
    # A default that is a function shows by its name: its address is another one in every process.
    text = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", text)
    return f"\n\n`{getattr(function, '__name__', '')}{text}`"


def stub_text() -> str:
    """__init__.pyi: the public functions with the parameters that they have, written out."""
    import langslice

    places: dict[str, set[str]] = {}
    functions = []
    for name in langslice.__all__:
        item = getattr(langslice, name)
        if inspect.isclass(item):
            places.setdefault(item.__module__, set()).add(f"{item.__name__} as {item.__name__}")
        elif inspect.isfunction(item):
            functions += _stubs(name, item, places)
    lines = ["# Written by docs/generate.py; do not edit.", *_imports(places), "", "__version__: str", "", *functions]
    return "\n".join(lines) + "\n"


def _imports(places: dict[str, set[str]]) -> list[str]:
    head = [
        "from collections.abc import Iterable, Mapping, Sequence",
        "from contextlib import AbstractContextManager",
        "from pathlib import Path",
        "from typing import Any, overload",
        "",
    ]
    lines = list(head)
    for module in sorted(places):
        names = sorted(places[module])
        line = f"from {module} import {', '.join(names)}"
        lines += [line] if len(line) <= 120 else [f"from {module} import (", *(f"    {name}," for name in names), ")"]
    return lines


def _stubs(name: str, function: object, places: dict[str, set[str]]) -> list[str]:
    """A function's declaration; two for what takes names and loaded objects."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    words = [_parameter(each, function, places) for each in signature.parameters.values()]
    behind = next(place for place, each in enumerate([*signature.parameters.values(), None])
                  if each is None or each.kind is inspect.Parameter.KEYWORD_ONLY)  # fmt: skip
    returned = _known(str(signature.return_annotation), function, places)
    if behind < len(words):
        words.insert(behind, "*")
    if name != "slice":
        return _declaration(name, words, returned)
    own = [word for word in words if not word.startswith(("model:", "out:", "overwrite:", "options:"))]
    objects = ["model: Any", "tokenizer: Any", *own]
    return [
        "@overload", *_declaration(name, words, returned),
        "@overload", *_declaration(name, objects, "tuple[Any, Any]"),
    ]  # fmt: skip


def _declaration(name: str, words: list[str], returned: str) -> list[str]:
    return [f"def {name}(", *(f"    {word}," for word in words), f") -> {returned}: ..."]


def _parameter(each: inspect.Parameter, function: object, places: dict[str, set[str]]) -> str:
    kind = _known(
        each.annotation if isinstance(each.annotation, str) else type_words(each.annotation), function, places
    )
    return f"{each.name}: {kind}" + ("" if each.default is inspect.Parameter.empty else " = ...")


def _known(words: str, function: object, places: dict[str, set[str]]) -> str:
    """A type in words, and where its names come from."""
    import importlib

    words = re.sub(r"langslice\.[a-z_.]+\.", "", words).strip("'")
    module = importlib.import_module(getattr(function, "__module__", ""))
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    for word in set(re.findall(r"[A-Z]\w+", words)) - {
        "AbstractContextManager",
        "Any",
        "Iterable",
        "Mapping",
        "Path",
        "Sequence",
        "None",
    }:
        found = re.search(rf"from (langslice[\w.]*) import (?:[\w, ]*\b|\([^)]*\b){word}\b", text)
        place = found[1] if found else module.__name__
        exported = any(f"{word} as {word}" in names for names in places.values())
        if not exported:
            places.setdefault(place, set()).add(word)
    return words


def schema_text(*, sweep: bool) -> str:
    """The JSON schema of recipes, for editors."""
    from langslice.recipes.schema import recipe_schema

    return _json_text(recipe_schema(sweep=sweep), 0) + "\n"


def _json_text(value: object, depth: int) -> str:
    """JSON in which a mapping of plain values stands on one line, so that a change of an entry is a change of a line."""
    plain = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) or not any(isinstance(item, dict) for item in value.values()) or len(plain) < 200:
        return plain
    lines = [f"{' ' * (depth + 1)}{json.dumps(name)}: {_json_text(item, depth + 1)}" for name, item in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


def families_page() -> str:
    """What the sweep over all model types found, as it is recorded."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.families.record import page, read_record

    return page(read_record())


def recipe_pages() -> dict[str, str]:
    """A ready recipe for each model of the catalogue, and a page that lists them with the sizes to expect."""
    from langslice.recipes.purposes import PURPOSES, catalogue
    from langslice.recipes.ready import catalogued_recipe

    recorded = REFERENCE.parents[1] / "benchmarks/results/real/catalogue.json"
    sizes = json.loads(recorded.read_text(encoding="utf-8"))["models"]
    pages, rows = {}, []
    for known in catalogue():
        found = sizes[known.model]
        said, cells = expected_size(found["computed"], found["measured"])
        pages[f"../recipes/{known.name}.yaml"] = catalogued_recipe(known, ("ko", "en"), [said])
        rows.append(f"| [{known.model}]({known.name}.yaml) | {known.purpose} | {' | '.join(cells)} |")
    purposes = "\n".join(f"| `{name}` | {one.help} | {one.needs} |" for name, one in PURPOSES.items())
    pages["../recipes/README.md"] = f"""# Ready recipes

For Korean and English; change `languages` to yours, then `langslice run NAME.yaml -o WORK`. `langslice init MODEL -l ko,en` looks
at a model and writes a recipe with everything that its class allows; `--for` states what it shall be for, and proposes a model
where none is named:

| `--for` | what | needs |
|---|---|---|
{purposes}

*Measured*: a verified slice of the trained model. *Computed*: by `langslice inspect` from the published configuration with the
real tokenizer, without the weights. *Vocabulary only*: the tokenizer was not at hand; `langslice inspect MODEL -l ko,en` tells what
is kept. How, and checks against the published sizes: [catalogue](../../benchmarks/results/real/catalogue.md).

| model | for | how | MB | MB kept | rows | rows kept |
|---|---|---|---:|---:|---:|---:|
{chr(10).join(rows)}
"""
    return pages


def expected_size(computed: Any, measured: Any) -> tuple[str, list[str]]:
    """What a slice of a model leaves: a sentence, and cells of a table."""
    if measured:
        before, after = measured["before"], measured["after"]
        cells = ["measured", before["mb"], after["mb"], before["rows"], after["rows"]]
    elif "slice" in computed:
        kept = computed["slice"]
        cells = ["computed", computed["bytes"] / 1e6, kept["size_bytes"] / 1e6, computed["rows"], kept["rows"]]
    else:
        share = computed["vocabulary_bytes"] / computed["bytes"]
        said = (
            f"Computed: the vocabulary is {share:.0%} of {computed['bytes'] / 1e6:,.0f} MB ({computed['rows']:,} rows)."
        )
        return said, [
            "vocabulary only",
            f"{computed['bytes'] / 1e6:,.0f}",
            f"{share:.0%} is vocabulary",
            f"{computed['rows']:,}",
            "–",
        ]
    how, whole, left, rows, kept_rows = cells
    said = f"{how.capitalize()}: {whole:,.0f} MB become {left:,.0f} MB, {rows:,} rows {kept_rows:,}."
    return said, [how, f"{whole:,.0f}", f"{left:,.0f}", f"{rows:,}", f"{kept_rows:,}"]


def main() -> int:
    """Write or check the pages."""
    pages: dict[str, str] = {
        "../../langslice/__init__.pyi": stub_text(),
        "commands.md": command_pages(),
        "python.md": function_pages(),
        "recipe.schema.json": schema_text(sweep=False),
        "sweep.schema.json": schema_text(sweep=True),
        "families.md": families_page(),
        **recipe_pages(),
    }
    REFERENCE.mkdir(exist_ok=True)
    (REFERENCE.parent / "recipes").mkdir(exist_ok=True)
    stale = [name for name, text in pages.items() if not _same(REFERENCE / name, text)]
    if "--check" in sys.argv:
        for name in stale:
            print(f"{(REFERENCE / name).resolve()} is not what the code says; run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for name, text in pages.items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
