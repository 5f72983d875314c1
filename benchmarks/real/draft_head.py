"""gemma-3-270m as its own draft with a reduced output head: how often it proposes what the whole head would, and whether it pays.

    python benchmarks/real/draft_head.py

`langslice export --draft-vocabulary N` writes the heads, ranked for Korean and English. The first tokens of lines of NTREX-128 are
written on greedily by the whole model in float32; at each token the reduced head, given the same state, proposes one of its own.
Speeds are of transformers' assisted generation, in which the draft is the model itself but for its head, in one thread, one text
at a time; the ways take turns. Writes results/real/draft_head.md.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import ONLY_KEPT, WORK, langslice, machine, models, ntrex, sliced, step, table, write_page

PAGE, MODEL, LANGUAGES = "draft_head", "gemma-3-270m", ("ko", "en")
# Name -> tokens, and whether they are ranked by counts of other lines of NTREX-128 too.
HEADS = {"8,000": (8000, False), "16,000": (16000, False), "16,000, counted": (16000, True), "32,000": (32000, False)}
PROMPTS, PROMPT_TOKENS, TOKENS = 40, 16, 48
ROUNDS, TIMED, WRITTEN, PROPOSED = 3, 2, 32, 4
LINES, LONGEST = 60, 128


def prompts() -> dict[str, list[list[int]]]:
    """The first tokens of lines, in the model's ids."""
    auto = tokenizer()
    found = {}
    for language in LANGUAGES:
        lines = (auto(line)["input_ids"] for line in ntrex(language)[::13])
        found[language] = [ids[:PROMPT_TOKENS] for ids in lines if len(ids) >= PROMPT_TOKENS][:PROMPTS]
    return found


def tokenizer() -> Any:
    """The model's own."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(models() / MODEL)


def load(folder: Path) -> Any:
    """A model in float32."""
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # all continuations are of one length
    return model


def others() -> Path:
    """Counts of the lines of NTREX-128 that nothing else here uses, in both languages alike, made once."""
    text, out = WORK / PAGE / "others.txt", WORK / PAGE / "others.parquet"

    def make() -> Any:
        out.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            line for language in LANGUAGES for at, line in enumerate(ntrex(language)) if at % 13 and at % 29 != 7
        ]  # fmt: skip
        text.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return langslice("count", models() / MODEL, "--corpus", text, "-o", out, "--overwrite", "--quiet")

    step(PAGE, "others-count", make)
    return out


def exported(name: str) -> Path:
    """A head, made once."""
    size, counted = HEADS[name]
    out = WORK / PAGE / f"head-{size}{'-counted' if counted else ''}"

    def make() -> Any:
        out.parent.mkdir(parents=True, exist_ok=True)
        more = ["--counts", others()] if counted else []
        return langslice(
            "export", models() / MODEL, "--draft-vocabulary", size, "-l", ",".join(LANGUAGES), *more, "-o", out,
            "--overwrite", "--no-verify", "--quiet",
        )  # fmt: skip

    step(PAGE, f"{out.name}-export", make)
    return out


def read_head(folder: Path) -> tuple[Any, np.ndarray]:
    """Rows of a written head in float32, and the model's id of each."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    targets = tensors["d2t"] + torch.arange(len(tensors["d2t"]))
    return tensors["lm_head.weight"].float(), targets.numpy()


def greedy(model: Any, ids: list[list[int]], count: int, **more: Any) -> list[list[int]]:
    """Tokens written on, greedily."""
    import torch

    given = torch.tensor(ids)
    with torch.no_grad():
        whole = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False, top_k=None, top_p=None, **more,
        )  # fmt: skip
    return whole[:, given.shape[1] :].tolist()


def acceptance() -> dict[str, Any]:
    """Of each head and language: at how many positions it proposes what the whole head does, and runs of proposals that hold."""
    import torch

    model, heads = load(models() / MODEL), {name: read_head(exported(name)) for name in HEADS}
    states: list[Any] = []
    model.lm_head.register_forward_hook(lambda module, given, out: states.append(given[0]))
    auto, found = tokenizer(), {}
    for language, texts in prompts().items():
        written = greedy(model, texts, TOKENS)
        lines = [auto(line)["input_ids"][:LONGEST] for line in ntrex(language)[7::29]][:LINES]
        kinds = {
            "own": [(ids + own, len(ids) - 1) for ids, own in zip(texts, written, strict=True)],
            "human": [(ids, 0) for ids in lines],
        }
        for kind, items in kinds.items():
            same: dict[str, list[list[bool]]] = {name: [] for name in HEADS}
            for ids, start in items:
                states.clear()
                with torch.no_grad():
                    best = model(torch.tensor([ids])).logits[0, start:-1].argmax(-1).numpy()
                    for name, (rows, targets) in heads.items():
                        proposed = targets[(states[-1][0, start:-1] @ rows.T).argmax(-1).numpy()]
                        same[name].append((proposed == best).tolist())
            found[f"{language}, {kind}"] = {name: held(each) for name, each in same.items()}
    return found


def held(same: list[list[bool]]) -> dict[str, float]:
    """How many positions are proposed alike, and how many of the next PROPOSED hold in a row, on average."""
    flat = [each for line in same for each in line]
    runs = [
        next((at for at, each in enumerate(line[start : start + PROPOSED]) if not each), PROPOSED)
        for line in same
        for start in range(len(line) - PROPOSED + 1)
    ]
    return {"equal": sum(flat), "positions": len(flat), "run": statistics.mean(runs)}


def as_draft(model: Any, head: Path | None) -> Any:
    """The model with another head, all other weights shared; with its own for None."""
    import torch

    class Reduced(torch.nn.Module):
        """Logits of the head's tokens at the model's ids, as vLLM's and llama.cpp's EAGLE-3 lay them out."""

        def __init__(self, rows: Any, targets: np.ndarray, size: int) -> None:
            super().__init__()
            self.rows, self.targets, self.size = rows, torch.from_numpy(targets), size

        def forward(self, states: Any) -> Any:
            out = states.new_full((*states.shape[:-1], self.size), float("-inf"))
            out[..., self.targets] = states @ self.rows.T
            return out

    draft = copy.copy(model)
    draft._modules = dict(model._modules)
    if head is not None:
        draft._modules["lm_head"] = Reduced(*read_head(head), model.config.vocab_size)
    draft.generation_config = copy.deepcopy(model.generation_config)
    settings = {
        "num_assistant_tokens": PROPOSED,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.0,
    }
    for name, value in settings.items():
        setattr(draft.generation_config, name, value)
    return draft


def speeds() -> dict[str, Any]:
    """Tokens per second of each way and language, and how many of its tokens are those of the model alone."""
    folder = sliced(PAGE, "ko-en", MODEL, "-l", ",".join(LANGUAGES))[0]
    from langslice.verification.record import read_record

    kept = read_record(folder).kept
    model, cut = load(models() / MODEL), load(folder)
    new_of = {int(old): new for new, old in enumerate(kept.tolist())}
    ways: dict[str, Any] = {"model": {}, "slice": {}, "own head": {"assistant_model": as_draft(model, None)}}
    ways |= {
        f"head {name}": {"assistant_model": as_draft(model, exported(name))} for name in HEADS if "counted" not in name
    }
    rates: dict[str, dict[str, list[float]]] = {way: {language: [] for language in LANGUAGES} for way in ways}
    equal: dict[str, int] = dict.fromkeys(ways, 0)
    total = 0
    for number in range(ROUNDS + 1):  # the first warms up
        for language, texts in prompts().items():
            for ids in texts[:TIMED]:
                alone: list[int] = []
                for way, more in ways.items():
                    runner, given = (cut, [new_of[each] for each in ids]) if way == "slice" else (model, ids)
                    started = time.perf_counter()
                    written = greedy(runner, [given], WRITTEN, **more)[0]
                    taken = time.perf_counter() - started
                    written = kept[written].tolist() if way == "slice" else written
                    alone = written if way == "model" else alone
                    if number:
                        rates[way][language].append(len(written) / taken)
                    else:
                        equal[way] += sum(one == other for one, other in zip(alone, written, strict=True))
                total += 0 if number else WRITTEN
    return {
        "rates": {way: {key: statistics.median(each) for key, each in by.items()} for way, by in rates.items()},
        "equal": equal, "tokens": total,
    }  # fmt: skip


def shares() -> dict[str, float]:
    """Milliseconds of one step of one token: the body, the whole head, and reduced ones; medians of turns."""
    import torch

    model = load(models() / MODEL)
    parts: dict[str, Any] = {"whole head": model.lm_head}
    parts |= {f"head {name}": as_draft(model, exported(name)).lm_head for name in HEADS if "counted" not in name}
    ids = torch.tensor([prompts()["en"][0]])
    with torch.no_grad():
        before = model.model(ids, use_cache=True)
        state = before.last_hidden_state[:, -1:]
        times: dict[str, list[float]] = {name: [] for name in ("body", *parts)}
        for _ in range(15):
            for name in times:
                cache = copy.deepcopy(before.past_key_values) if name == "body" else None
                started = time.perf_counter()
                if name == "body":
                    model.model(ids[:, -1:], past_key_values=cache, use_cache=True)
                else:
                    parts[name](state).argmax(-1)
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(each) for name, each in times.items()}


def measure() -> dict[str, Any]:
    """All steps."""
    return {
        "sizes": {name: len(read_head(exported(name))[1]) for name in HEADS},
        "slice": sliced(PAGE, "ko-en", MODEL, "-l", ",".join(LANGUAGES))[1],
        "acceptance": step(PAGE, "acceptance", acceptance),
        "shares": step(PAGE, "shares", shares),
        "speeds": step(PAGE, "speeds", speeds),
        "machine": machine(),
    }


def called(way: str) -> str:
    """A way of writing, for people."""
    names = {"model": "the model alone", "slice": "its slice alone", "own head": "proposed with the whole head"}
    return names.get(way) or f"proposed with {way.removeprefix('head ')} tokens"


def page(found: dict[str, Any]) -> str:
    """The page."""
    accepted = []
    for text, by_head in found["acceptance"].items():
        language, kind = text.split(", ")
        for name, each in by_head.items():
            accepted.append(
                [
                    language, "the model's own" if kind == "own" else "NTREX-128", name, f"{each['positions']:,}",
                    f"{each['equal'] / each['positions']:.1%}", f"{each['run']:.2f}",
                ]
            )  # fmt: skip
    taken, speed = found["shares"], found["speeds"]
    alone = speed["rates"]["model"]
    written = [
        [
            called(way), *(f"{rate[each]:.1f} ({rate[each] / alone[each]:.2f})" for each in LANGUAGES),
            f"{speed['equal'][way]} of {speed['tokens']}",
        ]
        for way, rate in speed["rates"].items()
    ]  # fmt: skip
    whole = taken["body"] + taken["whole head"]
    parts = [
        ["body" if name == "body" else name.replace("head ", "head of "), f"{each:.1f}"] for name, each in taken.items()
    ]
    before, after = (found["slice"][role] for role in ("before", "after"))
    return f"""# {MODEL} as its own draft, with a head over the most used tokens

`langslice export {MODEL} --draft-vocabulary N -l {",".join(LANGUAGES)}`; {before["rows"]:,} rows in the whole head.
The draft is the model itself with this head: what it costs and what it misses is of the head alone. A trained EAGLE-3 draft has a
body of one layer; none was at hand.

## How often the reduced head proposes the whole head's token
{table(["", "text", "head", "positions", "proposed alike", f"of {PROPOSED} in a row"], accepted, text_columns=3)}
*The model's own*: {PROMPTS} prompts of {PROMPT_TOKENS} tokens, written on by {TOKENS} greedily. *NTREX-128*: {LINES} lines, read,
where the whole head's likeliest token counts. *In a row*: how many of {PROPOSED} proposals hold, on average. *Counted*: ranked
also by `--counts` of the other lines of NTREX-128, text of the same kind.

## What a step of one token takes
{table(["part", "ms"], parts)}
The whole head is {taken["whole head"] / whole:.0%} of a step. Reduced heads lay their logits out over all ids, as clients do.

## Tokens per second
{table(["", *LANGUAGES, "tokens equal to the model's"], written)}
In brackets, of the model alone. transformers' assisted generation, {PROPOSED} proposals per turn, {TIMED} prompts of each language,
{WRITTEN} tokens, float32, one thread, medians of {ROUNDS} rounds in turns. The slice has {after["rows"]:,} rows.

{verdict(found)}
{found["machine"]}
"""


def verdict(found: dict[str, Any]) -> str:
    """What is gained, in a sentence for each comparison."""
    rates = found["speeds"]["rates"]
    best = max((way for way in rates if way.startswith("head ")), key=lambda way: sum(rates[way].values()))

    def ratio(one: str, other: str) -> str:
        each = [rates[one][language] / rates[other][language] for language in LANGUAGES]
        return " and ".join(f"{value:.2f}" for value in each) + f" ({', '.join(LANGUAGES)})"

    faster = all(rates[best][language] > rates["model"][language] for language in LANGUAGES)
    behind = all(rates[best][language] < rates["slice"][language] for language in LANGUAGES)
    size = best.removeprefix("head ")
    lines = [
        f"- {'A gain' if faster else 'No gain'} over the model alone, at best {ratio(best, 'model')} with {size} tokens.",
        f"- Over the same with the whole head: {ratio(best, 'own head')}, which is what the smaller head is worth in a draft.",
        f"- Against the slice alone, which needs no draft: {ratio(best, 'slice')}"
        + (": the slice is the better way where only its languages are written." if behind else "."),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if not ONLY_KEPT:
        document = measure()
    else:
        document = json.loads((Path(__file__).parents[1] / "results/real" / f"{PAGE}.json").read_text())
    write_page(PAGE, document, page(document))
