"""README and docs: commands that the program takes, links that lead somewhere, messages that exist, real results."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")), *(ROOT / "docs").rglob("*.md")]
)
BENCHMARKS = sorted(each for each in (ROOT / "benchmarks").rglob("*.md") if "work" not in each.parts)
# Pages whose commands are words of a screen, not to be typed.
GENERATED = {ROOT / "docs/reference/commands.md", ROOT / "docs/reference/python.md"}


def commands(page: str) -> list[str]:
    """Every `langslice …` of a page's code blocks, with lines that are continued joined and comments left out."""
    lines = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        if language in ("", "sh", "bash", "console"):
            lines += [line.strip() for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"(langslice|python -m langslice) [a-z]", line)]


def all_commands() -> list[tuple[str, str]]:
    return [
        (path.relative_to(ROOT).as_posix(), command)
        for path in PAGES
        if path not in GENERATED
        for command in commands(path.read_text(encoding="utf-8"))
    ]


def parse(line: str) -> None:
    """Have the command line read a command as far as its function would be called."""
    from langslice.cli.app import app

    words = shlex.split(line.split(" > ")[0], comments=True)
    name, *rest = words[words.index("langslice") + 1 :]
    program = typer.main.get_command(app)
    assert name in program.commands, f"no command `{name}`"
    if "--help" not in rest:
        program.commands[name].make_context(name, rest).close()


@pytest.mark.parametrize(("page", "line"), all_commands())
def test_commands_are_taken_as_they_are_written(page, line):
    parse(line)


def test_a_command_that_the_program_does_not_take_is_found():
    for line, said in (
        ("langslice slice MODEL --languges ko -o OUT", "No such option"),
        ("langslice slic MODEL -o OUT", "no command `slic`"),
        ("langslice slice MODEL -o OUT --threads x", "valid int"),
        ("langslice slice", "Missing (argument|parameter)"),
    ):
        with pytest.raises((Exception, AssertionError), match=said):
            parse(line)
    assert commands("```\nlangslice slice MODEL \\\n  -o OUT   # plan\n$ ls\n```\n") == [
        "langslice slice MODEL    -o OUT   # plan"
    ]
    assert len(all_commands()) > 90


@pytest.mark.parametrize("page", [*PAGES, *BENCHMARKS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_lists_are_lists_for_every_reader_of_markdown(page):
    """Python-Markdown, which makes the site, takes a list directly after a line of text for more of that text."""
    text = re.sub(r"^ *```.*?^ *```$", "```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^(?![-*#|<>`]|\d+\. |\s).+\n[-*] .*", text, re.MULTILINE) == []


def test_the_site_lists_every_page_once():
    document = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ *- [^:\n]+: (\S+\.md)$", document.partition("\nnav:\n")[2], re.MULTILINE)
    assert len(listed) == len(set(listed))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert pages | {"CHANGELOG.md", "CONTRIBUTING.md"} == {
        name for name in listed if not name.startswith("benchmarks/")
    }
    for name in listed:
        assert (ROOT / "docs" / name).is_file() or (ROOT / name).is_file(), name
    assert "repo_url" not in re.sub(r"#.*", "", document) and "font: false" in document


def test_links_of_the_site_lead_into_it_or_to_the_repository():
    pages = runpy.run_path(str(ROOT / "docs/site_pages.py"))
    included = SimpleNamespace(inclusion=SimpleNamespace(is_included=lambda: True))
    known = {"guides/verify.md", "guides/python.md", "benchmarks/results/scores.md", "CHANGELOG.md"}
    files = SimpleNamespace(get_file_from_path=lambda name: included if name in known else None)
    for target, leads in (
        ("verify.md", "verify.md"),
        ("../../benchmarks/results/scores.md#a", "../benchmarks/results/scores.md#a"),
        ("../../CHANGELOG.md", "../CHANGELOG.md"),
        ("../../Makefile", "WEB/blob/main/Makefile"),
        ("../../benchmarks", "WEB/tree/main/benchmarks"),
        ("nowhere.md", "nowhere.md"),
        ("../../../elsewhere.md", "../../../elsewhere.md"),
        ("#here", "#here"),
        ("https://example.org/a.md", "https://example.org/a.md"),
    ):
        assert pages["new_target"](target, "docs/guides/python.md", "WEB", files) == leads, target
    assert (
        pages["new_target"]("../../docs/guides/verify.md", "benchmarks/results/scores.md", "WEB", files)
        == "../../guides/verify.md"
    )


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_the_troubleshooting_page_quotes_messages_that_exist():
    said = " ".join(messages())
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = [
        each for head in re.findall(r"^\*\*(.+?)\*\*", page, re.MULTILINE) for each in re.findall(r"`([^`]+)`", head)
    ]
    assert len(quoted) > 10
    parts = [part.strip() for each in quoted for part in each.split("…") if part.strip()]
    assert [
        part for part in parts if part not in said and not part.startswith("--") and part != "trust_remote_code"
    ] == []


def messages() -> list[str]:
    """Texts in the code, those of format strings without what is filled in."""
    found = []
    for path in (ROOT / "langslice").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.fixture(scope="module")
def real():
    path = ROOT / "benchmarks/real/readme.py"
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_real_readme", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        for name in ("common", "scores", "healing"):
            sys.modules.pop(name, None)


def test_the_table_of_real_results_is_what_was_measured(real):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    result = json.loads(real.RESULT.read_text(encoding="utf-8"))
    assert real.replace_table(readme, real.render(result)) == readme, "run python benchmarks/real/readme.py --table"
    assert all(row["verified"] for row in result["models"].values())
    changed = json.loads(json.dumps(result))
    changed["models"]["multilingual-e5-small"]["after"]["mb"] += 0.1
    assert real.replace_table(readme, real.render(changed)) != readme


def test_the_table_of_quality_is_what_was_measured(real, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert real.replace_table(readme, real.quality(), real.QUALITY) == readme, (
        "run python benchmarks/real/readme.py --table"
    )
    kept = real.page_of
    for page in ("tradeoff", "scores", "healing"):
        monkeypatch.setattr(real, "page_of", lambda name, page=page: None if name == page else kept(name))
        assert real.replace_table(readme, real.quality(), real.QUALITY) != readme, f"no row of {page}"


def test_the_glossary_has_each_term_once_and_is_linked():
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    terms = [term for term in re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE) if term not in ("term", "---")]
    assert len(terms) == len(set(terms)) > 40
    assert "glossary.md" in (ROOT / "README.md").read_text() and "glossary.md" in (ROOT / "docs/README.md").read_text()


def test_the_first_lines_of_the_readme_run(tmp_path, monkeypatch):
    """As written, but for the model: the packaged one is at hand without a network."""
    from typer.testing import CliRunner

    from langslice.cli.app import app

    page = (ROOT / "README.md").read_text(encoding="utf-8").replace("intfloat/multilingual-e5-small", "mini")
    code = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0]
    words = shlex.split(commands(page)[0])[1:]
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(code, scope)
    weights = (tmp_path / "e5-ko-en/model.safetensors").read_bytes()
    assert len(scope["tokenizer"]) == scope["model"].get_input_embeddings().weight.shape[0] < 16_000
    done = CliRunner().invoke(app, [*words, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "e5-ko-en/model.safetensors").read_bytes() == weights
