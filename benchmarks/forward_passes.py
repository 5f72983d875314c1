"""The forward passes that `evaluate` needs on e5, and nothing else: for whole_command.py.

    python benchmarks/forward_passes.py MODELS ASSETS

The distinct sentences of the first 400 Korean pairs of KorSTS, and of the first 400 lines of NTREX-128 in Korean and in
English, each of the three groups by length and in batches of 32, as sentence-transformers reads them. Prints the processor
seconds of the passes alone, which are the least that any program can take.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

ITEMS, BATCH = 400, 32


def groups(data: Path) -> list[list[str]]:
    """The three groups of sentences, each sentence once."""
    with (data / "kornlu/sts-test.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:ITEMS]
    pairs = [row["sentence1"] for row in rows] + [row["sentence2"] for row in rows]
    lines = [
        (data / f"ntrex128/newstest2019-ref.{code}.txt").read_text(encoding="utf-8").splitlines()[:ITEMS]
        for code in ("kor", "eng-US")
    ]
    return [list(dict.fromkeys(one)) for one in (pairs, *lines)]


def main() -> None:
    """Run and print."""
    folder = Path(sys.argv[1]) / "multilingual-e5-small"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batches = []
    for texts in groups(Path(sys.argv[2]) / "data"):
        texts.sort(key=len, reverse=True)
        batches += [
            tokenizer(texts[at : at + BATCH], padding=True, truncation=True, max_length=512, return_tensors="pt")
            for at in range(0, len(texts), BATCH)
        ]
    started = time.process_time()
    with torch.inference_mode():
        for batch in batches:
            model(**batch)
    print(f"processor seconds of the passes: {time.process_time() - started:.2f}")


if __name__ == "__main__":
    main()
