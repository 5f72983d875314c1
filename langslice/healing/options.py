"""What a healing run is asked to do: plain values, so that a recipe can fill them, and the checks that need no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Final

from langslice.errors import HealError

OBJECTIVES: Final = ("auto", "causal", "masked", "denoising", "contrastive", "mse")
PRECISIONS: Final = ("float32", "bfloat16", "float16")
SCHEDULES: Final = ("linear", "cosine", "constant")
LENGTH: Final = 256  # tokens in a row
ZEROS: Final = ("auto", "all", "none")
_LISTS: Final = ("corpus", "pairs", "train", "lora_targets")
_OPTIONAL: Final = {"seq_length": int, "eval_every": int, "lora_alpha": float, "teacher": str, "teacher_cache": str}
_KINDS: Final = {int: "a whole number", float: "a number", str: "text", bool: "true or false", tuple: "a list"}
# Another value of these leads to the same weights.
_WITHOUT_EFFECT: Final = ("save_every", "resume")


@dataclass(frozen=True)
class HealSettings:
    """One healing run; every field is an option of `langslice heal`.

    corpus         text to train on: files, folders, globs, hub datasets
    text_field     field of jsonl and parquet records that holds the text
    pairs          parallel sentences for embedding models: one .tsv or .jsonl file, or two aligned text files
    fields         names of both sides in jsonl pairs, "source,target"
    heldout        share of the documents that is measured and not trained on; 0 measures nothing
    objective      one of OBJECTIVES; "auto" is what the model was made for
    steps          optimizer steps
    batch_size     rows (sentences, pairs) in a batch of one process
    gradient_accumulation  batches in a step
    learning_rate  at its highest
    warmup         share of the steps over which the rate rises
    schedule       how it falls, one of SCHEDULES
    weight_decay   of AdamW
    seq_length     tokens in a row; 256 unless given, or what the model reads where that is less
    packing        fill rows with several documents, an end-of-text token between them
    precision      of matrix products, one of PRECISIONS; weights are kept in float32 while they are trained
    gradient_checkpointing  compute activations twice instead of keeping them
    train          what trains: "all", parts (embeddings, norms, attention, feed-forward, positions) and patterns of names;
                   "!" leaves out
    lora           rank of a low-rank adapter; 0 trains weights themselves
    lora_alpha     its scale; twice the rank unless given
    lora_targets   patterns of linear layers that get one; all outside the output head unless given
    keep_adapter   write the adapter alone, not merged
    teacher        folder or hub id of the model to distil from
    any_teacher    allow a teacher that the slice was not cut from
    teacher_cache  folder for the teacher's best guesses, so that it is not in memory while the slice trains
    teacher_top    guesses kept there for each token
    stream_teacher hold one layer of the teacher in memory at a time
    temperature    of both distributions
    alpha          share of the teacher in the loss: 0 is training on text alone, 1 the teacher alone
    hidden         weight of the distance of hidden states
    zeros          which zeros stay: "auto" (pruned weights), "all" (every zero of every matrix), "none" (they may fill)
    eval_every     steps between measurements of held-out text; a tenth of the run unless given
    save_every     steps between checkpoints
    resume         go on where a killed run stopped
    seed           of the order of the text, of what is masked, and of dropout
    device         "auto" or "cpu"
    """

    corpus: tuple[str, ...] = ()
    text_field: str = "text"
    pairs: tuple[str, ...] = ()
    fields: str = "source,target"
    heldout: float = 0.02
    objective: str = "auto"
    steps: int = 1000
    batch_size: int = 8
    gradient_accumulation: int = 1
    learning_rate: float = 2e-4
    warmup: float = 0.05
    schedule: str = "linear"
    weight_decay: float = 0.01
    seq_length: int | None = None
    packing: bool = True
    precision: str = "float32"
    gradient_checkpointing: bool = False
    train: tuple[str, ...] = ("all",)
    lora: int = 0
    lora_alpha: float | None = None
    lora_targets: tuple[str, ...] = ()
    keep_adapter: bool = False
    teacher: str | None = None
    any_teacher: bool = False
    teacher_cache: str | None = None
    teacher_top: int = 64
    stream_teacher: bool = False
    temperature: float = 1.0
    alpha: float = 0.5
    hidden: float = 0.0
    zeros: str = "auto"
    eval_every: int | None = None
    save_every: int = 100
    resume: bool = True
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in _LISTS:
            value = getattr(self, name)
            items = value.split(",") if isinstance(value, str) and name in ("train", "lora_targets") else value
            items = [items] if isinstance(items, str) else items
            object.__setattr__(self, name, tuple(str(item).strip() for item in items or ()))

    def to_json(self) -> dict[str, Any]:
        """Every field, lists as lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def shaping(self) -> dict[str, Any]:
        """The fields on which the result depends."""
        return {name: value for name, value in self.to_json().items() if name not in _WITHOUT_EFFECT}


def settings_from(entries: Mapping[str, Any]) -> HealSettings:
    """Settings of a recipe's mapping, checked.

    Raises  HealError for an entry that does not exist, with the nearest one that does, and as `check_settings` does
    """
    known = [field.name for field in fields(HealSettings)]
    for name in entries:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"entries are {', '.join(known)}"
            raise HealError(f"unknown setting `{name}`", hint)
    settings = HealSettings(**entries)
    check_settings(settings)
    return settings


def check_settings(settings: HealSettings) -> None:
    """Refuse values that no model could be trained with, and settings that contradict each other.

    Raises  HealError
    """
    _check_types(settings)
    for name, least in (
        ("steps", 1), ("batch_size", 1), ("gradient_accumulation", 1), ("save_every", 1), ("lora", 0),
        ("teacher_top", 1), ("weight_decay", 0), ("hidden", 0), ("learning_rate", 0),
    ):  # fmt: skip
        if getattr(settings, name) < least:
            raise HealError(f"{_flag(name)} is {getattr(settings, name)}, expected at least {least}")
    for name, least in (("eval_every", 1), ("seq_length", 8)):
        if getattr(settings, name) is not None and getattr(settings, name) < least:
            raise HealError(f"{_flag(name)} is {getattr(settings, name)}, expected at least {least}")
    for name, highest in (("alpha", 1.0), ("warmup", 1.0), ("heldout", 0.5)):
        if not 0 <= getattr(settings, name) <= highest:
            raise HealError(f"{_flag(name)} is {getattr(settings, name)}, expected 0 to {highest:g}")
    if settings.temperature <= 0:
        raise HealError(f"--temperature is {settings.temperature}, expected more than 0")
    for name, choices in (
        ("objective", OBJECTIVES), ("precision", PRECISIONS), ("schedule", SCHEDULES), ("zeros", ZEROS),
        ("device", ("auto", "cpu")),
    ):  # fmt: skip
        if getattr(settings, name) not in choices:
            raise HealError(f"{_flag(name)} is `{getattr(settings, name)}`", f"one of {', '.join(choices)}")
    _check_together(settings)


def _check_types(settings: HealSettings) -> None:
    """A recipe may hold anything."""
    for field in fields(settings):
        value, default = getattr(settings, field.name), field.default
        if value is None and default is None:
            continue
        kind: Any = _OPTIONAL.get(field.name, type(default))
        right = isinstance(value, int | float if kind is float else kind)
        if not right or (kind is not bool and isinstance(value, bool)):
            raise HealError(f"{_flag(field.name)} is {value!r}, expected {_KINDS[kind]}")


def _check_together(settings: HealSettings) -> None:
    if not settings.corpus and not settings.pairs:
        raise HealError("there is no text to heal on", "add --corpus ko.jsonl; embedding models also take --pairs")
    if not settings.teacher:
        plain = HealSettings()
        for name in ("teacher_cache", "teacher_top", "any_teacher", "stream_teacher", "hidden", "alpha", "temperature"):
            if getattr(settings, name) != getattr(plain, name):
                raise HealError(f"{_flag(name)} has no effect without a teacher", "add --teacher MODEL")
    if settings.teacher_cache and settings.hidden:
        raise HealError(
            "--hidden needs the teacher's hidden states, which --teacher-cache does not keep",
            "leave one of them out; --stream-teacher saves memory too",
        )
    if not settings.lora:
        for name in ("lora_alpha", "lora_targets", "keep_adapter"):
            if getattr(settings, name):
                raise HealError(f"{_flag(name)} has no effect without --lora", "add --lora 16")
    if settings.keep_adapter and settings.train != ("all",):
        raise HealError(
            "--keep-adapter writes the adapter alone, so --train would be lost",
            "leave one of them out: merged, both work",
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
