"""Kim et al. 2024 (arXiv 2409.16911) on gemma-3-270m: which weights translation needs, by demonstrations of translation.

    python benchmarks/real/kim2024.py

The conditions of `langslice reproduce kim2024`, pruned once and measured in steps that are kept; then further sparsities, seeds and
demonstrations. Writes results/real/kim2024.md, with each finding of the paper and whether it holds here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import CHOSEN_FROM, WORK, beside_chance, change_text, paired_change, table, value_text, write_page
from kim2024_runs import (
    DRAWN,
    FIRST,
    GROUPS,
    HIGHER,
    MAIN,
    OTHER,
    PAGE,
    PROMPTS,
    SEEDS,
    SPARSITIES,
    SPARSITY,
    SWEPT,
    collect,
    full_name,
)

LOSS = ("translation_loss", "bits per byte of the reference")
PLAIN = ("perplexity", "bits per byte")
HALVES = ("halves", "accuracy (sum)")
KORNLI, XCOPA = ("xnli", "accuracy (paper)"), ("xcopa", "accuracy (sum)")
RANKC, BLEU, CHRF = ("rankc", "RankC xcopa"), ("translation", "BLEU"), ("translation", "chrF2++")


def runs_of(document: dict[str, Any]) -> dict[str, Any]:
    """Conditions that have been measured, in the form that the tables of `reproduce` read."""
    from langslice.sweeps.result import Finished

    measured = {name: items for name, items in document["conditions"].items() if items}
    return {name: Finished(None, name, {"measured": items}, "", False) for name, items in measured.items()}  # type: ignore[arg-type]


def by_language(run: Any, where: tuple[str, str]) -> dict[str, Any]:
    """Measurements of one metric, with all languages together where there are several."""
    from langslice.reproduction.comparisons import measured

    return measured(run, *where) if run is not None else {}


def together(run: Any, where: tuple[str, str]) -> Any:
    """All languages together, or the only one; None where it was not measured."""
    found = by_language(run, where)
    return found.get("all") or (next(iter(found.values())) if len(found) == 1 else None)


def metric_table(runs: dict[str, Any], names: list[str], where: tuple[str, str], digits: int = 3) -> str:
    """A table of one metric: conditions, languages, and the change of all languages together from unpruned."""
    whole = by_language(runs.get("unpruned"), where)
    if not whole:
        return "Not measured yet.\n"
    rows = []
    for name in names:
        own = by_language(runs.get(name), where)
        if own:
            last = (
                []
                if name == "unpruned"
                else [
                    change_text(paired_change(together(runs["unpruned"], where), together(runs[name], where)), digits)
                ]
            )
            title = name.split(" at ")[0] if name in MAIN else name.split(",")[0]
            rows.append([title, *[value_text(own.get(code), digits) for code in whole], *(last or ["–"])])
    items = len(next(iter(whole.values())).items)
    head = [f"n = {items}", *[code if code != "all" else "together" for code in whole], "change from unpruned"]
    return table(head, rows)


def against(runs: dict[str, Any]) -> str:
    """Translation demonstrations minus the other ways to prune, on the same items, as `reproduce` tabulates it."""
    from langslice.reproduction.comparisons import against_others
    from langslice.sweeps.result import Sweep

    there = [kind for kind in FIRST if full_name(kind) in runs]
    done = Sweep(WORK, tuple(runs[full_name(kind)] for kind in there))
    metrics = {"reference translations": LOSS, "plain text": PLAIN, "KorNLI": KORNLI, "XCOPA": XCOPA}
    sheets = against_others(done, there, metrics)
    return (
        table(["", *sheets[0].columns], [[name, *cells] for name, cells in sheets[0].rows])
        if sheets
        else "Not measured yet.\n"
    )


def sweep_table(runs: dict[str, Any]) -> str:
    """Loss of the reference translations by sparsity, all languages together."""
    sparsities = sorted({SPARSITY, *SPARSITIES})
    there = [each for each in sparsities if full_name("mt fr-en", each) in runs]
    if len(there) < 2:
        return "Not measured yet.\n"
    rows = [[kind, *[value_text(together(runs.get(full_name(kind, each)), LOSS)) for each in there]] for kind in SWEPT]
    rows.append([
        "mt fr-en − mono en",
        *[
            change_text(paired_change(*(together(runs.get(full_name(kind, each)), LOSS) for kind in ("mono en", "mt fr-en"))))
            for each in there
        ],
    ])  # fmt: skip
    return table(["bits per byte of the reference", *[f"{each:g}" for each in there]], rows)


def seed_table(runs: dict[str, Any]) -> str:
    """Loss of the reference translations by seed, and translation less English text by the same seed."""
    rows = []
    for sparsity in (SPARSITY, HIGHER):
        for kind in DRAWN:
            found = [together(runs.get(full_name(kind, sparsity, seed)), LOSS) for seed in SEEDS]
            values = [one.value for one in found if one is not None]
            spread = f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else "–"
            rows.append(
                [f"{kind}, {sparsity:g}", *[f"{one.value:.4f}" if one is not None else "–" for one in found], spread]
            )
        changes = [seeded(runs, sparsity, seed) for seed in SEEDS]
        said = ["–" if one is None else f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]" for one in changes]
        rows.append([f"mt fr-en − mono en, {sparsity:g}", *said, "–"])
    return table(["seed", *map(str, SEEDS), "mean (lowest to highest)"], rows)


def seeded(runs: dict[str, Any], sparsity: float, seed: int) -> Any:
    """Demonstrations of translation minus English text, both drawn by one seed: change of the references' loss."""
    return paired_change(
        *(together(runs.get(full_name(kind, sparsity, seed)), LOSS) for kind in ("mono en", "mt fr-en"))
    )


def other_table(runs: dict[str, Any]) -> str:
    """Demonstrations of other number and quality, at 0.5."""
    base = full_name("mt fr-en", HIGHER)
    rows = []
    for name in (base, *[f"mt fr-en, {each}" for each in OTHER]):
        found = together(runs.get(name), LOSS)
        if found is not None:
            own = "–" if name == base else change_text(paired_change(together(runs.get(base), LOSS), found))
            rows.append(
                [
                    f"{PROMPTS} prompts of 4 shots" if name == base else name.removeprefix("mt fr-en, "),
                    value_text(found),
                    own,
                ]
            )
    return (
        table(["demonstrations of fr-en, sparsity 0.5", "bits per byte of the reference", "change"], rows)
        if len(rows) > 1
        else "Not measured yet.\n"
    )


def mini_tables(document: dict[str, Any]) -> str:
    """Tables of the packaged model: what the conditions change, translation against the others, by sparsity, over seeds."""
    if not document.get("mini"):
        return "Not measured yet.\n"
    wanted = ("bits per byte: change from unpruned", "against the others", "bits per byte: by sparsity", "Over 3 seeds")
    parts = []
    for sheet in document["mini"]["sheets"]:
        if any(part in sheet["title"] for part in wanted):
            rows = [[name, *cells] for name, cells in sheet["rows"]]
            parts.append(f"{sheet['title']}:\n\n{table(['', *sheet['columns']], rows)}")
    return "\n".join(parts)


def verdict(found: Any, wanted: str) -> str:
    """`holds` where a change goes the wanted way for sure, `does not hold` where it goes the other way, else neither."""
    if found is None or np.isnan(found.value):
        return "cannot be told here: not measured"
    if found.low <= 0 <= found.high:
        return "not seen: the interval holds zero"
    return "holds" if (found.value < 0) == (wanted == "lower") else "does not hold: the other way round"


def copied(document: dict[str, Any]) -> str:
    """How many translations are word for word that of a demonstration, and the first of each model."""
    found = {name: each for name, each in document.get("outputs", {}).items() if each}
    if not found:
        return ""
    counts = [
        f"{name.split(' at ')[0]} {sum(text in each['shots'] for text in each['written'])} of {len(each['written'])}"
        for name, each in found.items()
    ]
    first = [f"- {name.split(' at ')[0]}: {each['written'][0]}" for name, each in found.items()]
    return f"""Word for word the translation in one of the four demonstrations: {", ".join(counts)}. The first line by each:

{chr(10).join(first)}
"""


# What every condition is measured by, the first; the others are for those of the main table.
MEASURED = {
    "loss of references": LOSS, "plain text": PLAIN, "KorNLI, XCOPA and RankC": KORNLI, "second halves": HALVES,
    "greedy translation": BLEU,
}  # fmt: skip


# Claim; what is compared with what, in these metrics and at this sparsity; whether it should be lower or higher.
CLAIMS: tuple[tuple[str, str, str, tuple[str, str], str, float], ...] = (
    ("Demonstrations keep what translation needs better than English text does", "mono en", "mt fr-en", LOSS, "lower", SPARSITY),
    ("Demonstrations keep it better than English text does, at a sparsity of 0.5", "mono en", "mt fr-en", LOSS, "lower", HIGHER),
    ("Demonstrations keep what translation needs better than chance does", "random", "mt fr-en", LOSS, "lower", SPARSITY),
    ("Demonstrations keep what translation needs better than the weights' size does", "magnitude", "mt fr-en", LOSS, "lower",
     SPARSITY),
    ("Code to avoid refines the choice (BLOOM in the paper), for translation", "mt fr-en", "code-refined", LOSS, "lower",
     SPARSITY),
    ("Pruned by translation, better than whole at translation itself: loss", "unpruned", "mt fr-en", LOSS, "lower", SPARSITY),
    ("Pruned by translation, better than whole at translation itself: chrF++", "unpruned", "mt fr-en", CHRF, "higher", SPARSITY),
    ("Pruned by translation, better at translation than by English text: chrF++", "mono en", "mt fr-en", CHRF, "higher", SPARSITY),
    ("The same at a sparsity of 0.5: chrF++", "mono en", "mt fr-en", CHRF, "higher", HIGHER),
    ("Pruned by translation, better than whole elsewhere (the main claim): KorNLI", "unpruned", "mt fr-en", KORNLI, "higher",
     SPARSITY),
    ("Pruned by translation, better than whole elsewhere: XCOPA, zh and sw", "unpruned", "mt fr-en", XCOPA, "higher", SPARSITY),
    ("Pruned by translation, better than whole elsewhere: second halves of lines, ko and sw", "unpruned", "mt fr-en", HALVES,
     "higher", SPARSITY),
    ("Pruned by translation, better than by English text: second halves of lines, ko and sw", "mono en", "mt fr-en", HALVES,
     "higher", SPARSITY),
    ("Pruned by translation, better than by English text: KorNLI", "mono en", "mt fr-en", KORNLI, "higher", SPARSITY),
    ("Pruned by translation, better than by English text: XCOPA", "mono en", "mt fr-en", XCOPA, "higher", SPARSITY),
    ("Pruned by translation, answers ranked more alike in zh and sw: RankC", "unpruned", "mt fr-en", RANKC, "higher", SPARSITY),
)  # fmt: skip


def claim_lines(runs: dict[str, Any]) -> list[str]:
    """Each claim about two ways to prune."""
    lines = []
    for claim, first, second, where, wanted, sparsity in CLAIMS:
        found = paired_change(*(together(runs.get(full_name(each, sparsity)), where) for each in (first, second)))
        digits = 2 if where == CHRF else 3
        figure = "" if found is None else f" ({second} minus {first}: {change_text(found, digits)})"
        lines.append(f"- {claim} → **{verdict(found, wanted)}**{figure}")
    return lines


def transfer_lines(runs: dict[str, Any]) -> list[str]:
    """Whether demonstrations of fr-en serve translation from other languages, at the higher sparsity."""
    lines = []
    for pair, said in (("zh-en", "another pair"), ("sw-en", "a language in no demonstration")):
        found = paired_change(*(
            by_language(runs.get(full_name(kind, HIGHER)), LOSS).get(pair) for kind in ("mono en", "mt fr-en")
        ))  # fmt: skip
        lines.append(
            f"- Demonstrations of fr-en serve {said} ({pair}) better than English text does, at 0.5 → "
            f"**{verdict(found, 'lower')}** (mt fr-en minus mono en: {change_text(found)})"
        )
    return lines


def demonstration_lines(runs: dict[str, Any]) -> list[str]:
    """What other demonstrations do to the loss of the references, at the higher sparsity."""
    base = together(runs.get(full_name("mt fr-en", HIGHER)), LOSS)
    lines = []
    for name, claim, wanted in (
        (
            "misaligned",
            "Demonstrations must translate: pairs that do not belong together keep less of translation",
            "higher",
        ),
        ("2 prompts", f"More demonstrations do better: {PROMPTS} prompts instead of 2", "higher"),
        ("100 prompts", f"More demonstrations do better: 100 prompts instead of {PROMPTS}", "lower"),
        ("1 shot", "Four shots do better than as many pairs one by one", "higher"),
        (
            "English first",
            "The direction matters: demonstrations of en-fr keep less of translation into English",
            "higher",
        ),
    ):
        found = paired_change(base, together(runs.get(f"mt fr-en, {name}"), LOSS))
        lines.append(f"- {claim} → **{verdict(found, wanted)}** ({name} minus mt fr-en, at 0.5: {change_text(found)})")
    return lines


def seed_line(runs: dict[str, Any]) -> str:
    """Whether every seed says the same of translation against English text."""
    found = [seeded(runs, HIGHER, seed) for seed in SEEDS]
    told = [one for one in found if one is not None]
    count = sum(one.high < 0 for one in told)
    sure = {0: "does not hold", len(SEEDS): "holds"}.get(count, "holds in part")
    if len(told) < len(SEEDS):
        sure = "cannot be told here: not measured"
    figures = ", ".join(f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in told)
    claim = "The advantage over English text at 0.5 does not hang on the demonstrations drawn"
    return f"- {claim} → **{sure}**: {count} of {len(told)} seeds ({figures})"


def mini_lines(document: dict[str, Any]) -> list[str]:
    """The first finding on the packaged model, from the tables of `reproduce`."""
    for sheet in (document.get("mini") or {}).get("sheets", []):
        rows = dict(sheet["rows"])
        if "against the others" in sheet["title"] and "mt fr-en − mono en" in rows:
            figure = rows["mt fr-en − mono en"][-1]
            sure = "not seen: the interval holds zero"
            if figure.endswith("*"):
                sure = "holds" if figure.startswith("-") else "does not hold: the other way round"
            return [
                "- On langslice-mini: demonstrations keep what translation needs better than English text does → "
                f"**{sure}** (mt fr-en minus mono en: {figure.rstrip('*')})"
            ]
    return []


def findings(document: dict[str, Any], runs: dict[str, Any]) -> str:
    """Each finding of the paper, what became of it here, and the figure."""
    return "\n".join([
        *claim_lines(runs),
        *transfer_lines(runs),
        *demonstration_lines(runs),
        seed_line(runs),
        *mini_lines(document),
        "- Sentiment (MARC) → **cannot be told here**: the data is not at hand",
        "- Base against instruction-tuned models → **cannot be told here**: gemma-3-270m is at hand as a base model only",
        "- RankC over XNLI → **cannot be told here**: at hand is Korean alone (KorNLI), and RankC compares languages",
        "- Features of translation, and what zeroing them costs: [kim2024_features](kim2024_features.md)",
    ])  # fmt: skip


def missing(runs: dict[str, Any], names: list[str]) -> str:
    """What of the conditions has not been measured; `names` are all of them."""
    left: dict[str, list[str]] = {}
    for title, where in MEASURED.items():
        asked = names if where == LOSS else [name for name in names if name in MAIN]
        for name in asked:
            if not by_language(runs.get(name), where):
                left.setdefault(title, []).append(name)
    said = "; ".join(f"{title} of {', '.join(found)}" for title, found in left.items())
    return f"\nNot measured yet: {said}.\n" if left else ""


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    runs = runs_of(document)
    names = list(MAIN)
    written = [*names, *(full_name(kind, HIGHER) for kind in DRAWN[:2])]
    whole = runs.get("unpruned")
    loss, plain, choice, translation = (GROUPS[group] for group in ("loss", "plain", "choice", "translation"))
    return f"""# Pruning by demonstrations of translation: gemma-3-270m

`benchmarks/real/kim2024.py`, after Kim et al. 2024 (arXiv 2409.16911; there XGLM-2.9B, mGPT and BLOOM-3B, 100 prompts,
FLORES-200): {SPARSITY:.0%} of the weights of every linear layer become zero, those that count least while the model reads
demonstrations; float32. Here: {PROMPTS} demonstrations of four shots from the second half of NTREX-128, measured on its first
lines; code is HumanEval's prompts; random and magnitude need no text. Prompts of translation end their lines with a line break:
after the paper's end-of-text token gemma does not stop, and goes on to further text. `langslice reproduce kim2024` runs the same
conditions with the paper's sizes.
{document["machine"]}

## Findings of the paper
{findings(document, runs)}

## Translation: loss of the reference
Bits per byte of the reference translation after four demonstrations, less is better; {loss["limit"]} lines of NTREX-128 per
language. Unlike BLEU it tells models apart on few lines. Swahili is in no demonstration. *Together* counts a line in all its
languages as one item.

{metric_table(runs, names, LOSS)}
## Plain text
Bits per byte of {plain["limit"]} lines per language, each by itself.

{metric_table(runs, names, PLAIN)}
## Demonstrations of translation against the other ways to prune
Paired, all languages together; for bits per byte less is better, for accuracy more; \\* is p < 0.05.

{against(runs)}
## KorNLI
The paper's template and label score; {choice["limit"]} items; chance is 1/3.{beside_chance(together(whole, KORNLI), 1 / 3)}

{metric_table(runs, names, KORNLI)}
## XCOPA
{choice["limit"]} items per language; chance is 1/2.{beside_chance(together(whole, XCOPA), 1 / 2)}

{metric_table(runs, names, XCOPA)}
## Second halves of lines
Ours, because the model answers the tasks of the paper that are at hand by chance: which of {CHOSEN_FROM} second halves of NTREX-128
lines, about as long, goes on from a first half; {GROUPS["halves"]["limit"]} items per language; chance is 1/{CHOSEN_FROM}.

{metric_table(runs, names, HALVES)}
## RankC over XCOPA
Chinese and Swahili; two random orders agree to 0.634.

{metric_table(runs, names, RANKC)}
## Translation fr-en
Greedy, four shots, {translation["limit"]} lines, sacreBLEU.

BLEU:

{metric_table(runs, written, BLEU, 2)}
chrF++:

{metric_table(runs, written, CHRF, 2)}
{copied(document)}
## Sparsity
{sweep_table(runs)}
## Seeds
Other sentences for the demonstrations, and other random masks; bits per byte of the reference, all languages together.

{seed_table(runs)}
## Other demonstrations
*misaligned*: each French sentence with the translation of the next one. *1 shot*: as many pairs, one to a prompt. *of zh-en*, *of
es-en*: other pairs.

{other_table(runs)}
## langslice-mini
`langslice reproduce kim2024 --model mini --data DIR -n 24 --prompts 16 --seeds 3 --sparsities 0.3,0.5 -l en,fr,zh,sw,ko --tasks
xnli,xcopa,translation_loss --separator '\\n'`; \\* is p < 0.05. The model hardly translates: what pruning costs it is what it costs
its text after such a prompt.

{mini_tables(document)}{missing(runs, list(document["conditions"]))}"""


def main() -> None:
    """Measure, and write the page."""
    document = collect()
    write_page(PAGE, document, page(document))


if __name__ == "__main__":
    main()
