"""langslice-mini: the small trained model that ships with the package, and text that it never saw.

The model answers where random weights cannot: whether a language kept its quality, whether a head mattered. It was
trained by training/ in the repository; model/README.md is its card. The text in heldout/ is parallel (line i says the
same in every language), was written for this project, and is free of conditions.

This module only finds files. Loading the model is left to transformers, or to langslice itself.
"""

from __future__ import annotations

from pathlib import Path

from langslice.errors import CorpusError

__all__ = ["heldout_languages", "heldout_text", "mini_model_path"]
_FOLDER = Path(__file__).parent


def mini_model_path() -> Path:
    """Return the folder of the model: config.json, model.safetensors (float16), tokenizer.json, README.md."""
    return _FOLDER / "model"


def heldout_languages() -> tuple[str, ...]:
    """Return the codes of the languages that the model knows and that have held-out text, in alphabetical order."""
    return tuple(sorted(file.stem for file in (_FOLDER / "heldout").glob("*.txt")))


def heldout_text(language: str) -> list[str]:
    """Return the held-out lines of one language; line i is parallel in all of them.

    language    a code of heldout_languages(), such as `sw`
    Raises      CorpusError for any other code
    """
    if language not in heldout_languages():
        raise CorpusError(
            f"no held-out text in `{language}`: expected one of {', '.join(heldout_languages())}",
            hint="pass text of your own for other languages",
        )
    return (_FOLDER / "heldout" / f"{language}.txt").read_text(encoding="utf-8").splitlines()
