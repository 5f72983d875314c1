"""A language model for Korean and English: gemma-3-270m and its slice.

    python benchmarks/real/korean_llm.py

Bits per byte on news (NTREX-128) and on the Universal Declaration of Human Rights, KorNLI, XCOPA by a slice for two of its
languages, language confusion, and what both write, side by side. Writes results/real/korean_llm.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import WORK, data, evaluated, machine, models, ntrex, score_row, sliced, step, table, udhr, write_page

PAGE, MODEL = "korean_llm", "gemma-3-270m"
NEWS, RIGHTS, CHOICES, PROMPTS = 40, 24, 40, 8
# What a prompt gives away of a line, and how much is written.
SHOWN, WRITTEN = 0.5, 24
BF16 = ("--dtype", "bfloat16")


def rights() -> Path:
    """A data folder that holds paragraphs of the declaration."""
    folder = WORK / PAGE / "udhr"
    (folder / "parallel").mkdir(parents=True, exist_ok=True)
    for language in ("ko", "en"):
        (folder / "parallel" / f"{language}.txt").write_text("\n".join(udhr(language)[:RIGHTS]) + "\n")
    return folder


def written(folders: dict[str, Path]) -> list[dict[str, str]]:
    """What both models write after the first half of a line, the likeliest token each time."""
    from langslice.evaluation.generation import decode, generate
    from langslice.evaluation.loaded_model import encode_texts, load_model

    lines = [(language, line) for language in ("ko", "en") for line in ntrex(language)[100:103]]
    found = [
        {"language": language, "prompt": " ".join(line.split()[: int(len(line.split()) * SHOWN)])}
        for language, line in lines
    ]
    for role, folder in folders.items():
        loaded = load_model(folder)
        ids = generate(loaded, encode_texts(loaded, [one["prompt"] for one in found]), new_tokens=WRITTEN)
        for one, answer in zip(found, decode(loaded, ids), strict=True):
            one[role] = answer
    return found


def main() -> None:
    """Measure, and write the page."""
    source = models() / MODEL
    out, made = sliced(PAGE, "ko-en", MODEL, "-l", "ko,en")
    both = ("-l", "ko,en", "--data", data())
    document: dict[str, Any] = {"slice": made}
    document["news"] = evaluated(PAGE, "news", source, out, "--tasks", "perplexity", *both, "-n", NEWS)
    document["rights"] = evaluated(
        PAGE, "rights", source, out, "--tasks", "perplexity", "-l", "ko,en", "--data", rights(), "-n", RIGHTS
    )
    document["kornli"] = evaluated(
        PAGE, "kornli", source, out, "--tasks", "xnli", "-l", "ko", "--data", data(), "-n", CHOICES, *BF16
    )
    document["written"] = step(PAGE, "written", lambda: written({"original": source, "slice": out}))
    document["confusion"] = evaluated(
        PAGE, "confusion", source, out, "--tasks", "confusion", *both, "-n", PROMPTS, "--new-tokens", 32, *BF16
    )
    other, document["other_slice"] = sliced(PAGE, "it-id", MODEL, "-l", "it,id")
    document["xcopa"] = evaluated(
        PAGE, "xcopa", source, other, "--tasks", "xcopa", "-l", "it,id", "--data", data(), "-n", CHOICES, *BF16
    )
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def generation(written: list[dict[str, str]] | None) -> str:
    """What both wrote, side by side; nothing where it was not run."""
    if not written:
        return ""
    same = sum(one["original"] == one["slice"] for one in written)
    samples = "\n".join(
        f"- {one['language']}: {one['prompt']} …\n  - original: {' '.join(one['original'].split())}\n"
        f"  - slice: {' '.join(one['slice'].split())}"
        for one in written
    )
    return f"""## Written
The likeliest {WRITTEN} tokens after half a line of NTREX-128, in float32: the same text in {same} of {len(written)}.

{samples}

"""


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    kinds = {
        "NTREX-128": ("news", "bits per byte"), "UDHR": ("rights", "bits per byte"), "KorNLI": ("kornli", ""),
        "XCOPA": ("xcopa", ""), "language confusion": ("confusion", ""),
    }  # fmt: skip
    rows = [
        [name, one["language"], one["metric"], *score_row(one)]
        for name, (key, metric) in kinds.items()
        for one in document[key] or []
        if one["task"] != "size" and (not metric or one["metric"] == metric)
    ]
    sizes = []
    for name, key in (("ko,en", "slice"), ("it,id", "other_slice")):
        if document[key]:
            before, after = document[key]["before"], document[key]["after"]
            sizes.append([
                name, f"{before['rows']:,} → {after['rows']:,}",
                f"{before['parameters'] / 1e6:.0f} → {after['parameters'] / 1e6:.0f}", f"{before['mb']:.1f} → {after['mb']:.1f}",
                f"{document[key]['cpu_seconds']:.0f}", f"{document[key]['peak_mb']:,.0f}",
            ])  # fmt: skip
    missing = [name for name, (key, _) in kinds.items() if not document[key]]
    missing += [] if document["written"] else ["generation"]
    return f"""# A language model for Korean and English: gemma-3-270m

`benchmarks/real/korean_llm.py`, on weights that were quantised once (GGUF Q4_K_M) and made bfloat16 again: losses are against
these, not against published figures. Bits per byte in float32; choices and confusion in bfloat16. {document["machine"]}

## Size
{table(["languages", "rows", "M parameters", "weights, MB", "slicing and verifying, CPU s", "peak memory, MB"], sizes)}
## Quality
KorNLI: {CHOICES} of its pairs; XCOPA by the slice for Italian and Indonesian, since it has neither Korean nor English. A
model of this size hardly does better than chance at either (1/3, 1/2); the difference is what counts here.

{table(["data", "language", "measure", "n", "original", "slice", "difference"], rows, text_columns=3)}
{generation(document["written"])}{f"Not measured yet: {', '.join(missing)}." if missing else ""}
"""


if __name__ == "__main__":
    main()
