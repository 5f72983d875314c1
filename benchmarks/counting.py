"""Count tokens by distinct chunks against encoding every unit, on the same text, in pairs.

    python benchmarks/counting.py --assets ASSETS --work FOLDER [--natural 500] [--unique 100] [--output FILE]

Two corpora are built in FOLDER (and kept, so that a second run finds them):

natural.txt  what a crawl of this machine (--roots) finds: the visible text of web pages, one line per block, as crawlers
             extract it, and sources and documentation as they are; roots in turn, files in the order of their paths, each
             file content once. Lines repeat as they do on pages and in files of several versions; how much is printed.
unique.txt   resampled text in which no line repeats: NTREX (all languages), XQuAD and UDHR, each language apart; every line
             is a walk along that language's real word bigrams (seed 0), as long as a real line. Synthetic in its order,
             real in its words, so new words do not appear as they would in 100 MB of real text.

Every run is a process of its own: wall seconds, CPU seconds of it and its children, and the peak of their resident memory
together (sampled every 50 ms). The ways take turns. Counts must agree type by type, or the program stops.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import psutil

TOKENIZERS = ("o200k-base", "xlm-roberta")
DEFAULT_ROOTS = (f"{sys.prefix}/lib", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/share/doc", "/usr/share/vim")
NATURAL_TYPES = {".py", ".md", ".rst", ".txt", ".gz", ".pm", ".pod", ".html", ".htm", ".c", ".h", ".rs", ".po"}
DATA = (
    ".json.gz",
    ".js.gz",
)  # written by machines, like search indexes (.js): words of a megabyte, which no crawl keeps


_UNSEEN = re.compile(r"(?is)<(script|style|svg|head)\b.*?</\1>|<!--.*?-->")
_BLOCKS = re.compile(
    r"(?i)</?(?:p|div|h[1-6]|li|ul|ol|section|article|tr|td|th|table|pre|br|nav|main|summary|details|dt|dd|dl|header"
    r"|footer|title|button)\b[^>]*>"
)


def visible_text(page: str) -> str:
    """The text of a web page, one line per block."""
    page = _BLOCKS.sub("\n", _UNSEEN.sub("\n", page))
    page = html.unescape(re.sub(r"<[^>]*>", "", page))
    return "\n".join(line for line in (" ".join(line.split()) for line in page.split("\n")) if line)


def natural_files(roots: list[Path]) -> Iterator[bytes]:
    """Contents of text files, each once, in the order of their paths."""
    seen: set[bytes] = set()
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.suffix not in NATURAL_TYPES or path.name.endswith(DATA) or not path.is_file() or path.is_symlink():
                continue
            try:
                data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                data.decode()
            except (OSError, EOFError, UnicodeDecodeError):
                continue
            if path.suffix in {".html", ".htm"}:
                data = visible_text(data.decode()).encode()
            digest = hashlib.sha256(data).digest()
            if digest not in seen and b"\0" not in data:
                seen.add(digest)
                yield data.rstrip(b"\n") + b"\n"


def build_natural(out: Path, size_bytes: int, roots: list[Path]) -> None:
    """Write natural.txt."""
    with out.open("wb") as sink:
        for data in natural_files(roots):
            sink.write(data[: size_bytes - sink.tell()])
            if sink.tell() >= size_bytes:
                break
        sink.truncate(len(out.read_bytes().decode(errors="ignore").encode()))  # no half of a character at the end


def languages(assets: Path) -> dict[str, list[str]]:
    """Real lines by file, one language each."""
    lines: dict[str, list[str]] = {}
    for path in sorted((assets / "data/ntrex128").glob("newstest*.txt")):
        lines[path.name] = path.read_text(encoding="utf-8").split("\n")
    for path in sorted((assets / "data/udhr").glob("*.xml")):
        lines[path.name] = re.findall(r"<para>(.*?)</para>", path.read_text(encoding="utf-8"))
    for path in sorted((assets / "data/xquad").glob("*.json")):
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        lines[path.name] = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    return {name: [line for line in found if line.strip()] for name, found in lines.items() if found}


def build_unique(out: Path, size_bytes: int, assets: Path) -> None:
    """Write unique.txt: as much of every source as its share of the real text."""
    chance = random.Random(0)
    sources = languages(assets)
    total = sum(len(line.encode()) for lines in sources.values() for line in lines)
    seen: set[int] = set()
    with out.open("w", encoding="utf-8") as sink:
        for lines in sources.values():
            following: dict[str, list[str]] = {}
            split = [line.split(" ") for line in lines]
            for words in split:
                for word, after in pairwise(words):
                    following.setdefault(word, []).append(after)
            room = size_bytes * sum(len(line.encode()) for line in lines) // total
            while room > 0:
                shape = chance.choice(split)
                words = [chance.choice(split)[0]]
                while len(words) < len(shape):
                    words.append(chance.choice(following.get(words[-1]) or chance.choice(split)))
                line = " ".join(words)
                if hash(line) not in seen:
                    seen.add(hash(line))
                    sink.write(line + "\n")
                    room -= len(line.encode()) + 1


def run_road(road: str, folder: Path, corpus: Path, counts: Path) -> None:
    """Count a corpus and write the counts; what a measured process does."""
    from langslice.corpus import read_texts
    from langslice.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(folder)
    if road == "chunks":
        from langslice.counting import count_tokens

        counted = count_tokens(tokenizer, read_texts([str(corpus)]))
        assert counted.method == "chunks" and not counted.note, counted.note
        np.save(counts, counted.counts)
        return
    total = np.zeros(len(tokenizer.tokens), np.int64)
    batch: list[str] = []
    for unit in read_texts([str(corpus)]):
        batch.append(unit)
        if len(batch) == 8192:
            add_encoded(tokenizer.backend, batch, total)
            batch = []
    add_encoded(tokenizer.backend, batch, total)
    np.save(counts, total)


def add_encoded(backend, batch: list[str], total: np.ndarray) -> None:
    """Encode every unit of a batch, in as many threads as the tokenizers library likes."""
    encodings = backend.encode_batch_fast(batch, add_special_tokens=False)
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)
    total += np.bincount(ids, minlength=len(total))


def measure(arguments: list[str]) -> dict[str, float]:
    """Run this program and give wall seconds, CPU seconds and peak memory in MB, children included."""
    before = os.times()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments], env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    watched = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, sum(one.memory_info().rss for one in [watched, *watched.children(recursive=True)]))
        except psutil.Error:  # it ended in between
            continue
        time.sleep(0.05)
    assert process.returncode == 0, f"{arguments} failed"
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": time.perf_counter() - began, "cpu": cpu, "peak": peak / 1e6}


def compare(corpus: Path, folder: Path, work: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Run both ways in turns; the best of each, after their counts were found equal."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for road in ("full", "chunks"):
            counts = work / f"{road}.npy"
            found = measure(["--road", road, str(folder), str(corpus), str(counts)])
            print(corpus.name, folder.name, road, {key: round(value, 1) for key, value in found.items()}, flush=True)
            if road not in best or found["cpu"] < best[road]["cpu"]:
                best[road] = found
        full, chunks = np.load(work / "full.npy"), np.load(work / "chunks.npy")
        assert full.tolist() == chunks.tolist(), f"{(full != chunks).sum()} tokens are counted differently"
        best["full"]["tokens"] = float(full.sum())
    return best


def describe(corpus: Path) -> str:
    """Size of a corpus, and how much of it repeats."""
    lines, distinct, characters = 0, set(), 0
    with corpus.open(encoding="utf-8", newline="\n") as source:
        for line in source:
            if line != "\n":
                lines += 1
                key = hash(line)
                if key not in distinct:
                    distinct.add(key)
                    characters += len(line.encode())
    size = corpus.stat().st_size
    return f"{size / 1e6:.0f} MB, {lines:,} lines, {len(distinct):,} of them distinct ({characters / size:.0%} of the bytes)"


def main() -> None:
    """Build the corpora, run the pairs, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--road", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--roots", nargs="*", default=[*DEFAULT_ROOTS], help="folders of the natural text")
    parser.add_argument("--natural", type=int, nargs="*", default=[50, 500], help="sizes in MB")
    parser.add_argument("--unique", type=int, nargs="*", default=[25, 100], help="sizes in MB")
    parser.add_argument("--tokenizers", nargs="*", default=list(TOKENIZERS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.road:
        road, *paths = arguments.road
        run_road(road, *map(Path, paths))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    corpora = []
    for kind, sizes in (("natural", arguments.natural), ("unique", arguments.unique)):
        for size in sizes:
            path = arguments.work / f"{kind}-{size}.txt"
            if not path.exists():
                if kind == "natural":
                    build_natural(path, size * 1_000_000, [Path(root) for root in arguments.roots])
                else:
                    build_unique(path, size * 1_000_000, arguments.assets)
            corpora.append((path, describe(path)))
            print(path.name, corpora[-1][1], flush=True)
    rows = []
    for path, _ in corpora:
        for name in arguments.tokenizers:
            best = compare(path, arguments.assets / "tokenizers" / name, arguments.work, arguments.rounds)
            rows.append(table_row(path.stem, name, best))
            if arguments.output:
                arguments.output.write_text(report(corpora, rows), encoding="utf-8")


def table_row(corpus: str, name: str, best: dict[str, dict[str, float]]) -> str:
    """One line of the table."""
    full, chunks = best["full"], best["chunks"]
    return (
        f"| {corpus} | {name} | {full['tokens'] / 1e6:.1f} M | {full['wall']:.1f} | {chunks['wall']:.1f} "
        f"| {full['wall'] / chunks['wall']:.2f} | {full['cpu']:.1f} | {chunks['cpu']:.1f} "
        f"| {full['cpu'] / chunks['cpu']:.2f} | {full['peak']:.0f} | {chunks['peak']:.0f} |"
    )


def report(corpora: list[tuple[Path, str]], rows: list[str]) -> str:
    """The results as a page."""
    import tokenizers

    load = os.getloadavg()
    head = [
        "# Counting tokens",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, "
        f"tokenizers {tokenizers.__version__}; load average at the end {load[0]:.1f}, {load[1]:.1f}, {load[2]:.1f}. "
        "Start of the process, opening of the tokenizer and reading of the file are part of every figure. Counts were "
        "equal type by type in every pair. `full` is `encode_batch_fast` of every line, in the library's threads; "
        "`chunks` is `count_tokens` with its default number of processes.",
        "",
        *[f"- {path.stem}: {text}" for path, text in corpora],
        "",
        "| text | tokenizer | tokens | full, s | chunks, s | ratio | full, CPU s | chunks, CPU s | CPU ratio "
        "| full, peak MB | chunks, peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(head) + "\n"


if __name__ == "__main__":
    main()
