"""Find what a user's corpus arguments mean: files, folders, globs, hub datasets. Reads no text."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langslice.errors import CorpusError

FORMATS = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
KNOWN = ".txt, .jsonl, .ndjson, .parquet, each also with .gz or .zst"

HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(:(?P<config>[\w.+-]+))?(@(?P<split>[\w.+-]+))?")


@dataclass(frozen=True)
class CorpusFile:
    """A local file of text.

    format       "txt" | "jsonl" | "parquet"
    compression  "" | "gz" | "zst"
    """

    path: Path
    format: str
    compression: str


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub: owner/name, its configuration or None, and the split."""

    name: str
    config: str | None
    split: str


def find_corpora(corpora: Sequence[str]) -> tuple[list[CorpusFile | HubDataset], list[Path]]:
    """Resolve corpus arguments, in order; a local path that exists wins over a glob and a hub id.

    Returns  what to read, and the files of folders and globs that are left out because their type is unknown
    Raises   CorpusError for an argument that names nothing, or nothing that can be read
    """
    found: list[CorpusFile | HubDataset] = []
    left_out: list[Path] = []
    for corpus in corpora:
        sources, others = _find(corpus)
        found += sources
        left_out += others
    if not found:
        raise CorpusError("no corpus was given", "name a file, a folder, a glob or a hub dataset id")
    return found, left_out


def _find(corpus: str) -> tuple[Sequence[CorpusFile | HubDataset], list[Path]]:
    path = Path(corpus).expanduser()
    if path.is_dir():
        candidates = sorted(p for p in path.rglob("*") if p.is_file() and not _is_hidden(p.relative_to(path)))
        return _known(candidates, f"{corpus}: the folder")
    if path.exists():
        file = _as_file(path)
        if file is None:
            raise CorpusError(f"{corpus}: unknown file type {path.suffix!r}; known are {KNOWN}", "rename or convert it")
        return [file], []
    if glob.has_magic(corpus):
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True))  # noqa: PTH207 - takes absolute patterns
        return _known([p for p in matches if p.is_file()], f"{corpus}: the pattern")
    match = HUB_ID.fullmatch(corpus)
    if match and not corpus.startswith((".", "~")) and _as_file(Path(match["name"])) is None:
        return [HubDataset(match["name"], match["config"], match["split"] or "train")], []
    raise CorpusError(
        f"{corpus}: no such file or folder", "a dataset of the hub is written owner/name, owner/name:config@split"
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _known(candidates: list[Path], what: str) -> tuple[list[CorpusFile], list[Path]]:
    files = [(path, _as_file(path)) for path in candidates]
    known = [file for _, file in files if file is not None]
    left_out = [path for path, file in files if file is None]
    if not known:
        names = ", ".join(path.name for path in left_out[:5]) or "nothing"
        raise CorpusError(f"{what} holds no file of a known type ({KNOWN}); found {names}")
    return known, left_out


def _as_file(path: Path) -> CorpusFile | None:
    name = path.name.lower()
    compression = ""
    for suffix, kind in COMPRESSIONS.items():
        if name.endswith(suffix):
            name, compression = name[: -len(suffix)], kind
    kind_of_text = FORMATS.get(Path(name).suffix)
    return CorpusFile(path, kind_of_text, compression) if kind_of_text else None
