"""Memory and speed of a model, each measured in a process of its own.

Processes of two models take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Speed:
    """What one model needs.

    memory_bytes      peak memory of loading and running, beyond what the process held before loading
    prefill, decode   tokens per second: reading a prompt, and writing one token at a time
    """

    memory_bytes: int
    prefill: float
    decode: float


def compare_speed(folders: Mapping[str, Path], *, rounds: int = 2) -> dict[str, Speed]:
    """Measure several models in turn, `rounds` times each; medians of speed, largest memory."""
    runs: dict[str, list[Speed]] = {name: [] for name in folders}
    for _ in range(rounds):
        for name, folder in folders.items():
            command = [sys.executable, "-m", "langslice.evaluate.speed", str(folder)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs[name].append(Speed(**json.loads(output.strip().splitlines()[-1])))
    return {
        name: Speed(
            max(run.memory_bytes for run in found),
            median(run.prefill for run in found),
            median(run.decode for run in found),
        )
        for name, found in runs.items()
    }


def measure(folder: Path, *, prompt: int = 256, new_tokens: int = 32, repeats: int = 3) -> Speed:
    """Load a causal model in this process, read a prompt and write tokens, greedily; the best of several repeats."""
    from time import perf_counter

    import torch
    import transformers  # noqa: F401 - counted before the model is

    from langslice.evaluate.perplexity import load_causal

    # Importing needs more memory for a moment than a small model does: forget that peak (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    model = load_causal(folder)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (1, prompt), generator=generator)
    prefill = decode = 0.0
    with torch.inference_mode():
        for _ in range(repeats):
            started = perf_counter()
            output = model(input_ids=ids, use_cache=True)
            prefill = max(prefill, prompt / (perf_counter() - started))
            cache, started = output.past_key_values, perf_counter()
            for _ in range(new_tokens):
                token = output.logits[:, -1:].argmax(-1)
                output = model(input_ids=token, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
            decode = max(decode, new_tokens / (perf_counter() - started))
    return Speed(_memory("VmHWM") - before, prefill, decode)


def _memory(field: str) -> int:
    """A memory figure of this process in bytes, as the kernel keeps it: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    from dataclasses import asdict

    sys.stdout.write(json.dumps(asdict(measure(Path(sys.argv[1])))) + "\n")
