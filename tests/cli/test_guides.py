"""Every command of the users' guides runs as written, on the packaged model."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from langslice.mini import heldout_text
from tests.commands import langslice_command

GUIDES = sorted((Path(__file__).parents[2] / "docs/guides/users").glob("*.md"))
# What a guide promises to leave behind.
MADE = {
    "search-engine": ("plan.json", "search/slice.json", "results.json", "search/report.html", "search/README.md"),
    "translation": (
        "ko-en/slice.json",
        "direct.json",
        "layers.parquet",
        "healed/healing.parquet",
        "healed/report.html",
    ),
    "korean": (
        "recipe.yaml",
        "work/slice/slice.json",
        "work/healed/README.md",
        "work/restored/restore.json",
        "work/report.html",
    ),
    "table": ("kimkim2026", "grid", "pruned/slice.json", "pruned.json"),
}


def commands(guide: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_there_is_a_guide_for_each_user():
    assert {guide.stem for guide in GUIDES} == set(MADE)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_commands_run_as_written(guide, tmp_path):
    for code in ("ko", "en", "fr"):
        (tmp_path / f"{code}.txt").write_text("\n".join(heldout_text(code)[:30]) + "\n", encoding="utf-8")
    (tmp_path / "heldout.txt").write_text("\n".join(heldout_text("ko")[30:40]) + "\n", encoding="utf-8")
    script = tmp_path / "guide.sh"
    script.write_text("set -euo pipefail\n" + "\n".join(commands(guide)), encoding="utf-8")
    with langslice_command(tmp_path / "bin") as place:
        environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    missing = [name for name in MADE[guide.stem] if not (tmp_path / name).exists()]
    assert not missing
