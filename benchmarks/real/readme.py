"""The tables of README.md about trained models: sliced to Korean and English, before and after; and what other cuts cost.

    python benchmarks/real/readme.py             measures what is missing, writes results/real/readme.json and the tables
    python benchmarks/real/readme.py --table     writes the tables from readme.json and the other pages, and measures nothing

Each row is one `langslice slice MODEL -l ko,en -o OUT`, with verification, and one `langslice evaluate`: KorSTS and retrieval of
NTREX-128 for the encoder, bits per byte of lines of NTREX-128 for the causal model.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from common import RESULTS, ROOT, data, evaluated, machine, models, sliced, table

PAGE = "readme"
README, RESULT = ROOT / "README.md", RESULTS / "readme.json"
# Names of the tables in README.md.
HEADLINE, QUALITY = "real results", "quality"
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
# Model -> its row in whole_command.json.
COMMANDS = {"multilingual-e5-small": "e5", "gemma-3-270m": "gemma"}


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
                cost(model),
            )
        )
    head = ("kept for Korean and English", "scores", "vocabulary", "parameters", "weights", "slice and verify")
    return table(head, rows, text_columns=2)


def cost(model: str) -> str:
    """What slicing and verifying a model took, with an empty cache: medians of whole_command.json."""
    found = json.loads((RESULTS.parent / "whole_command.json").read_text(encoding="utf-8"))["runs"]
    runs = [run for run in found if (run["row"], run["state"]) == (COMMANDS[model], "after, empty cache")]
    cpu, peak = (statistics.median(run[key] for run in runs) for key in ("cpu", "peak"))
    return f"{cpu:.0f} CPU s, {peak / 1000:.1f} GB"


def page_of(name: str) -> Any:
    """What a page was made from; None where it was never made."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def bounds(value: float, low: float, high: float, digits: int = 3) -> str:
    """`+0.030 [+0.016, +0.047]`."""
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def of_tradeoff() -> list[list[str]]:
    """What smaller vocabularies cost gemma."""
    found = page_of("tradeoff")
    if found is None:
        return []
    rows = [
        [
            f"gemma-3-270m at {rung['rows']:,} of {found['gemma-3-270m']['before']['rows']:,} rows: bits per byte",
            ", ".join(f"{code} {bounds(one['value'], one['low'], one['high'])}" for code, one in rung["loss"].items()),
            "[trade-off](benchmarks/results/real/tradeoff.md)",
        ]
        for rung in found["gemma-3-270m"]["rungs"]
        if rung["order"] == "frequency" and rung["rows"] in (64000, 32000)
    ]
    other = found["picked"]["loss"]["UDHR"]
    rows.append([
        f"the {found['picked']['rows']:,} rows that `--max-loss 0.01` picks, on text it was not chosen by: bits per byte",
        ", ".join(f"{code} {bounds(one['value'], one['low'], one['high'], 4)}" for code, one in other.items()),
        "[trade-off](benchmarks/results/real/tradeoff.md)",
    ])  # fmt: skip
    return rows


def of_scores() -> list[list[str]]:
    """How well the default score of heads knows their worth, and what a quarter of them costs."""
    import scores

    found = page_of("scores")
    said = {}
    for model, each in scores.of_models(found or {}).items():
        for method in ("gradient", "l1"):
            value, low, high = scores.correlation(each["removals"]["heads"], each[f"heads {method}"]["scores"])
            said.setdefault(method, []).append(f"{model} {bounds(value, low, high)}")
    return [
        [
            f"rank correlation of the true cost of each head with its score by `{method}`",
            ", ".join(each),
            "[scores](benchmarks/results/real/scores.md)",
        ]
        for method, each in said.items()
    ]


def of_healing() -> list[list[str]]:
    """What a short training brings back."""
    import healing

    found, rows = page_of("healing"), []
    for name, seeds in (found or {"runs": {}})["runs"].items():
        job = healing.JOBS[name]
        model = healing._CUTS[job.cut][0]
        said = []
        for language in healing.LANGUAGES:
            each = [
                healing.compared(model, found["quality"][job.cut], one["quality"])[language] for one in seeds.values()
            ]
            after = [one[1] for one in each]
            said.append(f"{language} {each[0][0]:.3f} cut, {sum(after) / len(after):.3f} healed")
        unit = "bits per byte" if model == healing.GEMMA else "1 - cosine"
        minutes = sum(healing.cpu_minutes(job, one) for one in seeds.values()) / len(seeds)
        rows.append([
            f"{model}, {job.cut}, {job.options['steps']} steps of healing ({job.way}; {minutes:.0f} CPU minutes): {unit}",
            ", ".join(said), "[healing](benchmarks/results/real/healing.md)",
        ])  # fmt: skip
    return rows


def quality() -> str:
    """The table of what other cuts cost trained models, from the pages that there are."""
    return table(
        ("on trained models", "measured [95%]", "page"), [*of_tradeoff(), *of_scores(), *of_healing()], text_columns=3
    )


def replace_table(readme: str, text: str, name: str = HEADLINE) -> str:
    """A README whose table between the markers is `text`; LookupError where it has no markers."""
    marks = [f"<!-- {name}: {side} -->" for side in ("begin", "end")]
    head, begin, rest = readme.partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not begin or not end:
        raise LookupError(f"{README} has no {marks[0]} … {marks[1]}")
    return f"{head}{begin}\n{text.strip()}\n{end}{tail}"


def main() -> int:
    """Measure, unless only the table is wanted, and write it."""
    if "--table" not in sys.argv[1:]:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(measure(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    text = replace_table(README.read_text(encoding="utf-8"), render(result))
    README.write_text(replace_table(text, quality(), QUALITY), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
