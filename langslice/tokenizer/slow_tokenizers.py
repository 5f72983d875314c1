"""Vocabulary files without a tokenizer.json: opened by the classes of transformers, which know how each numbers its tokens.

Code from the folder is never run. What a class found in the files or supplied itself is said in the settings: a slice has a
tokenizer.json, from which the same class takes less than from the source's own files. Control symbols of a SentencePiece model,
for one, are special for the class that read the model, and plain added tokens for the class that reads the tokenizer.json.
`save_pretrained` writes them into tokenizer_config.json for the same reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import OPEN_AN_ISSUE, TokenizerError
from langslice.tokenizer.document import Document, parse_document
from langslice.tokenizer.settings import CONFIG_FILE, NAMED_TOKENS, SPECIAL_FILE
from langslice.tokenizer.slow_files import TEKKEN_FILE, vocabulary_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_EXTRA, _EXTRA_BEFORE_5 = "extra_special_tokens", "additional_special_tokens"
# Ending of a vocabulary file -> extra of langslice, and the modules that it brings.
_NEEDS = {
    ".model": ("sentencepiece", ("sentencepiece", "google.protobuf")),
    ".spm": ("sentencepiece", ("sentencepiece", "google.protobuf")),
    ".tiktoken": ("tiktoken", ("tiktoken",)),
}


@dataclass(frozen=True)
class Opened:
    """What a class of transformers made of vocabulary files: its tokenizer.json, the settings, and the tokenizer itself."""

    document: Document
    settings: Mapping[str, Mapping[str, Any]]
    backend: Tokenizer


def open_by_class(folder: Path, settings: Mapping[str, Mapping[str, Any]], model_type: str | None) -> Opened:
    """Open the vocabulary files of a folder.

    model_type  of config.json; needed only where the folder has none
    Raises      TokenizerError where transformers cannot open them, or only with code from the folder
    """
    from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer

    files = vocabulary_files(folder)
    options: dict[str, Any] = {}
    # A tokenizer alone is of a kind that transformers has no name for.
    if model_type in CONFIG_MAPPING and not (folder / "config.json").is_file():
        options["config"] = AutoConfig.for_model(model_type)
    if TEKKEN_FILE in files:
        _require_tekken(folder)
        options["mistral_format"] = (
            False  # the class of mistral-common has no form that can be written as tokenizer.json
        )
    try:
        opened = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # the classes raise anything from ImportError to RuntimeError
        raise _refusal(folder, files, settings, error) from error
    backend = getattr(opened, "backend_tokenizer", None)
    if backend is None:
        raise TokenizerError(
            f"{folder}: {type(opened).__name__} has no fast form, and its files are not understood: {', '.join(files)}",
            hint=OPEN_AN_ISSUE,
        )
    document = parse_document(backend.to_str().encode(), f"{folder} (opened as {type(opened).__name__})")
    return Opened(document, _with_class_settings(settings, opened), backend)


def _require_tekken(folder: Path) -> None:
    """Refuse a tekken.json where transformers is too early to convert one."""
    if find_spec("transformers.integrations.mistral") is None:
        import transformers

        raise TokenizerError(
            f"{folder}: transformers {transformers.__version__} cannot convert {TEKKEN_FILE}",
            hint='pip install "transformers>=5.23"',
        )


def _refusal(
    folder: Path, files: list[str], settings: Mapping[str, Mapping[str, Any]], error: Exception
) -> TokenizerError:
    """Why the files could not be opened, and what would help."""
    import transformers

    own = settings.get(CONFIG_FILE, {}).get("auto_map")
    if own is not None and (not isinstance(own, Mapping) or "AutoTokenizer" in own):
        return TokenizerError(
            f"{folder}: its tokenizer is a class of its own (auto_map in {CONFIG_FILE}), which would have to be run to read "
            f"{', '.join(files)}; langslice runs no code that comes with a model",
            hint="put a tokenizer.json that encodes alike into the folder: langslice reads that",
        )
    needed = {extra: modules for name in files for end, (extra, modules) in _NEEDS.items() if name.endswith(end)}
    missing = [extra for extra, modules in needed.items() if not all(map(_is_installed, modules))]
    hint = "save it as tokenizer.json with a version of transformers that opens it (`save_pretrained`), then slice that"
    if missing:
        hint = f'pip install "langslice[{",".join(missing)}]"'
    reason = " ".join(str(error).split())
    return TokenizerError(
        f"{folder}: transformers {transformers.__version__} cannot open {', '.join(files)}: {reason}", hint=hint
    )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def _with_class_settings(settings: Mapping[str, Mapping[str, Any]], opened: Any) -> dict[str, Mapping[str, Any]]:
    """The settings, with the special tokens that only the opened tokenizer knows.

    opened   an object of a tokenizer class of transformers
    Returns  the settings themselves where they say everything
    """
    config = dict(settings.get(CONFIG_FILE, {}))
    said = {**settings.get(SPECIAL_FILE, {}), **config}
    for name in NAMED_TOKENS:
        token = getattr(opened, name, None)
        if token is not None and said.get(name) is None and str(token) != _default(type(opened), name):
            config[name] = str(token)
    extra = _extra_tokens(opened)
    # A list under the newer name is read from version 5 on only; the older name is read by all.
    key = _EXTRA if isinstance(said.get(_EXTRA), list) else _EXTRA_BEFORE_5
    before = said.get(key) or []
    listed = {str(entry["content"]) if isinstance(entry, dict) else str(entry) for entry in before}
    missing = [token for token in extra if token not in listed]
    if missing:
        config[key] = [*before, *missing]
    return {**settings, CONFIG_FILE: config} if config != settings.get(CONFIG_FILE, {}) else dict(settings)


def _extra_tokens(opened: Any) -> list[str]:
    """The special tokens that have no name of their own."""
    extra = getattr(opened, _EXTRA, None)
    return [
        str(token) for token in (extra if isinstance(extra, list) else getattr(opened, _EXTRA_BEFORE_5, None) or [])
    ]


def _default(owner: type, name: str) -> str | None:
    """The token that a class takes where nothing names another; None where it takes none."""
    parameter = inspect.signature(owner).parameters.get(name)
    default = None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default
    return None if default is None else str(default)
