"""The README's figures are in the summary of the benchmarks, the summary says what its pages say, and none is left out."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def summary():
    return load("summary")


def numbers(text):
    return [one.replace(",", "") for one in NUMBER.findall(text)]


def readme_figures(readme):
    """(what, measured, the row as a whole) of the table of figures."""
    section = readme.split("\n## Figures\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert rows[0] == ["what", "measured", "against"]
    return rows[2:]


def unfounded(readme, rows):
    """Rows of the README's figures whose numbers are not all, rounded alike, among the figures of one page of the summary.

    The page that the row links, or else those with a claim about the same peer or the same quoted command.
    """
    pages, subjects = {}, {}
    for claim, measured, peer, memory, _, _, page in rows:
        name = page.split("]")[0].strip("[")
        pages.setdefault(name, []).extend(numbers(f"{measured}; {memory}"))
        subjects.setdefault(name, set()).update({peer, *re.findall("`[^`]+`", f"{claim} {peer}")})
    found = []
    for what, measured, against in readme_figures(readme):
        about = {against, *re.findall("`[^`]+`", f"{what} {against}")}
        named = re.findall(r"results/(\w+)\.md", against) or [page for page in pages if about & subjects[page]]
        asked = numbers(measured)
        if not any(all(any(same(one, other) for other in pages.get(page, ())) for one in asked) for page in named):
            found.append(what)
    return found


def same(shown, measured):
    digits = len(shown.partition(".")[2])
    # A half is rounded either way.
    return abs(float(shown) - float(measured)) <= (0.5 * 10**-digits if digits else 0) + 1e-9


def test_every_figure_of_the_readme_is_in_the_summary(summary):
    assert unfounded((ROOT / "README.md").read_text(encoding="utf-8"), summary.rows()) == []


@pytest.mark.parametrize(
    ("figure", "other"),
    [("0.49 of the time, 143 MB", "0.48 of the time, 143 MB"), ("143 MB of memory", "144 MB of memory"),
     ("0.28; 0.25 of", "0.28; 0.24 of"), ("3.9; 8.2 times", "3.8; 8.2 times"),
     ("**0** |", "**3** |"), ("0.15 s", "0.16 s"), ("0.33 of the time", "0.28 of the time"),
     ("0.13; 0.12 of", "0.13; 0.80 of")],
)  # fmt: skip
def test_a_figure_that_was_not_measured_is_found(summary, figure, other):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert figure in readme
    assert len(unfounded(readme.replace(figure, other), summary.rows())) == 1


def test_figures_are_read_by_hand(summary):
    page = (
        "# T\n\n| tool | time, s | faults |\n|---|---:|---:|\n| a | 1,200 (9 to 10) | 2 |\n| a | **1300** | 3 |\n| b | 7 | 0 |\n"
        "\n| c | 8 | 1 |\n\n## Later, again\n\n| tool | time, s | faults |\n|---|---|---|\n| b | 0.250 | 4 |\n"
    )
    cell = summary.Cell
    assert summary.read_cell(page, cell(("a",), "time", "{}")) == "1,300"
    assert summary.read_cell(page, cell(("a",), "time", "{}", place=0)) == "1,200"
    assert summary.read_cell(page, cell(("c",), "time", "{}")) == "8"
    assert summary.read_cell(page, cell(("b",), "time", "{}", section="Later")) == "0.250"
    assert summary.read_cell(page, cell((), "faults", "{}", total=True)) == "10"
    for lost in (cell(("d",), "time", "{}"), cell(("a",), "memory", "{}"), cell(("a",), "time", "{}", section="Later")):
        with pytest.raises(LookupError, match="no number in row"):
            summary.read_cell(page, lost)
    assert summary.machine("2 cores (x86_64), load 9.3 to 11.1, Python 3.11.7, and") == (
        "2 cores (x86_64), load 9.3 to 11.1, Python 3.11.7"
    )
    assert (summary.machine("x"), summary.date("x"), summary.date("2026-01-02, 2026-01-03")) == ("–", "–", "2026-01-03")


def test_the_summary_is_what_its_pages_say(summary):
    assert summary.SUMMARY.read_text(encoding="utf-8") == summary.summary(), "run python benchmarks/summary.py"
    for what, measured, _, _, machine, date, _ in summary.rows():
        assert numbers(measured) and machine != "–" and date != "–", what


def test_every_benchmark_runs_with_the_others_and_is_described(monkeypatch):
    monkeypatch.delenv("PRUNING_PEERS", raising=False)
    monkeypatch.setenv("TRIMBED_PYTHON", sys.executable)
    jobs = load("run_all").jobs()
    run = {Path(job.command[0]).name for job in jobs.values()}
    no_benchmark = {"run_all.py", "summary.py", "make_checkpoint.py", "rivals.py", "forward_passes.py"}
    scripts = {path.name for path in BENCHMARKS.glob("*.py")} - no_benchmark
    assert scripts == run - {"-m"}
    described = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert [name for name in sorted(scripts) if f"`{name}`" not in described] == []
    pages = {path.stem for path in (BENCHMARKS / "results").glob("*.md")} - {"README"}
    assert pages <= set(jobs)
    assert jobs["structure"].obstacle.startswith(
        "PRUNING_PEERS is not set, which says where to find Torch-Pruning and mergekit"
    )
    assert "trimbed does not import (ModuleNotFoundError" in jobs["against_trimbed"].obstacle


def test_an_unknown_benchmark_is_refused(monkeypatch, capsys):
    run_all = load("run_all")
    monkeypatch.setattr(sys, "argv", ["run_all.py", "exactnes"])
    assert run_all.main() == 2
    assert "no benchmark is called exactnes; there are exactness, families" in capsys.readouterr().err
