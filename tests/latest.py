"""Run a fast, telling part of the suite on what is installed, and say which release newer than the lock breaks which test.

`make test-latest` installs the newest release of everything but torch before. Warnings are reported and are no errors here: other
libraries may announce what they like on the day they do; under the lock, they are errors. Arguments go to pytest.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.locked import LOCK, Difference, differences, installed_versions, locked_versions

# Every command; every family's slice, of vocabulary, layers, heads, neurons and weights; tokenizers; evaluation; healing.
FILES = (
    "test_every_command.py",
    "test_cli.py",
    "test_slice.py",
    "test_structure_families.py",
    "test_walking.py",
    "test_stock.py",
    "test_tokenizer_rewrite.py",
    "test_tokenizer_slow_files.py",
    "test_evaluate_label_scores.py",
    "test_evaluate_run.py",
    "test_evaluate_translation.py",
    "test_evaluate_confusion.py",
    "test_evaluate_statistics.py",
    "test_heal_embedding.py",
    "test_heal_refusals.py",
    "test_heal_teacher.py",
    "test_adapters.py",
    "test_publish.py",
)


class Failures:
    """Report and place of each test that failed, from whichever process ran it."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.found[report.nodeid] = report.longreprtext

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.found[report.nodeid] = report.longreprtext


def blamed(trace: str, newer: list[Difference]) -> list[Difference]:
    """Newer packages whose files a traceback passes, the innermost first."""
    names = packages_distributions()
    by_name = {one.name: one for one in newer}
    passed = [
        by_name[canonicalize_name(owner)]
        for module in reversed(re.findall(r"site-packages/(\w+)", trace))
        for owner in names.get(module, [])
        if canonicalize_name(owner) in by_name
    ]
    return list(dict.fromkeys(passed))


def verdict(failed: dict[str, str], newer: list[Difference]) -> str:
    """What is said when tests failed: each with the newer releases that its traceback passes."""
    if not newer:
        return f"{len(failed)} tests fail, and no release is newer than the lock: they fail under it too"
    lines = [f"{len(failed)} tests fail on releases newer than the lock"]
    for test, trace in failed.items():
        names = ", ".join(map(str, blamed(trace, newer)))
        said = next((line[1:].strip() for line in trace.splitlines() if line.startswith("E ")), "")
        lines.append(
            f"newer {names} breaks {test}" if names else f"{test} fails; its traceback passes no newer release"
        )
        lines.append(f"    {said}")
    lines.append("newer than the lock: " + ", ".join(map(str, newer)))
    lines.append("hint: mend langslice for both, then `make lock` makes these the tested ones")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Exit code of pytest."""
    found = differences(installed_versions(), locked_versions(LOCK.read_text()))
    print("other than the lock:", ", ".join(map(str, found)) or "nothing", flush=True)
    failures = Failures()
    files = [str(Path(__file__).with_name(name)) for name in FILES]
    code = pytest.main([*files, "-q", "-W", "default", *arguments], plugins=[failures])
    if failures.found:
        print(verdict(failures.found, [one for one in found if one.newer]), file=sys.stderr)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
