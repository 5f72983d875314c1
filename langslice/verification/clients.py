"""The tokenizer as clients load it: through AutoTokenizer, whose classes add and renumber tokens by rules of their own.

Specials (their list, their mask, skipping them in decoding), texts and pairs with specials around them, rendered chats: all
must be those of the source. Loading a large source this way is slow, so `slice` first asks whether the slice's AutoTokenizer
does what the source's files say, and loads the source's only to decide a difference; `verify` always loads both. What the files
say is asked before transformers is imported: the two together would be the most memory of the whole job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from langslice.model.checkpoint import Checkpoint
from langslice.model.transformers_classes import quiet_transformers
from langslice.planning.plan import SlicePlan
from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.rewrite import TOKENIZER_FILE
from langslice.tokenizer.settings import declared_named, declared_tokens
from langslice.verification.check import MAX_EXAMPLES, Check
from langslice.verification.tokenizer_parts import new_ids
from langslice.vocabulary.chats import plain_chats

# A character of private use, which no vocabulary has: every tokenizer must fall back for it as the source's does.
_UNKNOWN = "\ue0f8"
_MOST_TEXTS = 24
# Roles in the orders that templates accept; what a message says is a digit, which every slice keeps.
_CHATS = (("user",), ("user", "assistant", "user"), ("system", "user"), ("system", "user", "assistant", "user"))


@dataclass(frozen=True)
class Seen:
    """What one tokenizer makes of some texts.

    specials  token -> id, of every special token
    encoded   texts and pairs of texts -> ids, specials around them
    masks     of these ids: 1 for a special token
    decoded   of these ids, specials skipped
    chats     a rendered chat -> its ids, nothing put around it; empty without a chat template
    """

    specials: Mapping[str, int]
    encoded: Sequence[Sequence[int]]
    masks: Sequence[Sequence[int]]
    decoded: Sequence[str]
    chats: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Stated:
    """What the source's tokenizer files say, as the tokenizers library reads them.

    texts     texts that use kept tokens only, and one that no vocabulary has
    new_of    (rows,) int64, old id -> new id, -1 where it is not kept
    released  ids of reserved tokens that the slice dropped
    specials  added tokens -> id
    marked    those of them that are marked as special
    named     special tokens that the settings name; None where a class makes the tokenizer, and has others
    encoded   texts and pairs of texts -> ids, specials around them; None where AutoTokenizer must be asked
    decoded   of these ids, specials skipped
    chats     a rendered chat -> its ids, nothing put around it
    extended  texts with new tokens -> ids by the slice's files, nothing put around them
    """

    texts: Sequence[str]
    new_of: np.ndarray
    released: frozenset[int]
    specials: Mapping[str, int]
    marked: frozenset[str]
    named: frozenset[str] | None
    encoded: Sequence[Sequence[int]] | None
    decoded: Sequence[str]
    chats: Mapping[str, Sequence[int]]
    extended: Mapping[str, Sequence[int]]


def state(
    source: SourceTokenizer, plan: SlicePlan, lines: Sequence[str], templates: Mapping[str, str],
    extended: Mapping[str, Sequence[int]], *, thorough: bool,
) -> Stated:  # fmt: skip
    """Ask the source's files what `check_clients` needs of them; the source's tokenizer is not needed afterwards.

    lines      text that uses kept tokens only
    templates  chat templates by name
    extended   as in the result
    thorough   the source is to be loaded through AutoTokenizer: nothing is encoded here
    """
    texts = [*lines[:_MOST_TEXTS], _UNKNOWN]
    new_of = new_ids(plan, len(source.tokens))
    entries = {} if source.document is None else source.document.added
    named = {content for content, token_id, _ in declared_tokens(source.settings) if token_id is None}
    backend: Any = None if thorough else source.backend
    encoded: list[list[int]] | None = None
    if backend is not None:
        encoded = [backend.encode(text).ids for text in texts] + [backend.encode(*pair).ids for pair in _pairs(texts)]
    values = declared_named(source.settings)
    messages = [_messages(roles) for roles in _CHATS]
    chats = [chat for one in templates.values() for chat in plain_chats(one, values, messages)] if backend else []
    return Stated(
        texts,
        new_of,
        frozenset(old for old in source.reserved_ids if new_of[old] < 0),
        {content: int(entry["id"]) for content, entry in entries.items()},
        frozenset(content for content, entry in entries.items() if entry.get("special")),
        # Without tokenizer.json the class makes the tokenizer, and has special tokens that no setting names.
        frozenset(named) if TOKENIZER_FILE in source.files else None,
        encoded,
        [backend.decode(sequence, skip_special_tokens=True) for sequence in encoded or ()],
        {chat: backend.encode(chat, add_special_tokens=False).ids for chat in chats},
        extended,
    )


def check_clients(checkpoint: Checkpoint, sliced: Checkpoint, stated: Stated, plan: SlicePlan) -> Check:
    """Load the slice's tokenizer through AutoTokenizer and compare it with the source's.

    stated  what the source's files say; the source's AutoTokenizer is loaded where it says something else or not enough
    """
    texts = stated.texts
    differences = partial(_differences, new_of=stated.new_of, released=stated.released, plan=plan, texts=texts)
    after: Seen | None = None
    new: list[str] = []
    fault = ""
    try:
        auto = _load(sliced.model_folder)
        chats = _rendered(auto)
        after = _seen(auto, texts, chats)
        new = [
            f"{text!r}, with new tokens, is encoded otherwise than tokenizer.json says"
            for text, ids in stated.extended.items()
            if auto(text, add_special_tokens=False)["input_ids"] != list(ids)
        ]
        del auto
    except Exception as error:  # noqa: BLE001 - the classes raise anything from ImportError to RuntimeError
        fault, chats = _first_line(error), []
    if after is not None:
        expected = _expected(stated, chats, after.specials)
        if expected is not None and not any(differences(expected, after)):
            return _check(after, new, "what the source's files say")
    try:
        auto = _load(checkpoint.model_folder)
        before = _seen(auto, texts, chats)
    except Exception as error:  # noqa: BLE001 - as above
        return Check("clients", None, f"not run: AutoTokenizer does not load the source itself: {_first_line(error)}")
    if after is None:
        return Check("clients", False, "AutoTokenizer loads the source and not the slice", (fault,))
    return _check(after, [*new, *differences(before, after)], "the source's AutoTokenizer")


def _check(after: Seen, wrong: Sequence[str], against: str) -> Check:
    chats = f", {len(after.chats)} rendered chats" if after.chats else ""
    counts = f"{len(after.specials)} special tokens, {len(after.encoded)} texts and pairs{chats}"
    detail = f"{counts}: AutoTokenizer against {against}"
    return Check("clients", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet_transformers():
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _seen(auto: Any, texts: Sequence[str], chats: Sequence[str]) -> Seen:
    with quiet_transformers():
        encoded = [auto(text)["input_ids"] for text in texts]
        encoded += [auto(*pair)["input_ids"] for pair in _pairs(texts)]
        return Seen(
            dict(zip(auto.all_special_tokens, auto.all_special_ids, strict=True)),
            encoded,
            [auto.get_special_tokens_mask(ids, already_has_special_tokens=True) for ids in encoded],
            [auto.decode(ids, skip_special_tokens=True) for ids in encoded],
            {chat: auto(chat, add_special_tokens=False)["input_ids"] for chat in chats},
        )


def _expected(stated: Stated, chats: Sequence[str], found: Mapping[str, int]) -> Seen | None:
    """What the source's AutoTokenizer should do by its files; None where they were not asked, or not for such chats.

    found  special tokens of the slice's AutoTokenizer: where they are added tokens of the source, and all that its settings
           name are among them, the class names the others by itself, in the source as well; else all that are marked as
           special should be there
    """
    if stated.encoded is None or not stated.chats.keys() >= set(chats):
        return None
    by_name = stated.named is not None and stated.named <= set(found)
    specials = {
        content: old
        for content, old in stated.specials.items()
        if (content in found if by_name else content in stated.marked)
    }
    ids = set(specials.values())
    masks = [[int(one in ids) for one in sequence] for sequence in stated.encoded]
    return Seen(specials, stated.encoded, masks, stated.decoded, {chat: stated.chats[chat] for chat in chats})


def _messages(roles: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": "1"} for role in roles]


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    return list(pairwise(texts[:3]))


def _rendered(auto: Any) -> list[str]:
    """Chats in the order of roles that the template accepts, with and without the answer's beginning.

    Those in which the template writes today's date are left out: tomorrow's may need other tokens.
    """
    found: dict[str, None] = {}
    template = getattr(auto, "chat_template", None)
    year = str(date.today().year) if "strftime_now" in str(template) else None
    for roles in _CHATS if template else ():
        for prompted in (False, True):
            try:
                found[auto.apply_chat_template(_messages(roles), tokenize=False, add_generation_prompt=prompted)] = None
            except Exception:  # noqa: BLE001 - a template raises what it likes for roles that it does not have
                continue
    return [chat for chat in found if year is None or year not in chat]


def _differences(
    before: Seen, after: Seen, new_of: np.ndarray, released: frozenset[int], plan: SlicePlan, texts: Sequence[str]
) -> Iterator[str]:
    """What the slice's tokenizer does otherwise than the source's, for text that uses kept tokens only.

    released  ids of reserved tokens that the slice dropped
    """

    def renumbered(ids: Sequence[int]) -> list[int]:
        return [int(new_of[old]) if old < len(new_of) else -1 for old in ids]

    # A token beyond the model's rows is no loss: nothing could read it.
    expected = {
        token: int(new_of[old]) for token, old in before.specials.items() if old < plan.rows and old not in released
    }
    for token in [*expected, *(token for token in after.specials if token not in expected)]:
        if expected.get(token) != after.specials.get(token):
            yield f"special token {token!r}: id {after.specials.get(token)}, expected {expected.get(token)}"
    shown = [repr(text) for text in texts] + [f"the pair {one!r}, {other!r}" for one, other in _pairs(texts)]
    for at, old in enumerate(before.encoded):
        wanted = renumbered(old)
        if min(wanted, default=0) < 0:
            continue
        if wanted != list(after.encoded[at]):
            yield f"{shown[at]} is encoded as {list(after.encoded[at])}, expected {wanted}"
        elif list(before.masks[at]) != list(after.masks[at]):
            yield f"{shown[at]}: its special tokens are marked as {after.masks[at]}, expected {before.masks[at]}"
        elif before.decoded[at] != after.decoded[at]:
            yield f"{shown[at]}: without special tokens it is {after.decoded[at]!r}, expected {before.decoded[at]!r}"
    for chat, old in before.chats.items():
        wanted = renumbered(old)
        if min(wanted, default=0) < 0 and not plan.request.get("only_tokens"):
            yield f"the chat {chat!r} needs tokens that are not kept, from id {old[wanted.index(-1)]} on"
        elif (
            min(wanted, default=0) >= 0 and wanted != list(after.chats[chat]) and not _has_new(after.chats[chat], plan)
        ):
            yield f"the chat {chat!r} is encoded otherwise than in the source"


def _has_new(ids: Sequence[int], plan: SlicePlan) -> bool:
    return any(one >= len(plan.kept) for one in ids)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
