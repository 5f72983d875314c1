"""The proof of a slice inside the job: its text, what of it still holds after pruning, and the message when it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from langslice.model.checkpoint import open_checkpoint
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.progress import Report

if TYPE_CHECKING:
    from langslice.verification.proof import Compared, Proof


def prove_pruned(proof: Proof, source: Source, out: Path, made: SlicePlan) -> Proof:
    """A slice's proof with what still holds, and is checked again, after its weights were pruned."""
    from langslice.verification.tensors import check_bytes
    from langslice.verification.zeros import check_zeros

    sliced = open_checkpoint(out)
    checks = [check_bytes(source, sliced, made) if check.name == "bytes" else check for check in proof.checks]
    checks = [
        replace(check, detail=f"before weights were pruned: {check.detail}")
        if check.name in ("outputs", "pipeline")
        else check
        for check in checks
    ]
    return replace(proof, checks=(*checks, check_zeros(sliced, made.pruned)))


def prove_slice(both: Compared, text: Sequence[str], report: Report) -> Proof:
    """Compare a slice with its source, on the text that its plan names and on `text`, held-out files."""
    from langslice.verification.proof import prove
    from langslice.verification.sample_texts import always_read, proof_texts

    texts = {**proof_texts(both.plan.request, text), **always_read(both.source, both.plan.request)}
    return prove(both, texts, progress=lambda step: report(f"verifying {step}", 0, 0))


def failure_text(proof: Proof, headline: str) -> str:
    """One message for a proof that failed: which checks, with their first ten examples."""
    lines = [headline]
    for check in proof.checks:
        if check.passed is False:
            lines.append(f"  {check.name}: {check.detail}")
            lines += [f"    {example}" for example in check.examples]
    return "\n".join(lines)
