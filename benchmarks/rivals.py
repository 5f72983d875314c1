"""The same jobs by other programs, for whole_command.py: their inputs, and their command lines.

trimbed (0.0.4) is given the tokens of langslice's plan as its list of tokens to keep, and a small corpus from which its own
verification takes its texts; both are made, and counted, before anything is timed. prunetokens (0.1.4) has one rule for
tokens, which drops those that are not Latin, and needs weights: it gets Qwen2's tokenizer with rows of eight numbers.
optipfair (0.4.2) removes the same share of neurons by its own score. Nothing of langslice is in the timed processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]


def rival_commands(names: Sequence[str], work: Path, places: dict[str, str]) -> dict[str, list[str]]:
    """Row -> command line of the rival, of those whose interpreter TRIMBED_PYTHON or RIVALS_PYTHON names; inputs are written."""
    trimbed, others = os.environ.get("TRIMBED_PYTHON", ""), os.environ.get("RIVALS_PYTHON", "")
    models, assets, out = Path(places["models"]), Path(places["assets"]), str(work / "out")
    found: dict[str, list[str]] = {}
    if trimbed and "e5" in names:
        found["e5"] = _trimbed(trimbed, models / "multilingual-e5-small", work / "trimbed-e5", out, assets)
    if trimbed and "xlmr" in names:
        found["xlmr"] = _trimbed(trimbed, work / "xlm-roberta-base", work / "trimbed-xlmr", out, assets)
    if others and "qwen2" in names:
        folder = _with_narrow_rows(assets / "tokenizers/qwen2", work / "qwen2")
        found["qwen2"] = [others, "-c", "import prunetokens; prunetokens.main()", str(folder)]
    if others and "neurons" in names:
        found["neurons"] = [
            others, "-c", "from optipfair.cli.commands import cli; cli()", "prune", "--device", "cpu", "--pruning-type",
            "MLP_GLU", "--pruning-percentage", "20", "--model-path", str(models / "gemma-3-270m"), "--output-path", out,
        ]  # fmt: skip
    return found


def build_xlmr(work: Path, assets: Path) -> None:
    """A random checkpoint of XLM-R base's shapes, 1.1 GB, with its tokenizer, in a process that ends."""
    if not (work / "xlm-roberta-base").is_dir():
        maker = [
            sys.executable,
            str(ROOT / "benchmarks/families.py"),
            "--build",
            "xlm-roberta-base",
            "--work",
            str(work),
        ]
        subprocess.run([*maker, "--assets", str(assets)], check=True, capture_output=True)


def _trimbed(python: str, source: Path, folder: Path, out: str, assets: Path) -> list[str]:
    """Trimbed's whole command with its verification on."""
    from against_trimbed import build_corpus

    folder.mkdir(exist_ok=True)
    plan = folder / "plan.json"
    command = [sys.executable, "-m", "langslice", "plan", str(source), "-l", "ko,en", "-o", str(plan)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    tokens = [token for _, token, _ in json.loads(plan.read_text(encoding="utf-8"))["kept"] if token]
    plain = [token for token in tokens if token.strip() == token and not token.startswith("#")]
    (folder / "keep.txt").write_text("\n".join(plain) + "\n", encoding="utf-8")
    build_corpus(folder / "corpus.jsonl", assets, 0.5)
    data = {"path": "json", "data_files": str(folder / "corpus.jsonl"), "streaming": True}
    configuration = {
        "model": str(source),
        "output_dir": out,
        # A least count that nothing reaches: the corpus feeds the verification and chooses nothing.
        "selection": {
            "keep_token_files": [str(folder / "keep.txt")],
            "keep_tokens": sorted(set(tokens) - set(plain)),
            "min_count": 10**9,
        },
        "corpus": {"datasets": [data], "counts_cache": str(folder / "counts.json")},
    }
    (folder / "trimbed.yaml").write_text(json.dumps(configuration), encoding="utf-8")
    return [python, "-m", "trimbed.cli", "trim", "-q", "-c", str(folder / "trimbed.yaml")]


def _with_narrow_rows(tokenizer: Path, folder: Path) -> Path:
    """A folder of a tokenizer with a table of eight numbers for each token, which prunetokens needs."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    for path in tokenizer.iterdir():
        if not path.name.startswith("reference"):
            shutil.copy(path, folder)
    rows = 151_936
    save_file({"model.embed_tokens.weight": np.ones((rows, 8), np.float16)}, folder / "model.safetensors")
    settings = {"model_type": "qwen2", "vocab_size": rows, "hidden_size": 8, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
