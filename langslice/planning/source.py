"""A model that a job reads: opened once and handed down.

What takes time to find out is found out when it is first asked for, and kept as long as the job: planning, writing and
verification look at one value instead of reading files and tensors again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from langslice.model.anatomy import Anatomy, read_anatomy
from langslice.model.axes import Family, TensorAxes, describe_tensors
from langslice.model.checkpoint import Checkpoint
from langslice.model.draft_head import DraftMap, read_draft_map
from langslice.model.families import family_of
from langslice.model.source_tokenizer import fingerprint_of, source_tokenizer, vocabulary_rows
from langslice.options import listed
from langslice.planning.side_files import SideFile, plan_side_files
from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary.chats import read_templates
from langslice.vocabulary.fixed_texts import FixedTexts, chats, combined, prompts


# Compared and hashed by identity: what is found out is remembered with it.
@dataclass(frozen=True, eq=False)
class Source:
    """A checkpoint, and what is known of it.

    needs_tokenizer   False for a job that leaves all tokens as they are: a folder without a tokenizer then gives an absent one
    carry, leave_out  patterns by which the user settles files that are not known
    """

    checkpoint: Checkpoint
    needs_tokenizer: bool = True
    carry: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """The row of its family."""
        return family_of(self.checkpoint.config)

    @cached_property
    def rows(self) -> int:
        """Rows of the vocabulary."""
        return vocabulary_rows(self.checkpoint)

    @cached_property
    def axes(self) -> Mapping[str, TensorAxes]:
        """Part and named axes of every tensor."""
        return describe_tensors(self.family, self.checkpoint.shapes, self.rows)

    @cached_property
    def draft(self) -> DraftMap | None:
        """The map of a draft model's head; None for any other.

        Raises  CheckpointError where its tensors contradict each other
        """
        return read_draft_map(self.checkpoint, self.rows)

    @property
    def per_layer_rows(self) -> int | None:
        """Rows of the per-layer table; None where there is none."""
        shapes = self.checkpoint.shapes
        found = [
            shapes[name][tensor.axes.index("per_layer_vocab")]
            for name, tensor in self.axes.items()
            if tensor.axes and "per_layer_vocab" in tensor.axes
        ]
        return found[-1] if found else None

    @cached_property
    def anatomy(self) -> Anatomy:
        """Its layers, heads and neurons.

        Raises  PlanError where they are not known
        """
        return read_anatomy(self.checkpoint, self.axes)

    @cached_property
    def tokenizer(self) -> SourceTokenizer:
        """The tokenizer, read; its backend is loaded when text is first encoded."""
        return source_tokenizer(self.checkpoint, rows=self.rows, needed=self.needs_tokenizer)

    def release_tokenizer(self) -> None:
        """Free the tokenizer, as large as many a model; whoever asks for it later has it read again."""
        tokenizer: SourceTokenizer | None = self.__dict__.pop("tokenizer", None)
        if tokenizer is not None:
            tokenizer.release()

    @cached_property
    def fingerprint(self) -> str:
        """What a plan is tied to: configuration, tensors and tokenizer files."""
        return fingerprint_of(self.checkpoint, self.tokenizer)

    @cached_property
    def files(self) -> Sequence[SideFile]:
        """What happens to every file next to weights and tokenizer."""
        tokenizer = self.tokenizer
        return plan_side_files(
            self.checkpoint, tokenizer.files, carry=self.carry, leave_out=self.leave_out, tokens=tokenizer.tokens
        )

    @cached_property
    def templates(self) -> Mapping[str, str]:
        """Chat templates by name."""
        return read_templates(self.checkpoint.model_folder)

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """What the configuration puts in front of texts."""
        return prompts(self.checkpoint)

    @cached_property
    def chats(self) -> tuple[str, ...]:
        """What the chat templates make of every kind of chat."""
        return chats(self.checkpoint, self.templates)

    def fixed_texts(self, keep_text: Sequence[str] = ()) -> FixedTexts:
        """What the model is always called with, by reason.

        keep_text  what the user adds
        """
        return combined(keep_text, self.prompts, self.chats)


def settled(checkpoint: Checkpoint, request: Mapping[str, Any], *, needs_tokenizer: bool) -> Source:
    """The source of a job whose request, or plan, may say what happens to unknown files."""
    return Source(checkpoint, needs_tokenizer, listed(request.get("carry")), listed(request.get("leave_out")))
