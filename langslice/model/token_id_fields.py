"""Which configuration fields hold token ids, and how to renumber them.

JSON is edited key by key: nothing is added, reordered or re-serialised by a model class. A field whose name says that it
may hold an id, and that is not in the tables below, stops the job.

Source: the fields of config.json and generation_config.json that transformers 4.50 to 5 read or write.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from langslice.errors import CheckpointError, UnknownFieldError
from langslice.tokenizer.characters import sliced_table

# An int, or a list of ints; nested lists of ids (bad words, forced phrases); [position, id] pairs; name -> id maps.
_IDS = re.compile(
    r"(?:\w+_)?(?:token_id|token_ids|token_index|tokens_ids|token_idx)"
    r"|suppress_tokens|begin_suppress_tokens|bad_words_ids|force_words_ids|forced_decoder_ids|sequence_bias"
    r"|trainable_token_indices|lang_to_id|task_to_id|lang_code_to_id|language_to_id|pad_idx|bos_idx|eos_idx|unk_idx|(?:pad|bos|eos|unk|mask)_index"
)
# Of these names, every one that transformers itself reads as token ids: nobody can say that they hold none.
_CERTAIN = re.compile(
    r"(?:pad|bos|eos|unk|sep|cls|mask|decoder_start|decoder_(?:pad|bos|eos)|forced_bos|forced_eos)_token_ids?"
    r"|suppress_tokens|begin_suppress_tokens|bad_words_ids|force_words_ids|forced_decoder_ids|sequence_bias"
)
_SIZES = frozenset(
    {"vocab_size", "decoder_vocab_size", "encoder_vocab_size", "text_vocab_size", "padded_vocab_size"}
    | {"unpadded_vocab_size", "src_vocab_size", "tgt_vocab_size"}
)
_PER_LAYER_SIZES = frozenset({"vocab_size_per_layer_input"})
# One character an id, as models of spelling and sound keep their table in config.json.
_CHARACTERS = frozenset({"grapheme_chars", "phoneme_chars"})
# Names that say "token", "id" or "index" and hold counts, lengths, labels or places instead.
_NOT_IDS = re.compile(
    r"(?:num|n|max|min|mm|total|max_num)_(?:\w+_)?tokens?(?:_\w+)?|(?:vision|image|audio|video)_tokens(?:_\w+)?|tokens_per_\w+|\w+_tokens_per_\w+"
    r"|(?:new|max_new|min_new|max_source|max_target|speculative)_tokens|num_assistant_tokens\w*|lang_id|t2u_max_new_tokens|\w*num_delay_tokens|assistant_\w+|\w*token_type\w*|type_vocab_size"
    r"|prompt_lookup_num_tokens|id2label|label2id|\w*layer_(?:id|ids|idx|index|indices|indexes)|\w*(?:layers|heads)_index(?:es)?"
    r"|\w*layer_(?:start|end)_index|\w*layer_index_(?:start|end)|vision_feature_layer|\w*_token_(?:len|length|count|num)\w*|problem_type|\w+_tokens_(?:num|count|len|length)"
    r"|(?:\w+_)?token\w*_dim|token_(?:dropout|shift\w*)|watermarking_config|index_(?:head_dim|n_heads|topk\w*|block_size|local_blocks)|\w+_idx_offset|altup_active_idx|\w*ignore_index|query_tokens|num_query_tokens|out_indices"
    r"|max_initial_timestamp_index|mlp_only_layers|pruned_heads|cross_attention_layers|max_shared_tokens|router_\w+|\w*task_ids?|adapter_\w+|rank_id|node_id|position_id_per_seconds"
)
_SUSPICIOUS = re.compile(r"(?:.*_)?(?:tokens?|ids?|idx|index|indices)(?:_.*)?")
_TOWER_CONFIGS = re.compile(r"(?:vision|audio|image|video|vq|qformer|perceiver|backbone)\w*")
# Text models of CLIP's kind, in which an `eos_token_id` of 2 is no id: it says that the highest id ends a text.
_ENDS_BY_HIGHEST = re.compile(r"(?:clip|clipseg|groupvit|xclip)(?:_text_model)?")
# In these maps the keys are free text: nothing in them is looked at.
_OPAQUE = frozenset({"id2label", "label2id", "quantization_config", "compression_config", "auto_map", "sliced_shapes"})


@dataclass(frozen=True)
class IdMap:
    """Old row to new row of the vocabulary.

    new_of           (old rows,) int64, -1 where the row is dropped
    size             rows of the output, padding included
    per_layer_size   rows of the output's per-layer table, None where there is none
    old_per_layer    rows of the source's per-layer table, None where there is none
    """

    new_of: np.ndarray
    size: int
    per_layer_size: int | None = None
    old_per_layer: int | None = None

    @property
    def old_size(self) -> int:
        """Rows of the source."""
        return int(self.new_of.shape[0])


@dataclass(frozen=True)
class IdField:
    """A field that holds token ids: where it is, and which ids."""

    file: str
    path: tuple[str, ...]
    ids: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.file}: {'.'.join(self.path)}"


def find_id_fields(
    document: Mapping[str, Any], *, file: str, rows: int, ignore: frozenset[str] = frozenset()
) -> list[IdField]:
    """List every field of a JSON document that holds token ids.

    rows     rows of the vocabulary: an id at or above is an error
    ignore   field names that the user declares not to hold ids
    Raises   UnknownFieldError for an integer field whose name says token or id and that is not understood
    """
    found: list[IdField] = []

    def collect(path: tuple[str, ...], ids: Iterator[int]) -> None:
        values = tuple(ids)
        for value in values:
            if value >= rows:
                raise CheckpointError(
                    f"{file}: {'.'.join(path)} = {value}, but the model has {rows} rows of vocabulary",
                    hint=f"in the source's {file}, set it to null or to an id below {rows}, or give the model a row for it"
                    + ignoring_hint(path[-1]),
                )
        found.append(IdField(file, path, values))

    for path, key, value, in_tower in _walk(document, (), in_tower=False):
        if key in ignore or value is None or isinstance(value, bool):
            continue
        if _IDS.fullmatch(key):
            collect((*path, key), _ids_in(key, value, f"{file}: {'.'.join((*path, key))}"))
        elif key == "vocab_offset" and in_tower:
            # Gemma 3n: the tower's own tokens lie after the text's, from this id on, as many as its vocab_size.
            count = value_at(document, path).get("vocab_size", 1)
            collect((*path, key), iter(range(value, value + count)))
        elif _is_suspicious(key, value):
            raise UnknownFieldError(
                f"{file}: {'.'.join((*path, key))} = {value!r} may hold token ids, and is not understood; nothing was written",
                hint=f'pass --ignore-field "{key}" if it holds no token ids; else add it to langslice/model/token_id_fields.py',
            )
    return found


def check_ignored(names: Collection[str]) -> None:
    """Refuse to take a field for something else that transformers reads as token ids: it would be written with an old id."""
    for name in sorted(names):
        if _CERTAIN.fullmatch(name):
            raise CheckpointError(
                f'--ignore-field "{name}": this field holds token ids in every model; nothing was written',
                hint="correct its value in the source's configuration, and do not pass it here",
            )


def ignoring_hint(key: str) -> str:
    """The end of a hint that offers --ignore-field; "" for a field that it cannot be passed for."""
    return "" if _CERTAIN.fullmatch(key) else f', or pass --ignore-field "{key}" if it does not hold token ids'


def renumber(
    document: Mapping[str, Any], ids: IdMap, *, file: str, ignore: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Copy a JSON document with every token id and vocabulary size replaced.

    Example  {"eos_token_id": 7, "vocab_size": 9} with rows 0, 3 and 7 kept gives {"eos_token_id": 2, "vocab_size": 3}
    Raises   CheckpointError for an id whose row is dropped, or a vocabulary size that is not the model's
    """
    find_id_fields(document, file=file, rows=ids.old_size, ignore=ignore)
    result: dict[str, Any] = copy.deepcopy(dict(document))
    for path, key, value, in_tower in list(_walk(result, (), in_tower=False)):
        if key in ignore or value is None or isinstance(value, bool):
            continue
        holder = value_at(result, path)
        place = f"{file}: {'.'.join((*path, key))}"
        if _IDS.fullmatch(key):
            holder[key] = _map_ids(key, value, partial(_new_id, ids, place))
        elif key == "vocab_offset" and in_tower:
            holder[key] = _new_id(ids, place, value)
        elif key in _SIZES and not in_tower and value != -1:  # -1: the size is that of another field
            _expect_size(place, value, ids.old_size)
            holder[key] = ids.size
        elif key in _PER_LAYER_SIZES and ids.per_layer_size is not None:
            _expect_size(place, value, ids.old_per_layer)
            holder[key] = ids.per_layer_size
        elif key in _CHARACTERS and isinstance(value, str):
            holder[key] = sliced_table(value, np.flatnonzero(ids.new_of >= 0).tolist())
    return result


def is_id_field(key: str) -> bool:
    """Whether a field of this name holds token ids."""
    return bool(_IDS.fullmatch(key))


def find_sizes(
    document: Mapping[str, Any], *, rows: int, per_layer_rows: int | None
) -> list[tuple[tuple[str, ...], Any, int]]:
    """List every field that says how large the vocabulary is: its path, its value, and the rows that there are."""
    found: list[tuple[tuple[str, ...], Any, int]] = []
    for path, key, value, in_tower in _walk(document, (), in_tower=False):
        if key in _SIZES and not in_tower:
            found.append(((*path, key), value, rows))
        elif key in _PER_LAYER_SIZES and per_layer_rows is not None:
            found.append(((*path, key), value, per_layer_rows))
    return found


def _new_id(ids: IdMap, place: str, old: int) -> int:
    if old < 0:
        return old
    new = int(ids.new_of[old])
    if new < 0:
        raise CheckpointError(
            f"{place} names token id {old}, which the plan drops; nothing was written",
            hint="keep that token: ids that the configuration names are kept unless a plan is edited by hand",
        )
    return new


def _expect_size(place: str, value: Any, expected: int | None) -> None:
    if value != expected:
        raise CheckpointError(
            f"{place} = {value}, but the embedding has {expected} rows; nothing was written",
            hint="the configuration and the weights disagree: is the checkpoint complete?",
        )


def _walk(
    document: Mapping[str, Any], path: tuple[str, ...], *, in_tower: bool
) -> Iterator[tuple[tuple[str, ...], str, Any, bool]]:
    for key, value in document.items():
        if key in _OPAQUE or (key == "eos_token_id" and value == 2 and _ends_by_highest(document)):
            continue
        inner = in_tower or bool(_TOWER_CONFIGS.fullmatch(key))
        if isinstance(value, dict) and not _IDS.fullmatch(key):
            yield from _walk(value, (*path, key), in_tower=inner)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for at, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _walk(item, (*path, key, str(at)), in_tower=inner)
        else:
            yield path, key, value, in_tower


def _ends_by_highest(document: Mapping[str, Any]) -> bool:
    return bool(_ENDS_BY_HIGHEST.fullmatch(str(document.get("model_type"))))


def ends_by_highest(config: Mapping[str, Any]) -> bool:
    """Whether a model's code takes the highest id of a text for its end."""
    return any(_ends_by_highest(each) for each in (config, config.get("text_config") or {}))


def value_at(document: Any, path: tuple[str, ...]) -> Any:
    """What is at a path of keys; a step into a list is its place, as text."""
    value = document
    for key in path:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def _is_suspicious(key: str, value: Any) -> bool:
    return _holds_integers(value) and bool(_SUSPICIOUS.fullmatch(key)) and not _NOT_IDS.fullmatch(key)


def _holds_integers(value: Any) -> bool:
    """Whether a value is an int, or a list, nested or not, of nothing else."""
    if isinstance(value, list):
        return bool(value) and all(_holds_integers(item) for item in value)
    return isinstance(value, int) and not isinstance(value, bool)


def _ids_in(key: str, value: Any, place: str) -> Iterator[int]:
    seen: list[int] = []

    def note(old: int) -> int:
        seen.append(old)
        return old

    try:
        _map_ids(key, value, note)
    except TypeError as error:
        raise UnknownFieldError(
            f"{place} = {value!r} is not a token id or a list of them; nothing was written",
            hint="correct the source's configuration" + ignoring_hint(key),
        ) from error
    return iter(old for old in seen if old >= 0)


def _map_ids(key: str, value: Any, new_id: Callable[[int], int]) -> Any:
    """Apply `new_id` to every id in a field, whatever its nesting; TypeError where the shape is not a known one."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return new_id(value)
    if isinstance(value, dict):
        return {name: _map_ids(key, item, new_id) for name, item in value.items()}
    if isinstance(value, list):
        if key == "forced_decoder_ids":
            return [[position, None if old is None else new_id(old)] for position, old in value]
        if key == "sequence_bias":
            return [[[new_id(old) for old in sequence], bias] for sequence, bias in value]
        return [_map_ids(key, item, new_id) for item in value]
    if isinstance(value, float) and value.is_integer():
        return new_id(int(value))
    raise TypeError(f"{key}: {type(value).__name__}")
