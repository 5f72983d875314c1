"""Slice every real tokenizer to four pairs of languages and compare it with its source on every line of real text.

    python benchmarks/exactness.py [ASSETS] [--tokenizers NAME,...] [--lines N]

A choice is what half of a pair's NTREX lines use, with ASCII, closed. The text is every NTREX, XQuAD and UDHR line
in every language. A line is *covered* when the source encodes it with kept tokens only (and, for WordPiece, without
[UNK]); then the slice must give the same tokens. The table is written to benchmarks/results/exactness.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from langslice.tokenizer import SourceTokenizer, close, open_tokenizer, write_tokenizer

PAIRS = {"ko+en": ("kor", "eng"), "ar+fr": ("arb", "fra"), "hi+sw": ("hin", "swa"), "zh+ja": ("zho-CN", "jpn")}
TOKENIZERS = ("qwen2", "gemma-4", "xlm-roberta", "mbert-cased", "o200k-base", "mistral-v1-spm", "opus-mt-en-mg", "gpt2")
Encode = Callable[[Sequence[str]], list[list[int]]]


class Row(NamedTuple):
    """Outcome of one slice: sizes, then numbers of lines."""

    tokenizer: str
    pair: str
    size: int
    chosen: int
    kept: int
    lines: int
    covered: int
    differing: int
    gained_unknown: int
    decoded_otherwise: int
    files: str


def read_ntrex(assets: Path, code: str) -> list[str]:
    """The 1,997 sentences of one language."""
    name = "src.eng" if code == "eng" else f"ref.{code}"
    return (assets / "data/ntrex128" / f"newstest2019-{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]


def read_everything(assets: Path, limit: int | None) -> list[str]:
    """Every line of NTREX, XQuAD and UDHR, at most `limit` a file."""
    lines: list[str] = []
    for path in sorted((assets / "data/ntrex128").glob("newstest*.txt")):
        lines += path.read_text(encoding="utf-8").split("\n")[:limit]
    for path in sorted((assets / "data/xquad").glob("*.json")):
        found = []
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                found += [paragraph["context"], *(entry["question"] for entry in paragraph["qas"])]
        lines += found[:limit]
    for path in sorted((assets / "data/udhr").glob("*.xml")):
        text = path.read_text(encoding="utf-8")
        lines += [part.strip() for part in re.sub(r"<[^>]+>", "\n", text).split("\n") if part.strip()][:limit]
    return lines


def encode_compactly(encode: Encode, lines: Sequence[str]) -> list[array[int]]:
    """Ids of every line, four bytes each."""
    return [array("i", ids) for start in range(0, len(lines), 4096) for ids in encode(lines[start : start + 4096])]


def compare(
    source: SourceTokenizer,
    result: SourceTokenizer,
    kept: Sequence[int],
    lines: Sequence[str],
    before: Sequence[array[int]],
) -> tuple[int, int, int, int]:
    """Lines covered, covered but differing, with more unknowns than before, decoded otherwise than by the source."""
    kept_set = set(kept)
    counts = [0, 0, 0, 0]
    unknown_before, unknown_after = source.unknown_id, result.unknown_id
    exempt = source.unknown_id if source.kind == "wordpiece" else None
    for start in range(0, len(lines), 4096):
        for old, new in zip(before[start : start + 4096], result.encode(lines[start : start + 4096]), strict=True):
            back = [kept[token] for token in new]
            if kept_set.issuperset(old) and exempt not in old:
                counts[0] += 1
                counts[1] += list(old) != back
            counts[2] += (
                back.count(unknown_before) > list(old).count(unknown_before) if unknown_after is not None else 0
            )
            counts[3] += list(old) != back and source.decode(old) != result.decode(new)
    return counts[0], counts[1], counts[2], counts[3]


def compare_pieces(before: Path, after: Path, lines: Sequence[str]) -> str:
    """The same comparison inside the SentencePiece library, on the rewritten `.model` itself."""
    import sentencepiece

    source, result = sentencepiece.SentencePieceProcessor(), sentencepiece.SentencePieceProcessor()
    source.Load(str(before))
    result.Load(str(after))
    left = {result.id_to_piece(place) for place in range(result.get_piece_size())}
    covered = differing = 0
    for line in lines:
        pieces = source.encode(line, out_type=str)
        known = [piece for piece, place in zip(pieces, source.encode(line), strict=True) if place != source.unk_id()]
        if left.issuperset(known):
            covered += 1
            differing += pieces != result.encode(line, out_type=str)
    return f"{before.name} {differing}/{covered}"


def slice_pair(
    source: SourceTokenizer,
    assets: Path,
    pair: str,
    lines: Sequence[str],
    encodings: Sequence[Encode],
    before: list[list[array[int]]],
) -> list[Row]:
    """Slice to one pair and compare; one row for each way to encode (Marian has two)."""
    chosen: set[int] = set()
    ascii_text = [chr(code) for code in range(32, 127)]
    for encode in encodings:
        for code in PAIRS[pair]:
            chosen.update(*encode(read_ntrex(assets, code)[::2]))
        chosen.update(*encode(ascii_text))
    closure = close(source, chosen)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        rewrite = write_tokenizer(source, closure.kept, out)
        result = open_tokenizer(out)
        models = [name for name in rewrite.written if name.endswith((".model", ".spm"))]
        files = ", ".join(compare_pieces(source.folder / name, out / name, lines) for name in models)
        rows = []
        for place, encode in enumerate([result.encode, result.encode_target][: len(encodings)]):
            counts = compare(source, replace(result, encode=encode), closure.kept, lines, before[place])
            name = source.folder.name + (" (target)" if place else "")
            sizes = (len(source.tokens), len(chosen), len(closure.kept), len(lines))
            rows.append(Row(name, pair, *sizes, *counts, files if not place else ""))
    return rows


def table(rows: Sequence[Row], seconds: float) -> str:
    """The rows as a Markdown page."""
    head = (
        "# Exactness of sliced tokenizers\n\nMeasured by `benchmarks/exactness.py` in "
        f"{seconds:.0f} s on {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}. A covered line uses kept tokens only. "
        "The last column repeats the comparison inside the SentencePiece library: differing/covered lines.\n\n"
        "| tokenizer | languages | tokens | chosen | kept (closed) | lines | covered | **covered but different** "
        "| more unknowns | decoded otherwise | SentencePiece files |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n"
    )
    return head + "".join(
        "| " + " | ".join(f"{v:,}" if isinstance(v, int) else v for v in row) + " |\n" for row in rows
    )


def main() -> None:
    """Run the sweep; exit code 1 when any covered line differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("LANGSLICE_ASSETS", str(Path(__file__).parents[1] / "../shared/assets"))
    parser.add_argument("assets", nargs="?", type=Path, default=Path(default))
    parser.add_argument("--tokenizers", default=",".join(TOKENIZERS))
    parser.add_argument("--lines", type=int, default=None, help="at most this many lines a file")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "exactness.md")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    lines = read_everything(arguments.assets, arguments.lines)
    rows: list[Row] = []
    for name in arguments.tokenizers.split(","):
        source = open_tokenizer(arguments.assets / "tokenizers" / name)
        encodings = [source.encode, *([source.encode_target] if source.encode_target else [])]
        before = [encode_compactly(encode, lines) for encode in encodings]
        for pair in PAIRS:
            rows += slice_pair(source, arguments.assets, pair, lines, encodings, before)
            print(*rows[-len(encodings) :], sep="\n", file=sys.stderr, flush=True)
        arguments.output.write_text(table(rows, time.perf_counter() - begin), encoding="utf-8")
    if any(row.differing for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
