"""A slice in memory, as its user loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError


def load_objects(folder: Path, **options: Any) -> tuple[Any, Any]:
    """A model and its tokenizer, of the classes that the folder names.

    options  of the model's `from_pretrained`
    Raises   CheckpointError, TokenizerError
    """
    import transformers

    from langslice.evaluation.loaded_model import load_tokenizer
    from langslice.model.checkpoint import open_checkpoint
    from langslice.model.transformers_classes import model_class, quiet_transformers

    place = open_checkpoint(folder).model_folder
    stock = model_class(place)
    if stock is None:
        raise CheckpointError(
            f"{place}: transformers {transformers.__version__} has no class for it", "load it as its own page says"
        )
    with quiet_transformers():
        try:
            model = stock.from_pretrained(place, **options)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise CheckpointError(
                f"{place}: transformers cannot load it\n  {error}", "run `langslice verify`"
            ) from error
    return model.eval(), load_tokenizer(place)


def load_sentence_transformer(folder: Path, **options: Any) -> Any:
    """A folder of sentence-transformers as its class. Raises CheckpointError."""
    if not (folder / "modules.json").is_file():
        raise CheckpointError(f"{folder} is no folder of sentence-transformers: it has no modules.json", "use load()")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise CheckpointError(
            "this needs the package `sentence-transformers`", 'pip install "langslice[sentence-transformers]"'
        ) from error
    return SentenceTransformer(str(folder), **options)
