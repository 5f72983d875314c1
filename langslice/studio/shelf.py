"""The models that the pages offer: those that the studio was started with, by name; a request never says a path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langslice.errors import CheckpointError
from langslice.mini import mini_model_path

MINI = "mini"
_HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_MODEL_FILES = ("config.json", "modules.json", "tokenizer.json")


@dataclass(frozen=True)
class Offer:
    """A model that can be picked.

    name    on the pages
    source  as the library is told: a folder, an id of the hub, or `mini`
    folder  None for a model of the hub
    """

    name: str
    source: str
    folder: Path | None

    def state(self) -> str:
        """Digest of names, sizes and times of its files, by which a changed model is told; "" for one of the hub."""
        if self.folder is None:
            return ""
        found = hashlib.sha256()
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            stat = file.stat()
            found.update(f"{file.relative_to(self.folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return found.hexdigest()


class Shelf:
    """What is offered: each given model, and the models that lie directly in a given folder."""

    def __init__(self, given: Sequence[str]) -> None:
        self._given = tuple(given) or (MINI,)
        for name in self._given:
            path = Path(name).expanduser()
            if path.is_dir() and not _is_model(path) and not list(_inside(path)):
                raise CheckpointError(f"{name} is no model, and holds none", "name the folder that config.json is in")
            if not path.is_dir() and not _HUB.fullmatch(name):
                raise CheckpointError(f"{name}: no such folder", "name a folder, an id of the hub, or mini")

    def offers(self) -> dict[str, Offer]:
        """Name -> model, as the folders are now; of two of one name the first."""
        found: dict[str, Offer] = {}
        for name in self._given:
            path = Path(name).expanduser()
            if name == MINI and not path.exists():
                found.setdefault(MINI, Offer(MINI, MINI, mini_model_path()))
            elif not path.is_dir():
                found.setdefault(name, Offer(name, name, None))
            else:
                for folder in [path] if _is_model(path) else _inside(path):
                    found.setdefault(folder.resolve().name, Offer(folder.resolve().name, str(folder.resolve()), folder))
        return found

    def find(self, name: str) -> Offer:
        """The model of a name. Raises CheckpointError for any that is not offered."""
        offers = self.offers()
        if name not in offers:
            raise CheckpointError(f"no model is called {name[:80]!r} here", f"here are {', '.join(offers)}")
        return offers[name]


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MODEL_FILES)


def _inside(root: Path) -> list[Path]:
    """Models in a folder; not those that a link leads to outside of it."""
    found = [path for path in sorted(root.iterdir()) if path.is_dir() and _is_model(path)]
    return [path for path in found if path.resolve().is_relative_to(root.resolve())]
