"""What `make site` does with docs/ beyond MkDocs: pages from elsewhere in the repository, and links that lead there.

docs/ is written to be read in the repository, where a link may lead to any file. In the site, a link to a page that is
taken along leads to that page, and a link to any other file leads to the repository on the web.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
# Taken along, under the path that they have in the repository.
ALONG = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/**/*.md", "benchmarks/**/*.svg", "notebooks/*.ipynb")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.M | re.S)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from elsewhere."""
    from mkdocs.structure.files import File

    for pattern in ALONG:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            if "benchmarks/work/" not in name:
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links out of docs/ into links within the site, or to the repository on the web."""
    place = in_repository(page.file.src_uri)
    parts = FENCE.split(markdown)
    for number in range(0, len(parts), 2):  # every second part is code
        parts[number] = LINK.sub(
            lambda found: found[1] + new_target(found[2], place, config.extra["social"][0]["link"], files) + found[3],
            parts[number],
        )
    return "".join(parts)


def in_repository(name: str) -> str:
    """Where a file of the site is in the repository."""
    return name if (ROOT / name).is_file() and not (ROOT / "docs" / name).is_file() else f"docs/{name}"


def new_target(target: str, place: str, web: str, files: Files) -> str:
    """What a link of the file `place` leads to in the site; one that leads nowhere stays, and stops the build."""
    if re.match(r"[a-z]+:|#", target):
        return target
    name, _, anchor = target.partition("#")
    there = posixpath.normpath(posixpath.join(posixpath.dirname(place), name))
    in_site = there.removeprefix("docs/")
    if (file := files.get_file_from_path(in_site)) and file.inclusion.is_included():
        here = place.removeprefix("docs/")
        return posixpath.relpath(in_site, posixpath.dirname(here) or ".") + (f"#{anchor}" if anchor else "")
    if in_site.startswith("../") or not (ROOT / there).exists():
        return target
    kind = "tree" if (ROOT / there).is_dir() else "blob"
    return f"{web}/{kind}/main/{there}" + (f"#{anchor}" if anchor else "")
