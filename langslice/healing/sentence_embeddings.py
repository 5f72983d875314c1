"""Heal sentence embedding models, through sentence-transformers' own trainer and losses.

    contrastive  a sentence's pair is found among those of its batch (multiple negatives ranking, Henderson et al. 2017); the
                 pair is a parallel sentence, or the same sentence under another dropout (SimCSE, Gao et al. 2021)
    mse          the embedding is that of the teacher; of a pair, both sides take the teacher's embedding of the first
                 (Reimers and Gurevych 2020)

Pooling and later modules stay as they are: the transformer alone trains.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import CheckpointError, HealError
from langslice.healing.job import Job, eval_every_steps, finish, heldout_loss, no_loss, prepare
from langslice.healing.options import LENGTH, HealOptions
from langslice.healing.sequences import check_known
from langslice.healing.student import HealedFolder
from langslice.healing.trainer import processes, run_trainer, trainer_class, training_arguments
from langslice.options import flag_of
from langslice.progress import Report

# Settings of language models that mean nothing here.
_ELSEWHERE = ("packing", "hidden", "teacher_cache", "stream_teacher", "alpha", "temperature", "teacher_top")
_POOLER = "pooler."  # BERT's own, which sentence-transformers does not read


@dataclass(frozen=True)
class Sentences:
    """What is trained on: a first and a second side, the same text where there are no pairs."""

    first: tuple[str, ...]
    second: tuple[str, ...]

    def take(self, places: Any) -> Sentences:
        """Some of them."""
        return Sentences(tuple(self.first[at] for at in places), tuple(self.second[at] for at in places))

    @property
    def digest(self) -> str:
        """sha256 of both sides."""
        return hashlib.sha256("\0".join([*self.first, *self.second]).encode()).hexdigest()


def train_embedding(
    source: HealedFolder,
    settings: HealOptions,
    zeros: Mapping[str, int],
    work: Path,
    begin: Callable[..., None],
    report: Report,
) -> Job:
    """Heal a sentence-transformers folder.

    begin   settles which run the work folder belongs to, given digests of what is read
    Raises  HealError, CorpusError, CheckpointError
    """
    from langslice.model.transformers_classes import quiet_transformers

    objective = _check(source, settings)
    trainers, losses = _sentence_transformers()
    report("reading text", 0, 0)
    sentences, notes = read_sentences(source, settings)
    kept, apart = _split(sentences, settings)
    kept = _drawn(kept, settings)
    with quiet_transformers():
        encoder = load_encoder(source.folder)
        body = encoder[0].auto_model
        _check_weights(body, source)
        teach, digest = _targets(source, settings, encoder) if objective == "mse" else (None, "")
        begin(kept.digest, digest)
        length = settings.seq_length or LENGTH
        encoder.max_seq_length = min(length, encoder.max_seq_length or length)
        _, wrapper, names, held = prepare(body, source.checkpoint, settings, zeros)
        for module in list(encoder)[1:]:
            module.requires_grad_(False)
        for name, parameter in body.named_parameters():
            if name.startswith(_POOLER):
                parameter.requires_grad_(False)
        arguments = training_arguments(
            settings, work, trainers.SentenceTransformerTrainingArguments,
            eval_strategy="steps" if apart.first else "no", eval_steps=eval_every_steps(settings),
        )  # fmt: skip
        loss = losses.MSELoss if objective == "mse" else losses.MultipleNegativesRankingLoss
        made = partial(_dataset, teach=teach)
        trainer = trainer_class(_without_card(trainers.SentenceTransformerTrainer), held, report)(
            model=encoder, args=arguments, train_dataset=made(kept), eval_dataset=made(apart) if apart.first else None,
            loss=loss(encoder),
        )  # fmt: skip
        trained = run_trainer(
            trainer, work, resume=settings.resume, measure=partial(heldout_loss, trainer) if apart.first else no_loss
        )
        finished = finish(trainer, source.checkpoint, settings, wrapper, trained)
    names = tuple(name for name in names if not name.startswith(_POOLER))
    model = body if wrapper is None and trained.state is None else finished
    return Job(model, wrapper, names, trained, trainer.accelerator.wait_for_everyone, notes)


def _check(source: HealedFolder, settings: HealOptions) -> str:
    """The objective of an embedding model, or why it cannot be."""
    if not source.is_embedding_model:
        raise HealError(
            f"{source.folder} has no modules.json, so it is no sentence embedding model",
            f"--objective {settings.objective} is for sentence-transformers folders",
        )
    objective = settings.objective
    if objective == "auto":
        objective = "mse" if settings.teacher else "contrastive"
    if objective not in ("contrastive", "mse"):
        raise HealError(f"--objective {objective} does not fit a sentence embedding model", "contrastive or mse")
    if (objective == "mse") != bool(settings.teacher):
        raise HealError(
            f"--objective {objective} {'needs' if objective == 'mse' else 'does not use'} a teacher",
            "add --teacher MODEL" if objective == "mse" else "leave --teacher out, or use --objective mse",
        )
    for name in _ELSEWHERE:
        if getattr(settings, name) != getattr(HealOptions(), name):
            raise HealError(f"{flag_of(HealOptions, name)} has no effect on a sentence embedding model", "leave it out")
    if objective == "contrastive" and settings.batch_size < 2:
        raise HealError("--batch-size is 1, and a contrast needs others in the batch", "pass --batch-size 32")
    return objective


def read_sentences(source: HealedFolder, settings: HealOptions) -> tuple[Sentences, tuple[str, ...]]:
    """Sentences of the corpus with pairs after them, and notes.

    Raises  CorpusError when the tokenizer cannot read them
    """
    from langslice.corpus import read_texts
    from langslice.tokenizer import open_tokenizer

    first: list[str] = []
    if settings.corpus:
        first = [text.strip() for text in read_texts(settings.corpus, text_field=settings.text_field) if text.strip()]
    second = list(first)
    if settings.pairs:
        from langslice.demonstrations.sources import read_pairs

        one, _, other = settings.fields.partition(",")
        pairs = read_pairs(settings.pairs, (one.strip(), other.strip()))
        first += [pair[0] for pair in pairs]
        second += [pair[1] for pair in pairs]
    tokenizer = open_tokenizer(source.checkpoint.model_folder, model_type=source.checkpoint.config.get("model_type"))
    notes = check_known([*tokenizer.encode(first), *tokenizer.encode(second)], tokenizer.unknown_id)
    return Sentences(tuple(first), tuple(second)), tuple(notes)


def load_encoder(folder: Path) -> Any:
    """The folder as sentence-transformers opens it, in float32; its code is run only where this package wrote it.

    Raises  CheckpointError
    """
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=_is_own_code(folder)).float()
    except Exception as error:  # modules raise anything
        raise CheckpointError(
            f"{folder}: sentence-transformers cannot open it\n  {error}", "is it an encoder?"
        ) from error


def _is_own_code(folder: Path) -> bool:
    """Whether modeling_sliced.py is byte for byte what a slice is given."""
    from langslice.model.checkpoint import open_checkpoint
    from langslice.structure.sliced_files import MODULE, write_module

    checkpoint = open_checkpoint(folder)
    code = checkpoint.model_folder / f"{MODULE}.py"
    if not code.is_file() or "auto_map" not in checkpoint.config:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        write_module(Path(scratch), checkpoint.config)
        return (Path(scratch) / code.name).read_bytes() == code.read_bytes()


def _check_weights(body: Any, source: HealedFolder) -> None:
    """Every weight of the transformer must be in the checkpoint: sentence-transformers says nothing of random ones."""
    found = source.checkpoint.tensors
    prefix = f"{body.base_model_prefix}."
    missing = [
        name for name, _ in body.named_parameters()
        if name not in found and prefix + name not in found and not name.startswith(_POOLER)
    ]  # fmt: skip
    if missing:
        raise CheckpointError(
            f"{source.folder} lacks {len(missing)} weights of its transformer, {missing[0]} for one",
            "sentence-transformers would fill them with random numbers",
        )


def _targets(source: HealedFolder, settings: HealOptions, student: Any) -> tuple[Callable[[Any], Any], str]:
    """A function from sentences to the teacher's embeddings (n, size), and a digest of the teacher."""
    from langslice.healing.teacher import find_teacher

    mapped = find_teacher(source, settings.teacher or "", any_teacher=settings.any_teacher)
    teacher = load_encoder(mapped.checkpoint.folder)
    sizes = [int(one.encode(["a"], show_progress_bar=False).shape[1]) for one in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise HealError(
            f"wrong teacher: its embeddings have {sizes[1]} numbers, the slice's {sizes[0]}",
            "distil from the model that was sliced",
        )

    def embed(texts: Any) -> Any:
        return teacher.encode(list(texts), show_progress_bar=False, batch_size=settings.batch_size)

    return embed, mapped.digest


def _split(sentences: Sentences, settings: HealOptions) -> tuple[Sentences, Sentences]:
    """What trains, and what is held out."""
    total = len(sentences.first)
    count = min(round(settings.heldout * total) or int(settings.heldout > 0 and total > 3), 512)
    if count < 2 and settings.heldout > 0 and total > 3:
        count = 2  # a contrast needs two
    order = np.random.default_rng([settings.seed, 1]).permutation(total)
    apart = {sentences.first[at] for at in order[:count]}
    kept = [at for at in range(total) if sentences.first[at] not in apart]
    if not kept:
        return sentences, Sentences((), ())
    return sentences.take(kept), sentences.take(sorted(order[:count].tolist()))


def _drawn(kept: Sentences, settings: HealOptions) -> Sentences:
    """As many as a run reads, at random: a teacher is not asked about sentences that no step would reach."""
    read = settings.steps * settings.batch_size * settings.gradient_accumulation * processes()
    total = len(kept.first)
    if read >= total:
        return kept
    return kept.take(np.sort(np.random.default_rng([settings.seed, 2]).permutation(total)[:read]).tolist())


def _dataset(sentences: Sentences, *, teach: Callable[[Any], Any] | None) -> Any:
    """As sentence-transformers' trainer reads it; the teacher is asked once about each sentence."""
    from datasets import Dataset

    if teach is None:
        return Dataset.from_dict({"anchor": list(sentences.first), "positive": list(sentences.second)})
    targets = teach(sentences.first)
    paired = [at for at in range(len(sentences.first)) if sentences.second[at] != sentences.first[at]]
    texts = [*sentences.first, *(sentences.second[at] for at in paired)]
    return Dataset.from_dict({"sentence": texts, "label": [*targets.tolist(), *targets[paired].tolist()]})


def _without_card(base: Any) -> Any:
    """The trainer without its model card, which would look for its data sets on the hub."""

    class Cardless(base):  # type: ignore[misc]
        def add_model_card_callback(self, default_args_dict: Any) -> None:
            """Write no card."""

    return Cardless


def _sentence_transformers() -> tuple[Any, Any]:
    """The package, and its losses, which version 6 moved."""
    try:
        import sentence_transformers

        import_module("datasets")
    except ImportError as error:
        raise HealError(
            "embedding models are healed by the packages `sentence-transformers` and `datasets`",
            'pip install "langslice[sentence-transformers,datasets]"',
        ) from error
    place = "sentence_transformers.sentence_transformer.losses"
    moved = find_spec("sentence_transformers.sentence_transformer") is not None and find_spec(place) is not None
    return sentence_transformers, import_module(place if moved else "sentence_transformers.losses")
