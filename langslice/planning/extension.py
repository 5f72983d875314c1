"""Tokens that a plan adds to the vocabulary: what is asked, which models can have more, and the tokens themselves."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from langslice.errors import PlanError
from langslice.files.float_types import FLOATS
from langslice.model.folder_kinds import BARE
from langslice.model.token_id_fields import ends_by_highest
from langslice.options import Choice, asks, listed
from langslice.planning.size_limit import WeightSizes, parse_size
from langslice.planning.source import Source
from langslice.progress import Report
from langslice.tokenizer.extension import NewToken

ENTRIES = ("extend", "extend_corpus", "extend_to")
_MORE = re.compile(r"\+\s*(\d+)")


def extends(choice: Choice) -> bool:
    """Whether a choice adds tokens."""
    return asks(choice, ENTRIES)


def asked_size(choice: Choice) -> tuple[int | None, int | None]:
    """How many tokens are to be learned, or the size that the vocabulary is filled up to; at most one of the two.

    Raises  PlanError for what is neither, or does not go together with the other options
    """
    given = choice.get("extend_to")
    corpus = listed(choice.get("extend_corpus"))
    if (given is None) != (not corpus):
        raise PlanError(
            "--extend-corpus says what to learn from, and nothing says how many tokens" if corpus
            else f"--extend-to {given} says how many tokens to learn, and there is no text to learn from",
            hint="add --extend-to +500" if corpus else "add --extend-corpus PATH",
        )  # fmt: skip
    if given is None:
        return None, None
    more = _MORE.fullmatch(str(given).strip())
    text = more[1] if more else str(given).strip()
    if not text.isdecimal() or int(text) < 1:
        raise PlanError(
            f"--extend-to {given} is no size", hint="write 32000 for the vocabulary's size, or +500 to add 500"
        )
    return (int(text), None) if more else (None, int(text))


def choose_extension(
    source: Source, choice: Choice, kept: np.ndarray, report: Report
) -> tuple[tuple[NewToken, ...], tuple[str, ...]]:
    """The new tokens that a choice asks for, and what is to be said of them; nothing where it asks for none.

    kept    (n,) int64 old rows
    Raises  PlanError, TokenizerError for a model that cannot have more, or a list or text that gives none; CorpusError
    """
    if choice.get("extend_rows") == "similar" and not listed(choice.get("extend_corpus")):
        raise PlanError(
            "--extend-rows similar has no text to learn likeness from",
            hint="add --extend-corpus PATH --extend-to +500; tokens of --extend are looked for in it as well",
        )
    if not extends(choice):
        if choice.get("extend_rows"):
            raise PlanError("--extend-rows has no effect: no token is new", hint="add --extend FILE")
        return (), ()
    from langslice.corpus import corpus_units
    from langslice.vocabulary.extension import ExtensionRequest, extend_vocabulary

    more, size = asked_size(choice)
    if choice.get("hidden_size") is not None or source.draft is not None:
        what = (
            "a draft head has its target's tokens"
            if source.draft is not None
            else "--hidden-size changes every row as well"
        )
        raise PlanError(f"the vocabulary cannot be extended: {what}", hint="extend first, and slice the result again")
    _check_model(source, kept)
    corpus = listed(choice.get("extend_corpus"))
    read = partial(
        corpus_units, corpus, text_field=choice.get("text_field", "text"), languages=(), report=report
    )  # fmt: skip
    request = ExtensionRequest(
        lists=tuple(Path(path) for path in listed(choice.get("extend"))),
        units=read if corpus else None,
        more=more,
        size=size,
        asked=str(choice.get("extend_to")),
        alike=choice.get("extend_rows") == "similar",
    )
    return extend_vocabulary(source.tokenizer, kept.tolist(), request, report)


def _check_model(source: Source, kept: np.ndarray) -> None:
    """Refuse a model whose files or code give ids after the last token a meaning of their own."""
    config, tokens = source.checkpoint.config, len(source.tokenizer.tokens)
    model_type = config.get("model_type")
    if source.family.live_rows is not None:
        raise PlanError(
            f"the vocabulary of a `{model_type}` model cannot be extended: its code takes what follows its tokens for "
            f"{source.family.live_rows.meaning}",
            hint="cut it without --extend",
        )
    if ends_by_highest(config):
        raise PlanError(
            f"the vocabulary of a `{model_type}` model cannot be extended: its code finds the end of a text by the highest id",
            hint="cut it without --extend",
        )
    if model_type in BARE or source.per_layer_rows is not None:
        what = (
            "there are no rows to make new ones of"
            if model_type in BARE
            else "its per-layer table ends before its tokens do"
        )
        raise PlanError(f"the vocabulary cannot be extended: {what}", hint="extend a whole model")
    beyond = kept[kept >= tokens]
    if beyond.size:
        raise PlanError(
            f"the vocabulary cannot be extended: row {int(beyond[0])} has no token and stays, so new tokens would follow a hole",
            hint="see `langslice plan` without --extend for what refers to it",
        )
    for name, tensor in source.axes.items():
        dtype = source.checkpoint.tensors[name].dtype
        if "vocab" in (tensor.axes or ()) and dtype not in FLOATS:
            raise PlanError(
                f"the vocabulary cannot be extended: {name} is {dtype}, and the mean of its rows is no row",
                hint="extend the model before it is quantised",
            )


def check_fits(choice: Choice, sizes: WeightSizes, rows: int, new: int) -> None:
    """Refuse new tokens that do not fit into --max-size any more.

    rows    of the result
    new     of them that are new
    Raises  PlanError
    """
    limit = choice.get("max_size")
    if limit is None or not new:
        return
    over = sizes.fixed + rows * sizes.per_row - parse_size(limit)
    if over > 0:
        raise PlanError(
            f"--max-size {limit}: {new:,} new tokens take {new * sizes.per_row:,} bytes, {over:,} too many",
            hint="allow more, or add fewer tokens",
        )
