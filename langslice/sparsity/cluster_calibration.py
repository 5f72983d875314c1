"""Weight pruning with its calibration data spread over a cluster.

Each machine walks its share of the prompts through the model, one block at a time, and sends what each prompt summed up; here
the sums are added in the order of the prompts, the block is pruned and written, and the machines read it again before they
go on. Masks depend neither on the number of machines nor on their luck: one that dies is replaced by another that passes
its prompts through the finished blocks, as a resumed run does. The checkpoint that is pruned must lie where all see it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langslice.cluster.ray_cluster import RETRIES, cluster_cpus, connected
from langslice.demonstrations.tokens import Prompt
from langslice.errors import ClusterError, PlanError
from langslice.progress import Report
from langslice.sparsity.allocation import choose_linears
from langslice.sparsity.block_pass import Visit, walk
from langslice.sparsity.blocks import Block, Linear
from langslice.sparsity.input_statistics import InputStatistics, PromptSums
from langslice.sparsity.packed_weights import worth_packing
from langslice.sparsity.request import CALIBRATED, SparsityRequest
from langslice.sparsity.skeleton import Skeleton

Found = tuple[str, list[PromptSums]]
"""A block's name, and the sums of each prompt; none where no layer of the block is pruned."""


def check_spreadable(request: SparsityRequest) -> None:
    """Refuse what a cluster would not make faster, or could not do.

    Raises  PlanError
    """
    if request.score not in CALIBRATED:
        raise PlanError(
            f"--ray has no effect: score {request.score!r} reads no calibration data", hint="leave --ray out"
        )
    if request.score == "sparsegpt":
        raise PlanError(
            "score 'sparsegpt' is not spread over a cluster: each prompt would send a matrix for every layer",
            hint="leave --ray out, or take --weights-by wanda",
        )


def spread_visits(
    skeleton: Skeleton,
    chosen: Callable[[Block], Sequence[Linear]],
    request: SparsityRequest,
    prompts: Sequence[Prompt],
    finished: Sequence[str],
    address: str,
    report: Report,
) -> Iterator[Visit]:
    """Do what `walk` does for pruning, on a Ray cluster: yield blocks with their weights and what the prompts make of them.

    finished  names of blocks that are pruned already; the caller writes each block before it takes the next
    Raises    ClusterError when a share of the prompts was lost as often as it was tried, and what `walk` raises
    """
    blocks = {block.name: block for block in skeleton.blocks}
    with connected(address) as ray:
        count = min(cluster_cpus(ray), len(prompts))
        passed = list(finished)
        pack = worth_packing(prompts)  # decided here: sums must not depend on how many machines there are
        walkers = [_Share(ray, skeleton, request, prompts[at::count], passed, pack) for at in range(count)]
        for number in range(sum(block.name in finished for block in skeleton.blocks), len(blocks)):
            for walker in walkers:
                walker.start()
            found = [walker.result() for walker in walkers]
            name = found[0][0]
            if any(other != name for other, _ in found):
                raise ClusterError(
                    f"prompts reach the blocks in different orders: {sorted({other for other, _ in found})}"
                )
            if not name:
                return
            report(f"block {name}", number, len(blocks))
            block = blocks[name]
            skeleton.load(block)
            sums = [each for _, each in found]
            yield Visit(block, _added(block, chosen(block), prompts, sums, request.score == "mwanda"))
            skeleton.release(block)
            passed.append(name)


def _added(
    block: Block,
    linears: Sequence[Linear],
    prompts: Sequence[Prompt],
    found: Sequence[list[PromptSums]],
    with_activity: bool,
) -> InputStatistics | None:
    """The sums of all prompts, in the order of the prompts: number n is with machine n modulo their number."""
    if not linears:
        return None
    statistics = InputStatistics(block, linears, with_activity=with_activity)
    for number, prompt in enumerate(prompts):
        statistics.add(prompt.condition, found[number % len(found)][number // len(found)])
    return statistics


class _Share:
    """Some of the prompts, on a machine of the cluster."""

    def __init__(
        self,
        ray: Any,
        skeleton: Skeleton,
        request: SparsityRequest,
        prompts: Sequence[Prompt],
        passed: Sequence[str],
        pack: bool,
    ) -> None:
        self._pack = pack
        self._ray, self._prompts, self._passed = ray, tuple(prompts), passed
        self._folder, self._request = skeleton.checkpoint.folder, request
        self._tries = RETRIES
        self._walker = self._begin()
        self._answer: Any = None

    def _begin(self) -> Any:
        walker = self._ray.remote(num_cpus=1)(Walker)
        given = (str(self._folder), self._request.linears, self._prompts, tuple(self._passed))
        request = self._request
        return walker.remote(*given, request.compute, request.offload, self._pack, request.score == "mwanda")

    def start(self) -> None:
        """Let it go on to its next block."""
        self._answer = self._walker.observe.remote()

    def result(self) -> Found:
        """What it has found, from another machine where its own was lost."""
        while True:
            try:
                found: Found = self._ray.get(self._answer)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self._ray.exceptions.RayError as error:
                if not self._tries:
                    raise ClusterError(
                        f"a share of the calibration data was lost\n  {error}", "its machine may lack memory"
                    ) from None
                self._tries -= 1
                self._walker = self._begin()
                self.start()
            else:
                return found


class Walker:
    """What runs on a machine: prompts on their way through a checkpoint that is pruned meanwhile."""

    def __init__(
        self,
        folder: str,
        patterns: Sequence[str],
        prompts: Sequence[Prompt],
        finished: Sequence[str],
        compute: str,
        offload: bool,
        pack: bool,
        with_activity: bool,
    ) -> None:
        self._skeleton = Skeleton(Path(folder))
        self._scratch = tempfile.TemporaryDirectory(prefix="langslice-") if offload else None
        self._visits = walk(
            self._skeleton, prompts, watched=choose_linears(self._skeleton, patterns), keep_each=True, finished=finished,
            offload=None if self._scratch is None else Path(self._scratch.name), compute=compute,
            pack=pack, with_activity=with_activity,
        )  # fmt: skip
        self._block: Block | None = None

    def observe(self) -> Found:
        """Pass the prompts through the block that was pruned last, and sum what they make of the next; "" after the last."""
        if self._block is not None:
            self._skeleton.load(self._block)  # as it is on disk now
        visit = next(self._visits, None)
        if visit is None:
            return "", []
        self._block = visit.block
        return visit.block.name, [] if visit.statistics is None else visit.statistics.each or []
