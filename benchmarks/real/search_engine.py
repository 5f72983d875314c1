"""A search engine in few languages: multilingual-e5-small and its slices.

    python benchmarks/real/search_engine.py

Korean similarity as people judged it (KorSTS), retrieval of a sentence's translation among those of NTREX-128 in six sets of
languages, and an index of 10,000 Korean passages: time, memory, and whether the same passages are found. Passages are the
sentences of KorNLI; both models take turns, 500 passages at a time. Writes results/real/search_engine.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import data, evaluated, machine, models, ntrex, score_row, sliced, step, table, write_page

PAGE, MODEL = "search_engine", "multilingual-e5-small"
SETS = ("ko,en", "de,en", "ja,en", "ar,en", "tr,en", "es,fr,en")
STS, RETRIEVAL, PASSAGES, QUERIES, BLOCK = 400, 100, 10_000, 200, 500

_WORKER = """
import json, resource, sys, time
import numpy as np
from langslice.evaluation.embedding import embed, load_encoder
started = time.process_time()
encoder = load_encoder(__import__("pathlib").Path(sys.argv[1]), device="cpu")
print(json.dumps({"load": time.process_time() - started}), flush=True)
vectors = []
for line in sys.stdin:
    asked = json.loads(line)
    started = time.process_time()
    found = embed(encoder, asked["texts"]).astype(np.float32)
    seconds = time.process_time() - started
    if asked["kind"] == "passages":
        vectors.append(found)
        answer = {"seconds": seconds}
    else:
        index = np.concatenate(vectors)
        order = np.argsort(-(found @ index.T), axis=1, kind="stable")[:, :10]
        answer = {"seconds": seconds, "found": order.tolist(), "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
                  "index_mb": index.nbytes / 1e6}
    print(json.dumps(answer), flush=True)
"""


def passages() -> list[str]:
    """10,000 distinct Korean sentences."""
    found: dict[str, None] = {}
    for name in ("xnli.test.ko.tsv", "xnli.dev.ko.tsv"):
        for line in (data() / "kornlu" / name).read_text(encoding="utf-8").splitlines()[1:]:
            found |= dict.fromkeys(line.split("\t")[:2])
    return [f"passage: {text}" for text in list(found)[:PASSAGES]]


def index(folders: dict[str, Path]) -> dict[str, Any]:
    """Both models embed the same passages, block by block in turn, then the same queries."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {
        role: subprocess.Popen([sys.executable, "-c", _WORKER, str(folder)], **pipes)
        for role, folder in folders.items()
    }  # fmt: skip

    def ask(role: str, kind: str, texts: list[str]) -> dict[str, Any]:
        stdin, stdout = workers[role].stdin, workers[role].stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps({"kind": kind, "texts": texts}) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer

    found: dict[str, Any] = {role: {"load": json.loads(worker.stdout.readline())["load"], "seconds": []}  # type: ignore[union-attr]
                             for role, worker in workers.items()}  # fmt: skip
    texts = passages()
    for number, first in enumerate(range(0, len(texts), BLOCK)):
        roles = list(folders) if number % 2 == 0 else list(folders)[::-1]
        for role in roles:
            found[role]["seconds"].append(ask(role, "passages", texts[first : first + BLOCK])["seconds"])
    queries = [f"query: {line}" for line in ntrex("ko")[:QUERIES]]
    for role, worker in workers.items():
        found[role] |= {"queries": ask(role, "queries", queries)}
        worker.stdin.close()  # type: ignore[union-attr]
        worker.wait()
    return {**found, "passages": len(texts)}


def main() -> None:
    """Measure, and write the page."""
    source, document = models() / MODEL, {"retrieval": {}}
    pairs = {languages: [f"{one}-en" for one in languages.split(",") if one != "en"] for languages in SETS}
    for languages, directions in pairs.items():
        name = languages.replace(",", "-")
        out, made = sliced(PAGE, name, MODEL, "-l", languages)
        scores = evaluated(
            PAGE, f"{name}-retrieval", source, out, "--tasks", "bitext", "-l", languages, "--pairs", ",".join(directions),
            "--data", data(), "-n", RETRIEVAL,
        )  # fmt: skip
        if made is None or scores is None:
            continue
        document["retrieval"][languages] = {"slice": made, "scores": [one for one in scores if one["task"] == "bitext"]}
    folder = sliced(PAGE, "ko-en", MODEL, "-l", "ko,en")[0]
    scores = evaluated(PAGE, "korsts", source, folder, "--tasks", "sts", "-l", "ko", "--data", data(), "-n", STS)
    document["korsts"] = [one for one in scores or [] if one["task"] == "sts"]
    document["index"] = step(PAGE, "index", lambda: index({"original": source, "slice": folder}))
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def missing(document: dict[str, Any]) -> str:
    """Sets of languages, and KorSTS, that were not measured; nothing where all were."""
    left = [f"`{languages}`" for languages in SETS if languages not in document["retrieval"]]
    left += [] if document["korsts"] else ["KorSTS (see the first table of README.md)"]
    return f"Not measured yet: {', '.join(left)}." if left else ""


def indexed(found: dict[str, Any] | None) -> str:
    """The section about the index; that it was not measured, where it was not."""
    if found is None:
        return f"Not measured yet: an index of {PASSAGES:,} passages."
    sides = []
    for role in ("original", "slice"):
        one = found[role]
        rate = found["passages"] / sum(one["seconds"])
        sides.append([
            role, f"{one['load']:.1f}", f"{rate:.1f}", f"{1000 * one['queries']['seconds'] / QUERIES:.1f}",
            f"{one['queries']['mb']:,.0f}", f"{one['queries']['index_mb']:.1f}",
        ])  # fmt: skip
    ratios = sorted(a / b for a, b in zip(found["slice"]["seconds"], found["original"]["seconds"], strict=True))
    same = sum(
        a == b for a, b in zip(found["original"]["queries"]["found"], found["slice"]["queries"]["found"], strict=True)
    )
    return f"""## An index of {found["passages"]:,} passages
Sentences of KorNLI; {QUERIES} queries (NTREX-128, Korean), 10 nearest passages each. Time is of one core.

{table(["model", "loading, CPU s", "passages per CPU second", "query, CPU ms", "peak memory, MB", "index, MB"], sides)}
The slice took {ratios[len(ratios) // 2]:.2f} of the CPU time of a block of {BLOCK} passages (median of {len(ratios)} pairs, from
{ratios[0]:.2f} to {ratios[-1]:.2f}); {same} of {QUERIES} queries found the same ten passages in the same order."""


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    rows = []
    for languages, found in document["retrieval"].items():
        before, after = found["slice"]["before"], found["slice"]["after"]
        rows.append([
            languages, f"{before['rows']:,} → {after['rows']:,}", f"{before['mb']:.1f} → {after['mb']:.1f}",
            f"{found['slice']['cpu_seconds']:.0f}", f"{found['slice']['peak_mb']:,.0f}",
            "yes" if found["slice"]["verified"] else "no",
        ])  # fmt: skip
    quality = [["KorSTS", one["language"], one["metric"], *score_row(one)] for one in document["korsts"]]
    for languages, found in document["retrieval"].items():
        quality += [
            [f"NTREX-128, slice for {languages}", one["language"], one["metric"], *score_row(one)]
            for one in found["scores"]
        ]
    return f"""# A search engine in few languages: multilingual-e5-small

`benchmarks/real/search_engine.py`, on weights that were quantised to 4 bits once and made float32 again: losses are against
these, not against published figures. {document["machine"]}

## Size
{table(["languages", "rows", "weights, MB", "slicing, CPU s", "peak memory, MB", "verified"], rows)}
## Quality
Retrieval: the share of {RETRIEVAL} sentences whose nearest neighbour in the other language is their translation.

{table(["data", "language", "measure", "n", "original", "slice", "difference"], quality, text_columns=3)}
{indexed(document["index"])}
{missing(document)}
"""


if __name__ == "__main__":
    main()
