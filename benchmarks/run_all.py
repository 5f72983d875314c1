"""Run every benchmark that this machine allows, one after the other; each writes its own table in results/.

Names may be given: python benchmarks/run_all.py exactness families counting scores
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
REWRITE_BYTES = 46_000_000_000


def jobs() -> dict[str, tuple[list[str], str]]:
    """Name -> command, and why it cannot run here ("" where it can)."""
    assets = Path(os.environ.get("LANGSLICE_ASSETS", HERE.parent / "../shared/assets")).resolve()
    no_assets = "" if (assets / "tokenizers").is_dir() else "LANGSLICE_ASSETS does not name the real tokenizers"
    work = Path(tempfile.gettempdir()) / "langslice-bench"
    small = shutil.disk_usage(work.parent).free < REWRITE_BYTES
    trimbed = os.environ.get("TRIMBED_PYTHON", "")
    return {
        "exactness": (["exactness.py", str(assets)], no_assets),
        "families": (["families.py"], no_assets),
        "counting": (["counting.py"], no_assets),
        "structure": (
            ["structure.py", "--work", str(work), "--peers", os.environ.get("PRUNING_PEERS", "")],
            ""
            if os.environ.get("PRUNING_PEERS")
            else "PRUNING_PEERS does not name a folder with Torch-Pruning and mergekit",
        ),
        "scores": (["scores.py", str(assets)], ""),
        "sparsity": (["sparsity.py"], ""),
        "sparsity_memory": (["sparsity.py", "--memory"], ""),
        "mini_features": (["mini_features.py"], no_assets),
        "mini_sparsity": (["mini_sparsity.py"], no_assets),
        "healing": (["healing.py"], no_assets),
        "training_memory": (["training_memory.py"], no_assets),
        "label_scores": (["label_scores.py", "--assets", str(assets)], no_assets),
        "scale": (["scale.py", "--write", str(HERE / "results" / "scale.md")], no_assets),
        "rewrite": (["rewrite.py", "--work", str(work)], "less than 46 GB of disk" if small else ""),
        "against_trimbed": (
            ["against_trimbed.py", "--trimbed-python", trimbed],
            no_assets if trimbed else "TRIMBED_PYTHON does not name an interpreter that has trimbed",
        ),
    }


def main() -> int:
    """Run them; the exit code is the number of failures."""
    failed = 0
    for name, (command, obstacle) in jobs().items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        if obstacle:
            print(f"{name}: left out, {obstacle}")
            continue
        started = time.monotonic()
        code = subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=False).returncode
        print(
            f"{name}: {'done' if code == 0 else f'exit code {code}'} in {time.monotonic() - started:.0f} s", flush=True
        )
        failed += code != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
