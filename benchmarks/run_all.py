"""Run every benchmark that this machine allows, one after the other; each writes its own page in results/, and at the end
summary.py puts their figures into one table, results/README.md.

Names may be given: python benchmarks/run_all.py exactness families counting scores
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
REWRITE_BYTES = 46_000_000_000
GROWTH_BYTES = 20_000_000_000
# Peers that no script compares with, and why.
WITHOUT_SCRIPT = {
    "lm-vocab-trimmer": "vocabtrimmer 0.0.2 imports huggingface_hub.Repository, which huggingface_hub 1 and later do not have",
    "llm-compressor": "0.14 needs transformers 5.15 to 5.17, and no comparison with it is written",
    "wanda": "its core is written again from the paper in sparsity.py, which is what is compared with",
}


@dataclass(frozen=True)
class Job:
    """A benchmark.

    command   arguments of Python, run at the repository's root
    obstacle  why it cannot run here; empty where it can
    """

    command: tuple[str, ...]
    obstacle: str = ""


def jobs() -> dict[str, Job]:
    """Every benchmark by name."""
    assets = Path(os.environ.get("LANGSLICE_ASSETS", HERE.parent / "../shared/assets")).resolve()
    no_assets = "" if (assets / "tokenizers").is_dir() else "LANGSLICE_ASSETS does not name the real tokenizers"
    work = Path(tempfile.gettempdir()) / "langslice-bench"
    no_disk = "less than 46 GB of disk" if shutil.disk_usage(work.parent).free < REWRITE_BYTES else ""
    peers, trimbed = os.environ.get("PRUNING_PEERS", ""), os.environ.get("TRIMBED_PYTHON", "")
    before, clones = os.environ.get("BENCH_BEFORE", ""), os.environ.get("REFERENCE_CODE", "")
    no_trimbed = _misses("TRIMBED_PYTHON", trimbed, {"trimbed": "trimbed"}, {})
    no_peers = _misses(
        "PRUNING_PEERS", sys.executable if peers else "", {"Torch-Pruning": "torch_pruning", "mergekit": "mergekit"},
        {"PYTHONPATH": peers},
    )  # fmt: skip
    return {
        "exactness": _script("exactness", str(assets), obstacle=no_assets),
        "families": _script("families", obstacle=no_assets),
        "counting": _script("counting", "--output", str(RESULTS / "counting.md"), obstacle=no_assets),
        "structure": _script("structure", "--work", str(work), "--peers", peers, "--results", str(RESULTS / "structure.md"),
                             obstacle=no_peers),
        "scores": _script("scores", str(assets), obstacle=no_assets),
        "sparsity": _script("sparsity"),
        "sparsity_memory": _script("sparsity", "--memory"),
        "mini_features": _script("mini_features", obstacle=no_assets),
        "mini_sparsity": _script("mini_sparsity", obstacle=no_assets),
        "healing": _script("healing", obstacle=no_assets),
        "training_memory": _script("training_memory", obstacle=no_assets),
        "label_scores": _script("label_scores", "--assets", str(assets), obstacle=no_assets),
        "reference_code": _script("reference_code", "--clones", clones, obstacle="" if clones else
                                  "REFERENCE_CODE is not set, which says where published code is (benchmarks/README.md)"),
        "scale": _script("scale", "--write", str(RESULTS / "scale.md"), obstacle=no_assets),
        "rewrite": _script("rewrite", "--work", str(work), "--results", str(RESULTS / "rewrite.md"), obstacle=no_disk),
        "rewrite_xfs": _script("rewrite", "--xfs", "--work", str(work / "xfs"), "--results", str(RESULTS / "rewrite.md"),
                               obstacle=no_disk or ("" if os.geteuid() == 0 else "a loop mount needs root")),
        "against_trimbed": _script("against_trimbed", "--trimbed-python", trimbed, obstacle=no_trimbed or no_assets),
        "start": _script("start"),
        "whole_command": _script("whole_command", "--before", before, obstacle="" if before else
                                 "BENCH_BEFORE names no earlier state of this repository to compare with"),
        "growth": _script("growth", obstacle=no_assets or ("" if shutil.disk_usage(work.parent).free > GROWTH_BYTES else
                          "less than 20 GB of disk")),
        "stress_kill": Job(("-m", "tests.stress.kill", "--kills", "40", "--write", str(RESULTS / "stress_kill.md"))),
        "fuzzing": Job(("-m", "tests.fuzz.run", "--seconds", "960", "--write", str(RESULTS / "fuzzing.md"))),
    }  # fmt: skip


def _script(name: str, *arguments: str, obstacle: str = "") -> Job:
    return Job((str(HERE / f"{name}.py"), *arguments), obstacle)


def _misses(variable: str, python: str, modules: dict[str, str], environment: dict[str, str]) -> str:
    """Why an interpreter has none of the peers, with the last line of each error; empty where it has one."""
    if not python:
        return f"{variable} is not set, which says where to find {' and '.join(modules)} (benchmarks/README.md)"
    if shutil.which(python) is None:
        return f"{variable} names no interpreter: {python}"
    missing = []
    for peer, module in modules.items():
        done = subprocess.run(
            [python, "-c", f"import {module}"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )
        if done.returncode:
            missing.append(f"{peer} does not import ({(done.stderr.strip().splitlines() or ['no message'])[-1]})")
    return "; ".join(missing) if len(missing) == len(modules) else ""


def main() -> int:
    """Run them and write the summary; the exit code is the number of failures."""
    known = jobs()
    unknown = [name for name in sys.argv[1:] if name not in known]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    failed = 0
    for name in sys.argv[1:] or known:
        if known[name].obstacle:
            print(f"{name}: left out, {known[name].obstacle}")
            continue
        failed += _run(name, known[name].command)
    for peer, why in WITHOUT_SCRIPT.items():
        print(f"{peer}: not compared with, {why}")
    return failed + _run("summary", (str(HERE / "summary.py"),))


def _run(name: str, command: tuple[str, ...]) -> bool:
    """Whether it failed."""
    started = time.monotonic()
    code = subprocess.run([sys.executable, *command], check=False, cwd=HERE.parent).returncode
    print(f"{name}: {'done' if code == 0 else f'exit code {code}'} in {time.monotonic() - started:.0f} s", flush=True)
    return code != 0


if __name__ == "__main__":
    sys.exit(main())
