"""One data folder out of several: links to each data set under the name that its layout is looked for by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from langslice.errors import TaskError
from langslice.mini import heldout_languages, heldout_text


def gather_data(folder: Path, sets: Mapping[str, Path | None], common: Path | None, *, packaged: bool) -> Path:
    """Make a folder of links.

    folder    to make; links that an earlier call made are replaced
    sets      name of a layout's folder -> where the data set lies, or None
    common    a folder of data sets, each of whose entries is linked too
    packaged  add the sentences that come with the package, where there is no other parallel text
    Raises    TaskError for a folder that does not exist
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_symlink():
            old.unlink()
    for name, place in sets.items():
        if place is not None:
            _link(folder / name, place)
    if common is not None:
        if not common.is_dir():
            raise TaskError(f"--data {common} is not a folder", "name the folder that holds the data sets")
        for child in sorted(common.iterdir()):
            if not (folder / child.name).exists():
                _link(folder / child.name, child)
    if packaged and not (folder / "parallel").is_symlink():  # through a link one would write into somebody's data
        write_lines(folder / "parallel", {language: heldout_text(language) for language in heldout_languages()})
    return folder


def write_lines(folder: Path, lines: Mapping[str, Sequence[str]]) -> None:
    """Write parallel text in the layout of plain files: language -> lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for language, found in lines.items():
        (folder / f"{language}.txt").write_text("\n".join(found) + "\n", encoding="utf-8")


def _link(path: Path, target: Path) -> None:
    if not target.exists():
        raise TaskError(f"no data at {target}", "check the path")
    path.symlink_to(target.resolve())
