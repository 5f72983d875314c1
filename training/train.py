"""Train langslice-mini from one command, with a fixed seed and exact resume.

    python training/train.py --out runs/mini --steps 4000          # the whole run
    python training/train.py --out runs/mini --minutes 90          # as many steps as fit
    python training/train.py --out runs/mini --steps 4000 --resume # go on from the last checkpoint
    python training/train.py --out runs/smoke --smoke              # a small model, under a minute

The learning rate rises over the first steps, stays, and falls to zero over the last quarter (`--decay` sets another
number of steps). Until the fall begins windows have half the context's length, because attention is then cheaper, and
nothing depends on the total, so a run may be stopped and resumed with another `--steps`.
OUT receives tokenizer.json, checkpoint.pt, log.jsonl (one line per evaluation), run.json and, at the end, model/.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from bpe import END_ID, train_tokenizer
from layout import EncodedText, Windows, encode_documents
from model import SHAPE, SMOKE_SHAPE, build_model, build_optimisers, export_model, window_loss
from sources import read_sources
from tokenizers import Tokenizer
from torch import nn

DECAY_SHARE = 0.25
WEIGHT_DECAY = 0.1
EVALUATION_WINDOWS = 8  # a language


@dataclass(frozen=True)
class Run:
    """What a run is made of; written to run.json.

    windows          windows of full length an optimiser step; before the fall twice as many of half the length
    steps            optimiser steps in all
    warmup, decay    steps over which the learning rate rises at the start and falls at the end
    """

    shape: dict[str, int]
    seed: int
    steps: int
    warmup: int
    decay: int
    windows: int
    matrix_rate: float
    other_rate: float
    bfloat16: bool
    evaluate_every: int
    checkpoint_every: int


@dataclass(frozen=True)
class TrainingData:
    """The tokenizer and both sides of the split."""

    tokenizer: Tokenizer
    training: EncodedText
    heldout: EncodedText


def learning_rate(step: int, run: Run) -> float:
    """Give the share of the peak learning rate for a step counted from 0."""
    return min(1.0, (step + 1) / run.warmup, max(0.0, (run.steps - step) / max(1, run.decay)))


def evaluation_windows(heldout: EncodedText, length: int) -> dict[str, torch.Tensor]:
    """Cut the first held-out text of each language, and of code, into windows that begin with `<|endoftext|>`."""
    found = {}
    for language, texts in {**heldout.running, "python": heldout.code}.items():
        ids = torch.cat([torch.from_numpy(text) for text in texts]).long()
        count = min(EVALUATION_WINDOWS, len(ids) // (length - 1))
        rows = ids[: count * (length - 1)].view(count, length - 1)
        found[language] = torch.cat([torch.full((count, 1), END_ID), rows], dim=1)
    return found


@torch.no_grad()
def heldout_loss(model: nn.Module, windows: dict[str, torch.Tensor], run: Run) -> dict[str, float]:
    """Mean loss by language in nats per token."""
    return {language: round(window_loss(model, rows, run.bfloat16).item(), 4) for language, rows in windows.items()}


def save_checkpoint(file: Path, model: nn.Module, optimisers: list, step: int, seconds: float) -> None:
    """Write everything that the next step needs, to a temporary file first."""
    state = {"model": model.state_dict(), "optimisers": [one.state_dict() for one in optimisers]}
    torch.save({**state, "step": step, "seconds": seconds}, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def train_step(model: nn.Module, optimisers: list, batch: torch.Tensor, factor: float, run: Run) -> float:
    """Take one optimiser step and return the loss before it."""
    loss = window_loss(model, batch, run.bfloat16)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser, peak in zip(optimisers, (run.matrix_rate, run.other_rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = peak * factor
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return loss.item()


def train(
    out: Path, data: TrainingData, run: Run, minutes: float | None, resume: bool, stop_after: int | None = None
) -> Run:
    """Train until the run's last step; with `minutes`, choose that step on the way so that the time is kept.

    stop_after    write a checkpoint and return after this step, as an interruption would
    Returns       the run as it went, with its steps
    """
    out.mkdir(parents=True, exist_ok=True)
    data.tokenizer.save(str(out / "tokenizer.json"))
    write_run(out, run)
    model = build_model(run.shape, run.seed)
    optimisers = build_optimisers(model, run.matrix_rate, run.other_rate, WEIGHT_DECAY)
    step, before = restore(out / "checkpoint.pt", model, optimisers) if resume else (0, 0.0)
    length = run.shape["max_position_embeddings"] + 1
    windows, examination = Windows(data.training, run.seed), evaluation_windows(data.heldout, length)
    recent: deque[float] = deque(maxlen=100)
    start = time.monotonic() - before
    while step < run.steps:
        short = step < run.steps - run.decay
        size, reach = (run.windows * 2, length // 2 + 1) if short else (run.windows, length)
        batch = torch.from_numpy(windows.batch(step, size, reach)).long()
        recent.append(train_step(model, optimisers, batch, learning_rate(step, run), run))
        step += 1
        seconds = time.monotonic() - start
        if minutes is not None and seconds > minutes * 60 * (1 - DECAY_SHARE):
            decay = round(step * DECAY_SHARE / (1 - DECAY_SHARE))
            run, minutes = replace(run, steps=step + decay, decay=decay), None
            write_run(out, run)
        if step % run.evaluate_every == 0 or step == run.steps:
            report = {"step": step, "tokens": step * run.windows * (length - 1), "seconds": round(seconds, 1)}
            report |= {"train_loss": round(sum(recent) / len(recent), 4), "rate": learning_rate(step - 1, run)}
            write_log(out / "log.jsonl", report | {"heldout_loss": heldout_loss(model, examination, run)})
        if step % run.checkpoint_every == 0 or step in (run.steps, stop_after):
            save_checkpoint(out / "checkpoint.pt", model, optimisers, step, time.monotonic() - start)
        if step == stop_after:
            return run
    export_model(model, run.shape, data.tokenizer, out / "model")
    return run


def prepare(assets: Path, shape: dict[str, int]) -> TrainingData:
    """Read and split the sources, train the tokenizer, and encode both sides.

    The smoke shape takes every third document and no CLDR, which would need babel.
    """
    documents = read_sources(assets, names=shape == SHAPE)
    if shape == SMOKE_SHAPE:
        documents = documents[::3]
    tokenizer = train_tokenizer(documents, shape["vocab_size"])
    sides = [encode_documents(documents, tokenizer, heldout) for heldout in (False, True)]
    return TrainingData(tokenizer, *sides)


def restore(file: Path, model: nn.Module, optimisers: list) -> tuple[int, float]:
    """Load a checkpoint in place; return the steps done and the seconds they took."""
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, own in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(own)
    return state["step"], state["seconds"]


def write_run(out: Path, run: Run) -> None:
    """Write run.json, from which the command of a reproduction can be read."""
    (out / "run.json").write_text(json.dumps(asdict(run), indent=2) + "\n", encoding="utf-8")


def write_log(file: Path, report: dict) -> None:
    """Append one line to the log and show it."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(report) + "\n")
    print(json.dumps(report), file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    default = os.environ.get("LANGSLICE_ASSETS", "../shared/assets")
    parser.add_argument("--assets", type=Path, default=Path(default), help="folder with data/ntrex128, xquad and udhr")
    parser.add_argument("--steps", type=int, help="optimiser steps (default 4000; smoke 60)")
    parser.add_argument("--minutes", type=float, help="choose the number of steps so that training takes this long")
    parser.add_argument("--decay", type=int, help="steps over which the rate falls (default: a quarter)")
    parser.add_argument("--stop-after", type=int, help="stop after this step, as an interruption would")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--matrix-rate", type=float, default=0.006)
    parser.add_argument("--other-rate", type=float, default=0.003)
    parser.add_argument("--evaluate-every", type=int)
    parser.add_argument("--smoke", action="store_true", help="a small model on the same data, under a minute")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    steps = given.steps or (10**9 if given.minutes else 60 if given.smoke else 4000)
    run = Run(
        shape=SMOKE_SHAPE if given.smoke else SHAPE,
        seed=given.seed,
        steps=steps,
        warmup=10 if given.smoke else 60,
        decay=round(steps * DECAY_SHARE) if given.decay is None else given.decay,
        windows=4,
        matrix_rate=given.matrix_rate,
        other_rate=given.other_rate,
        bfloat16=not given.smoke,
        evaluate_every=given.evaluate_every or (20 if given.smoke else 200),
        checkpoint_every=20 if given.smoke else 100,
    )
    if given.minutes:
        run = replace(run, decay=1)
    train(given.out, prepare(given.assets, run.shape), run, given.minutes, given.resume, given.stop_after)


if __name__ == "__main__":
    main()
