"""What a user chooses, as keyword arguments: the one list of them, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict, get_type_hints

SCORES: Final = ("wanda", "magnitude", "random", "top", "sparsegpt")
COMPUTE: Final = ("float32", "bfloat16")
STYLE_NAMES: Final = ("auto", "stock", "sliced", "masked")
# Entries that a plan does not record: secrets, and what does not change the result.
_UNRECORDED = frozenset({"token", "cache_dir", "processes", "revision"})


@dataclass(frozen=True)
class Entry:
    """What there is to know of an entry beside its type.

    help     one sentence, as it stands in the help of commands, in the schema of recipes and in the reference
    metavar  what stands for the value in the help of commands
    short    one-letter option
    codes    several values are one text with commas, not an option that is repeated
    least    bounds of a number, both included
    most     the upper one
    values   the only texts that are understood
    """

    help: str
    metavar: str | None = None
    short: str | None = None
    codes: bool = False
    least: float | None = None
    most: float | None = None
    values: tuple[str, ...] = ()


class Source(TypedDict, total=False):
    """Which version of a model on the hub, and how to get at it."""

    revision: Annotated[str | None, Entry("Branch, tag or commit of a hub model.", "NAME")]
    token: Annotated[str | None, Entry("Hub token, for gated models.", "TOKEN")]
    cache_dir: Annotated[Path | None, Entry("Hub cache.", "DIR")]


class Choice(Source, total=False):
    """What to keep, and of which source: keywords of Python, options of commands, entries of recipes.

    Every entry is optional and combines with the others. Where several values are taken, one may stand alone.
    """

    languages: Annotated[
        str | Sequence[str],
        Entry("BCP 47 codes: ko,en. Evidence is each language's word list.", "CODES", "-l", codes=True),
    ]
    corpus: Annotated[
        str | Sequence[str],
        Entry("Text to count: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub dataset.", "PATH", "-c"),
    ]
    text_field: Annotated[str, Entry("Field of jsonl and parquet records that holds the text.", "NAME")]
    counts: Annotated[str | Sequence[str], Entry("Counts made by `langslice count`; FILE=0.5 weighs them.", "FILE")]
    language_id: Annotated[bool, Entry("Keep only the corpus lines that are in the wanted languages (needs lingua).")]
    lexicon: Annotated[
        str | Path | Sequence[str | Path],
        Entry("Words to keep whole, one a line, optionally a tab and a weight.", "FILE"),
    ]
    scripts: Annotated[str | Sequence[str], Entry("Keep every token of these scripts: Hang,Latn.", "CODES", codes=True)]
    drop_scripts: Annotated[
        str | Sequence[str], Entry("Drop the tokens of these scripts, whatever the evidence.", "CODES", codes=True)
    ]
    coverage: Annotated[
        float | None,
        Entry(
            "Cut rare tokens: keep the most frequent that cover this share, such as 0.9999.", "SHARE", least=0, most=1
        ),
    ]
    min_count: Annotated[int | None, Entry("Least count in the corpus of a token kept for it.", "N", least=0)]
    max_vocab: Annotated[int | None, Entry("Most tokens in the result.", "N", least=1)]
    max_size: Annotated[
        int | str | None,
        Entry("Most bytes of the written weights, such as 150MB or 1.5GiB; rare tokens go until they fit.", "SIZE"),
    ]
    top_k: Annotated[int | None, Entry("Most tokens from each piece of evidence.", "N", least=1)]
    keep_tokens: Annotated[str | Path | Sequence[str | Path], Entry("Tokens to keep, one a line.", "FILE")]
    only_tokens: Annotated[
        str | Path | Sequence[str | Path],
        Entry("Keep exactly these tokens and what they cannot do without: one a line, or a tokenizer.json.", "FILE"),
    ]
    keep_text: Annotated[
        str | Sequence[str],
        Entry('Text that the model is always called with, such as "query: ": its tokens stay.', "TEXT"),
    ]
    keep_all_language_codes: Annotated[
        bool, Entry("Keep the codes of all languages, such as <2fr>, not those of --languages alone.")
    ]
    drop_reserved: Annotated[
        bool, Entry("Drop tokens held in reserve, such as <unused7>, where nothing refers to them.")
    ]
    keep_code: Annotated[bool, Entry("Keep indentation, operators and identifiers of source code.")]
    layers: Annotated[
        int | str | Sequence[int | str],
        Entry("Layers to keep: 0-3,8-11; encoder.0-3 where there are two stacks.", "LAYERS"),
    ]
    drop_layers: Annotated[int | str | Sequence[int | str], Entry("Layers to drop: 4-7, decoder.2.", "LAYERS")]
    first_layers: Annotated[int | str | Sequence[int | str], Entry("Keep the first N layers: 4, decoder.4.", "N")]
    every_layer: Annotated[int | str | Sequence[int | str], Entry("Keep every K-th layer, from the first.", "K")]
    drop_layers_by: Annotated[
        str | Sequence[str], Entry("Drop the lowest-scored layers: block-influence:4, layers.parquet:4.", "SCORES:N")
    ]
    drop_heads: Annotated[
        str | Sequence[str], Entry("Attention heads to drop, LAYER:HEADS: 3:0,5, decoder.cross.2:1.", "WHERE")
    ]
    heads_sparsity: Annotated[float | None, Entry("Share of heads to drop by score: 0.25.", "SHARE", least=0, most=1)]
    heads_by: Annotated[
        str | None, Entry("Method of `langslice score`, or its file; gradient with text, else l2.", "SCORES")
    ]
    drop_neurons: Annotated[str | Sequence[str], Entry("Feed-forward neurons to drop, LAYER:NEURONS: 3:0-99.", "WHERE")]
    neurons_sparsity: Annotated[
        float | None, Entry("Share of neurons to drop by score: 0.2.", "SHARE", least=0, most=1)
    ]
    neurons_by: Annotated[
        str | None, Entry("Method of `langslice score`, or its file; activation with text, else l2.", "SCORES")
    ]
    language_neurons: Annotated[bool, Entry("Drop neurons and heads that serve only languages outside --languages.")]
    score_texts: Annotated[
        str | Sequence[str], Entry("Text to measure scores on; ko=ko.txt says its language.", "[CODE=]PATH")
    ]
    even: Annotated[bool, Entry("Drop equally many in every layer, so that stock code can express it.")]
    prune_rows: Annotated[
        str | Sequence[str],
        Entry(
            'Set the lowest rows of linears to zero: "encoder.layer.*.attention.self.query=0.2:l1".', "PATTERN=SHARE"
        ),
    ]
    sparsity: Annotated[
        float | None, Entry("Share of the weights of each linear layer to set to zero: 0.3.", "SHARE", least=0, most=1)
    ]
    pattern: Annotated[str | None, Entry("N:M zeroes N of every M inputs of an output: 2:4.", "N:M")]
    keep_demos: Annotated[
        str | Sequence[str], Entry("Demonstrations that weights are kept for (`langslice demonstrations`).", "FILE")
    ]
    avoid_demos: Annotated[
        str | Sequence[str], Entry("Demonstrations that count against a weight, such as code.", "FILE")
    ]
    score: Annotated[
        str | None, Entry("wanda, magnitude, random, top or sparsegpt; wanda unless given.", "NAME", values=SCORES)
    ]
    epsilon: Annotated[float | None, Entry("Added to what --avoid-demos divide by: 1e-6.", "NUMBER", least=0)]
    allocation: Annotated[str | None, Entry('uniform, outliers, or shares by pattern: "*.mlp.*=0.4".', "HOW")]
    linears: Annotated[
        str | Sequence[str], Entry('Linear layers to prune: "*.mlp.*"; "!*.0.*" leaves some out.', "PATTERN")
    ]
    offload: Annotated[bool, Entry("Keep activations on disk while weights are pruned.")]
    compute: Annotated[
        str | None,
        Entry(
            "Type of matrix products while weights are pruned: float32, or bfloat16, faster on processors that have it.",
            "TYPE",
            values=COMPUTE,
        ),
    ]
    output_style: Annotated[
        str | None,
        Entry(
            "stock (plain config), sliced (sizes by layer, own code) or masked (zeros); by default what fits.",
            "STYLE",
            values=STYLE_NAMES,
        ),
    ]
    replicate_kv: Annotated[bool, Entry("Give query heads key-value heads of their own where groups become uneven.")]
    pad_to_multiple_of: Annotated[int | None, Entry("Pad the vocabulary, for tensor cores: 64.", "N", least=1)]
    ignore_field: Annotated[
        str | Sequence[str], Entry("A configuration field that holds no token ids, whatever its name says.", "NAME")
    ]
    carry: Annotated[str | Sequence[str], Entry("Copy files that langslice does not know.", "GLOB")]
    leave_out: Annotated[str | Sequence[str], Entry("Leave out files that langslice does not know.", "GLOB")]
    processes: Annotated[int | None, Entry("Processes that count; all cores unless given.", "N", least=1)]


@lru_cache
def entries(choice: type) -> Mapping[str, tuple[Any, Entry]]:
    """Name -> type and entry of Choice or Source, the model's version last, as people ask for it last.

    Example   entries(Choice)["top_k"][0] == int | None
    """
    hints = get_type_hints(choice, include_extras=True)
    own = [name for name in hints if name not in Source.__annotations__]
    names = [*own, *(name for name in hints if name in Source.__annotations__)]
    return {name: (hints[name].__origin__, hints[name].__metadata__[0]) for name in names}


def listed(value: Any) -> tuple[str, ...]:
    """One value or several, as a tuple of strings; never split, so that paths may hold commas."""
    if value is None:
        return ()
    if isinstance(value, str | Path | int):
        return (str(value),)
    return tuple(str(item) for item in value)


def codes(value: Any) -> tuple[str, ...]:
    """Codes, in one string with commas or in several: "ko, en" -> ("ko", "en")."""
    return tuple(part.strip() for item in listed(value) for part in item.split(",") if part.strip())


def asks(choice: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether a choice gives any of these entries a value."""
    # The layer 0 is an answer; no value, an empty one and a switch that is off are none.
    given = [choice.get(name) for name in names]
    return any(value is not None and value is not False and value not in ((), []) for value in given)


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
