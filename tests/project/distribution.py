"""The wheel and the source archive: what is in them, how large they may be, and whether they work where nothing else is installed.

python -m tests.project.distribution check dist/*                  contents and sizes; no installation
python -m tests.project.distribution try dist/*.whl [FILE ...]     each file in an environment of its own, with the demo
python -m tests.project.distribution quick dist/*.whl              the wheel next to packages that are installed already
python -m tests.project.distribution extras dist/*.whl [NAME ...]  each extra in an environment of its own, with one command

`try` and `extras` install torch from constraints/lock.in first, so that no other release of it is fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from langslice.mini import heldout_text, mini_model_path
from tests.project.extras import EXTRAS, Extra

ROOT = Path(__file__).parents[2]
# README says what a wheel may have; most of it is the packaged model. A source archive has tests and documentation besides.
LIMITS = {".whl": 11_000_000, ".gz": 12_000_000}
NEEDED = ("langslice/__init__.py", "langslice/__init__.pyi", "langslice/py.typed", "langslice/mini/heldout/ko.txt")
# What is for those who work on the package has no place in a wheel, and what is made on the way in neither of both.
UNWANTED = {
    ".whl": r"(tests|docs|benchmarks|training|notebooks)/|.*__pycache__",
    ".gz": r".*(__pycache__|/\.venv|/work/)",
}


def names(path: Path) -> dict[str, int]:
    """Name -> bytes of every file in an archive, without the folder that a source archive puts around."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry.file_size for entry in archive.infolist()}
    with tarfile.open(path) as archive:
        return {entry.name.partition("/")[2]: entry.size for entry in archive if entry.isfile()}


def faults(path: Path) -> list[str]:
    """What is wrong with an archive: its size, a file that it lacks, one that it should not have."""
    found, size = names(path), path.stat().st_size
    model = {f"langslice/mini/model/{file.name}": file.stat().st_size for file in mini_model_path().iterdir()}
    limit = LIMITS[path.suffix]
    wrong = [f"{size:,} bytes, more than {limit:,}"] if size > limit else []
    wrong += [f"{name} is not in it" for name in (*NEEDED, *model) if name not in found]
    wrong += [f"{name} has {found[name]:,} bytes, not {n:,}" for name, n in model.items() if found.get(name, n) != n]
    wrong += [f"README leads to {link}, which an index does not have" for link in near_links(path)]
    return wrong + [f"{name} is in it" for name in found if re.match(UNWANTED[path.suffix], name)]


def near_links(path: Path) -> list[str]:
    """Links in what an index shows of a wheel that lead to a file beside it."""
    if path.suffix != ".whl":
        return []
    with zipfile.ZipFile(path) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    return re.findall(r"\]\((?![a-z]+:|#)([^)\s]+)\)", text)


def check(paths: list[Path]) -> int:
    """Print each archive's size and faults; 1 where there is one."""
    failed = 0
    for path in paths:
        wrong = faults(path)
        print(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(names(path))} files{''.join(f'; {w}' for w in wrong)}"
        )
        failed |= bool(wrong)
    return int(failed)


def run(*command: object, cwd: Path | None = None, lenient: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of this checkout on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "LANGSLICE_CACHE": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode and not lenient:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done


def environment(folder: Path) -> Path:
    """Make an environment with the held torch and nothing else; its Python."""
    (torch,) = re.findall(r"^torch==.*$", (ROOT / "constraints/lock.in").read_text(), re.M)
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", torch)
    return folder / "bin/python"


def try_alone(path: Path, folder: Path) -> None:
    """Install an archive where nothing is, and run the demo."""
    start = time.perf_counter()
    python = environment(folder / "alone")
    run(python, "-m", "pip", "install", "--quiet", path.resolve())
    installed = time.perf_counter() - start
    run(folder / "alone/bin/langslice", "demo", "-o", folder / "demo", cwd=folder)
    took = time.perf_counter() - start - installed
    print(f"{path.name}: installed in {installed:.0f} s, `langslice demo` in {took:.0f} s", flush=True)
    shutil.rmtree(folder / "alone")


def quick(path: Path, folder: Path) -> None:
    """Install a wheel alone, borrow the packages of this environment, and slice a model."""
    run(sys.executable, "-m", "venv", "--without-pip", folder / "quick")
    (packages,) = (folder / "quick").glob("lib/python*/site-packages")
    # A .pth file inside a folder that a .pth file names is not read, so that a checkout installed there is not found.
    (packages / "borrowed.pth").write_text(next(each for each in sys.path if each.endswith("site-packages")) + "\n")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages, path.resolve())
    python = folder / "quick/bin/python"
    where = run(python, "-c", "import langslice; print(langslice.__file__)", cwd=folder).stdout.strip()
    if not Path(where).is_relative_to(packages):
        raise SystemExit(f"the wheel was not used: {where}")
    said = run(python, "-m", "langslice", "--version", cwd=folder).stdout.strip()
    run(python, "-m", "langslice", "slice", "mini", "-l", "ko", "--coverage", "0.9", "-o", "ko", cwd=folder)
    print(f"{said}: sliced mini, {sum(f.stat().st_size for f in (folder / 'ko').iterdir()) / 1e6:.1f} MB")


def try_extra(wheel: Path, base: Path, extra: Extra, folder: Path) -> None:
    """Run an extra's command without it, which is to say what to install, and with it."""
    own = folder / extra.name
    shutil.copytree(base, own / "env", symlinks=True, copy_function=os.link)
    for code in ("ko", "en"):
        (own / f"{code}.txt").write_text("\n".join(heldout_text(code)[:30]) + "\n", encoding="utf-8")
    python = own / "env/bin/python"
    (own / "prepare.py").write_text(extra.prepare, encoding="utf-8")
    before = set(run(python, "-m", "pip", "freeze").stdout.split("\n"))
    command = (python, "-m", "langslice", *extra.command.split())
    without = run(*command, cwd=own, lenient=True) if extra.without else None
    start = time.perf_counter()
    run(python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[{extra.name}]")
    new = set(run(python, "-m", "pip", "freeze").stdout.split("\n")) - before
    run(python, "prepare.py", cwd=own)
    done = run(*command, cwd=own, lenient=True)
    said = " ".join((done.stdout + done.stderr).split())
    if done.returncode != extra.code or extra.said not in said:
        raise SystemExit(
            f"{extra.name}: exit {done.returncode}, expected {extra.code} and {extra.said!r}\n{said[-3000:]}"
        )
    if without is not None and extra.without in said:
        raise SystemExit(f"{extra.name}: with it, {extra.without!r} was said\n{said[-2000:]}")
    if without is not None and extra.without not in " ".join((without.stdout + without.stderr).split()):
        raise SystemExit(f"{extra.name}: without it, {extra.without!r} was not said\n{without.stderr[-2000:]}")
    names_ = ", ".join(sorted(each for each in new if "==" in each))
    print(
        f"{extra.name}: {time.perf_counter() - start:.0f} s; new: {names_ or 'nothing'}; `langslice {extra.command}`",
        flush=True,
    )
    shutil.rmtree(own)


def main(words: list[str]) -> int:
    """See the head of this file."""
    job, *rest = words
    files = [Path(word) for word in rest if Path(word).suffix in UNWANTED]
    if job == "check":
        return check(files)
    with TemporaryDirectory(dir=os.environ.get("LANGSLICE_TRY_IN")) as place:
        folder = Path(place)
        if job == "quick":
            quick(files[0], folder)
        elif job == "try":
            for path in files:
                try_alone(path, folder)
        else:
            wanted = [word for word in rest if word in {each.name for each in EXTRAS}]
            python = environment(folder / "base")
            run(python, "-m", "pip", "install", "--quiet", files[0].resolve())
            for extra in EXTRAS:
                if not wanted or extra.name in wanted:
                    try_extra(files[0], folder / "base", extra, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
