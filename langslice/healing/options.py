"""What a healing run is asked to do: plain values, so that a recipe can fill them, and the checks that need no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

from langslice.errors import HealError
from langslice.options import Entry, Options, TextField, build, codes, flag_of, listed

OBJECTIVES: Final = ("auto", "causal", "masked", "denoising", "contrastive", "mse")
PRECISIONS: Final = ("float32", "bfloat16", "float16")
SCHEDULES: Final = ("linear", "cosine", "constant")
LENGTH: Final = 256  # tokens
ZEROS: Final = ("auto", "all", "none")
_LISTS: Final = ("corpus", "pairs", "train", "lora_targets")
_CODES: Final = ("train", "lora_targets")
# Another value of these leads to the same weights.
_WITHOUT_EFFECT: Final = ("save_every", "resume")


@dataclass(frozen=True, kw_only=True)
class HealOptions(Options):
    """One healing run. Where several values are taken, one may stand alone; fields hold them as tuples."""

    error = HealError
    group = "Training"

    corpus: Annotated[
        tuple[str, ...],
        Entry(
            "Training text: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub dataset; one document per line or record.",
            "PATH",
            "-c",
            common=True,
        ),
    ] = ()
    text_field: TextField = "text"
    pairs: Annotated[
        tuple[str, ...],
        Entry(
            "Parallel sentences, for embedding models: a .tsv or .jsonl file, or, given twice, two aligned files.",
            "PATH",
            named="parallel",
            was=("pairs",),
        ),
    ] = ()
    fields: Annotated[str, Entry("Fields of both sides in jsonl records: source,target.", "NAMES")] = "source,target"
    teacher: Annotated[
        str | None, Entry("Distil from this model, the one that OUT was sliced from.", "MODEL", common=True)
    ] = None
    steps: Annotated[int, Entry("Optimizer steps.", "N", least=1, common=True)] = 1000
    batch_size: Annotated[int, Entry("Batch size per process, in sequences or pairs.", "N", least=1, common=True)] = 8
    gradient_accumulation: Annotated[int, Entry("Gradient accumulation: batches per optimizer step.", "N", least=1)] = 1
    seq_length: Annotated[
        int | None, Entry("Sequence length. Default: 256, or the maximum of the model.", "N", least=8, common=True)
    ] = None
    packing: Annotated[bool, Entry("Pack several documents into a sequence, separated by end-of-text tokens.")] = True
    learning_rate: Annotated[float, Entry("Peak learning rate.", "NUMBER", least=0, common=True)] = 2e-4
    warmup: Annotated[float, Entry("Warmup ratio.", "SHARE", least=0, most=1)] = 0.05
    schedule: Annotated[str, Entry("LR schedule: linear, cosine, constant.", "NAME", values=SCHEDULES)] = "linear"
    weight_decay: Annotated[float, Entry("AdamW weight decay.", "NUMBER", least=0)] = 0.01
    objective: Annotated[
        str,
        Entry(
            "Objective: auto, causal, masked, denoising; contrastive, mse for embedding models.",
            "NAME",
            values=OBJECTIVES,
        ),
    ] = "auto"
    train: Annotated[
        tuple[str, ...],
        Entry(
            "Trainable parts: all, embeddings, norms, attention, feed-forward, positions, or patterns of names: "
            '"*.layers.0.*"; "!" excludes.',
            "NAMES",
            codes=True,
        ),
    ] = ("all",)
    lora: Annotated[int, Entry("LoRA rank; 0 trains the weights themselves.", "N", least=0, common=True)] = 0
    lora_alpha: Annotated[float | None, Entry("LoRA alpha. Default: twice the rank.", "NUMBER")] = None
    lora_targets: Annotated[
        tuple[str, ...],
        Entry(
            'Linear layers with a LoRA: "*.q_proj,*.v_proj". Default: all but the output head.', "PATTERNS", codes=True
        ),
    ] = ()
    keep_adapter: Annotated[bool, Entry("Write the LoRA alone, not merged into the weights.")] = False
    alpha: Annotated[
        float,
        Entry("Weight of the distillation loss: 0 is text only, 1 is the teacher only.", "SHARE", least=0, most=1),
    ] = 0.5
    temperature: Annotated[float, Entry("Distillation temperature.", "NUMBER", above=0)] = 1.0
    hidden: Annotated[float, Entry("Weight of the hidden-state loss.", "NUMBER", least=0)] = 0.0
    teacher_cache: Annotated[
        str | None, Entry("Cache the top-k logits of the teacher in this folder, and keep no teacher in memory.", "DIR")
    ] = None
    teacher_top: Annotated[int, Entry("Top-k logits cached per token.", "K", least=1)] = 64
    stream_teacher: Annotated[bool, Entry("Keep one layer of the teacher in memory at a time.")] = False
    any_teacher: Annotated[bool, Entry("Allow a teacher that OUT was not sliced from, with the same vocabulary.")] = (
        False
    )
    precision: Annotated[
        str,
        Entry(
            "Compute dtype: float32, bfloat16 or float16; the weights stay float32.",
            "DTYPE",
            values=PRECISIONS,
            named="dtype",
            was=("precision",),
        ),
    ] = "float32"
    gradient_checkpointing: Annotated[bool, Entry("Recompute activations instead of storing them.")] = False
    zeros: Annotated[str, Entry("Zeros that stay zero: auto (pruned weights), all, none.", "WHICH", values=ZEROS)] = (
        "auto"
    )
    heldout: Annotated[float, Entry("Share of the documents held out for evaluation.", "SHARE", least=0, most=0.5)] = (
        0.02
    )
    eval_every: Annotated[
        int | None, Entry("Steps between evaluations. Default: a tenth of the run.", "N", least=1)
    ] = None
    save_every: Annotated[int, Entry("Steps between checkpoints.", "N", least=1)] = 100
    resume: Annotated[bool, Entry("Resume from the last checkpoint of an interrupted run.")] = True
    seed: Annotated[int, Entry("Seed of the data order, of masking and of dropout.", "N")] = 0
    device: Annotated[str, Entry("Device: auto or cpu.", "DEVICE", values=("auto", "cpu"))] = "auto"

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
        raise HealError("there is no text to heal on", "add --corpus ko.jsonl; embedding models also take --parallel")
    if not settings.teacher:
        plain = HealOptions()
        for name in ("teacher_cache", "teacher_top", "any_teacher", "stream_teacher", "hidden", "alpha", "temperature"):
            if getattr(settings, name) != getattr(plain, name):
                raise HealError(f"{flag_of(HealOptions, name)} has no effect without a teacher", "add --teacher MODEL")
    if settings.teacher_cache and settings.hidden:
        raise HealError(
            "--hidden needs the teacher's hidden states, which --teacher-cache does not keep",
            "leave one of them out; --stream-teacher saves memory too",
        )
    if not settings.lora:
        for name in ("lora_alpha", "lora_targets", "keep_adapter"):
            if getattr(settings, name):
                raise HealError(f"{flag_of(HealOptions, name)} has no effect without --lora", "add --lora 16")
    if settings.keep_adapter and settings.train != ("all",):
        raise HealError(
            "--keep-adapter writes the adapter alone, so --train would be lost",
            "leave one of them out: merged, both work",
        )
