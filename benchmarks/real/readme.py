"""The table at the head of README.md: trained models sliced to Korean and English, sizes and scores before and after.

    python benchmarks/real/readme.py             measures what is missing, writes results/real/readme.json and the table
    python benchmarks/real/readme.py --table     writes the table from readme.json, and measures nothing

Each row is one `langslice slice MODEL -l ko,en -o OUT`, with verification, and one `langslice evaluate`: KorSTS and retrieval of
NTREX-128 for the encoder, bits per byte of lines of NTREX-128 for the causal model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from common import RESULTS, ROOT, data, evaluated, machine, models, sliced, table

PAGE = "readme"
README, RESULT = ROOT / "README.md", RESULTS / "readme.json"
BEGIN, END = "<!-- real results: begin -->", "<!-- real results: end -->"
# Model -> options of its evaluation, and the scores to show: (task, language, metric) -> (words, digits).
JOBS: dict[str, tuple[tuple[Any, ...], dict[tuple[str, str, str], tuple[str, int]]]] = {
    "multilingual-e5-small": (
        ("--tasks", "sts,bitext", "--languages", "ko,en", "--available", "--limit", 400),
        {("sts", "ko", "spearman"): ("KorSTS Spearman", 4), ("bitext", "ko-en", "accuracy"): ("ko→en retrieval", 4)},
    ),
    "gemma-3-270m": (
        ("--tasks", "perplexity", "--languages", "ko,en", "--limit", 60),
        {("perplexity", "ko", "bits per byte"): ("bits per byte, ko", 4),
         ("perplexity", "en", "bits per byte"): ("en", 4)},
    ),
}  # fmt: skip


def measure() -> dict[str, Any]:
    """Sizes, cost and scores of every model: model -> what its row says."""
    rows = {}
    for model, (options, wanted) in JOBS.items():
        out, made = sliced(PAGE, model, model, "-l", "ko,en")
        scores = evaluated(PAGE, f"{model}-scores", models() / model, out, "--data", data(), *options)
        found = {(score["task"], score["language"], score["metric"]): score for score in scores}
        missing = wanted.keys() - found.keys()
        if missing:
            raise LookupError(f"{model}: no score {sorted(missing)} among {sorted(found)}")
        rows[model] = {
            **made,
            "scores": [
                {"words": words, "digits": digits, "n": found[key]["original"]["n"],
                 "before": found[key]["original"]["value"], "after": found[key]["slice"]["value"]}
                for key, (words, digits) in wanted.items()
            ],
        }  # fmt: skip
    return {"machine": machine(), "models": rows}


def render(result: Mapping[str, Any]) -> str:
    """The table in Markdown, from what readme.json holds."""
    rows = []
    for model, row in result["models"].items():
        before, after = row["before"], row["after"]
        scores = ", ".join(
            f"{score['words']} {score['before']:.{score['digits']}f} → {score['after']:.{score['digits']}f}"
            for score in row["scores"]
        )
        rows.append(
            (
                model,
                scores,
                f"{before['rows']:,} → {after['rows']:,}",
                f"{before['parameters'] / 1e6:.1f} → {after['parameters'] / 1e6:.1f} M",
                f"{before['mb']:.1f} → {after['mb']:.1f} MB",
                f"{row['cpu_seconds']:.0f} CPU s, {row['peak_mb'] / 1000:.1f} GB",
            )
        )
    head = ("kept for Korean and English", "scores", "vocabulary", "parameters", "weights", "slice and verify")
    return table(head, rows, text_columns=2)


def replace_table(readme: str, text: str) -> str:
    """A README whose table between the markers is `text`; LookupError where it has no markers."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise LookupError(f"{README} has no {BEGIN} … {END}")
    return f"{head}{BEGIN}\n{text.strip()}\n{END}{tail}"


def main() -> int:
    """Measure, unless only the table is wanted, and write it."""
    if "--table" not in sys.argv[1:]:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(measure(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    README.write_text(replace_table(README.read_text(encoding="utf-8"), render(result)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
