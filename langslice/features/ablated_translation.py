"""Translate with dimensions of the residual stream zeroed: the ablation of ablation.py, seen in what a model writes.

Prompts, greedy generation and scores are those of langslice.evaluation; every case is compared with the same lines translated
with nothing zeroed, by the paired bootstrap. The model is loaded whole, in float32, on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import TaskError
from langslice.features.ablation import cases, check_marked, zeroed
from langslice.features.magnitudes import Magnitudes
from langslice.features.overlaps import Marks
from langslice.options import codes
from langslice.progress import Report, silent

if TYPE_CHECKING:
    from langslice.demonstrations.demonstration import Demonstration
    from langslice.evaluation.measurement import Measurement
    from langslice.evaluation.translation import Pair


@dataclass(frozen=True)
class AblatedTranslation:
    """One score of one pair of languages, with one set of dimensions zeroed.

    zeroed, seed, dimensions  as in Ablation
    pair         such as `fr-en`
    lines        translated
    unchanged    lines whose translation is, letter by letter, the one with nothing zeroed
    empty        lines that came out empty
    shots        demonstrations in a prompt
    shortened    prompts that had to do with fewer, for want of positions
    note         what else a reader must know of how the model was run; mostly empty
    metric       "BLEU" or "chrF2++"
    signature    sacreBLEU's
    score        low and high bound it in 95% of the resamples
    change       from nothing zeroed, on the same lines, with bounds and p by the paired bootstrap; 0 and None for nothing
    """

    zeroed: str
    seed: int | None
    dimensions: int
    pair: str
    lines: int
    unchanged: int
    empty: int
    shots: int
    shortened: int
    note: str
    metric: str
    signature: str
    score: float
    low: float
    high: float
    change: float
    change_low: float | None
    change_high: float | None
    p: float | None


def read_pairs_to_translate(
    pairs: str | Sequence[str],
    lines: int,
    *,
    data: Path | None = None,
    shots: int = 4,
    demonstrations: Sequence[Demonstration] = (),
) -> list[Pair]:
    """Read the held-out lines of each pair, and check that they can be scored.

    pairs           such as `fr-en,es-en`; where empty, the languages that the demonstrations name
    lines           of each pair, the first so many that are no shots
    data            folder with NTREX-128 or FLORES-200; without one, the sentences that come with the package
    shots           demonstrations in a prompt; 0 asks
    demonstrations  of what is ablated
    Raises          TaskError, LanguageError, NoDataError
    """
    from langslice.evaluation.parallel import read_parallel
    from langslice.evaluation.settings import directions, make_settings
    from langslice.evaluation.translation import make_pair, sacrebleu_metrics

    named = codes(pairs) or tuple(
        dict.fromkeys(">".join(one.languages) for one in demonstrations if len(one.languages) == 2)
    )
    if not named:
        raise TaskError("no pair of languages to translate, and the demonstrations name none", "pass --pairs fr-en")
    if lines < 1 or shots < 0:
        raise TaskError(f"expected at least 1 line and 0 shots to translate, found {lines} and {shots}")
    settings = make_settings(tasks=("translation",), languages=("en",), pairs=named)
    found = []
    for source, target in dict.fromkeys(directions(settings)):
        sacrebleu_metrics(target)
        text = read_parallel("translation", [source, target], data)
        found.append(make_pair(text, source, target, shots=shots, limit=lines))
    return found


def translate_ablated(
    folder: Path,
    magnitudes: Magnitudes,
    wanted: str,
    particular: Marks,
    pairs: Sequence[Pair],
    *,
    share: float = 0.4,
    seeds: Sequence[int] = (0, 1, 2),
    new_tokens: int = 64,
    separator: str = "\n",
    resamples: int = 1000,
    report: Report = silent,
) -> list[AblatedTranslation]:
    """Translate pairs with nothing, the particular, other large and random dimensions zeroed after every layer.

    particular                                    (layers, dimensions) bool
    magnitudes, wanted, particular, share, seeds  as for `ablate`, with the same choices
    pairs                                         see `read_pairs_to_translate`
    new_tokens, separator                         as for `langslice.evaluation.translation.translate`
    Raises  PlanError when nothing is marked; TaskError for a model that does not write
    """
    from langslice.evaluation.loaded_model import load_model
    from langslice.evaluation.translation import score_translations, translate

    check_translates(folder)
    particular = check_marked(particular, wanted)
    loaded = load_model(folder, device="cpu")
    chosen = list(cases(magnitudes, wanted, particular, share, seeds))
    plain: dict[str, tuple[list[str], list[Measurement]]] = {}
    rows: list[AblatedTranslation] = []
    for number, (kind, seed, marks) in enumerate(chosen):
        for place, pair in enumerate(pairs):
            report(f"translating {pair.name}, zeroing {kind}", number * len(pairs) + place, len(chosen) * len(pairs))
            with zeroed(loaded.model, magnitudes.layers, marks):
                texts = translate(loaded, pair, new_tokens=new_tokens, separator=separator)
            scores = score_translations(pair.name, pair.target, texts, pair.references, {})
            before, first = plain.setdefault(pair.name, (texts, scores))
            how = {
                "lines": len(texts),
                "unchanged": sum(one == other for one, other in zip(before, texts, strict=True)),
                "empty": sum(not text for text in texts),
                "shots": len(pair.shots) if loaded.kind == "causal" else 0,
                "shortened": loaded.memo.get(("translation", pair.name, "shortened"), 0),
                "note": "; ".join(note for note in loaded.notes if pair.name in note),
            }
            for base, score in zip(first, scores, strict=True):
                compared = None if base is score else base
                rows.append(_row((kind, seed, int(marks.sum())), how, score, compared, resamples))
    return rows


def check_translates(folder: Path) -> None:
    """Refuse a model that does not write. Raises TaskError, CheckpointError."""
    from langslice.evaluation.loaded_model import model_kind

    if model_kind(folder) == "encoder":
        raise TaskError(
            f"{folder}: translation needs a model that writes, and this is an encoder", "leave --translate out"
        )


def _row(
    case: tuple[str, int | None, int],
    how: Mapping[str, Any],
    score: Measurement,
    base: Measurement | None,
    resamples: int,
) -> AblatedTranslation:
    """A row; `base` is the score with nothing zeroed, None where this is that."""
    from langslice.evaluation.statistics import difference, interval

    bounds = interval(score.statistic, score.items, resamples=resamples)
    change = None if base is None else difference(score.statistic, base.items, score.items, resamples=resamples)
    compared = (0.0, None, None, None) if change is None else (change.value, change.low, change.high, change.p)
    return AblatedTranslation(
        *case, score.language, **how, metric=score.metric, signature=score.details["signature"],
        score=score.value, low=bounds.low, high=bounds.high,
        change=compared[0], change_low=compared[1], change_high=compared[2], p=compared[3],
    )  # fmt: skip
