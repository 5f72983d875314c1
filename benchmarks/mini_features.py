"""Are there dimensions in langslice-mini that are large only while it reads translations, and do they matter?

    LANGSLICE_ASSETS=... python benchmarks/mini_features.py [--lines 100] [--pictures FOLDER]

Sets: each language alone (eight), and each with its translation into English (seven), from NTREX-128 in the layout of
arXiv 2409.16911. Translated are sentences that come with the package, which no training read. Writes results/mini_features.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

from langslice.demonstrations import (
    Demonstration,
    Layout,
    parallel_demonstrations,
    read_pairs,
    read_sentences,
    text_demonstrations,
)
from langslice.features import (
    AblatedTranslation,
    Ablation,
    Magnitudes,
    ablate,
    measure_magnitudes,
    overlap,
    particular_dimensions,
    read_pairs_to_translate,
    standing_out,
    translate_ablated,
)
from langslice.mini import mini_model_path

HERE = Path(__file__).parent
FILES = {"ar": "arb", "es": "spa", "fr": "fra", "hi": "hin", "ko": "kor", "sw": "swa", "zh": "zho-CN"}
SHARE = 0.4
STAND_OUT = 5
NEW_TOKENS = 64


def sets(assets: Path, count: int) -> dict[str, list[Demonstration]]:
    """Every set by name; a pair is called fr-en."""
    folder = assets / "data/ntrex128"
    english = str(folder / "newstest2019-src.eng.txt")
    layout = Layout(shots=4, count=count, separator="{eos}", order="shuffled")
    made = {"en": text_demonstrations(read_sentences([english]), "en", layout)}
    for code, name in FILES.items():
        path = str(folder / f"newstest2019-ref.{name}.txt")
        made[code] = text_demonstrations(read_sentences([path]), code, layout)
    for code, name in FILES.items():
        pairs = read_pairs([str(folder / f"newstest2019-ref.{name}.txt"), english], (code, "en"))
        made[f"{code}-en"] = parallel_demonstrations(pairs, (code, "en"), layout)
    return made


def overlap_lines(measured: Magnitudes) -> list[str]:
    """Each pair against its languages, against other languages, and against other pairs; mean over layers."""
    means = overlap(measured, SHARE).mean(axis=2)
    place = {name: number for number, name in enumerate(measured.conditions)}
    lines = [
        "| pair | small in its source | in English | in other languages | in other pairs | particular |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for code in FILES:
        pair = f"{code}-en"
        others = [other for other in FILES if other != code]
        alone = statistics.mean(means[place[pair], place[other]] for other in others)
        pairs = statistics.mean(means[place[pair], place[f"{other}-en"]] for other in others)
        found = particular_dimensions(measured, pair, [code, "en"], SHARE)[1:]
        own, english = means[place[pair], place[code]], means[place[pair], place["en"]]
        lines.append(
            f"| {pair} | {own:.3f} | {english:.3f} | {alone:.3f} | {pairs:.3f} | {found.sum()} of {found.size} |"
        )
    return lines


def ablation_lines(rows: list[Ablation], pair: str) -> list[str]:
    """Loss on the pair, on its answers alone, and on each of its languages."""
    lines = []
    for kind in dict.fromkeys(row.zeroed for row in rows):
        own = [row for row in rows if row.zeroed == kind]
        cells = [[row.loss for row in own if row.condition == name] for name in (pair, *pair.split("-"))]
        cells.insert(1, [row.answer_loss for row in own if row.condition == pair and row.answer_loss is not None])
        shown = " | ".join(
            f"{statistics.mean(cell):.3f}" + (f" ({min(cell):.3f} to {max(cell):.3f})" if len(cell) > 1 else "")
            for cell in cells
        )
        lines.append(f"| {pair} | {kind} | {own[0].dimensions} | {shown} |")
    return lines


def translation_lines(rows: list[AblatedTranslation]) -> list[str]:
    """Each set that was zeroed: BLEU and chrF++ with 95% intervals, and the change of each with p."""
    lines = []
    for place in range(0, len(rows), 2):
        bleu, chrf = rows[place : place + 2]
        cells = [f"{bleu.score:.2f} ({bleu.low:.2f} to {bleu.high:.2f})", change(bleu)]
        cells += [f"{chrf.score:.2f} ({chrf.low:.2f} to {chrf.high:.2f})", change(chrf)]
        kind = bleu.zeroed if bleu.seed is None else f"{bleu.zeroed}, seed {bleu.seed}"
        lines.append(f"| {bleu.pair} | {kind} | {bleu.unchanged} | {bleu.empty} | {' | '.join(cells)} |")
    return lines


def change(row: AblatedTranslation) -> str:
    """A change with its interval, empty where there is none."""
    if row.p is None:
        return ""
    return f"{row.change:+.2f} ({row.change_low:+.2f} to {row.change_high:+.2f}), p {row.p:.3f}"


def translation_text(rows: list[AblatedTranslation]) -> list[str]:
    """The section, with how many changes the test tells from none."""
    signatures = ", ".join(f"`{one}`" for one in dict.fromkeys(row.signature for row in rows))
    compared = [row for row in rows if row.p is not None]
    plain = [
        [row.score for row in rows if row.p is None and (row.metric == "BLEU") is first] for first in (True, False)
    ]
    level = (
        f"With nothing zeroed BLEU is {min(plain[0]):.2f} to {max(plain[0]):.2f} and chrF++ {min(plain[1]):.1f} to "
        f"{max(plain[1]):.1f}"
    )
    if max(plain[0]) < 1:
        level += ": the model does not translate, and a change says what happens to the text it writes instead"
    found = []
    for kind in dict.fromkeys(row.zeroed for row in compared):
        of = [row for row in compared if row.zeroed == kind and row.metric != "BLEU"]
        below = sum(row.p is not None and row.p < 0.05 and row.change < 0 for row in of)
        mean = statistics.mean(row.change for row in of)
        found.append(f"{kind} {mean:+.2f} on average, lower with p < 0.05 in {below} of {len(of)}")
    return [
        f"\n## Translation\nThe same dimensions zeroed; n = {rows[0].lines} packaged sentences a pair, {rows[0].shots} shots, "
        f"greedy, at most {NEW_TOKENS} tokens. 95% intervals and p by the bootstrap, 1,000 resamples, changes paired with nothing "
        f"zeroed; no correction for their number. As before: lines that come out letter by letter the same. {signatures}.\n",
        "| pair | zeroed | as before | empty | BLEU | change | chrF++ | change |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        *translation_lines(rows),
        f"\n{level}. chrF++: {'; '.join(found)}.",
    ]


def draw(measured: Magnitudes, folder: Path) -> None:
    """The pictures that `langslice features` draws."""
    from langslice.features import pictures

    folder.mkdir(parents=True, exist_ok=True)
    values = overlap(measured, SHARE)
    pictures.draw_overlap(measured, values, folder / "overlap.png", share=SHARE)
    pictures.draw_overlap_by_layer(measured, values, folder / "overlap-layers.png")
    for code in FILES:
        pair = f"{code}-en"
        marks = standing_out(measured, pair, [code, "en"], STAND_OUT, SHARE)
        pictures.draw_bars(measured, pair, folder / f"bars-{pair}.png", marks=marks)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=8, help="demonstrations of each set")
    parser.add_argument("--lines", type=int, default=100, help="lines to translate of each pair")
    parser.add_argument("--pictures", type=Path, help="folder for PNG files")
    arguments = parser.parse_args()
    assets = Path(os.environ.get("LANGSLICE_ASSETS", HERE.parent / "../shared/assets")).resolve()
    started = time.monotonic()
    given = sets(assets, arguments.count)
    measured = measure_magnitudes(mini_model_path(), given)
    ablation: list[str] = []
    translated: list[AblatedTranslation] = []
    for pair in ("fr-en", "es-en", "zh-en"):
        alone = pair.split("-")
        marks = standing_out(measured, pair, alone, STAND_OUT, SHARE)
        used = {name: given[name] for name in (pair, *alone)}
        ablation += ablation_lines(
            ablate(mini_model_path(), measured, used, pair, marks, limit=arguments.count // 2), pair
        )
        asked = read_pairs_to_translate(pair, arguments.lines)
        translated += translate_ablated(
            mini_model_path(), measured, pair, marks, asked, share=SHARE, new_tokens=NEW_TOKENS
        )
    text = [
        "# Features of translation in langslice-mini\n",
        f"{arguments.count} demonstrations of four shots in each set, NTREX-128; largest and smallest: {SHARE:.0%} of "
        f"the dimensions; {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, {time.monotonic() - started:.0f} s.\n",
        "## Overlap\nShare of the dimensions that are among the largest for the pair and among the smallest elsewhere, mean over "
        "layers. Particular: small in both its languages alone, layers together.\n",
        *overlap_lines(measured),
        f"\n## Ablation\nLoss in nats per token with {STAND_OUT} dimensions of each layer zeroed: of the largest those that are "
        "out most from both languages alone, other large ones, random ones (three seeds).\n",
        "| pair | zeroed | dimensions | pair | its answers | source alone | English alone |",
        "|---|---|---:|---:|---:|---:|---:|",
        *ablation,
        *translation_text(translated),
    ]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results/mini_features.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))
    if arguments.pictures is not None:
        draw(measured, arguments.pictures)


if __name__ == "__main__":
    main()
