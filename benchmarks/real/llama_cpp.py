"""gemma-3-270m and its slice in llama.cpp: the same tokens, how many bytes, how many tokens per second.

    python benchmarks/real/llama_cpp.py [FILE.gguf]

The first tokens of lines of NTREX-128 are written on, greedily, by transformers in float32 and by llama.cpp from files of several
types, of the model and of its slice to Korean and English. Continuations are compared token by token, in the model's ids, up to the
first token that the slice does not have. FILE.gguf is a Q4_K_M file of the model; without it, llama-quantize makes one. It is
sliced as it is. Speeds are medians of rounds in which the files take turns, in one thread. Writes results/real/llama_cpp.md.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
from common import ONLY_KEPT, WORK, langslice, machine, models, ntrex, sliced, step, table, write_page

PAGE, MODEL, LANGUAGES = "llama_cpp", "gemma-3-270m", ("ko", "en")
PROMPTS, PROMPT_TOKENS, TOKENS = 20, 16, 16
ROUNDS, READ, WRITTEN = 3, 128, 32
NAMES = {"f32": "f32", "f16": "f16", "q8": "Q8_0", "q4": "Q4_K_M"}
Continuations = dict[str, list[list[int]]]


def prompts() -> Continuations:
    """The first tokens of lines, in the model's ids."""
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(models() / MODEL)
    found = {}
    for language in LANGUAGES:
        lines = (auto(line)["input_ids"] for line in ntrex(language)[::13])
        found[language] = [ids[:PROMPT_TOKENS] for ids in lines if len(ids) >= PROMPT_TOKENS][:PROMPTS]
    return found


def kept_ids(folder: Path) -> np.ndarray:
    """Old id of every new one, of the slice."""
    from langslice.verification.record import read_record

    return read_record(folder).kept


def exported(name: str, folder: Path, precision: str) -> Path:
    """A file of a model, made once."""
    out = WORK / PAGE / name

    def make() -> Any:
        return langslice("export", folder, "--precision", precision, "--no-verify", "-o", out, "--overwrite", "--quiet")

    step(PAGE, f"{name}-export", make)
    return next(out.glob("*.gguf"))


def cut(source: Path) -> tuple[Path, dict[str, Any]]:
    """The Q4_K_M file, sliced as a file and verified."""
    out = WORK / PAGE / "q4-slice.gguf"

    def make() -> Any:
        return langslice("slice", source, "-l", ",".join(LANGUAGES), "-o", out, "--overwrite", "--quiet")

    return out, step(PAGE, "q4-slice", make)


def by_llama_cpp(path: Path, kept: np.ndarray | None) -> Continuations:
    """Greedy continuations, in the model's ids."""
    from langslice.formats.llama_cpp import running

    old = {} if kept is None else {int(before): after for after, before in enumerate(kept.tolist())}
    found: Continuations = {}
    with running(path, encoder=False) as runtime:
        for language, texts in prompts().items():
            given = [ids if kept is None else [old[each] for each in ids] for ids in texts]
            written = [runtime.greedy(ids, TOKENS) for ids in given]
            found[language] = [ids if kept is None else kept[ids].tolist() for ids in written]
    return found


def by_transformers(file: Path | None) -> Continuations:
    """Greedy continuations of the model in float32; with a file, from that file's own numbers."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(models() / MODEL, dtype=torch.float32).eval()
    if file is not None:
        fill(model, file)
    found: Continuations = {}
    for language, texts in prompts().items():
        given = torch.tensor(texts)
        with torch.no_grad():
            whole = model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=TOKENS,
                do_sample=False,
                top_k=None,
                top_p=None,
            )
        found[language] = whole[:, PROMPT_TOKENS:].tolist()
    return found


def fill(model: Any, path: Path) -> None:
    """Put the numbers of a GGUF file into the model."""
    import torch

    from langslice.formats.families import gguf_family
    from langslice.formats.gguf_tensors import lay_out, read_back
    from langslice.model.checkpoint import open_checkpoint
    from langslice.model.transformers_classes import full_config

    checkpoint = open_checkpoint(models() / MODEL)
    config = full_config(checkpoint.config)
    state = model.state_dict()
    tensors, _ = lay_out(checkpoint, gguf_family(config), config, "q8_0")
    with torch.no_grad():
        for tensor, values in read_back(path, tensors):
            state[tensor.source].copy_(torch.from_numpy(values))


def speeds(files: dict[str, Path], kept: np.ndarray) -> dict[str, dict[str, float]]:
    """Tokens read and written per second, of each file; rounds in turns."""
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in files}
    line = [each for ids in prompts()["en"] for each in ids][:READ]
    old = {int(before): after for after, before in enumerate(kept.tolist())}
    for _ in range(ROUNDS):
        for name, path in files.items():
            rounds[name].append(speed(path, [old[each] for each in line] if name.endswith("slice") else line))
    return {
        name: {
            "read": statistics.median(each[0] for each in found),
            "written": statistics.median(each[1] for each in found),
        }
        for name, found in rounds.items()
    }


def speed(path: Path, ids: list[int]) -> tuple[float, float]:
    """Tokens read and written per second, as llama.cpp's server measures them."""
    from langslice.formats.llama_cpp import running

    asked = {"prompt": ids, "n_predict": WRITTEN, "temperature": 0.0, "cache_prompt": False, "ignore_eos": True}
    with running(path, encoder=False) as runtime:
        request = Request(
            f"{runtime.address}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        for _ in range(2):  # the first maps the file
            with build_opener(ProxyHandler({})).open(request) as answer:
                timings = json.load(answer)["timings"]
    return timings["prompt_per_second"], timings["predicted_per_second"]


def gaps(exact: Continuations, rounded: Continuations) -> dict[str, float]:
    """How much likelier, in nats, transformers in float32 finds the token that it chooses than another.

    usual    the second likeliest, median over all tokens of its continuations
    parted   the one that llama.cpp chose from Q8_0 where it first differs: median, and the largest
    """
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(models() / MODEL, dtype=torch.float32).eval()
    usual, parted = [], []
    for language, texts in prompts().items():
        for ids, own, other in zip(texts, exact[language], rounded[language], strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([ids + own])).logits[0, len(ids) - 1 : -1]
            best = logits.topk(2, dim=-1).values
            usual += (best[:, 0] - best[:, 1]).tolist()
            at = next((at for at, (one, two) in enumerate(zip(own, other, strict=False)) if one != two), None)
            if at is not None:
                parted.append(float(logits[at, own[at]] - logits[at, other[at]]))
    return {
        "usual": statistics.median(usual),
        "parted": statistics.median(parted),
        "largest": max(parted),
        "n": len(parted),
    }


def compared(one: Continuations, other: Continuations, kept: np.ndarray) -> dict[str, dict[str, int]]:
    """Of each language: texts that both continue alike, and tokens that are equal from the beginning, of how many.

    A continuation is compared up to the first token, of either side, that the slice does not have.
    """
    found = {}
    has = set(kept.tolist())
    for language in LANGUAGES:
        alike = equal = total = stopped = 0
        for left, right in zip(one[language], other[language], strict=True):
            length = next((at for at, each in enumerate(left) if each not in has), len(left))
            stopped += length < len(left)
            same = next((at for at in range(length) if at >= len(right) or left[at] != right[at]), length)
            alike += same == length
            equal, total = equal + same, total + length
        found[language] = {
            "alike": alike,
            "texts": len(one[language]),
            "equal": equal,
            "tokens": total,
            "stopped": stopped,
        }
    return found


def measure() -> dict[str, Any]:
    """All steps."""
    folder, made = sliced(PAGE, "ko-en", MODEL, "-l", ",".join(LANGUAGES))
    kept = kept_ids(folder)
    whole = models() / MODEL
    files = {"q8": exported("q8", whole, "q8_0"), "q8-slice": exported("q8-slice", folder, "q8_0")}
    files |= {f"{kind}-slice": exported(f"{kind}-slice", folder, kind) for kind in ("f32", "f16")}
    given = [Path(name) for name in sys.argv[1:] if name.endswith(".gguf")]
    files["q4"] = given[0] if given else exported("q4", whole, "q4_k_m")
    files["q4-slice"], cutting = cut(files["q4"])
    written = {
        name: step(
            PAGE, f"{name}-written", lambda name=name: by_llama_cpp(files[name], kept if "slice" in name else None)
        )
        for name in files
    }
    written["transformers"] = step(PAGE, "transformers-written", lambda: by_transformers(None))
    written["transformers, numbers of q8"] = step(PAGE, "rounded-written", lambda: by_transformers(files["q8"]))
    pairs = (
        ("q8", "q8-slice"), ("q4", "q4-slice"), ("transformers", "f32-slice"), ("transformers", "f16-slice"),
        ("transformers", "q8"),
        ("transformers", "q8-slice"), ("transformers", "transformers, numbers of q8"),
        ("transformers, numbers of q8", "q8"), ("transformers", "q4"), ("transformers", "q4-slice"),
    )  # fmt: skip
    timed = {name: files[name] for name in ("q8", "q8-slice", "q4", "q4-slice")}
    return {
        "slice": made,
        "cutting": cutting,
        "bytes": {name: path.stat().st_size for name, path in files.items()},
        "pairs": [[one, other, compared(written[one], written[other], kept)] for one, other in pairs],
        "gaps": step(PAGE, "gaps", lambda: gaps(written["transformers"], written["q8"])),
        "machine": machine(),
        "speeds": step(PAGE, "speeds", lambda: speeds(timed, kept)),
    }


REMARKS = """- The slice is the model: from files of one type, llama.cpp writes the same tokens with both, every one.
- In f32, llama.cpp writes what transformers writes, all of it.
- What differs in Q8_0 comes of rounding, not of the slice. The file's numbers are rounded to 8 bits, which transformers alone shows
  when it computes with them; llama.cpp also rounds to 8 bits what goes into each product with them. Near ties part by either.
  Where continuations part, float32 finds its own token likelier than the other by {parted:.2f} nats in the median, {largest:.2f} at
  most (n = {n}); over all tokens its lead before the second is {usual:.2f}.
- The weights were Q4_K_M before they were made float and fetched: the Q4_K_M file is a second rounding, coarser for some tensors.
"""


def called(name: str) -> str:
    """A side of a comparison, for people."""
    if name.startswith("transformers"):
        return name.replace("numbers of q8", "numbers of the Q8_0 file").replace(
            "transformers", "transformers, float32", 1
        )
    kind, _, part = name.partition("-")
    return f"llama.cpp, {NAMES[kind]}" + (" of the slice" if part else "")


def page(found: dict[str, Any]) -> str:
    """The page."""
    rows = []
    for one, other, by_language in found["pairs"]:
        cells = [f"{each['alike']} of {each['texts']}" for each in by_language.values()]
        cells += [f"{each['equal']} of {each['tokens']}" for each in by_language.values()]
        rows.append([called(one), called(other), *cells])
    stopped = sum(each["stopped"] for each in found["pairs"][0][2].values())
    heads = [*(f"{language}, texts" for language in LANGUAGES), *(f"{language}, tokens" for language in LANGUAGES)]
    measured = []
    for kind in ("q8", "q4"):
        for name in (kind, f"{kind}-slice"):
            speed_of = found["speeds"][name]
            measured.append(
                [
                    called(name),
                    f"{found['bytes'][name] / 1e6:.1f}",
                    f"{speed_of['read']:.1f}",
                    f"{speed_of['written']:.1f}",
                ]
            )
    before, after = (found["slice"][role] for role in ("before", "after"))
    return f"""# {MODEL} in llama.cpp, for Korean and English

{before["rows"]:,} rows of vocabulary before, {after["rows"]:,} after; {PROMPTS} prompts of each language, the first {PROMPT_TOKENS}
tokens of lines of NTREX-128, written on by {TOKENS} tokens, greedily.

{table(["", "compared with", *heads], rows, text_columns=2)}
*texts*: continuations equal to the last token; *tokens*: equal ones before the first that differs. {stopped} continuations of the
first row come to a token that the slice does not have, and are compared up to there.

{REMARKS.format(**found["gaps"])}
{table(["file", "MB", "tokens read per s", "tokens written per s"], measured)}
One thread, {ROUNDS} rounds in turns, medians; {READ} tokens read, {WRITTEN} written. The Q4_K_M slice is made of the Q4_K_M file by
`langslice slice FILE.gguf`: {found["cutting"]["cpu_seconds"]:.0f} CPU seconds and {found["cutting"]["peak_mb"]:,.0f} MB at most,
verification in llama.cpp included.

{found["machine"]}
"""


if __name__ == "__main__":
    if not ONLY_KEPT:
        document = measure()
        write_page(PAGE, document, page(document))
    else:
        document = json.loads((Path(__file__).parents[1] / "results/real" / f"{PAGE}.json").read_text())
        write_page(PAGE, document, page(document))
