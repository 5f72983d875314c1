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

from tests.project.locked import LOCK, Difference, differences, installed_versions, locked_versions

TESTS = Path(__file__).parents[1]
# Every command; every family's slice, of vocabulary, layers, heads, neurons and weights; tokenizers; evaluation; healing.
FILES = (
    "cli/test_every_command.py",
    "cli/test_cli.py",
    "slicing/test_slice.py",
    "structure/test_families.py",
    "sparsity/test_block_pass.py",
    "model/test_transformers_classes.py",
    "tokenizer/test_rewrite.py",
    "tokenizer/test_slow_files.py",
    "evaluation/test_label_scores.py",
    "evaluation/test_run.py",
    "evaluation/test_translation.py",
    "evaluation/test_confusion.py",
    "evaluation/test_statistics.py",
    "healing/test_sentence_embeddings.py",
    "healing/test_refusals.py",
    "healing/test_teacher.py",
    "restoration/test_adapters.py",
    "slicing/test_publish.py",
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
    files = [str(TESTS / name) for name in FILES]
    code = pytest.main([*files, "-q", "-W", "default", *arguments], plugins=[failures])
    if failures.found:
        print(verdict(failures.found, [one for one in found if one.newer]), file=sys.stderr)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
