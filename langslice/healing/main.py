"""The main flow of a healing run: check → read text → teach → train → write. Nothing appears at the output before the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from langslice.errors import HealError
from langslice.healing.job import Job, eval_every_steps, finish, heldout_loss, no_loss, prepare
from langslice.healing.objectives import Examples, choose_objective, make_objective
from langslice.healing.options import LENGTH, HealOptions, check_settings
from langslice.healing.student import HealedFolder, load_student, open_source
from langslice.healing.trainer import (
    Guide,
    is_first,
    processes,
    run_trainer,
    silent_but_first,
    trainer_class,
    training_arguments,
)
from langslice.healing.work_folder import begin, locked_folder
from langslice.healing.zeros import check_held, find_zeros
from langslice.model.checkpoint import open_checkpoint
from langslice.options import taking
from langslice.progress import Report, silent
from langslice.version import __version__
from langslice.writing.shards import check_output, staging_folder

_LIBRARIES: Final = ("torch", "transformers", "accelerate", "peft", "sentence-transformers", "numpy")


@dataclass(frozen=True)
class HealResult:
    """What `heal` made.

    out       the folder
    settings  what was asked
    steps     optimizer steps
    loss      "first" and "last" on training text; "heldout_before" and "heldout_after" where text was held out
    trained   names of the tensors that trained
    masks     tensor -> {"before", "after"}: its zeros, for tensors whose zeros were held
    seconds   of training
    resumed   step at which a killed run was taken up again, 0 for none
    files     curves
    notes     what else a user should know
    """

    out: Path
    settings: HealOptions
    steps: int
    loss: Mapping[str, float]
    trained: tuple[str, ...]
    masks: Mapping[str, Mapping[str, int]]
    seconds: float
    resumed: int
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


@taking(HealOptions)
def heal(
    model: str | Path,
    out: str | Path,
    options: HealOptions,
    *,
    overwrite: bool = False,
    report: Report = silent,
) -> HealResult:
    """Train a slice on, on text alone or towards the model that it was sliced from.

    model      a slice, or any other model folder; it is only read
    out        folder to make, in the same form: same tokenizer, config, tensor names and stored types
    options    see HealOptions
    overwrite  replace an existing `out`
    Raises     HealError, CorpusError, CheckpointError, OutputError before training; VerificationError when a pruned weight
               would have come back
    """
    settings = options
    check_settings(settings)
    source, out, report = open_source(model), Path(out), silent_but_first(report)
    check_output(out, source=source.folder, overwrite=overwrite)
    zeros = find_zeros(source, settings.zeros)
    with locked_folder(out) as work:
        if source.is_embedding_model or settings.objective in ("contrastive", "mse"):
            from langslice.healing.sentence_embeddings import train_embedding

            job = train_embedding(source, settings, zeros, work, partial(begin, source, work, settings), report)
        else:
            job = train_language_model(source, settings, zeros, work, report)
        result = _write(source, out, settings, zeros, job, overwrite=overwrite, report=report)
        if is_first():
            shutil.rmtree(work)
    return result


def train_language_model(
    source: HealedFolder, settings: HealOptions, zeros: Mapping[str, int], work: Path, report: Report
) -> Job:
    """Heal a causal, masked or sequence-to-sequence model."""
    import transformers

    from langslice.healing.sequences import find_frame, read_text
    from langslice.model.transformers_classes import quiet_transformers

    if settings.pairs:
        raise HealError("--parallel is for sentence embedding models", "pass text with --corpus")
    folder, config, tokenizer, name = _kind(source, settings)
    causal = name == "causal"
    frame = find_frame(tokenizer, config, causal=causal)
    from langslice.corpus import read_texts

    units = read_texts(settings.corpus, text_field=settings.text_field)
    text = read_text(
        folder, units, frame, seq_length=_length(settings, config), packing=settings.packing, causal=causal,
        heldout=settings.heldout, seed=settings.seed, report=report,
    )  # fmt: skip
    objective = make_objective(name, folder, tokenizer, config, frame, _rows(source))
    with quiet_transformers():
        arguments = training_arguments(
            settings, work, eval_strategy="steps" if len(text.heldout) else "no", eval_steps=eval_every_steps(settings)
        )
        length = settings.steps * settings.batch_size * settings.gradient_accumulation * processes()
        examples = partial(Examples, objective=objective, seed=settings.seed)
        train = examples(text.train, length=length, order=True, static=settings.teacher_cache is not None)
        apart = examples(text.heldout, length=len(text.heldout), order=False, static=True)
        guide, teacher = _guide(source, settings, train, arguments, causal, report)
        begin(source, work, settings, text.train.digest(), teacher)
        model, wrapper, names, held = prepare(load_student(source.checkpoint), source.checkpoint, settings, zeros)
        trainer = trainer_class(transformers.Trainer, held, report, guide)(
            model=model, args=arguments, train_dataset=train, eval_dataset=apart if len(apart) else None,
            data_collator=train.collate,
        )  # fmt: skip
        measure = partial(heldout_loss, trainer) if len(apart) else no_loss
        trained = run_trainer(trainer, work, resume=settings.resume, measure=measure)
        model = finish(trainer, source.checkpoint, settings, wrapper, trained)
    return Job(model, wrapper, names, trained, trainer.accelerator.wait_for_everyone, text.notes)


def _kind(source: HealedFolder, settings: HealOptions) -> tuple[Path, Any, Any, str]:
    """Model folder, configuration, tokenizer and the name of the objective."""
    import transformers

    from langslice.evaluation.loaded_model import load_tokenizer, model_kind
    from langslice.model.transformers_classes import quiet_transformers

    folder = source.checkpoint.model_folder
    kind = model_kind(folder)
    with quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    name = choose_objective(settings.objective, kind, config, tuple(config.architectures or ()))
    return folder, config, load_tokenizer(folder), name


def _length(settings: HealOptions, config: Any) -> int:
    from langslice.model.positions import longest_text

    longest = longest_text(config.to_dict())
    if settings.seq_length is None:
        return min(LENGTH, longest or LENGTH)
    if longest is not None and settings.seq_length > longest:
        raise HealError(
            f"--seq-length is {settings.seq_length}, the model reads {longest} tokens", f"pass --seq-length {longest}"
        )
    return settings.seq_length


def _rows(source: HealedFolder) -> int:
    from langslice.model.axes import find_vocabulary_size
    from langslice.model.families import family_of

    return find_vocabulary_size(family_of(source.checkpoint.config), source.checkpoint.shapes)


def _guide(
    source: HealedFolder, settings: HealOptions, train: Examples, arguments: Any, causal: bool, report: Report
) -> tuple[Guide, str]:
    """Teacher or its top-k logits, and a digest of what teaches; without a teacher a guide that does nothing."""
    if settings.teacher is None:
        return Guide(settings, causal), ""
    import torch

    from langslice.healing.teacher import Teacher, find_teacher
    from langslice.healing.teacher_cache import cache_key, cache_top_logits, open_top_logits

    mapped = find_teacher(source, settings.teacher, any_teacher=settings.any_teacher)
    if settings.teacher_cache is None:
        dtype = getattr(torch, settings.precision) if arguments.device.type != "cpu" else torch.float32
        teacher = Teacher(mapped, streamed=settings.stream_teacher, dtype=dtype, device=arguments.device)
        return Guide(settings, causal, mapped.layers, mapped.kept, teacher), mapped.digest
    cache, key = Path(settings.teacher_cache), cache_key(mapped, train, settings)
    with arguments.main_process_first(local=False, desc="asking the teacher"):
        top_logits = open_top_logits(cache, key) or cache_top_logits(
            cache, key, mapped, train, settings, device=arguments.device, report=report
        )
    return Guide(settings, causal, mapped.layers, mapped.kept, top_logits=top_logits), mapped.digest


def _write(
    source: HealedFolder,
    out: Path,
    settings: HealOptions,
    zeros: Mapping[str, int],
    job: Job,
    *,
    overwrite: bool,
    report: Report,
) -> HealResult:
    """Write the output on the first process, while the others wait."""
    losses = [entry["loss"] for entry in job.trained.history if "loss" in entry]
    loss = {"first": losses[0], "last": losses[-1]}
    if job.trained.heldout is not None:
        loss |= {"heldout_before": job.trained.heldout[0], "heldout_after": job.trained.heldout[1]}
    result = HealResult(
        out, settings, settings.steps, loss, job.names, {}, job.trained.seconds, job.trained.resumed, (), job.notes
    )
    if is_first():
        report("writing", 0, 0)
        with staging_folder(out, source=source.folder, overwrite=overwrite) as staging:
            masks, files = _fill(source, staging, zeros, job, settings)
            result = HealResult(**{**vars(result), "masks": masks, "files": files})
            _record(staging, source, result)
    job.wait()
    return result


def _fill(
    source: HealedFolder, staging: Path, zeros: Mapping[str, int], job: Job, settings: HealOptions
) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    from langslice.healing.curves import write_curves
    from langslice.healing.trained_weights import copy_model, write_weights
    from langslice.verification.file_names import FILE_NAME

    masks: dict[str, dict[str, int]] = {}
    if job.model is None:
        job.wrapper.peft_config["default"].base_model_name_or_path = str(source.folder)
        job.wrapper.save_pretrained(staging)
        (staging / "README.md").unlink(missing_ok=True)
        if (source.folder / FILE_NAME).is_file():
            shutil.copyfile(source.folder / FILE_NAME, staging / FILE_NAME)
    else:
        copy_model(source.checkpoint, staging)
        staged = open_checkpoint(staging)
        write_weights(
            job.model,
            source.checkpoint,
            staged,
            staging / ".saved",
            zeros,
            job.trained.state,
            body=source.is_embedding_model,
        )
        masks = check_held(source.checkpoint, staged, dict(zeros))
    return masks, tuple(write_curves(staging, job.trained.history, job.trained.heldout, settings.steps))


def _record(staging: Path, source: HealedFolder, result: HealResult) -> None:
    from langslice.healing.trained_weights import add_entry
    from langslice.reporting.card import refresh_card
    from langslice.verification.file_names import FILE_NAME
    from langslice.verification.record import installed_versions

    entry = {
        "from": str(source.folder),
        "settings": result.settings.to_json(),
        "steps": result.steps,
        "loss": dict(result.loss),
        "trained": list(result.trained),
        "masks": {name: dict(counts) for name, counts in result.masks.items()},
        "seconds": round(result.seconds, 1),
        "resumed": result.resumed,
        "processes": processes(),
        "versions": {"langslice": __version__, **installed_versions(_LIBRARIES)},
    }
    add_entry(staging, "healed", entry)
    if (staging / FILE_NAME).is_file() and (staging / "config.json").is_file():  # an adapter alone has no card of ours
        refresh_card(staging, result.out.name)
