"""Texts that a model is always called with: prompts, prefixes, chats. A slice keeps all their tokens; verification encodes them.

They come from the configuration (sentence-transformers' `prompts`, T5's task prefixes), from the catalogue of known models, from
the chat templates, and from the user (`--keep-text`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from langslice.errors import CheckpointError, PlanError
from langslice.model.checkpoint import Checkpoint
from langslice.tokenizer.settings import CONFIG_FILE, declared_named, read_settings
from langslice.vocabulary.always_kept import template_pieces
from langslice.vocabulary.chats import rendered_chats
from langslice.vocabulary.prompt_catalogue import known_prefixes

FixedTexts = dict[str, tuple[str, ...]]
"""Reason -> texts."""

KEPT_TEXT: Final = "kept text"
PROMPT: Final = "prompt"
CHAT: Final = "chat template"
_FILES: Final = (
    "config.json", "config_sentence_transformers.json", "sentence_bert_config.json", CONFIG_FILE, "generation_config.json",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
_SHOWN: Final = 6
_PROMPT_KEY: Final = re.compile(r"(?:\w+_)?(?:prefix|prefixes|prompts?|instructions?)")
_BASE_MODEL: Final = re.compile(r"^(?:base_model:|-|#)\s+(\S+)\s*$", re.MULTILINE)


def combined(keep_text: Sequence[str], prompts: tuple[str, ...], chats: tuple[str, ...]) -> FixedTexts:
    """Reason -> texts that a model is always called with, each once: KEPT_TEXT, PROMPT and CHAT, those that there are.

    keep_text  what the user adds to the prompts of the configuration and the chats of the templates
    Raises     PlanError for an empty text
    """
    if not all(text.strip() for text in keep_text):
        raise PlanError("--keep-text is empty", hint='write the text as it is in front: --keep-text "query: "')
    found = {KEPT_TEXT: tuple(dict.fromkeys(keep_text)), PROMPT: prompts, CHAT: chats}
    return {reason: texts for reason, texts in found.items() if texts}


def with_template_pieces(texts: FixedTexts, templates: Mapping[str, str]) -> FixedTexts:
    """The texts, and with the chats every literal text of the templates: what no chat tried here brings out.

    templates  Jinja sources by name
    """
    pieces = [piece for source in templates.values() for piece in template_pieces(source)]
    return {**texts, CHAT: (*texts.get(CHAT, ()), *filter(None, dict.fromkeys(pieces)))} if pieces else dict(texts)


def fixed_note(texts: Mapping[str, Sequence[str]]) -> str:
    """Which texts a user should know to be kept whole; "" for none."""
    named = [repr(text) for reason in (KEPT_TEXT, PROMPT) for text in texts.get(reason, ())]
    more = [f"{len(named) - _SHOWN + 1} others"] if len(named) > _SHOWN else []
    shown = [*(named[: _SHOWN - 1] if more else named), *more]
    shown += [f"{len(texts[CHAT])} chats of the chat template"] if CHAT in texts else []
    return f"always read, so kept whole: {', '.join(shown)}" if shown else ""


def prompts(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Prompts of the configuration files, and prefixes of the models that the checkpoint is or comes from."""
    found: dict[str, None] = {}
    for folder in dict.fromkeys((checkpoint.folder, checkpoint.model_folder)):
        for name in _FILES:
            if (folder / name).is_file():
                found |= dict.fromkeys(_prompts_in(_document(folder / name)))
    card = checkpoint.folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    named = [checkpoint.model_id, str(checkpoint.config.get("_name_or_path", "")), *_BASE_MODEL.findall(text)]
    found |= dict.fromkeys(known_prefixes(tuple(named), text))
    return tuple(text for text in found if text.strip())


def chats(checkpoint: Checkpoint, templates: Mapping[str, str]) -> tuple[str, ...]:
    """What the chat templates make of chats whose contents are one digit: all roles, tools and flags.

    templates  Jinja sources by name
    Raises     TokenizerError for one that is no Jinja
    """
    named = declared_named(read_settings(checkpoint.model_folder)) if templates else {}
    found: dict[str, None] = {}
    for source in templates.values():
        found |= dict.fromkeys(rendered_chats(source, named))
    return tuple(found)


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error


def _prompts_in(document: Any) -> Iterator[str]:
    """Texts below every key that is named as a prompt, a prefix or an instruction."""
    if isinstance(document, list):
        for item in document:
            yield from _prompts_in(item)
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _texts_in(value) if _PROMPT_KEY.fullmatch(str(key)) else _prompts_in(value)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(item)
