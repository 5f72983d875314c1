"""Demonstrations as token ids of one model.

A decoder reads the whole demonstration. An encoder-decoder reads everything before the answer with its encoder, and the
answer with its decoder; where a demonstration has no answer (text in one language, code), both read the text. Tokens that
name languages (NLLB, M2M100, mBART) are put in front where the tokenizer has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.demonstrations.demonstration import EOS, Demonstration, read_demonstrations
from langslice.errors import CorpusError, TokenizerError
from langslice.model.checkpoint import read_json_object
from langslice.model.positions import longest_text
from langslice.model.transformers_classes import quiet_transformers


@dataclass(frozen=True)
class Prompt:
    """One demonstration in tokens.

    condition    "keep" or "avoid" when pruning; the name of a set when looking at features
    number       place among the demonstrations of its condition
    ids          what the model, or its encoder, reads
    decoder_ids  what the decoder reads, None without one
    padding      how many of the last `ids` are padding that the user wants counted
    languages    BCP 47 codes that the demonstration names
    """

    condition: str
    number: int
    ids: tuple[int, ...]
    decoder_ids: tuple[int, ...] | None = None
    padding: int = 0
    languages: tuple[str, ...] = ()

    def all_tokens(self) -> Iterator[int]:
        """Every token that is looked up."""
        yield from self.ids
        yield from self.decoder_ids or ()

    def inputs(self) -> dict[str, Any]:
        """Arguments of the unmodified forward, as a batch of one."""
        import torch

        given: dict[str, Any] = {"input_ids": torch.tensor([self.ids])}
        if self.padding:
            mask = torch.ones_like(given["input_ids"])
            mask[0, -self.padding :] = 0
            given["attention_mask"] = mask
        if self.decoder_ids is not None:
            given["decoder_input_ids"] = torch.tensor([self.decoder_ids])
        return given


def load_prompts(
    folder: Path,
    conditions: Mapping[str, Sequence[str | Path | Demonstration]],
    *,
    max_tokens: int,
    count_padding: bool = False,
) -> tuple[Prompt, ...]:
    """Read demonstrations and turn them into a model's tokens.

    folder         with config.json and the tokenizer
    conditions     name -> jsonl files, or demonstrations
    max_tokens     longest; less where the model has fewer positions
    count_padding  pad each to `max_tokens`
    Raises         CorpusError, TokenizerError
    """
    config = read_json_object(folder / "config.json", "a model folder needs one")
    limit = min(max_tokens, longest_text(config) or max_tokens)
    maker = _Maker(_tokenizer(folder), _decoder_start(folder, config), limit, count_padding)
    prompts: list[Prompt] = []
    for condition, given in conditions.items():
        demonstrations: list[Demonstration] = []
        for item in given:
            demonstrations += [item] if isinstance(item, Demonstration) else read_demonstrations(item)
        prompts += [maker.prompt(condition, number, one) for number, one in enumerate(demonstrations)]
    return tuple(prompts)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise TokenizerError(
                f"transformers cannot load the tokenizer\n  {folder}\n  {type(error).__name__}: {first}",
                "demonstrations are text, and need the tokenizer's files other than the weights",
            ) from None


def _decoder_start(folder: Path, config: Mapping[str, Any]) -> int | None:
    """Token that a decoder starts from; None for a model without an encoder.

    Raises  CorpusError for an encoder-decoder that names none
    """
    if not config.get("is_encoder_decoder"):
        return None
    documents: list[Mapping[str, Any]] = [config]
    if (folder / "generation_config.json").exists():
        documents.append(read_json_object(folder / "generation_config.json", ""))
    for name in ("decoder_start_token_id", "bos_token_id"):
        for document in documents:
            if isinstance(document.get(name), int):
                return int(document[name])
    raise CorpusError(
        f"config.json names no token for a decoder to start from\n  {folder}", "set decoder_start_token_id in it"
    )


@dataclass(frozen=True)
class _Maker:
    """Turns demonstrations into prompts of one model."""

    tokenizer: Any
    decoder_start: int | None
    max_tokens: int
    count_padding: bool

    def prompt(self, condition: str, number: int, demonstration: Demonstration) -> Prompt:
        if self.decoder_start is None:
            ids = self._read(demonstration)
            decoder_ids = None
        else:
            ids, decoder_ids = self._read_both(demonstration, self.decoder_start)
        if not ids:
            raise CorpusError(f"demonstration {number} ({condition}) has no tokens", "remove it, or check its text")
        padding = self.max_tokens - len(ids) if self.count_padding else 0
        if padding:
            ids += (self._pad(),) * padding
        return Prompt(condition, number, ids, decoder_ids, padding, demonstration.languages)

    def _read(self, demonstration: Demonstration) -> tuple[int, ...]:
        if demonstration.messages:
            messages = [{"role": role, "content": content} for role, content in demonstration.messages]
            return self._encode(self._chat(messages), special=False)
        return self._encode(self._joined(demonstration, demonstration.parts))

    def _read_both(self, demonstration: Demonstration, start: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        texts = [content for _, content in demonstration.messages] or list(demonstration.parts)
        asked, answer = (texts[:-1], texts[-1]) if demonstration.answer and len(texts) > 1 else (texts, None)
        question = self._joined(demonstration, asked)
        languages = demonstration.languages
        source = self._language(languages[0]) if languages else None
        if source is None:
            ids = self._encode(question)
        else:
            end = () if self.tokenizer.eos_token_id is None else (self.tokenizer.eos_token_id,)
            ids = (source, *self._encode(question, special=False)[: self.max_tokens - 2], *end)
        target = self._language(languages[-1]) if languages else None
        written = self._encode(question if answer is None else answer, special=False)
        before = (start,) if target is None else (start, target)
        return ids, (*before, *written)[: self.max_tokens]

    def _joined(self, demonstration: Demonstration, parts: Sequence[str]) -> str:
        separator = demonstration.separator
        if EOS in separator:
            if self.tokenizer.eos_token is None:
                raise TokenizerError(
                    "the demonstrations end their parts with {eos}, and this tokenizer has no end-of-sequence token",
                    "make them with another --separator",
                )
            separator = separator.replace(EOS, self.tokenizer.eos_token)
        return "".join(part + separator for part in parts)

    def _chat(self, messages: list[dict[str, str]]) -> str:
        if not self.tokenizer.chat_template:
            raise TokenizerError(
                "the demonstrations are conversations, and this tokenizer has no chat template",
                "make them without --chat, or choose the instruction-tuned model",
            )
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False)
        return text

    def _encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        encoded = self.tokenizer(text, add_special_tokens=special, truncation=True, max_length=self.max_tokens)
        return tuple(int(token) for token in encoded["input_ids"])

    def _pad(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise TokenizerError("this tokenizer has no padding token to count", "leave --count-padding out")

    def _language(self, code: str) -> int | None:
        """Token that names a language: fra_Latn (NLLB), __fr__ (M2M100), fr_XX (mBART); None where there is none."""
        from langcodes import Language

        language = Language.get(code)
        try:
            three = language.to_alpha3()
        except LookupError:
            three = code
        script = language.maximize().script or ""
        known = self.tokenizer.get_added_vocab()
        for name in (f"{three}_{script}", f"__{language.language}__"):
            if name in known:
                return int(known[name])
        pattern = re.compile(rf"{re.escape(str(language.language))}_[A-Z]{{2}}")
        found = [token for name, token in known.items() if pattern.fullmatch(name)]
        return int(found[0]) if found else None
