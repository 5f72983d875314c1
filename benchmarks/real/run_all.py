"""Run the benchmarks on trained models, one after the other; each goes on at the step where it was stopped, and writes its page.

    python benchmarks/real/run_all.py [NAME ...] [--again]

--again forgets the kept steps. Needs the models of `make models` and the text of LANGSLICE_ASSETS; speech also espeak-ng.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import WORK, data, models

NAMES = (
    "readme",
    "search_engine",
    "korean_llm",
    "speech",
    "tradeoff",
    "fit",
    "hidden_axis",
    "distil",
    "extend",
    "sibling",
    "scores",
    "language_parts",
    "language_overlap",
    "steering",
    "hidden_size",
    "healing",
    "llama_cpp",
    "catalogue",
    "draft_head",
    "mwanda",
    "kim2024",
    "kim2024_features",
    "kimkim2026",
    "papers",
)
NEEDED = ("multilingual-e5-small", "multilingual-e5-small-enpt", "gemma-3-270m", "whisper-base")


def obstacles(name: str) -> list[str]:
    """Why a benchmark cannot run here."""
    found = [f"no {model} in {models()}" for model in NEEDED if not (models() / model / "README.md").is_file()]
    found += [] if data().is_dir() else [f"no text in {data()}"]
    if name == "speech" and shutil.which("espeak-ng") is None:
        found.append("no espeak-ng")
    return found


def main() -> int:
    """Run them; the exit code is the number of those that failed or could not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--again", action="store_true", help="measure everything anew")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in NAMES]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    failed = 0
    for name in asked.names or NAMES:
        if why := obstacles(name):
            print(f"{name}: left out, {'; '.join(why)}", flush=True)
            failed += 1
            continue
        if asked.again:
            shutil.rmtree(WORK / name, ignore_errors=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=False).returncode
        print(
            f"{name}: {'done' if code == 0 else f'exit code {code}'} in {time.monotonic() - started:.0f} s", flush=True
        )
        failed += code != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
