"""What a healing run is asked to do: plain values, so that a recipe can fill them, and the checks that need no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

from langslice.errors import HealError
from langslice.options import Entry, Options, TextField, build, codes, listed

OBJECTIVES: Final = ("auto", "causal", "masked", "denoising", "contrastive", "mse")
PRECISIONS: Final = ("float32", "bfloat16", "float16")
SCHEDULES: Final = ("linear", "cosine", "constant")
LENGTH: Final = 256  # tokens in a row
ZEROS: Final = ("auto", "all", "none")
_LISTS: Final = ("corpus", "pairs", "train", "lora_targets")
_CODES: Final = ("train", "lora_targets")
# Another value of these leads to the same weights.
_WITHOUT_EFFECT: Final = ("save_every", "resume")


@dataclass(frozen=True, kw_only=True)
class HealOptions(Options):
    """One healing run. Where several values are taken, one may stand alone; fields hold them as tuples."""

    error = HealError

    corpus: Annotated[
        tuple[str, ...],
        Entry(
            "Text to train on: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub dataset. A line or record is a "
            "document.",
            "PATH",
            "-c",
        ),
    ] = ()
    text_field: TextField = "text"
    pairs: Annotated[
        tuple[str, ...],
        Entry("Parallel sentences for embedding models: a .tsv or .jsonl file, or two aligned files.", "FILE"),
    ] = ()
    fields: Annotated[str, Entry("Fields of both sides in jsonl pairs.")] = "source,target"
    teacher: Annotated[str | None, Entry("Distil from this model, the one that OUT was cut from.", "MODEL")] = None
    steps: Annotated[int, Entry("Optimizer steps.", least=1)] = 1000
    batch_size: Annotated[int, Entry("Rows (sentences, pairs) in a batch of one process.", least=1)] = 8
    gradient_accumulation: Annotated[int, Entry("Batches in a step.", least=1)] = 1
    seq_length: Annotated[int | None, Entry("Tokens in a row; 256 unless given, or what the model reads.", least=8)] = (
        None
    )
    packing: Annotated[bool, Entry("Several documents in a row, an end-of-text token between them.")] = True
    learning_rate: Annotated[float, Entry("At its highest.", least=0)] = 2e-4
    warmup: Annotated[float, Entry("Share of the steps over which it rises.", least=0, most=1)] = 0.05
    schedule: Annotated[str, Entry("How it falls: linear, cosine, constant.", values=SCHEDULES)] = "linear"
    weight_decay: Annotated[float, Entry("Of AdamW.", least=0)] = 0.01
    objective: Annotated[
        str, Entry("auto, causal, masked, denoising; embedding models: contrastive, mse.", values=OBJECTIVES)
    ] = "auto"
    train: Annotated[
        tuple[str, ...],
        Entry(
            "What trains: all, embeddings, norms, attention, feed-forward, positions, patterns of names "
            '("*.layers.0.*"); "!" leaves out. Several with commas.',
            codes=True,
        ),
    ] = ("all",)
    lora: Annotated[int, Entry("Rank of a low-rank adapter; 0 trains weights themselves.", least=0)] = 0
    lora_alpha: Annotated[float | None, Entry("Its scale; twice the rank unless given.")] = None
    lora_targets: Annotated[
        tuple[str, ...],
        Entry('Linear layers that get one: "*.q_proj,*.v_proj"; by default all but the output head.', codes=True),
    ] = ()
    keep_adapter: Annotated[bool, Entry("Write the adapter alone, not merged.")] = False
    alpha: Annotated[
        float, Entry("Share of the teacher in the loss: 0 is text alone, 1 the teacher alone.", least=0, most=1)
    ] = 0.5
    temperature: Annotated[float, Entry("Of both distributions.", above=0)] = 1.0
    hidden: Annotated[float, Entry("Weight of the distance of hidden states.", least=0)] = 0.0
    teacher_cache: Annotated[
        str | None, Entry("Keep the teacher's best guesses here, and no teacher in memory.", "DIR")
    ] = None
    teacher_top: Annotated[int, Entry("Guesses kept for each token.", least=1)] = 64
    stream_teacher: Annotated[bool, Entry("Hold one layer of the teacher in memory at a time.")] = False
    any_teacher: Annotated[bool, Entry("Allow a teacher that OUT was not cut from, of the same vocabulary.")] = False
    precision: Annotated[
        str, Entry("Of matrix products: float32, bfloat16, float16; weights stay float32.", values=PRECISIONS)
    ] = "float32"
    gradient_checkpointing: Annotated[bool, Entry("Compute activations twice instead of keeping them.")] = False
    zeros: Annotated[str, Entry("Zeros that stay: auto (pruned weights), all, none (they may fill).", values=ZEROS)] = (
        "auto"
    )
    heldout: Annotated[float, Entry("Share of the documents that is only measured.", least=0, most=0.5)] = 0.02
    eval_every: Annotated[
        int | None, Entry("Steps between measurements; a tenth of the run unless given.", least=1)
    ] = None
    save_every: Annotated[int, Entry("Steps between checkpoints.", least=1)] = 100
    resume: Annotated[bool, Entry("Go on where a killed run stopped, or begin anew.")] = True
    seed: Annotated[int, Entry("Of the order of the text, of masks and of dropout.")] = 0
    device: Annotated[str, Entry("auto or cpu.", values=("auto", "cpu"))] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _LISTS:
            value = getattr(self, name)
            object.__setattr__(self, name, codes(value) if name in _CODES else listed(value))
        for name in ("teacher", "teacher_cache"):  # as text, so that they can be recorded
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else str(value))

    def to_json(self) -> dict[str, Any]:
        """Every option, lists as lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def shaping(self) -> dict[str, Any]:
        """The options on which the result depends."""
        return {name: value for name, value in self.to_json().items() if name not in _WITHOUT_EFFECT}


def settings_from(entries: Mapping[str, Any]) -> HealOptions:
    """Options of a mapping, checked.

    Raises  HealError for an entry that does not exist, with the nearest one that does, and as `check_settings` does
    """
    settings = build(HealOptions, entries, what="setting")
    check_settings(settings)
    return settings


def check_settings(settings: HealOptions) -> None:
    """Refuse options that contradict each other.

    Raises  HealError
    """
    if not settings.corpus and not settings.pairs:
        raise HealError("there is no text to heal on", "add --corpus ko.jsonl; embedding models also take --pairs")
    if not settings.teacher:
        plain = HealOptions()
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
