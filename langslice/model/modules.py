"""The modules of a sentence-transformers folder, and which of them holds the vocabulary that is sliced.

Source of the layout: modules.json lists modules by class and folder; a Router keeps its own in router_config.json (an Asym,
as it was called, in config.json), each in a folder below its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import parse_strict_json

TRANSFORMERS = ("Transformer", "MLMTransformer")
# One row a token, and a tokenizer of their own.
TABLES = ("StaticEmbedding", "SparseStaticEmbedding")
ROUTERS = ("Router", "Asym")
# What follows them: nothing but a length may depend on the vocabulary.
FOLLOWING = (
    "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout", "WeightedLayerPooling", "SpladePooling", "SparseAutoEncoder",
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One module.

    kind  name of its class
    path  its folder below the root, "" for the root itself
    """

    kind: str
    path: str


def read_modules(folder: Path) -> tuple[Module, ...]:
    """The modules of a folder, those inside routers in their place; none where it has no modules.json.

    Raises   CheckpointError where a list is damaged, or names a folder that is not inside the model
    """
    path = folder / "modules.json"
    if not path.exists():
        return ()
    listing = _read(path)
    if not isinstance(listing, list):
        raise CheckpointError(f"{path}: expected a list of modules, found {type(listing).__name__}")
    modules: list[Module] = []
    for entry in listing:
        entry = entry if isinstance(entry, dict) else {}
        module = _module(folder, path, entry.get("type", ""), entry.get("path"))
        modules += _routed(folder, module) if module.kind in ROUTERS else [module]
    return tuple(modules)


def main_module(folder: Path) -> Module:
    """The module whose vocabulary is sliced: the one transformer, or else the first table of rows; the root without modules.

    Raises   CheckpointError where there is none, or more than one transformer
    """
    path = folder / "modules.json"
    if not path.exists():
        return Module("Transformer", "")
    modules = read_modules(folder)
    found = [module for module in modules if module.kind in TRANSFORMERS]
    found = found or [module for module in modules if module.kind in TABLES][:1]
    if len(found) != 1:
        names = ", ".join(module.path or "the root" for module in found)
        raise CheckpointError(
            f"modules.json does not name one Transformer module\n  {path}\n  expected one, found {len(found)}"
            + (f": {names}" if names else ""),
            "only sentence-transformers models around one transformer, or one table of static embeddings, can be sliced",
        )
    return found[0]


@dataclass(frozen=True)
class ModuleFolders:
    """Folders of modules other than the one whose vocabulary is sliced, below the root.

    following  of those after the transformer
    tables     of those with a table and a tokenizer of their own
    """

    following: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


def module_folders(folder: Path, model_folder: Path) -> ModuleFolders:
    """The folders of the other modules.

    Raises   CheckpointError for a module that is not known
    """
    main = model_folder.relative_to(folder).as_posix()
    following: list[str] = []
    tables: list[str] = []
    for module in read_modules(folder):
        if module.kind not in (*FOLLOWING, *TRANSFORMERS, *TABLES):
            raise CheckpointError(
                f"{folder / 'modules.json'}: module `{module.kind or module.path}` is not known; it may hold a vocabulary "
                "of its own",
                hint=f"known modules: {', '.join((*TRANSFORMERS, *TABLES, *FOLLOWING, *ROUTERS))}",
            )
        if module.path and module.path != main:
            (tables if module.kind in TABLES else following).append(module.path)
    return ModuleFolders(tuple(following), tuple(tables))


def _module(folder: Path, listing: Path, kind: Any, place: Any) -> Module:
    kind = str(kind).rpartition(".")[2]
    if not isinstance(place, str):
        if kind in (*TRANSFORMERS, *TABLES, *ROUTERS):
            raise CheckpointError(
                f"modules.json does not name one Transformer module\n  {listing}\n  found a {kind} without a path",
                "only sentence-transformers models around one transformer can be sliced",
            )
        place = ""
    target = folder / place
    held = kind in (*TRANSFORMERS, *TABLES, *ROUTERS)
    if not target.resolve().is_relative_to(folder.resolve()) or (held and not target.is_dir()):
        raise CheckpointError(
            f"modules.json names a folder that is not inside the model\n  {listing}\n  found {place!r}",
            f"fix the {kind or 'Transformer'} module's path",
        )
    return Module(kind, place.strip("/"))


def _routed(folder: Path, router: Module) -> list[Module]:
    """The modules of a router, in folders below its own."""
    names = ("router_config.json", "config.json")
    path = next((folder / router.path / name for name in names if (folder / router.path / name).is_file()), None)
    document = {} if path is None else _read(path)
    types = document.get("types") if isinstance(document, dict) else None
    if path is None or not isinstance(types, dict):
        raise CheckpointError(
            f"the {router.kind} in {folder / router.path} has no usable {' or '.join(names)}",
            "save the model again with sentence-transformers",
        )
    return [_module(folder, path, kind, f"{router.path}/{name}".strip("/")) for name, kind in types.items()]


def _read(path: Path) -> Any:
    try:
        return parse_strict_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is not valid JSON\n  {path}\n  {error}", "download the file again"
        ) from None
