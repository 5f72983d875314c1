"""How fast are labels scored, against one forward pass for each label of each example, with the same scores?

python benchmarks/label_scores.py --assets ../shared/assets --out benchmarks/results/label_scores.md

Both ways score the same examples in turns, in one process; the ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import date
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np

ROUNDS = 5


def naive(loaded, examples):
    """Paper scores by a loop: one filled prompt, one pass."""
    import torch

    found = []
    for example in examples:
        scores = []
        for text in example.candidates:
            ids = torch.tensor([loaded.tokenizer(example.prompt + text).input_ids])
            with torch.inference_mode():
                logits = loaded.model(input_ids=ids).logits[0, :-1]
            log_p = logits.log_softmax(-1).gather(1, ids[0, 1:, None])
            scores.append(float(log_p.double().sum()) / ids.shape[1])
        found.append(scores)
    return found


def measure(folder: Path, task: str, language: str, data: Path, examples: int) -> tuple[str, float]:
    """One row of the table, and the largest difference of a score."""
    from langslice.evaluation.choice_tasks import load_task, read_examples
    from langslice.evaluation.loaded_model import load_model
    from langslice.evaluation.zero_shot import label_scores

    loaded = load_model(folder, device="cpu")
    rows = read_examples(load_task(task), language, data, limit=examples)
    naive(loaded, rows[:3])
    loops, ours, ratios = [], [], []
    worst = 0.0
    for number in range(ROUNDS):
        started = process_time()
        expected = naive(loaded, rows)
        loops.append(process_time() - started)
        started = process_time()
        found = label_scores(loaded, (task, str(number)), rows, ("paper",))["paper"]
        ours.append(process_time() - started)
        ratios.append(loops[-1] / ours[-1])
        worst = max(worst, max(float(np.abs(a - np.array(b)).max()) for a, b in zip(found, expected, strict=True)))
    labels = sum(len(row.candidates) for row in rows)
    row = (
        f"| {folder.name} | {task} {language} | {len(rows)} | {labels} | {median(loops):.2f} | {median(ours):.2f} "
        f"| {median(ratios):.1f}× | {worst:.1e} |"
    )
    return row, worst


def main() -> None:
    """Measure, check and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("LANGSLICE_ASSETS", "../shared/assets")))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "label_scores.md")
    parser.add_argument("--examples", type=int, default=300)
    arguments = parser.parse_args()
    import torch

    from langslice.mini import mini_model_path

    torch.set_num_threads(1)
    data = arguments.assets / "data"
    stories = arguments.assets / "weights" / "stories260K-llama"
    cases = ((mini_model_path(), "xnli", "ko"), (mini_model_path(), "xcopa", "zh"), (stories, "xcopa", "it"))
    lines = []
    for folder, task, language in cases:
        row, worst = measure(folder, task, language, data, arguments.examples)
        assert worst < 1e-5, (folder, task, worst)
        print(row, flush=True)
        lines.append(row)
    load = os.getloadavg()[0]
    text = (
        "# Label scores\n\n"
        "CPU seconds (other work on the machine does not count) to score every label of every example by the paper's "
        "score: one pass for each filled prompt, against "
        f"`langslice evaluate`. Medians of {ROUNDS} rounds in turns.\n\n"
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"the machine's load at the end was {load:.1f}.\n\n"
        "| model | task | examples | labels | loop, CPU s | langslice, CPU s | ratio | largest difference |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|\n" + "\n".join(lines) + "\n"
    )
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
