"""Count, rewrite and verify an XLM-R-base-shaped checkpoint with langslice and with trimbed: time and peak memory.

    python benchmarks/against_trimbed.py --trimbed-python PATH [--jobs count rewrite verify] [--rounds 3]
        [--corpus-mb 20] [--work FOLDER]

PATH is an interpreter that can import trimbed. Both do the same job: the same random checkpoint with the real tokenizer
(model/families.py builds it), the same text, the same kept tokens (those of langslice's plan for Korean and English, given to
trimbed as its list of tokens to keep). Every measurement is a whole process, command line to exit; the two alternate,
and before each one the source is read once, so that both find it in the page cache, and the disk is synced. langslice
syncs what it writes and trimbed does not, so the seconds that a `sync` takes afterwards are shown next to it. Results:
benchmarks/results/against_trimbed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = "xlm-roberta-base"
LANGUAGES = "ko,en"
TEXTS = ("ntrex128/newstest2019-ref.kor.txt", "ntrex128/newstest2019-ref.eng-US.txt", "kornlu/xnli.test.ko.tsv")
JOBS = {
    "count": "counting",
    "rewrite": "rewrite, without verification",
    "prove": "rewrite and verification",
}


@dataclass(frozen=True)
class Measured:
    """One process: wall seconds, those of a `sync` afterwards, processor seconds of all its threads, peak megabytes."""

    seconds: float
    sync_seconds: float
    cpu_seconds: float
    peak_mb: float


def build_corpus(path: Path, assets: Path, size_mb: float) -> None:
    """Write lines of three Korean or English sentences of the assets, drawn anew for each line: no line occurs twice."""
    lines = [line for name in TEXTS for line in (assets / "data" / name).read_text(encoding="utf-8").splitlines()]
    parts = [part.strip() for line in lines for part in line.replace("\t", ". ").split(". ") if len(part) > 20]
    draw = random.Random(0)
    seen: set[str] = set()
    size = 0
    with path.open("w", encoding="utf-8") as file:
        while size < size_mb * 1e6:
            text = ". ".join(draw.sample(parts, 3))
            if text in seen:
                continue
            seen.add(text)
            line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
            size += len(line.encode())
            file.write(line)


def measured(command: list[str], source: Path, log: Path) -> Measured:
    """Run a command with its source in the page cache; from a process that stays small, see rewrite.py."""
    for path in source.iterdir():
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
    os.sync()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with log.open("ab") as output:
        start = time.perf_counter()
        child = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"failed with {child.returncode}: {' '.join(command)}\n{log.read_text()[-3000:]}")
    start = time.perf_counter()
    os.sync()
    return Measured(seconds, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def prepare(work: Path, assets: Path, corpus_mb: float) -> dict[str, int]:
    """Build the checkpoint, the corpus, the plan, and trimbed's configuration files; returns the sizes."""
    source, plan = work / MODEL, work / "plan.json"
    if not source.is_dir():
        maker = [sys.executable, str(ROOT / "benchmarks/families.py"), "--build", MODEL, "--work", str(work)]
        subprocess.run([*maker, "--assets", str(assets)], check=True, stderr=subprocess.DEVNULL)
    build_corpus(work / "corpus.jsonl", assets, corpus_mb)
    build_corpus(work / "proof.jsonl", assets, 0.5)
    plan.unlink(missing_ok=True)
    langslice = [sys.executable, "-m", "langslice", "plan", str(source), "-l", LANGUAGES, "-o", str(plan)]
    subprocess.run(langslice, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    made = json.loads(plan.read_text(encoding="utf-8"))
    tokens = [token for _, token, _ in made["kept"]]
    plain = [token for token in tokens if token and token.strip() == token and not token.startswith("#")]
    (work / "keep.txt").write_text("\n".join(plain) + "\n", encoding="utf-8")
    others = sorted(set(tokens) - set(plain))
    write_configurations(work, source, others)
    return {"rows": made["vocabulary"]["rows"], "kept": len(tokens)}


def write_configurations(work: Path, source: Path, others: list[str]) -> None:
    """Write the YAML files of trimbed (JSON is YAML): one to count, one to rewrite, one to rewrite and verify on cached counts."""
    selection = {"keep_token_files": [str(work / "keep.txt")], "keep_tokens": others}
    base = {"model": str(source), "output_dir": str(work / "out"), "selection": selection}

    def corpus(name: str) -> dict[str, object]:
        return {"datasets": [{"path": "json", "data_files": str(work / f"{name}.jsonl"), "streaming": True}]}

    configurations = {
        "count": {"model": str(source), "corpus": corpus("corpus"), "selection": {"min_count": 1}},
        "rewrite": {**base, "verify": False, "verify_model": False},
        # Counts feed trimbed's verification with texts; a least count that nothing reaches keeps them out of the choice.
        "prove": {
            **base,
            "selection": {**selection, "min_count": 10**9},
            "corpus": {**corpus("proof"), "counts_cache": str(work / "proof-counts.json")},
        },
    }
    for name, content in configurations.items():
        (work / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")


def commands(work: Path, trimbed_python: str) -> dict[tuple[str, str], list[str]]:
    """(side, job) -> command line."""
    source, out, counts = str(work / MODEL), str(work / "out"), str(work / "counts")
    ours = [sys.executable, "-m", "langslice"]
    theirs = [trimbed_python, "-m", "trimbed.cli"]
    text = str(work / "proof.jsonl")
    rewrite = [*ours, "slice", source, "--plan", str(work / "plan.json"), "-o", out]
    return {
        ("langslice", "count"): [*ours, "count", source, "--corpus", str(work / "corpus.jsonl"), "-o", counts],
        ("trimbed", "count"): [*theirs, "count", "-q", "-c", str(work / "count.yaml"), "-o", counts],
        ("langslice", "rewrite"): [*rewrite, "--no-verify"],
        ("trimbed", "rewrite"): [*theirs, "trim", "-q", "-c", str(work / "rewrite.yaml")],
        ("langslice", "prove"): [*rewrite, "--text", text],
        ("trimbed", "prove"): [*theirs, "trim", "-q", "-c", str(work / "prove.yaml")],
    }


def clear(work: Path) -> None:
    """Remove what a run wrote."""
    shutil.rmtree(work / "out", ignore_errors=True)
    (work / "counts").unlink(missing_ok=True)


def kept_rows(work: Path) -> int:
    """Rows of the vocabulary in the output: both sides must agree on it."""
    return int(json.loads((work / "out/config.json").read_text(encoding="utf-8"))["vocab_size"])


def compare(work: Path, python: str, jobs: list[str], rounds: int, kept: int) -> list[dict[str, object]]:
    """Alternate both sides, job by job; the order within a pair changes every round."""
    lines = commands(work, python)
    clear(work)
    if "prove" in jobs and not (work / "proof-counts.json").is_file():
        # Before anything is timed: trimbed counts the text of its verification once.
        subprocess.run(lines["trimbed", "prove"], check=True, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    rows: list[dict[str, object]] = []
    for number in range(rounds):
        for job in jobs:
            for side in ("langslice", "trimbed")[:: 1 if number % 2 else -1]:
                clear(work)
                found = measured(lines[side, job], work / MODEL, work / "log.txt")
                if job != "count" and kept_rows(work) != kept:
                    raise SystemExit(f"{side} kept {kept_rows(work)} tokens, expected {kept}")
                row = {"job": job, "side": side, "round": number, **asdict(found), "load": os.getloadavg()[0]}
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    clear(work)
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """Medians of each side, and medians of the ratios of the pairs."""
    lines = [
        "| job | | wall | and `sync` | processor seconds | peak memory |",
        "|---|---|--:|--:|--:|--:|",
    ]

    def values(job: str, side: str, *names: str) -> list[float]:
        return [
            sum(float(str(row[name])) for name in names) for row in rows if (row["job"], row["side"]) == (job, side)
        ]

    columns = (("seconds",), ("seconds", "sync_seconds"), ("cpu_seconds",), ("peak_mb",))
    for job in [job for job in JOBS if any(row["job"] == job for row in rows)]:
        for side in ("trimbed", "langslice"):
            cells = [
                f"{statistics.median(found):,.{0 if names[0] == 'peak_mb' else 1}f} ({min(found):,.1f} to {max(found):,.1f})"
                for names in columns
                for found in [values(job, side, *names)]
            ]
            lines.append(f"| {JOBS[job]} | {side} | " + " | ".join(cells) + " |")
        ratios = []
        for names in columns:
            pairs = zip(values(job, "langslice", *names), values(job, "trimbed", *names), strict=True)
            found = [ours / theirs for ours, theirs in pairs]
            ratios.append(f"**{statistics.median(found):.3f}** ({min(found):.3f} to {max(found):.3f})")
        lines.append("| | langslice / trimbed | " + " | ".join(ratios) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write the rows, and clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trimbed-python", required=True, help="an interpreter that can import trimbed")
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus-mb", type=float, default=20)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "langslice-against-trimbed")
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("LANGSLICE_ASSETS", "../shared/assets")))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sizes = prepare(arguments.work, arguments.assets.resolve(), arguments.corpus_mb)
    rows = compare(arguments.work, arguments.trimbed_python, arguments.jobs, arguments.rounds, sizes["kept"])
    loads = [float(str(row["load"])) for row in rows]
    print(
        f"{sizes['kept']:,} of {sizes['rows']:,} tokens kept; {arguments.corpus_mb:g} MB of text counted; "
        f"{arguments.rounds} pairs; {os.cpu_count()} cores shared with other work (load {min(loads):.1f} to "
        f"{max(loads):.1f}); Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n\n{table(rows)}"
    )
    shutil.rmtree(arguments.work)


if __name__ == "__main__":
    main()
