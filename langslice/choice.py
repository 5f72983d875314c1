"""What a user chooses, as keyword arguments: the one list of them, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

# Entries that a plan does not record: secrets, and what does not change the result.
_UNRECORDED = frozenset({"token", "cache_dir", "processes", "revision"})


class Choice(TypedDict, total=False):
    """What to keep, and of which source. Every entry is optional and combines with the others.

    languages           BCP 47 codes, one string with commas or several: "ko,en"
    corpus              text files, folders, globs or hub datasets to count
    text_field          field of jsonl and parquet records that holds the text, "text" unless given
    counts              files written by `count`, each may end in `=weight`
    language_id         keep only the corpus lines that are in the wanted languages
    lexicon             files of words, one a line, optionally with a tab and a weight
    scripts             ISO 15924 codes whose tokens are kept: "Hang,Latn"
    drop_scripts        ISO 15924 codes whose tokens are dropped
    coverage            share of the weighted token occurrences to cover, 0 to 1
    min_count           least count of a token kept for the corpus
    max_vocab           most tokens in the result
    top_k               most tokens from each piece of evidence
    keep_tokens         files of tokens to keep, one a line
    keep_code           keep indentation, operators and identifiers
    layers, drop_layers layers to keep or to drop: "0-3,8-11", "decoder.0-5"
    first_layers        keep the first n layers: "4", "decoder.4"
    every_layer         keep every k-th layer
    drop_heads          attention heads to drop: "3:0,5", "decoder.cross.2:1"
    drop_neurons        feed-forward neurons to drop: "3:0-99"
    drop_layers_by      drop the lowest-scored layers: "block-influence:4", "layers.parquet:4"
    heads_sparsity      share of heads to drop by score, 0 to 1
    heads_by            a method of `score`, or a file that it wrote; gradient with text, l2 without
    neurons_sparsity    share of feed-forward neurons to drop by score
    neurons_by          a method of `score`, or a file that it wrote; activation with text, l2 without
    language_neurons    drop the neurons and heads that serve only other languages than `languages`
    score_texts         text that scores are measured on: "ko.txt", or "ko=ko.txt" for one language
    even                drop equally many of every layer, so that stock code can express it
    prune_rows          rows of linears to set to zero: "encoder.layer.*.attention.self.query=0.2:l1"
    sparsity            share of the weights of each linear layer to set to zero
    pattern             "unstructured", or "N:M": N of every M inputs of an output become zero
    keep_demos          demonstrations whose inputs count as important, files of `langslice demonstrations`
    avoid_demos         demonstrations whose inputs count against a weight
    score               "wanda", "magnitude", "random", "top" or "sparsegpt"
    epsilon             added to what avoid_demos divide by
    allocation          "uniform", "outliers", or "PATTERN=SHARE,..."
    linears             patterns of linear layers to prune; a leading "!" leaves the matching ones out
    offload             keep activations on disk instead of in memory
    output_style        "auto", "stock", "sliced" (sizes by layer) or "masked" (zeros)
    replicate_kv        give every query head its own key-value head where groups become uneven
    pad_to_multiple_of  pad the vocabulary to a multiple
    ignore_field        configuration fields that do not hold token ids, whatever their names say
    carry, leave_out    patterns for files beside the model that langslice does not know
    revision, token, cache_dir  of a model on the hub
    processes           processes that count, all cores unless given
    """

    languages: str | Sequence[str]
    corpus: str | Sequence[str]
    text_field: str
    counts: str | Sequence[str]
    language_id: bool
    lexicon: str | Path | Sequence[str | Path]
    scripts: str | Sequence[str]
    drop_scripts: str | Sequence[str]
    coverage: float | None
    min_count: int | None
    max_vocab: int | None
    top_k: int | None
    keep_tokens: str | Path | Sequence[str | Path]
    keep_code: bool
    layers: str | Sequence[str]
    drop_layers: str | Sequence[str]
    first_layers: str | Sequence[str]
    every_layer: str | Sequence[str]
    drop_heads: str | Sequence[str]
    drop_neurons: str | Sequence[str]
    drop_layers_by: str | Sequence[str]
    heads_sparsity: float | None
    heads_by: str | None
    neurons_sparsity: float | None
    neurons_by: str | None
    language_neurons: bool
    score_texts: str | Sequence[str]
    even: bool
    prune_rows: str | Sequence[str]
    sparsity: float | None
    pattern: str | None
    keep_demos: str | Sequence[str]
    avoid_demos: str | Sequence[str]
    score: str | None
    epsilon: float | None
    allocation: str | None
    linears: str | Sequence[str]
    offload: bool
    output_style: str | None
    replicate_kv: bool
    pad_to_multiple_of: int | None
    ignore_field: str | Sequence[str]
    carry: str | Sequence[str]
    leave_out: str | Sequence[str]
    revision: str | None
    token: str | None
    cache_dir: Path | None
    processes: int | None


def listed(value: Any) -> tuple[str, ...]:
    """One value or several, as a tuple of strings; never split, so that paths may hold commas."""
    if value is None:
        return ()
    if isinstance(value, str | Path):
        return (str(value),)
    return tuple(str(item) for item in value)


def codes(value: Any) -> tuple[str, ...]:
    """Codes, in one string with commas or in several: "ko, en" -> ("ko", "en")."""
    return tuple(part.strip() for item in listed(value) for part in item.split(",") if part.strip())


def asks(choice: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether a choice gives any of these entries a value."""
    return any(choice.get(name) not in (None, (), [], False) for name in names)


def request_json(choice: Choice) -> dict[str, Any]:
    """The choice as it is written into the plan: without secrets, and without what was not asked for."""
    plain: dict[str, Any] = {}
    for name, value in choice.items():
        if name in _UNRECORDED or value is None or value is False or value == ():
            continue
        if isinstance(value, list | tuple):
            plain[name] = [str(item) for item in value]
        else:
            plain[name] = value if isinstance(value, int | float) else str(value)
    return plain
