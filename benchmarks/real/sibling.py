"""Somebody else's cut of multilingual-e5-small, for English and Portuguese, and ours of the same size.

    python benchmarks/real/sibling.py

Sliced to exactly the pieces of theirs, ours has the same tensors and the same tokenizer. Then our own choice for en,pt, with as
many rows: what share of NTREX-128 it covers, in how many tokens it writes it, how far its embeddings are from the original's, and
retrieval. Writes results/real/sibling.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from common import data, evaluated, machine, models, ntrex, score_row, sliced, step, table, write_page

PAGE, MODEL, THEIRS = "sibling", "multilingual-e5-small", "multilingual-e5-small-enpt"
ROWS, PAIRS, LINES = 47_284, 150, 150
LANGUAGES = ("en", "pt")


def equal_tensors(ours: Path, theirs: Path) -> dict[str, Any]:
    """Whether all tensors, and both tokenizers, are the same."""
    from safetensors.numpy import load_file

    one, other = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    same = [name for name in one if name in other and np.array_equal(one[name], other[name])]
    tokenizers = [json.loads((folder / "tokenizer.json").read_text()) for folder in (ours, theirs)]
    return {
        "tensors": len(other),
        "equal": len(same),
        "names": set(one) == set(other),
        "tokenizer": tokenizers[0] == tokenizers[1],
    }


def text(folders: dict[str, Path]) -> dict[str, Any]:
    """By model and language: covered tokens of the original's encoding, tokens written, and distance from its embeddings."""
    from langslice.evaluation.embedding import embed, load_encoder
    from langslice.tokenizer import open_tokenizer

    original = open_tokenizer(models() / MODEL)
    found: dict[str, Any] = {}
    lines = {language: ntrex(language) for language in LANGUAGES}
    some = {language: each[:LINES] for language, each in lines.items()}
    encoder = load_encoder(models() / MODEL, device="cpu")
    before = {language: embed(encoder, each) for language, each in some.items()}
    for name, folder in folders.items():
        tokenizer = open_tokenizer(folder)
        kept = set(tokenizer.tokens)
        encoder = load_encoder(folder, device="cpu")
        for language, each in lines.items():
            whole = [original.tokens[one] for ids in original.encode(each) for one in ids]
            written = sum(len(ids) for ids in tokenizer.encode(each))
            moved = 1 - (before[language] * embed(encoder, some[language])).sum(1)
            found[f"{name} {language}"] = {
                "covered": sum(token in kept for token in whole) / len(whole), "tokens": written / len(whole),
                "moved": float(moved.mean()), "changed": float((moved > 1e-6).mean()),
            }  # fmt: skip
    return found


def main() -> None:
    """Measure, and write the page."""
    theirs = models() / THEIRS
    exact, made = sliced(PAGE, "exactly-theirs", MODEL, "--only-tokens", theirs / "tokenizer.json")
    own, own_made = sliced(PAGE, "en-pt", MODEL, "-l", "en,pt", "--max-vocab", ROWS)
    document: dict[str, Any] = {
        "exact": made,
        "own": own_made,
        "same": step(PAGE, "same", lambda: equal_tensors(exact, theirs)),
    }
    document["text"] = step(PAGE, "text", lambda: text({"theirs": theirs, "ours": own}))
    for name, folder in (("theirs", theirs), ("ours", own)):
        document[name] = evaluated(
            PAGE, f"{name}-retrieval", models() / MODEL, folder, "--tasks", "bitext", "-l", "en,pt", "--pairs", "pt-en",
            "--data", data(), "-n", PAIRS,
        )  # fmt: skip
    document |= {"machine": machine(), "lines": len(ntrex("en"))}
    write_page(PAGE, document, page(document))


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    same = document["same"]
    rows = []
    for name in ("theirs", "ours"):
        for language in LANGUAGES:
            one = document["text"][f"{name} {language}"]
            rows.append([
                name, language, f"{one['covered']:.4%}", f"{one['tokens'] - 1:+.3%}", f"{one['moved']:.5f}",
                f"{one['changed']:.1%}",
            ])  # fmt: skip
    quality = [
        [name, one["language"], *score_row(one)]
        for name in ("theirs", "ours")
        for one in document[name]
        if one["task"] == "bitext"
    ]
    return f"""# Somebody else's cut

`benchmarks/real/sibling.py`: multilingual-e5-small, of which {THEIRS} is somebody else's cut to English and Portuguese.
{document["machine"]}

Sliced to exactly the pieces of theirs (`--only-tokens`): {document["exact"]["after"]["rows"]:,} rows; {same["equal"]} of
{same["tensors"]} tensors are equal in every bit, names {"equal" if same["names"] else "different"}, tokenizer.json
{"equal" if same["tokenizer"] else "different"}.

## Our own choice
`-l en,pt --max-vocab {ROWS}` keeps {document["own"]["after"]["rows"]:,} rows: the word lists ask for no more. On the
{document["lines"]:,} lines of NTREX-128: occurrences of the original's tokens that are kept, and tokens written, against the
original; on the first {LINES}, the mean distance (1 - cosine) of embeddings from the original's, and the share of lines whose
embedding is not the original's.

{table(["cut", "language", "covered", "tokens", "distance", "lines that differ"], rows, text_columns=2)}
Retrieval of {PAIRS} translations, against the original:

{table(["cut", "pair", "n", "original", "slice", "difference"], quality, text_columns=2)}
"""


if __name__ == "__main__":
    main()
