"""Memory and speed of a model, each measured in a process of its own.

One process loads the libraries, and each measurement is a fork of it. Two models take turns, so that a machine that slows down
slows both.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

from langslice.errors import TaskError
from langslice.model.positions import longest_text


@dataclass(frozen=True)
class Speed:
    """What one model needs.

    memory_bytes         peak memory of loading and running, beyond what the process held before loading
    prefill, decode      tokens per second: reading a prompt, and writing one token at a time; an encoder decodes 0
    first_token_seconds  from a prompt to the first token written; 0 for an encoder
    """

    memory_bytes: int
    prefill: float
    decode: float
    first_token_seconds: float = 0.0


def compare_speed(folders: Mapping[str, Path], *, rounds: int = 2) -> dict[str, Speed]:
    """Measure several models in turn, `rounds` times each; medians of speed, largest memory."""
    return {
        name: Speed(
            max(run.memory_bytes for run in found),
            median(run.prefill for run in found),
            median(run.decode for run in found),
            median(run.first_token_seconds for run in found),
        )
        for name, found in speed_rounds(folders, rounds=rounds).items()
    }


def speed_rounds(folders: Mapping[str, Path], *, rounds: int, options: Sequence[str] = ()) -> dict[str, list[Speed]]:
    """Every round of every model, the models taking turns.

    options  device and precision, as `measure` takes them
    Raises   TaskError when a model cannot be run, with the end of what its process said
    """
    runs: dict[str, list[Speed]] = {name: [] for name in folders}
    with _server() as measured:
        for _ in range(rounds):
            for name, folder in folders.items():
                runs[name].append(measured(folder, options))
    return runs


@contextmanager
def _server() -> Iterator[Callable[[Path, Sequence[str]], Speed]]:
    """A process that has loaded its libraries, and measures each model in a fork of itself; ended on the way out."""
    command = [sys.executable, "-m", "langslice.evaluation.speed"]
    # CUDA works in a fork only where the process before it has not asked CUDA for its devices.
    environment = {**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    pipe = subprocess.PIPE
    with (
        TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            yield partial(_ask, process, errors)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _ask(process: Any, errors: IO[str], folder: Path, options: Sequence[str]) -> Speed:
    """Have one model measured."""
    with suppress(BrokenPipeError):  # one that could not load its libraries has said why
        process.stdin.write(json.dumps([str(folder), *options]) + "\n")
        process.stdin.flush()
    answer = json.loads(process.stdout.readline() or "{}")
    if answer:
        return Speed(**answer)
    errors.seek(0)
    raise TaskError(
        f"speed of {folder} could not be measured\n  {' '.join(errors.read().strip().splitlines()[-1:])}",
        "leave `speed` out, or run `langslice verify`",
    )


def load_libraries() -> None:
    """Import what running a model takes, most of the time of a small one; it is counted neither as memory nor as time."""
    gc.disable()  # what is imported stays: to look through it for garbage takes a fifth of the time
    import torch  # noqa: F401
    import transformers.generation.utils
    import transformers.models.auto.modeling_auto  # noqa: F401

    gc.enable()


def measure(
    folder: Path,
    device: str = "cpu",
    dtype: str = "float32",
    code: str = "",
    *,
    prompt: int = 256,
    new_tokens: int = 32,
    repeats: int = 3,
) -> Speed:
    """Load a model in this process, read a prompt and write tokens, greedily; the best of several repeats.

    code     "trusted" where that of the model's folder may be run
    On a GPU memory is what torch held at its peak there. An encoder-decoder reads the prompt and writes from its start token.
    Raises  TaskError for a model that writes and has no cache
    """
    from time import perf_counter

    import torch

    from langslice.evaluation.loaded_model import model_kind
    from langslice.model.checkpoint import open_checkpoint

    load_libraries()
    if code:
        open_checkpoint(folder, trust_remote_code=True)
    kind = model_kind(folder)
    # Importing needs more memory for a moment than a small model does: forget that peak (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    model = _load(folder, device, dtype)
    generator = torch.Generator().manual_seed(0)
    positions = longest_text(model.config.to_dict()) or prompt + new_tokens
    size = max(1, min(prompt, positions - new_tokens))
    ids = torch.randint(0, model.config.get_text_config().vocab_size, (1, size), generator=generator).to(device)
    prefill = decode = 0.0
    first = float("inf")

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return perf_counter()

    with torch.inference_mode():
        for _ in range(repeats):
            started = now()
            output, inputs = _read(model, kind, ids)
            elapsed = now() - started
            prefill, first = max(prefill, size / elapsed), min(first, elapsed)
            if kind == "encoder":
                continue
            started = now()
            for _ in range(new_tokens):
                output = _write(model, kind, output, inputs)
            decode = max(decode, new_tokens / (now() - started))
    memory = _memory("VmHWM") - before if device == "cpu" else torch.cuda.max_memory_allocated()
    return Speed(memory, prefill, decode, 0.0 if kind == "encoder" else first)


def _load(folder: Path, device: str, dtype: str) -> Any:
    import torch

    from langslice.evaluation.perplexity import load_causal
    from langslice.model.transformers_classes import model_class, quiet_transformers

    if device == "cpu" and dtype == "float32":
        return load_causal(folder)
    with quiet_transformers():
        return model_class(folder).from_pretrained(folder).to(getattr(torch, dtype)).to(device).eval()


def _read(model: Any, kind: str, ids: Any) -> tuple[Any, dict[str, Any]]:
    """Read a prompt: the output, and what every later step needs next to the cache."""
    import torch

    if kind == "causal":
        return model(input_ids=ids, use_cache=True), {}
    if kind == "encoder":
        return model(input_ids=ids), {}
    states = model.get_encoder()(input_ids=ids)
    start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)
    return model(encoder_outputs=states, decoder_input_ids=start, use_cache=True), {"encoder_outputs": states}


def _write(model: Any, kind: str, output: Any, inputs: Mapping[str, Any]) -> Any:
    """Write the likeliest next token: the output after it."""
    from langslice.model.transformers_classes import cache_of, cache_option

    cache = cache_of(output)
    if cache is None:
        raise TaskError(f"{type(model).__name__} returns no cache: writing cannot be timed")
    name = "input_ids" if kind == "causal" else "decoder_input_ids"
    token = {name: output.logits[:, -1:].argmax(-1)}
    return model(**inputs, **token, **cache_option(model, cache), use_cache=True)


def _memory(field: str) -> int:
    """A memory figure of this process in bytes, as the kernel keeps it: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _mapped_pages() -> list[int]:
    """Addresses of the pages of files that this process has in memory, by /proc/self/pagemap (proc(5)).

    A fork starts without them, and would count those of the libraries that it comes to need as memory of the model.
    """
    size = os.sysconf("SC_PAGE_SIZE")
    found = []
    with Path("/proc/self/pagemap").open("rb") as pagemap:
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            span, rights, _, _, _, *name = line.split(maxsplit=5)
            if not name or not name[0].startswith("/") or name[0].startswith("/dev/") or not rights.startswith("r"):
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            pagemap.seek(start // size * 8)
            entries = struct.unpack(f"<{(end - start) // size}Q", pagemap.read((end - start) // size * 8))
            found += [start + place * size for place, entry in enumerate(entries) if entry >> 63]
    return found


def _map(pages: list[int]) -> None:
    """Bring pages of files into the memory of this process: a byte of each is read."""
    for page in pages:
        ctypes.string_at(page, 1)


def serve() -> None:
    """Measure one model for each line of JSON that comes in, and answer by a line: its speed, or {} where that failed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    load_libraries()
    pages = _mapped_pages()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _answer(json.loads(line), pages, answers)
        if os.waitpid(child, 0)[1]:
            answers.write("{}\n")
            answers.flush()


def _answer(arguments: list[str], pages: list[int], answers: IO[str]) -> NoReturn:
    """Measure one model in a fork, which ends with it."""
    status = 1
    try:
        _map(pages)
        answers.write(json.dumps(asdict(measure(Path(arguments[0]), *arguments[1:]))) + "\n")
        answers.flush()
        status = 0
    except:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
