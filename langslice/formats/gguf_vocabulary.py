"""A tokenizer as a GGUF file holds it: pieces, types, scores or merges, and what surrounds a text.

Source of the layout: llama.cpp 0.5.0, src/llama-vocab.cpp, which names four kinds of tokenizers "gpt2", "llama", "t5" and "bert".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import ExportError
from langslice.tokenizer import SourceTokenizer

MODELS = {"byte-bpe": "gpt2", "spm-bpe": "llama", "unigram": "t5", "wordpiece": "bert"}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "▁"
_ROLES = ("bos", "eos", "unk", "sep", "pad", "mask")
# What llama.cpp does by itself for a Unigram tokenizer.
_UNIGRAM_STEPS = {"Precompiled", "Replace", "Strip", "Metaspace", "WhitespaceSplit"}


@dataclass(frozen=True)
class Around:
    """What a tokenizer puts around a text.

    ids     role -> id of the special token
    before  whether a text begins with BOS
    after   whether it ends with EOS
    """

    ids: Mapping[str, int]
    before: bool
    after: bool


@dataclass(frozen=True)
class GgufVocabulary:
    """Tokens as GGUF holds them.

    model     llama.cpp's kind of tokenizer
    pre       its name of the pre-tokenizer
    tokens    one per row of the embedding
    types     likewise
    scores    likewise; empty where merges say the order
    merges    "left right"; empty where scores say the order
    around    what surrounds a text
    settings  key of GGUF -> value, of this kind of tokenizer alone
    notes     what a user should know
    """

    model: str
    pre: str
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[str]
    around: Around
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def read_vocabulary(tokenizer: SourceTokenizer, auto: Any, config: Mapping[str, Any], pre: str) -> GgufVocabulary:
    """Lay a tokenizer out as GGUF.

    tokenizer  as its files describe it
    auto       as transformers loads it; says what surrounds a text
    pre        name of the pre-tokenizer, for a byte-level one
    Raises     ExportError for a tokenizer that llama.cpp has not
    """
    if tokenizer.kind not in MODELS or tokenizer.document is None:
        raise ExportError(f"llama.cpp has no tokenizer of the kind {tokenizer.kind}")
    rows = int(config["vocab_size"])
    types = [_type(tokenizer, token_id) for token_id in range(min(rows, len(tokenizer.tokens)))]
    types += [_UNUSED] * (rows - len(types))
    tokens = [_spelled(tokenizer, token_id, kind) for token_id, kind in enumerate(types)]
    around = read_around(auto, config)
    settings, notes = _settings(tokenizer, auto)
    if tokenizer.kind == "wordpiece" and not (around.before and "sep" in around.ids):
        raise ExportError(
            "a WordPiece tokenizer of llama.cpp puts [CLS] before a text and [SEP] behind it, this one does not"
        )
    return GgufVocabulary(
        MODELS[tokenizer.kind],
        pre,
        tokens,
        types,
        _scores(tokenizer, rows),
        _merges(tokenizer),
        around,
        settings,
        notes,
    )


def write_vocabulary(writer: Any, vocabulary: GgufVocabulary, template: str | None) -> None:
    """Hand a `gguf.GGUFWriter` the tokens, and the chat template where there is one."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for role, token_id in vocabulary.around.ids.items():
        getattr(writer, f"add_{role}_token_id")(token_id)
    writer.add_add_bos_token(vocabulary.around.before)
    writer.add_add_eos_token(vocabulary.around.after)
    for name, value in vocabulary.settings.items():
        if name == "precompiled_charsmap":
            writer.add_precompiled_charsmap(value)
        else:
            writer.add_bool(f"tokenizer.ggml.{name}", value)
    if template:
        writer.add_chat_template(template)


def read_around(auto: Any, config: Mapping[str, Any]) -> Around:
    """What transformers' tokenizer puts around a text, as GGUF can say it.

    Raises  ExportError where it is more than one token on each side
    """
    ids = {role: getattr(auto, f"{role}_token_id") for role in _ROLES}
    for role in ("bos", "eos", "pad"):
        ids[role] = config.get(f"{role}_token_id") if ids[role] is None else ids[role]
    ids["bos"] = auto.cls_token_id if auto.bos_token is None and auto.cls_token is not None else ids["bos"]
    ids["eos"] = auto.sep_token_id if auto.eos_token is None and auto.sep_token is not None else ids["eos"]
    ids["eos"] = ids["eos"][0] if isinstance(ids["eos"], list) else ids["eos"]
    inner = auto("1", add_special_tokens=False)["input_ids"]
    whole = auto("1")["input_ids"]
    at = next((at for at in range(len(whole)) if whole[at : at + len(inner)] == inner), 0)
    before, after = whole[:at], whole[at + len(inner) :]
    if before not in ([], [ids["bos"]]) or after not in ([], [ids["eos"]], [ids["sep"]]):
        raise ExportError(f"a GGUF file cannot say what is put around a text: {before} before it, {after} behind it")
    return Around({role: int(found) for role, found in ids.items() if found is not None}, bool(before), bool(after))


def chat_template(auto: Any) -> str | None:
    """The chat template, the one called `default` of several; None without one."""
    found = getattr(auto, "chat_template", None)
    return found.get("default") if isinstance(found, dict) else found


def _type(tokenizer: SourceTokenizer, token_id: int) -> int:
    token = tokenizer.tokens[token_id]
    if token is None:
        return _UNUSED
    if token_id == tokenizer.unknown_id:
        return _UNKNOWN
    entry = tokenizer.document.added.get(token) if tokenizer.document else None
    if entry is not None:
        return _CONTROL if entry.get("special") else _USER_DEFINED
    return _BYTE if token_id in tokenizer.byte_ids and tokenizer.kind == "spm-bpe" else _NORMAL


def _spelled(tokenizer: SourceTokenizer, token_id: int, kind: int) -> str:
    """The text of a token: llama.cpp looks for a user's tokens in plain text, and for words of BERT by a mark before them."""
    token = tokenizer.tokens[token_id] if token_id < len(tokenizer.tokens) else None
    if token is None:
        return f"[PAD{token_id}]"
    if kind == _USER_DEFINED and tokenizer.kind in ("spm-bpe", "unigram"):
        return token.replace(_SPACE, " ")
    if tokenizer.kind == "wordpiece" and kind == _NORMAL:
        return token[2:] if token.startswith("##") else _SPACE + token
    return token


def _scores(tokenizer: SourceTokenizer, rows: int) -> list[float]:
    """One per row: Unigram's own; for SentencePiece's BPE the order in which merges make a token. Empty for the others."""
    document = tokenizer.document
    if document is None or tokenizer.kind not in ("unigram", "spm-bpe"):
        return []
    if tokenizer.kind == "unigram":
        found = [float(score) for score in document.scores[:rows]]
        return found + [0.0] * (rows - len(found))
    scores = [0.0] * rows
    products = document.merges.product.tolist() if document.merges is not None else []
    for rank in range(len(products) - 1, -1, -1):
        scores[products[rank]] = -float(rank + 1)
    return scores


def _merges(tokenizer: SourceTokenizer) -> list[str]:
    document = tokenizer.document
    if tokenizer.kind != "byte-bpe" or document is None or document.merges is None:
        return []
    tokens, merges = tokenizer.tokens, document.merges
    return [f"{tokens[left]} {tokens[right]}" for left, right in zip(merges.left, merges.right, strict=True)]


def _settings(tokenizer: SourceTokenizer, auto: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Keys of GGUF for one kind of tokenizer, and notes."""
    skeleton = {} if tokenizer.document is None else tokenizer.document.skeleton
    steps = [*_steps(skeleton.get("normalizer")), *_steps(skeleton.get("pre_tokenizer"))]
    kinds = {step["type"] for step in steps}
    if tokenizer.kind == "wordpiece":
        return _wordpiece(steps), ()
    first = auto.convert_ids_to_tokens(auto("1", add_special_tokens=False)["input_ids"])[0]
    settings: dict[str, Any] = {"add_space_prefix": first.startswith((_SPACE, "Ġ"))}
    if tokenizer.kind == "unigram":
        if kinds - _UNIGRAM_STEPS:
            raise ExportError(
                f"llama.cpp does not prepare text as this tokenizer does: {', '.join(kinds - _UNIGRAM_STEPS)}"
            )
        once, twice = (auto(text, add_special_tokens=False)["input_ids"] for text in ("1 1", "1   1"))
        settings["remove_extra_whitespaces"] = once == twice
        charsmap = next((step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"), None)
        if charsmap:
            settings["precompiled_charsmap"] = base64.b64decode(charsmap)
    composed = kinds & {"NFC", "NFKC", "NFD", "NFKD", "Lowercase"}
    if composed and tokenizer.kind in ("byte-bpe", "spm-bpe"):
        return settings, (f"the tokenizer applies {', '.join(sorted(composed))} to text, llama.cpp does not",)
    return settings, ()


def _wordpiece(steps: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """How a WordPiece tokenizer prepares text; refused where it is not as BERT does."""
    normaliser = next((step for step in steps if step["type"] == "BertNormalizer"), None)
    if normaliser is None or {step["type"] for step in steps} != {"BertNormalizer", "BertPreTokenizer"}:
        raise ExportError("llama.cpp prepares text for WordPiece as BERT does, this tokenizer does it otherwise")
    if not (normaliser.get("clean_text", True) and normaliser.get("handle_chinese_chars", True)):
        raise ExportError(
            "llama.cpp always cleans text for WordPiece and parts Chinese characters, this tokenizer does not"
        )
    lower = bool(normaliser.get("lowercase", True))
    strips = normaliser.get("strip_accents")
    return {"normalizer.lowercase": lower, "normalizer.strip_accents": lower if strips is None else bool(strips)}


def _steps(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The steps of a normaliser or pre-tokenizer, those of sequences in their place."""
    if not part:
        return
    inner = part.get("normalizers") or part.get("pretokenizers")
    if part["type"] == "Sequence" and inner is not None:
        for each in inner:
            yield from _steps(each)
    else:
        yield part


def generation_ends(folder: Path) -> list[int]:
    """Ids that end a generated text, as generation_config.json says."""
    path = folder / "generation_config.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    return [found] if isinstance(found, int) else list(found or [])
