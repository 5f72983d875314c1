"""transformers' Trainer around a healing run: losses towards a teacher, zeros that stay, and exact resume.

Everything that Trainer and accelerate do is left to them: precision, accumulation, gradient checkpointing, several processes.
Checkpoints hold only what trains, with the optimizer's and the random generators' state; the one to go on from carries a mark
that is written last.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from time import monotonic
from typing import Any, Final

from langslice.errors import HealError
from langslice.files.memory import return_freed_memory
from langslice.healing.distillation import divergence, hidden_distance, labelled, top_divergence
from langslice.healing.options import HealOptions
from langslice.healing.teacher import Teacher
from langslice.healing.teacher_cache import TopLogits
from langslice.healing.zeros import Held
from langslice.progress import Report, silent

_WEIGHTS: Final = "trained.pt"
_MARK: Final = "finished.json"
_LOGGED = 2000  # most points of a curve
_PATIENCE_SECONDS = 7 * 24 * 3600  # of processes that wait for the first one to ask the teacher


@dataclass
class Guide:
    """What guides a run next to its text.

    layers  see langslice.healing.teacher.Mapped
    """

    settings: HealOptions
    shifted: bool
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kept: int = 0
    teacher: Teacher | None = None
    top_logits: TopLogits | None = None

    @property
    def active(self) -> bool:
        """Whether there is a teacher."""
        return self.teacher is not None or self.top_logits is not None

    def loss(self, outputs: Any, batch: Mapping[str, Any], sequences: Any) -> Any:
        """Text and teacher together, in nats per token."""
        settings = self.settings
        own = labelled(outputs["logits"][..., : self.kept], batch["labels"], shifted=self.shifted)
        if self.top_logits is not None:
            ids, shares = (one.to(own.device) for one in self.top_logits.of(sequences.tolist()))
            soft = top_divergence(own, ids, shares, settings.temperature)
            return (1 - settings.alpha) * outputs["loss"] + settings.alpha * soft
        if self.teacher is None:
            return outputs["loss"]
        theirs = self.teacher(batch, hidden=settings.hidden > 0)
        soft = divergence(own, labelled(theirs["logits"], batch["labels"], shifted=self.shifted), settings.temperature)
        loss = (1 - settings.alpha) * outputs["loss"] + settings.alpha * soft
        if settings.hidden:
            loss = loss + settings.hidden * hidden_distance(outputs, theirs, batch, self.layers)
        return loss


@dataclass(frozen=True)
class Trained:
    """What came out of a run.

    history   Trainer's log: {"step", "loss", "learning_rate", "grad_norm"} and {"step", "eval_loss"}
    heldout   loss on held-out text before and after; None where nothing was held out
    resumed   step that the run went on from, 0 for none
    seconds   of training, those before a kill included
    state     weights of the whole model where it was spread over devices, else None: they are in the model
    """

    history: tuple[Mapping[str, float], ...]
    heldout: tuple[float, float] | None
    resumed: int
    seconds: float
    state: Any = None


def _has_accelerator() -> bool:
    import torch

    known = getattr(torch, "accelerator", None)  # torch 2.6 and later
    return bool(known.is_available()) if known is not None else torch.cuda.is_available()


def training_arguments(settings: HealOptions, work: Path, base: Any = None, **further: Any) -> Any:
    """Trainer's arguments of a run.

    base  another class of arguments, such as that of sentence-transformers
    """
    import torch
    import transformers

    # Said in so many words: where there is nothing but a CPU, Trainer refuses bfloat16 unless it is asked for the CPU.
    cpu = settings.device == "cpu" or not _has_accelerator()
    every = max(1, math.ceil(settings.steps / _LOGGED))
    save = math.ceil(settings.save_every / every) * every  # a resumed run must not begin inside an average
    kind = base or transformers.TrainingArguments
    arguments = kind(
        output_dir=str(work / "checkpoints"),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup * settings.steps),
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        weight_decay=settings.weight_decay,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        logging_strategy="steps",
        logging_steps=every,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save,
        save_total_limit=2,
        optim="adamw_torch",
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=cpu,
        dataloader_pin_memory=not cpu and torch.cuda.is_available(),
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        ddp_timeout=_PATIENCE_SECONDS,
        ddp_find_unused_parameters=False,
        **(_checkpointing(kind) if settings.gradient_checkpointing else {}),
        **further,
    )
    # One process uses one device; several are the business of `accelerate launch`.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _checkpointing(kind: Any) -> dict[str, Any]:
    """The arguments for activations that are computed twice, under the names that the class takes; 5.23 renamed them."""
    name = "activation_checkpointing"
    name = name if name in signature(kind).parameters else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def trainer_class(base: Any, held: Held, report: Report, guide: Guide | None = None) -> Any:
    """A class of Trainer that resumes exactly, holds zeros and, with a guide, computes its loss.

    base  transformers.Trainer, or that of sentence-transformers
    """
    import torch

    class HealTrainer(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if guide is not None:
                # The loss is a mean over a batch, which Trainer divides by the batches of a step.
                self.model_accepts_loss_kwargs = False
                self.loss_is_scaled_for_ga = False
            for callback in list(self.callback_handler.callbacks):
                if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                    self.remove_callback(callback)
            self.add_callback(_callback(self, held, report))

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            state = self.model.state_dict() if state_dict is None else state_dict
            trains = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
            torch.save({name: state[name] for name in state if name in trains}, folder / _WEIGHTS)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                super()._load_from_checkpoint(resume_from_checkpoint, model)
                return
            state = torch.load(Path(resume_from_checkpoint) / _WEIGHTS, weights_only=True, map_location="cpu")
            named = dict(self.model.named_parameters())
            with torch.no_grad():
                for name, value in state.items():
                    named[name].copy_(value)

    return HealTrainer if guide is None else _guided(HealTrainer, guide)


def _guided(base: Any, guide: Guide) -> Any:
    """A Trainer that takes examples in their own order and asks the guide for the loss."""
    import torch

    class GuidedTrainer(base):  # type: ignore[misc]
        def _get_train_sampler(self, *arguments: Any, **options: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
            batch = dict(inputs)
            sequences = batch.pop("sequences")
            guided = guide.active and model.training
            outputs = model(**batch, output_hidden_states=guided and guide.settings.hidden > 0)
            loss = guide.loss(outputs, batch, sequences) if guided else outputs["loss"]
            return (loss, outputs) if return_outputs else loss

    return GuidedTrainer


def _callback(trainer: Any, held: Held, report: Report) -> Any:
    """Progress, zeros, a stop where the loss is lost, and the mark of a finished checkpoint."""
    from transformers import TrainerCallback

    class HealCallback(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.began, self.before, self.loss = monotonic(), 0.0, math.nan

        def on_train_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            _check_whole(trainer, held)
            self.began = monotonic()
            for name, (parameter, mask) in held.masks.items():
                held.masks[name] = (parameter, mask.to(parameter.device))

        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            held.apply()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:
            if "loss" in (logs or {}):
                self.loss = logs["loss"]
                if not math.isfinite(self.loss):
                    raise HealError(
                        f"the loss is {self.loss} at step {state.global_step}; nothing was written",
                        "lower --learning-rate, or use --dtype bfloat16 or float32",
                    )
                report(f"healing, loss {self.loss:.4g}", state.global_step, state.max_steps)

        def on_save(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            if args.should_save:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                seconds = self.before + monotonic() - self.began
                (folder / _MARK).write_text(json.dumps({"seconds": seconds}))

    callback = HealCallback()
    trainer.heal_callback = callback
    return callback


def _check_whole(trainer: Any, held: Held) -> None:
    """Zeros are held on whole parameters only."""
    import torch

    spread = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    for name, (parameter, mask) in held.masks.items():
        if spread or type(parameter.data) is not torch.Tensor or parameter.shape != mask.shape:
            raise HealError(
                f"{name} has pruned weights, and parameters spread over devices (FSDP, DeepSpeed) cannot hold them",
                "launch without it, or pass --zeros none to let them fill",
            )


def last_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was finished."""
    found = [
        (int(path.name.rpartition("-")[2]), path)
        for path in (work / "checkpoints").glob("checkpoint-*")
        if (path / _MARK).is_file()
    ]
    return max(found)[1] if found else None


def run_trainer(trainer: Any, work: Path, *, resume: bool, measure: Callable[[], float | None]) -> Trained:
    """Measure, train or go on, and measure again.

    measure  loss on held-out text, None where there is none
    """
    trainer.accelerator.wait_for_everyone()  # the first process has settled what the folder holds
    checkpoint = last_checkpoint(work) if resume else None
    note = work / "before.json"
    if checkpoint is None:
        before = measure()
        if is_first():
            note.write_text(json.dumps(before))
    else:
        before = json.loads(note.read_text())
        trainer.heal_callback.before = json.loads((checkpoint / _MARK).read_text())["seconds"]
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = trainer.heal_callback.before + monotonic() - trainer.heal_callback.began
    after = measure()
    spread = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if spread else None
    _forget(trainer)
    return Trained(
        tuple(trainer.state.log_history),
        None if before is None or after is None else (before, after),
        0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2]),
        seconds,
        state,
    )


def _forget(trainer: Any) -> None:
    """Give back what only training needs: writing would otherwise add its own memory to that of gradients and optimizer."""
    trainer.model.zero_grad(set_to_none=True)
    trainer.accelerator.free_memory()
    trainer.optimizer = trainer.lr_scheduler = None
    return_freed_memory()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def silent_but_first(report: Report) -> Report:
    """Progress of the first process alone."""
    return report if is_first() else silent
