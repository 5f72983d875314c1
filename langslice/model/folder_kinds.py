"""What a model folder is where config.json does not say it: a table of embeddings, a wrapper's encoder, a tokenizer alone.

Its `model_type` is then one of these, which the table of families knows: static_embedding and model2vec (one row per token,
under the names that these libraries write), model2vec_mapped (after quantisation of its vocabulary: tokens point to shared
rows), embedding_matrix (one matrix under any name), tokenizer (no tensors: rows are tokens). A wrapper is described by the
configuration of a known model type inside its own. A draft model (draft_head.py), whose config.json names the type of its layers,
is eagle3 where its head has a numbering of its own, eagle3_whole where that is the target's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import parse_strict_json
from langslice.model.families import TOKENIZER_ALONE, is_known_type
from langslice.model.modules import TABLES

CONFIG = "config.json"
TOKENIZER, MATRIX, STATIC, MODEL2VEC = "tokenizer", "embedding_matrix", "static_embedding", "model2vec"
DRAFT, DRAFT_WHOLE, DRAFT_SIZE = "eagle3", "eagle3_whole", "draft_vocab_size"
# Where speculators keeps what others have at the top of config.json.
_LAYERS = "transformer_layer_config"
# Kinds whose slice comes with kept_ids.npy, so that anyone can gather rows.
BARE = (TOKENIZER, MATRIX)
LAYERLESS = {
    TOKENIZER: "a tokenizer alone", MATRIX: "an embedding matrix", STATIC: "a table of static embeddings",
    MODEL2VEC: "a table of static embeddings", f"{MODEL2VEC}_mapped": "a table of static embeddings",
}  # fmt: skip
_NOT_OF_A_MODEL = (
    "tokenizer_config.json",
    "generation_config.json",
    "adapter_config.json",
    "sentence_bert_config.json",
)


@dataclass(frozen=True)
class FolderKind:
    """How a folder's model is described.

    config   what describes it, with the `model_type` by which the table of families knows it
    file     file of the folder that holds it, "" where none does
    section  where in that file
    rows     rows of the vocabulary where no tensor says it
    """

    config: dict[str, Any]
    file: str = CONFIG
    section: tuple[str, ...] = ()
    rows: int | None = None


def plain_kind(folder: Path, kind: str, config: Mapping[str, Any] | None) -> FolderKind | None:
    """The description of a folder whose config.json is a model's, or whose module says enough; None for others.

    kind    class of its module, see modules.py
    config  content of config.json, None where there is none
    """
    file = CONFIG if config is not None else ""
    given = dict(config or {})
    if given.get("model_type") == MODEL2VEC:
        return FolderKind(given, file)
    if kind in TABLES:
        return FolderKind({**given, "model_type": STATIC}, file)
    return FolderKind(given) if config is not None and is_known_type(given.get("model_type")) else None


def with_tensors(kind: FolderKind, shapes: Mapping[str, tuple[int, ...]]) -> FolderKind:
    """The same, for model2vec by what its tensors are."""
    if kind.config.get("model_type") in (MODEL2VEC, STATIC) and "mapping" in shapes:
        return FolderKind({**kind.config, "model_type": f"{MODEL2VEC}_mapped"}, kind.file)
    return kind


def draft_kind(config: Mapping[str, Any] | None, shapes: Mapping[str, tuple[int, ...]]) -> FolderKind | None:
    """The description of a draft model; None for what is none.

    config  content of config.json, None where there is none
    """
    given = dict(config or {})
    inner = given.get(_LAYERS)
    given = {**given, **inner} if isinstance(inner, dict) else given
    mapped = "d2t" in shapes or "t2d" in shapes
    if not mapped and given.get(DRAFT_SIZE) is None:
        return None
    size = given.get("vocab_size")
    return FolderKind(
        {**given, "model_type": DRAFT if mapped else DRAFT_WHOLE},
        CONFIG if config is not None else "",
        rows=size if isinstance(size, int) and not _says_rows(shapes) else None,
    )


def _says_rows(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a tensor of a draft is as long as its target's vocabulary."""
    return "t2d" in shapes or any("embed_tokens" in name for name in shapes)


def foreign_kind(
    folder: Path, config: Mapping[str, Any] | None, shapes: Mapping[str, tuple[int, ...]] | None
) -> FolderKind | None:
    """What a folder is whose config.json is missing, or of no known model; None where nothing is recognised.

    shapes   of its tensors, None without weights
    """
    file = CONFIG if config is not None else ""
    given = dict(config or {})
    if shapes is None:
        return _tokenizer_alone(folder, given, file)
    if "model_type" not in given:
        inner = list(_inner_configs(folder))
        if len(inner) == 1:
            name, section, described = inner[0]
            return FolderKind(dict(described), name, section)
    if len(shapes) == 1 and len(next(iter(shapes.values()))) == 2 and _has_tokenizer(folder):
        return FolderKind({**given, "model_type": MATRIX}, file)
    return None


def not_recognised(folder: Path) -> CheckpointError:
    """What is said of a folder with weights and without anything that describes them."""
    return CheckpointError(
        f"{CONFIG} is missing\n  in {folder}\n  a model folder needs one, and no other file of it names a known model type "
        "inside",
        f"name the folder that holds it; {TOKENIZER_ALONE}",
    )


def _tokenizer_alone(folder: Path, given: dict[str, Any], file: str) -> FolderKind | None:
    if not _has_tokenizer(folder):
        return None
    from langslice.tokenizer import open_tokenizer

    rows = len(open_tokenizer(folder).tokens)
    return FolderKind({**given, "model_type": TOKENIZER}, file, rows=rows)


def _has_tokenizer(folder: Path) -> bool:
    from langslice.tokenizer.slow_files import vocabulary_files

    return (folder / "tokenizer.json").is_file() or bool(vocabulary_files(folder))


def _inner_configs(folder: Path) -> Iterator[tuple[str, tuple[str, ...], Mapping[str, Any]]]:
    """Configurations of known model types inside the JSON files of a folder: file, section, content."""
    for path in sorted(folder.glob("*config*.json")):
        if path.name in _NOT_OF_A_MODEL:
            continue
        try:
            document = parse_strict_json(path.read_bytes())
        except (ValueError, RecursionError, OSError):
            continue  # side_files.py reports it
        for key, value in document.items() if isinstance(document, dict) else ():
            if isinstance(value, dict) and is_known_type(value.get("model_type")):
                yield path.name, (key,), value


__all__ = [
    "BARE",
    "CONFIG",
    "DRAFT",
    "DRAFT_SIZE",
    "DRAFT_WHOLE",
    "FolderKind",
    "draft_kind",
    "foreign_kind",
    "not_recognised",
    "plain_kind",
    "with_tensors",
]
