"""Masks, language neurons and RankC against the code that their papers published.

    python benchmarks/reference_code.py --clones FOLDER [--note TEXT]

FOLDER holds clones of github.com/locuslab/wanda, RUCAIBox/Language-Specific-Neurons and Betswish/Cross-Lingual-Consistency, by
their last names; one that is not there is left out. None is part of this repository, nor is anything of them written to it; their
code runs here, on the CPU. Writes results/reference_code.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import types
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results/reference_code.md"
LANGUAGES = ("en", "zh", "fr", "es", "vi", "id", "ja")  # those that identify.py reads
TOKENS, PROMPTS, SEEDS = 48, 24, (0, 1, 2)


def wanda(clone: Path, work: Path) -> list[tuple[str, str]]:
    """Every mask of the packaged model, whole blocks in sequence, by prune_wanda and by `sparsify`."""
    from langslice.demonstrations.demonstration import Demonstration
    from langslice.demonstrations.tokens import load_prompts
    from langslice.mini import heldout_languages, heldout_text, mini_model_path

    lines = [" ".join(heldout_text(code)[at : at + 5]) for code in heldout_languages() for at in (0, 5, 10)]
    demos = [Demonstration("mono", (line,)) for line in lines]
    prompts = load_prompts(mini_model_path(), {"keep": demos}, max_tokens=TOKENS)
    # Their code holds prompts of one length in one tensor.
    chosen = [at for at, prompt in enumerate(prompts) if len(prompt.ids) == TOKENS][:PROMPTS]
    ids = [prompts[at].ids for at in chosen]
    found = []
    for name, asked, n, m in (("30% of each row", {"sparsity": 0.3}, 0, 0), ("2:4", {"pattern": "2:4"}, 2, 4)):
        theirs = reference_masks(clone, mini_model_path(), ids, asked.get("sparsity", 0.0), n, m)
        ours = own_masks(mini_model_path(), work / f"pruned-{n}", tuple(demos[at] for at in chosen), asked)
        differing = sum(int((theirs[key] != ours[key]).sum()) for key in theirs)
        total, zeros = (sum(int(reduce(mask)) for mask in theirs.values()) for reduce in (np.size, np.sum))
        assert ours.keys() == theirs.keys()
        found.append((
            f"Wanda, {name}: {len(theirs)} linear layers, {len(ids)} prompts of {TOKENS} tokens",
            f"{differing:,} of {total:,} weights differ ({zeros:,} zeros)",
        ))  # fmt: skip
    return found


def reference_masks(clone: Path, folder: Path, ids: Any, share: float, n: int, m: int) -> dict[str, Any]:
    """Name of each weight -> (out, in) bool, true where their prune_wanda wrote a zero."""
    import torch

    class Layer(torch.nn.Module):
        """A block as it was called before transformers 4.48: rotary angles are made inside."""

        def __init__(self, block: Any, angles: Any) -> None:
            super().__init__()
            self.block, self.angles = block, [angles]

        def forward(self, hidden: Any, attention_mask: Any = None, position_ids: Any = None, **rest: Any) -> tuple[Any]:
            angles = self.angles[0](hidden, position_ids)
            out = self.block(
                hidden, attention_mask=attention_mask, position_ids=position_ids, position_embeddings=angles
            )
            return (out[0] if isinstance(out, tuple) else out,)

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.hf_device_map, model.seqlen = {}, len(ids[0])
    model.model.layers = torch.nn.ModuleList(Layer(one, model.model.rotary_emb) for one in model.model.layers)
    reference = loaded(clone)
    reference.get_loaders = lambda *given, **named: ([(torch.tensor([one]),) for one in ids], None)
    asked = types.SimpleNamespace(nsamples=len(ids), seed=0, sparsity_ratio=share, use_variant=False)
    reference.prune_wanda(asked, model, None, torch.device("cpu"), prune_n=n, prune_m=m)
    names = {name.replace(".block.", "."): module for name, module in model.model.layers.named_modules()}
    return {
        f"model.layers.{name}.weight": (module.weight == 0).numpy()
        for name, module in names.items()
        if isinstance(module, torch.nn.Linear)
    }


def loaded(clone: Path) -> Any:
    """Their lib/prune.py, without what it imports for other methods and for data sets."""
    package = types.ModuleType("reference_wanda")
    package.__path__ = [str(clone / "lib")]
    sys.modules["reference_wanda"] = package
    for name, needed in (("data", "get_loaders"), ("sparsegpt", "SparseGPT"), ("ablate", "AblateGPT")):
        stub = types.ModuleType(f"reference_wanda.{name}")
        setattr(stub, needed, None)
        sys.modules[stub.__name__] = stub
    return importlib.import_module("reference_wanda.prune")


def own_masks(folder: Path, out: Path, demos: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The same by langslice."""
    from langslice.model.checkpoint import open_checkpoint
    from langslice.sparsity import SparsityRequest, prune_copy
    from langslice.sparsity.weight_bytes import read_tensor

    done = prune_copy(folder, out, SparsityRequest(keep_demos=demos, max_tokens=TOKENS, **asked))
    tensors = open_checkpoint(out).tensors
    return {name: read_tensor(tensors[name]).numpy() == 0 for name in done.tensors}


def lape(clone: Path, work: Path) -> list[tuple[str, str]]:
    """Language neurons of random activation counts, some of them never active, by identify.py and by `language_neurons_to_drop`."""
    import torch

    layers, neurons, tokens, differing, theirs_found = 6, 500, 10_000, 0, 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rates = rng.beta(0.4, 4.0, (layers, neurons, 1)) * rng.beta(2.0, 1.0, (layers, neurons, len(LANGUAGES)))
        rates[rng.random((layers, neurons)) < 0.02] = 0.0
        counts = rng.binomial(tokens, rates)
        place = work / f"lape-{seed}"
        (place / "data").mkdir(parents=True)
        (place / "activation_mask").mkdir()
        for at, code in enumerate(LANGUAGES):
            given = {"n": tokens, "over_zero": torch.tensor(counts[..., at])}
            torch.save(given, place / f"data/activation.{code}.train.llama-70b")
        run(clone / "identify.py", place)
        masks = torch.load(place / "activation_mask/llama-70b", weights_only=False)
        theirs = {
            (code, layer, int(neuron))
            for code, one in zip(LANGUAGES, masks, strict=True)
            for layer, each in enumerate(one)
            for neuron in each
        }
        ours = own_language_neurons(counts / tokens)
        differing += len(theirs ^ ours)
        theirs_found += len(theirs)
    title = f"LAPE, 5% of {layers * neurons:,} neurons, {len(LANGUAGES)} languages, {len(SEEDS)} draws"
    return [(title, f"{differing:,} of {theirs_found:,} pairs of neuron and language differ")]


def own_language_neurons(chances: Any) -> set[tuple[str, int, int]]:
    """(language, layer, neuron) for each neuron that is specific to a language; chances are (layers, neurons, languages)."""
    from langslice.scoring.selection import language_neurons
    from langslice.scoring.table import Scores

    layers, neurons, _ = chances.shape
    layer, index, language = (one.ravel() for one in np.indices(chances.shape))
    scores = Scores(
        "neurons", "lape", np.full(layer.size, "layers"), layer.astype(np.int32), index.astype(np.int32),
        np.array(LANGUAGES)[language], chances.ravel(), np.zeros(layer.size), "random", "",
    )  # fmt: skip
    anatomy: Any = types.SimpleNamespace(neurons={"layers": dict.fromkeys(range(layers), neurons)})
    return {
        (code, at, neuron)
        for code, stacks in language_neurons(scores, anatomy, share=0.05).items()
        for at, found in stacks.get("layers", {}).items()
        for neuron in found
    }


def rankc(clone: Path, work: Path) -> list[tuple[str, str]]:
    """RankC of random rankings of 3, 5 and 10 candidates, by RankC.py and by `rank_consistency`."""
    from langslice.evaluation.rankc import rank_consistency

    rows = []
    for candidates in (3, 5, 10):
        rng = np.random.default_rng(candidates)
        first, second = (np.array([rng.permutation(candidates) for _ in range(200)]) for _ in range(2))
        place = work / f"rankc-{candidates}"
        (place / "record17").mkdir(parents=True)
        names = str([{f"c{at}": 0.0 for at in range(candidates)}] * len(first))
        for code, ranked in (("en", first), ("zh", second)):
            said = [[f"c{one}" for one in row] for row in ranked.tolist()]
            (place / f"record17/m_Rankings_{code}.txt").write_text(json.dumps(said))
            (place / f"record17/m_Scores_{code}.txt").write_text(json.dumps(names))
        theirs = float(run(clone / "1_easyrun/RankC.py", place, "-mname", "m").split()[-1])
        ours = float(rank_consistency(first.tolist(), second.tolist()).mean())
        rows.append(
            (
                f"RankC, {candidates} candidates, 200 items",
                f"{ours:.6f}, theirs {theirs:.6f}: {abs(ours - theirs):.0e} apart",
            )
        )
    return rows


def run(script: Path, place: Path, *arguments: str) -> str:
    """What a script of a clone prints when it is run in a folder."""
    command = [sys.executable, str(script.resolve()), *arguments]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout


CODE = (
    (wanda, "locuslab/wanda", "lib/prune.py"),
    (lape, "RUCAIBox/Language-Specific-Neurons", "identify.py"),
    (rankc, "Betswish/Cross-Lingual-Consistency", "1_easyrun/RankC.py"),
)


def main() -> None:
    """Compare with what is given, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clones", type=Path, required=True, help="folder of clones")
    parser.add_argument("--note", default="", help="what a reader must know of these clones, such as their commits")
    given = vars(parser.parse_args())
    given["note"] = f"{given['note'].strip()} ".lstrip()
    rows = []
    work = Path(tempfile.mkdtemp(prefix="reference-"))
    try:
        for compare, repository, file in CODE:
            clone = given["clones"] / repository.rpartition("/")[2]
            if not (clone / file).is_file():
                print(f"left out: no {clone / file}")
                continue
            for row in compare(clone, work):
                rows.append((f"{repository}, {file}", *row))
                print(*rows[-1], sep=" | ", flush=True)
    finally:
        shutil.rmtree(work)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    RESULT.write_text(
        "# Against published code\n\n"
        "`benchmarks/reference_code.py` runs the code of a paper, and langslice on the same input. "
        f"{given['note']}{date.today().isoformat()}.\n\n| code | compared | outcome |\n|---|---|---|\n{table}\n",
        encoding="utf-8",
    )
    print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
