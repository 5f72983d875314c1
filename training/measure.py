"""Measure langslice-mini: perplexity by language against a unigram model, and what demonstrations do.

    python training/measure.py --assets DIR [--model DIR] [--out DIR]

Three tables, printed and written to OUT as results.json and results.md:

1. Perplexity per token on the packaged held-out lines, each line after `<|endoftext|>`, its first token counted, next to
   a unigram model: token counts of the training text in the same language, one added to each.
2. The same on held-out documents of the training sources: 16 windows of 512 tokens per language, spread evenly.
3. Translation: four pairs `{SourceName}: {source}<|endoftext|>{TargetName}: {target}<|endoftext|>`, loss in nats a
   token of the fourth target (label excluded, `<|endoftext|>` included):
   `paired` as it should be; `shuffled` the four sources change places so that none is before its own target;
   `swapped query` only the fourth source is exchanged for one that appears nowhere else in the prompt, the three
   demonstrations stay right. All three use the same fourth target, so that only the context differs. The difference to
   `paired` is given with its standard error over prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bpe import END, END_ID
from layout import encode_documents
from sources import LANGUAGES, Document, read_sources
from tokenizers import Tokenizer
from torch import nn

# The package next to this folder, also where another copy is installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from langslice.mini import heldout_languages, heldout_text, mini_model_path

SHOTS = 4
PROMPTS = 12  # a direction
WINDOWS = 16  # a language, of the held-out documents
NAME_CATEGORIES = {
    "held-out dates": ("cldr-dates",),
    "held-out quantities": ("cldr-quantities",),
    "held-out lands and languages": ("cldr-territories", "cldr-languages"),
}
Row = dict[str, str]


def load_model(folder: Path) -> tuple[nn.Module, Tokenizer]:
    """Load the model in float32 and its tokenizer."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


@torch.no_grad()
def token_losses(model: nn.Module, sequences: list[list[int]], last: int | None = None) -> list[np.ndarray]:
    """Loss in nats of every token after the first: one (length - 1,) array a sequence.

    last    compute only these many tokens at the end of each sequence, which spares most of the head's work
    """
    found: list[np.ndarray] = [np.empty(0)] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda place: len(sequences[place]))
    for start in range(0, len(order), 16):
        chosen = order[start : start + 16]
        rows = [sequences[place] for place in chosen]
        batch = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
        for place, row in enumerate(rows):
            batch[place, : len(row)] = torch.tensor(row)
        # Padding follows the text, where a causal model does not look back from.
        hidden = model.model(input_ids=batch[:, :-1], use_cache=False).last_hidden_state
        for place, row in enumerate(rows):
            start = 0 if last is None else max(0, len(row) - 1 - last)
            logits = model.lm_head(hidden[place, start : len(row) - 1])
            found[chosen[place]] = nn.functional.cross_entropy(
                logits, batch[place, start + 1 : len(row)], reduction="none"
            ).numpy()
    return found


def unigram_losses(counts: np.ndarray, sequences: list[list[int]]) -> float:
    """Mean loss in nats of every token after the first under counts with one added to each."""
    scores = -np.log((counts + 1) / (counts.sum() + len(counts)))
    ids = np.concatenate([np.array(sequence[1:]) for sequence in sequences])
    return float(scores[ids].mean())


def training_counts(documents: list[Document], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """Count tokens of the training text by language: (vocab,) each, `<|endoftext|>` counted once a document."""
    text = encode_documents(documents, tokenizer, heldout=False)
    size = tokenizer.get_vocab_size()
    parts = {**text.running, "python": text.code}
    return {language: np.bincount(np.concatenate(ids), minlength=size) for language, ids in parts.items()}


def perplexity_table(
    model: nn.Module, counts: dict[str, np.ndarray], texts: dict[str, list[list[int]]]
) -> dict[str, Any]:
    """Compare the model with the unigram model, language by language."""
    table = {}
    for language, sequences in texts.items():
        loss = float(np.concatenate(token_losses(model, sequences)).mean())
        unigram = unigram_losses(counts[language], sequences)
        tokens = sum(len(sequence) - 1 for sequence in sequences)
        table[language] = {"tokens": tokens, "loss": loss, "perplexity": math.exp(loss)}
        table[language] |= {"unigram_loss": unigram, "unigram_perplexity": math.exp(unigram)}
    return table


def line_sequences(tokenizer: Tokenizer, lines: list[str]) -> list[list[int]]:
    """Encode lines, each after `<|endoftext|>`."""
    return [tokenizer.encode(END + line).ids for line in lines]


def document_windows(texts: list[np.ndarray], length: int = 512) -> list[list[int]]:
    """Cut documents into windows that begin with `<|endoftext|>`: WINDOWS of them, spread evenly over the text."""
    ids = np.concatenate(texts)
    starts = range(0, len(ids) - length, length - 1)
    step = max(1, len(starts) // WINDOWS)
    return [[END_ID, *ids[start : start + length - 1].tolist()] for start in starts[::step][:WINDOWS]]


def prompt(
    tokenizer: Tokenizer, sources: list[str], targets: list[str], names: tuple[str, str]
) -> tuple[list[int], int]:
    """Write one prompt; return its ids and how many of them, at the end, are the last target's."""
    label = f"{names[1]}:"
    shots = "".join(f"{names[0]}: {a}{END}{label} {b}{END}" for a, b in zip(sources[:-1], targets[:-1], strict=True))
    head = tokenizer.encode(f"{END}{shots}{names[0]}: {sources[-1]}{END}{label}").ids
    tail = tokenizer.encode(f" {targets[-1]}{END}").ids
    return head + tail, len(tail)


def demonstration_effect(
    model: nn.Module, tokenizer: Tokenizer, rows: list[Row], direction: tuple[str, str], prompts: int, seed: int = 0
) -> dict[str, float] | None:
    """Compare the loss of the fourth target with right, shuffled, and swapped sources.

    rows         language to line, parallel; those that lack a language are passed over
    Returns      mean losses and differences in nats per token; None where no prompt fits the context
    """
    source, target = direction
    usable = [row for row in rows if source in row and target in row]
    rng = np.random.default_rng([seed, *map(ord, source + target)])
    names = (LANGUAGES[source], LANGUAGES[target])
    kinds: dict[str, list[tuple[list[int], int]]] = {"paired": [], "shuffled": [], "swapped_query": []}
    for _ in range(prompts):
        chosen = [usable[place] for place in rng.choice(len(usable), SHOTS + 1, replace=False)]
        left, right = [row[source] for row in chosen], [row[target] for row in chosen[:SHOTS]]
        shift = int(rng.integers(1, SHOTS))
        variants = {
            "paired": left[:SHOTS],
            "shuffled": left[shift:SHOTS] + left[:shift],
            "swapped_query": [*left[: SHOTS - 1], left[SHOTS]],
        }
        made = {kind: prompt(tokenizer, own, right, names) for kind, own in variants.items()}
        if max(len(ids) for ids, _ in made.values()) <= 512:
            for kind, one in made.items():
                kinds[kind].append(one)
    if not kinds["paired"]:
        return None
    means = {}
    for kind, own in kinds.items():
        losses = token_losses(model, [ids for ids, _ in own], last=max(size for _, size in own))
        means[kind] = np.array([loss[-size:].mean() for loss, (_, size) in zip(losses, own, strict=True)])
    report = {"prompts": len(kinds["paired"]), **{kind: float(values.mean()) for kind, values in means.items()}}
    for kind in ("shuffled", "swapped_query"):
        gap = means[kind] - means["paired"]
        report[f"{kind}_minus_paired"] = float(gap.mean())
        report[f"{kind}_standard_error"] = float(gap.std(ddof=1) / math.sqrt(len(gap)))
    return report


def directions() -> list[tuple[str, str]]:
    """List English with every other language, both ways, and three pairs without English."""
    others = [language for language in LANGUAGES if language != "en"]
    pairs = [(language, "en") for language in others] + [("en", language) for language in others]
    return [*pairs, ("fr", "es"), ("ko", "zh"), ("hi", "ar")]


def packaged_rows() -> list[Row]:
    """Read the packaged held-out lines as parallel rows."""
    columns = {language: heldout_text(language) for language in heldout_languages()}
    size = len(columns["en"])
    return [{language: lines[place] for language, lines in columns.items()} for place in range(size)]


def document_rows(documents: list[Document], wanted: tuple[str, ...]) -> list[Row]:
    """Collect the parallel lines of held-out documents."""
    found = []
    for document in documents:
        if document.heldout and document.source in wanted:
            size = len(next(iter(document.lines.values())))
            found += [{language: lines[place] for language, lines in document.lines.items()} for place in range(size)]
    return found


def measure(folder: Path, assets: Path, prompts: int) -> dict[str, Any]:
    """Take every measurement."""
    model, tokenizer = load_model(folder)
    documents = read_sources(assets)
    counts = training_counts(documents, tokenizer)
    heldout = encode_documents(documents, tokenizer, heldout=True)
    packaged = {language: line_sequences(tokenizer, heldout_text(language)) for language in LANGUAGES}
    windows = {
        language: document_windows(texts) for language, texts in {**heldout.running, "python": heldout.code}.items()
    }
    text_rows = {
        "packaged lines": packaged_rows(),
        "held-out news": document_rows(documents, ("ntrex",)),
        # By kind: in a mixture a wrong source would betray itself by its kind alone.
        **{name: document_rows(documents, sources) for name, sources in NAME_CATEGORIES.items()},
    }
    effect: dict[str, dict[str, Any]] = {}
    for name, rows in text_rows.items():
        effect[name] = {}
        for direction in directions():
            found = demonstration_effect(model, tokenizer, rows, direction, prompts)
            if found is not None:
                effect[name]["-".join(direction)] = found
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "packaged_lines": perplexity_table(model, counts, packaged),
        "heldout_documents": perplexity_table(model, counts, windows),
        "demonstrations": effect,
    }


def as_markdown(results: dict[str, Any]) -> str:
    """Lay the results out as markdown tables."""
    parts = [f"Parameters: {results['parameters']:,}\n"]
    titles = {
        "packaged_lines": "Perplexity per token, packaged held-out lines",
        "heldout_documents": "Perplexity per token, held-out documents of the training sources",
    }
    for key, title in titles.items():
        lines = [f"### {title}\n", "| language | tokens | mini | unigram | mini, nats | unigram, nats |"]
        lines.append("|---|---:|---:|---:|---:|---:|")
        for language, row in results[key].items():
            lines.append(
                f"| {language} | {row['tokens']:,} | {row['perplexity']:.0f} | {row['unigram_perplexity']:.0f} "
                f"| {row['loss']:.3f} | {row['unigram_loss']:.3f} |"
            )
        parts.append("\n".join(lines) + "\n")
    for name, table in results["demonstrations"].items():
        lines = [f"### Loss of the fourth target, {name} (nats per token)\n"]
        lines.append("| direction | prompts | paired | shuffled | difference | swapped query | difference |")
        lines.append("|---|---:|---:|---:|---:|---:|---:|")
        for direction, row in table.items():
            lines.append(
                f"| {direction} | {row['prompts']} | {row['paired']:.3f} "
                f"| {row['shuffled']:.3f} | {row['shuffled_minus_paired']:+.3f} ± {row['shuffled_standard_error']:.3f} "
                f"| {row['swapped_query']:.3f} "
                f"| {row['swapped_query_minus_paired']:+.3f} ± {row['swapped_query_standard_error']:.3f} |"
            )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("LANGSLICE_ASSETS", "../shared/assets")
    parser.add_argument("--assets", type=Path, default=Path(default))
    parser.add_argument("--model", type=Path, default=mini_model_path())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    given = parser.parse_args()
    torch.set_num_threads(2)
    results = measure(given.model, given.assets, given.prompts)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (given.out / "results.md").write_text(as_markdown(results), encoding="utf-8")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
