"""Verification of a slice inside the job: its text, what of it still holds after pruning, and the message when it fails."""

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
    from langslice.verification.main import SlicePair, Verification


def verify_pruned(verification: Verification, source: Source, out: Path, made: SlicePlan) -> Verification:
    """A slice's verification with what still holds, and is checked again, after its weights were pruned."""
    from langslice.verification.tensors import check_bytes
    from langslice.verification.zeros import check_zeros

    sliced = open_checkpoint(out)
    checks = [check_bytes(source, sliced, made) if check.name == "bytes" else check for check in verification.checks]
    checks = [
        replace(check, detail=f"before weights were pruned: {check.detail}")
        if check.name in ("outputs", "pipeline")
        else check
        for check in checks
    ]
    return replace(verification, checks=(*checks, check_zeros(sliced, made.pruned)))


def verify_slice(both: SlicePair, text: Sequence[str], report: Report) -> Verification:
    """Compare a slice with its source, on the text that its plan names and on `text`, held-out files."""
    from langslice.verification.main import verify
    from langslice.verification.sample_texts import always_read, verification_texts

    texts = {**verification_texts(both.plan.request, text), **always_read(both.source, both.plan.request)}
    return verify(both, texts, progress=lambda step: report(f"verifying {step}", 0, 0))


def failure_text(verification: Verification, headline: str) -> str:
    """One message for a verification that failed: which checks, with their first ten examples."""
    lines = [headline]
    for check in verification.checks:
        if check.passed is False:
            lines.append(f"  {check.name}: {check.detail}")
            lines += [f"    {example}" for example in check.examples]
    return "\n".join(lines)
