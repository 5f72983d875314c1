"""Prompts pass through an unmodified model block by block, with one block's weights in memory.

The unmodified class does all the plumbing (masks, positions, cross-attention): its forward runs for every prompt up to the
block at hand. Blocks after it answer at once with what they made of the prompt before (activations.py), and the block at
hand stops the run and hands over what it was called with. So each prompt sees the very calls that the whole model makes,
and no family needs code of its own.

    for visit in walk(skeleton, prompts, ...):    # weights of visit.block are loaded; visit.statistics say what it reads
        ...                                       # edit them in place; the next block reads what the edited one makes
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.demonstrations.tokens import Prompt
from langslice.errors import CheckpointError
from langslice.progress import Report, silent
from langslice.sparsity.activations import Activations, Answer, hidden_of
from langslice.sparsity.blocks import Block, Linear
from langslice.sparsity.input_statistics import InputStatistics
from langslice.sparsity.packed_weights import packed, worth_packing
from langslice.sparsity.skeleton import Skeleton

OnHidden = Callable[[str, int, Any], None]
"""Called with "embeddings" or a block's name, the prompt's number, and the hidden states (1, tokens, hidden)."""


@dataclass(frozen=True)
class Visit:
    """A block whose weights are loaded; statistics are None where none were asked for."""

    block: Block
    statistics: InputStatistics | None


class _Reached(Exception):
    """The block at hand was called."""

    def __init__(self, block: Block, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(block.name)
        self.block, self.args_given, self.kwargs_given = block, args, kwargs


class _HeadReached(Exception):
    """Every block has been passed."""


def walk(
    skeleton: Skeleton,
    prompts: Sequence[Prompt],
    *,
    watched: Callable[[Block], Sequence[Linear]] | None = None,
    with_products: bool = False,
    with_activity: bool = False,
    keep_each: bool = False,
    finished: Collection[str] = (),
    offload: Path | None = None,
    compute: str = "float32",
    pack: bool | None = None,
    on_hidden: OnHidden | None = None,
    report: Report = silent,
) -> Iterator[Visit]:
    """Yield every block that the prompts reach, in the order in which they do.

    watched        linear layers of a block whose inputs are counted before it is yielded; None counts nothing
    with_products, with_activity, keep_each  see InputStatistics
    finished       blocks that are passed without counting and without being yielded
    offload        folder for activations, instead of memory
    compute        "float32" or "bfloat16", of matrix products
    pack           see packed_weights.py; None decides by the number of tokens
    on_hidden      told the hidden states before the first block and after each; prompts pass even the last block then
    Raises         CheckpointError for an infinite or NaN activation, naming the block
    """
    skeleton.load_surroundings(token for prompt in prompts for token in prompt.all_tokens())
    run = _Run(skeleton, prompts, Activations(offload), on_hidden, compute)
    run.pack = worth_packing(prompts) if pack is None else pack
    try:
        counted = {"with_products": with_products, "with_activity": with_activity, "keep_each": keep_each}
        yield from _walk(run, watched, counted, finished, report)
    finally:
        run.close()


def _walk(
    run: _Run,
    watched: Callable[[Block], Sequence[Linear]] | None,
    counted: Mapping[str, bool],
    finished: Collection[str],
    report: Report,
) -> Iterator[Visit]:
    total = len(run.skeleton.blocks)
    block = run.next_block()
    for number in range(total):
        if block is None:
            return
        report(f"block {block.name}", number, total)
        run.skeleton.load(block)
        if block.name not in finished:
            linears = watched(block) if watched is not None else ()
            statistics = InputStatistics(block, linears, **counted) if linears else None
            if statistics is not None:
                run.observe(block, statistics)
            yield Visit(block, statistics)
        # Nobody reads what the last block of the last stack makes.
        if number + 1 < total or run.on_hidden is not None:
            run.advance(block)
        else:
            run.passed.append(block)
        run.skeleton.release(block)
        block = run.next_block()
    report("blocks", total, total)


class _Run:
    """Prompts on their way through a skeleton."""

    def __init__(
        self,
        skeleton: Skeleton,
        prompts: Sequence[Prompt],
        activations: Activations,
        on_hidden: OnHidden | None,
        compute: str,
    ) -> None:
        self.skeleton, self.prompts, self.activations, self.on_hidden = skeleton, prompts, activations, on_hidden
        self._compute = compute
        self.pack = False
        self.passed: list[Block] = []
        # What each stack made of the prompt at hand; read once for a replay, whichever of its blocks asks.
        self._answers: dict[str, Any] = {}
        # By stack: what the unmodified forward reads of a block's outputs, and what is therefore not kept.
        self._read: dict[str, set[int]] = {}
        self._dropped: dict[str, frozenset[int]] = {}
        self._prompt = 0
        self._handles: list[Any] = []
        for block in skeleton.blocks:
            block.module.forward = self._gate(block)
        head = skeleton.model.get_output_embeddings()
        if head is not None:
            self._handles.append(head.register_forward_pre_hook(_stop_at_head))

    def close(self) -> None:
        """Undo every change to the model."""
        for block in self.skeleton.blocks:
            del block.module.forward
        for handle in self._handles:
            handle.remove()
        self.activations.close()

    def next_block(self) -> Block | None:
        """The block that the first prompt reaches next; None after the last."""
        if len(self.passed) == len(self.skeleton.blocks):
            return None
        reached = self._replay(0)
        if reached is None:
            return None
        if not self.passed and self.on_hidden is not None:
            for number in range(len(self.prompts)):
                self.on_hidden("embeddings", number, _input_of(self._reach(number, reached.block)))
        return reached.block

    def observe(self, block: Block, statistics: InputStatistics) -> None:
        """Pass every prompt through a block to count what its linear layers read."""
        with self._products(block):
            for number, prompt in enumerate(self.prompts):
                reached = self._reach(number, block)
                statistics.watch(
                    prompt.condition,
                    lambda reached=reached: self._forward(reached),  # type: ignore[misc]
                )

    def advance(self, block: Block) -> None:
        """Pass every prompt through a block, as it is now, and keep what it makes of them."""
        with self._products(block):
            for number, prompt in enumerate(self.prompts):
                reached = self._reach(number, block)
                output = _settled(block, self._forward(reached))
                hidden = hidden_of(output)
                if not _is_finite(hidden):
                    raise _not_finite(f"in the output of {block.name}", prompt, hidden)
                self._keep(number, block, output)
                if self.on_hidden is not None:
                    self.on_hidden(block.name, number, hidden)
        self.passed.append(block)

    def _products(self, block: Block) -> AbstractContextManager[None]:
        return packed(block, self._compute) if self.pack else nullcontext()

    def _keep(self, number: int, block: Block, output: Any) -> None:
        """Remember what a block made of a prompt, as far as the unmodified forward reads it."""
        if isinstance(output, tuple) and block.stack not in self._dropped:
            self._read[block.stack] = set()
            self.activations.put(number, block.stack, output)
            self.passed.append(block)
            self._replay(number)
            self.passed.pop()
            self._dropped[block.stack] = frozenset(range(1, len(output))) - self._read[block.stack]
        if self._dropped.get(block.stack):
            dropped = self._dropped[block.stack]
            output = tuple(None if place in dropped else item for place, item in enumerate(output))
        self.activations.put(number, block.stack, output)

    def _answer(self, stack: str) -> Any:
        kept = self.activations.get(self._prompt, stack)
        if not isinstance(kept, tuple):
            return kept
        return Answer(kept, self._read[stack], self._dropped.get(stack, frozenset()))

    def _forward(self, reached: _Reached) -> Any:
        """What a block makes of what it was called with."""
        import torch

        module = reached.block.module
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._compute == "bfloat16"):
            return type(module).forward(module, *reached.args_given, **reached.kwargs_given)

    def _reach(self, number: int, block: Block) -> _Reached:
        reached = self._replay(number)
        if reached is None or reached.block is not block:
            found = "none" if reached is None else reached.block.name
            raise CheckpointError(
                f"prompts reach the blocks in different orders: expected {block.name}, found {found}",
                "this architecture cannot be walked block by block",
            )
        hidden = _input_of(reached)
        if not self.passed and not _is_finite(hidden):
            raise _not_finite(f"before {block.name}, in the embeddings", self.prompts[number], hidden)
        return reached

    def _replay(self, number: int) -> _Reached | None:
        """Run the unmodified forward until a block that was not passed yet is called."""
        self._prompt = number
        self._answers.clear()
        try:
            self.skeleton.model(**self.prompts[number].inputs())
        except _Reached as reached:
            # The traceback holds every tensor of the forward, in a cycle that only the collector would break.
            return reached.with_traceback(None)
        except _HeadReached:
            return None
        return None

    def _gate(self, block: Block) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if any(block is passed for passed in self.passed):
                if block.stack not in self._answers:
                    self._answers[block.stack] = self._answer(block.stack)
                return self._answers[block.stack]
            raise _Reached(block, args, kwargs)

        return forward


def _stop_at_head(module: Any, given: tuple[Any, ...]) -> None:
    raise _HeadReached


def _input_of(reached: _Reached) -> Any:
    hidden = reached.args_given[0] if reached.args_given else reached.kwargs_given["hidden_states"]
    if hidden.is_meta:
        raise CheckpointError(
            f"a weight that {reached.block.name} depends on is not in the checkpoint",
            "the checkpoint is incomplete, or of another version of the unmodified class",
        )
    return hidden


def _settled(block: Block, output: Any) -> Any:
    """What a block returned, checked to be what can be kept between blocks."""
    import torch

    items = output if isinstance(output, tuple) else (output,)
    for item in items:
        if item is not None and not isinstance(item, torch.Tensor):
            raise CheckpointError(
                f"{block.name} returns a {type(item).__name__} among its outputs, expected tensors",
                "this architecture cannot be walked block by block",
            )
    floats = tuple(item.float() if item is not None and item.is_floating_point() else item for item in items)
    return floats if isinstance(output, tuple) else floats[0]


def _is_finite(hidden: Any) -> bool:
    # One sum is many times faster; it may overflow where no value did.
    return bool(hidden.sum().isfinite()) or bool(hidden.isfinite().all())


def _not_finite(where: str, prompt: Prompt, hidden: Any) -> CheckpointError:
    bad = int((~hidden.isfinite()).sum())
    return CheckpointError(
        f"infinite or NaN activation {where}\n  calibration prompt {prompt.number} ({prompt.condition}): "
        f"{bad:,} of {hidden.numel():,} values",
        "the model overflows on this text, or its weights are damaged",
    )
