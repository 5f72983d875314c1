"""From scores to what is dropped: layers, heads, neurons; by share, evenly, by language, or at random as a control.

Nothing is written and no model is read. The results name heads and neurons in the numbering of the source:
attention or stack -> layer -> indices, layers without any left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from math import floor

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError, ScoreError
from langslice.model.anatomy import Anatomy, Heads
from langslice.scoring.score_checks import by_language, check_fit, check_scores, other_languages
from langslice.scoring.table import Scores, Values

Dropped = dict[str, dict[int, tuple[int, ...]]]
Places = list[tuple[str, int, int]]
"""(Place, layer, number of parts) of each layer, in the order of a flat array over all of them."""

# These compare across layers as they are; all others are scaled to one length within a layer.
_COMPARABLE = frozenset({"gates", "lape"})
LANGUAGE_SPECIFIC_SHARE = 0.01
ACTIVE_QUANTILE = 0.95
HIGH_HEADS_SHARE = 0.25
LOW_HEADS_SHARE = 0.5


def heads_to_drop(
    scores: Scores, anatomy: Anatomy, share: float, even: bool = False, *, whole_groups: bool = False
) -> Dropped:
    """Choose the lowest-scored heads; at least one of each attention of each layer stays.

    share         of all heads, 0 <= share < 1, rounded down
    even          the same number in every layer, so that unmodified classes can express the result: whole groups or equally many
                  within each where queries share keys and values (whichever comes nearer to the share), the same heads in
                  every layer where the first layer's position bias serves all
    whole_groups  drop heads only with all others that share their keys and values
    Returns       attention -> layer -> heads
    Raises        ScoreError for scores of another kind; PlanError where a uniform slice of this share is no head at all
    Source        normalised within a layer and compared globally: Michel et al. 2019, arXiv 1905.10650
    Example       scores [3, 4] and [1, 0] are compared as [.6, .8] and [1, 0]: half of them are head 1 and head 0
    """
    check_scores(scores, "heads", share)
    values = _normalised(scores.values(), scores.method)
    check_fit(values, {place: {at: one.query for at, one in layers.items()} for place, layers in anatomy.heads.items()})
    if even:
        return {
            place: dropped
            for place, layers in values.items()
            if (dropped := _even_heads(layers, anatomy, place, share))
        }
    units: list[tuple[float, str, int, tuple[int, ...]]] = []
    for place, layers in values.items():
        for layer, row in layers.items():
            units += [
                (float(row[list(unit)].mean()), place, layer, unit)
                for unit in _units(anatomy.heads[place][layer], whole_groups)
            ]
    return _lowest(
        units, share, {place: {layer: len(row) for layer, row in one.items()} for place, one in values.items()}
    )


def _units(heads: Heads, whole_groups: bool) -> list[tuple[int, ...]]:
    size = heads.group if whole_groups and heads.key_value > 1 else 1
    return [tuple(range(first, first + size)) for first in range(0, heads.query, size)]


def _lowest(
    units: Sequence[tuple[float, str, int, tuple[int, ...]]], share: float, sizes: Mapping[str, Mapping[int, int]]
) -> Dropped:
    """Take units in the order of their scores until the share is reached, never the last of a layer."""
    budget = count_of(share, sum(sum(layers.values()) for layers in sizes.values()))
    taken: dict[str, dict[int, list[int]]] = {}
    for _, place, layer, unit in sorted(units):
        gone = taken.get(place, {}).get(layer, [])
        if len(unit) <= budget and len(gone) + len(unit) < sizes[place][layer]:
            taken.setdefault(place, {})[layer] = [*gone, *unit]
            budget -= len(unit)
    return {
        place: {layer: tuple(sorted(gone)) for layer, gone in sorted(layers.items())}
        for place, layers in sorted(taken.items())
    }


def _even_heads(
    layers: Mapping[int, npt.NDArray[np.float64]], anatomy: Anatomy, place: str, share: float
) -> dict[int, tuple[int, ...]]:
    if anatomy.body.first_bias and place.endswith(".self"):
        together = np.sum(list(layers.values()), axis=0)
        layers = dict.fromkeys(layers, together)
    return {
        layer: dropped
        for layer, row in layers.items()
        if (dropped := _even_heads_of_layer(row, anatomy.heads[place][layer], place, share))
    }


def _even_heads_of_layer(row: npt.NDArray[np.float64], heads: Heads, place: str, share: float) -> tuple[int, ...]:
    groups = min(count_of(share, heads.key_value), heads.key_value - 1)
    within = min(count_of(share, heads.group), heads.group - 1) if heads.group > 1 else 0
    if share and not groups and not within:
        least = 1 / max(heads.key_value if heads.key_value > 1 else 1, heads.group)
        raise PlanError(
            f"{share:g} of {heads.query} heads of {place} is less than the smallest uniform slice",
            hint=f"the smallest takes {least:.4g} of the heads; or do without --uniform",
        )
    by_group = row.reshape(heads.key_value, heads.group)
    if groups * heads.group >= within * heads.key_value:
        chosen = np.argsort(by_group.sum(1), kind="stable")[:groups]
        gone = [int(group) * heads.group + at for group in chosen for at in range(heads.group)]
    else:
        lowest = np.argsort(by_group, axis=1, kind="stable")[:, :within]
        gone = [group * heads.group + int(at) for group, row_of in enumerate(lowest) for at in row_of]
    return tuple(sorted(gone))


def neurons_to_drop(scores: Scores, anatomy: Anatomy, share: float, even: bool = False) -> Dropped:
    """Choose the lowest-scored neurons; at least one of each layer stays.

    share    of all neurons, 0 <= share < 1, rounded down
    even     this share of every layer; otherwise scores are scaled to a mean square of 1 in each layer and compared globally
    Returns  stack -> layer -> neurons
    """
    check_scores(scores, "neurons", share)
    values = scores.values()
    check_fit(values, anatomy.neurons)
    if even:
        return {
            stack: {layer: lowest for layer, row in layers.items() if (lowest := _lowest_of(row, share))}
            for stack, layers in values.items()
            if any(count_of(share, len(row)) for row in layers.values())
        }
    dropped: dict[str, dict[int, list[int]]] = {}
    rows = [
        (place, layer, row / max(float(np.sqrt(np.mean(row**2))), 1e-300))
        for place, layers in values.items()
        for layer, row in layers.items()
    ]
    everything = np.concatenate([row for _, _, row in rows])
    owner = np.repeat(np.arange(len(rows)), [len(row) for _, _, row in rows])
    index = np.concatenate([np.arange(len(row)) for _, _, row in rows])
    for place in values:
        dropped.setdefault(place, {})
    budget = count_of(share, len(everything))
    for at in np.argsort(everything, kind="stable"):
        if not budget:
            break
        place, layer, row = rows[owner[at]]
        gone = dropped[place].setdefault(layer, [])
        if len(gone) + 1 < len(row):
            gone.append(int(index[at]))
            budget -= 1
    return {
        place: {layer: tuple(sorted(gone)) for layer, gone in sorted(layers.items())}
        for place, layers in dropped.items()
        if layers
    }


def _lowest_of(row: npt.NDArray[np.float64], share: float) -> tuple[int, ...]:
    count = min(count_of(share, len(row)), len(row) - 1)
    return tuple(sorted(int(at) for at in np.argsort(row, kind="stable")[:count]))


def layers_to_drop(scores: Scores, anatomy: Anatomy, count: int, stack: str = "layers") -> tuple[int, ...]:
    """Choose the lowest-scored layers of a stack; for angular scores the run that they speak of.

    count    layers to drop; at least one stays
    Raises   PlanError for a count that does not fit, ScoreError for angular scores of runs of another length
    """
    check_scores(scores, "layers", 0.0)
    if stack not in anatomy.layers:
        raise PlanError(f"this model has no stack `{stack}`", hint=f"it has {', '.join(anatomy.layers)}")
    total, fixed = anatomy.layers[stack], bool(anatomy.body.first_layer)
    if not 0 < count < total:
        raise PlanError(f"cannot drop {count} of the {total} layers of `{stack}`: at least one goes and one stays")
    rows = scores.values().get(stack, {})
    if scores.method == "angular":
        run = int(scores.settings["run"])
        if run != count:
            raise ScoreError(
                f"these angular scores are of runs of {run} layers, and {count} are to go",
                hint=f"score with --run {count}",
            )
        starts = [layer for layer in rows if not (fixed and layer == 0)]
        if not starts:
            raise PlanError(f"no run of {count} layers leaves layer 0 where it is: {anatomy.body.first_layer}")
        first = min(starts, key=lambda layer: float(rows[layer][0]))
        return tuple(range(first, first + count))
    free = [layer for layer in rows if not (fixed and layer == 0)]
    if set(rows) != set(range(total)) or count > len(free):
        raise PlanError(f"cannot drop {count} of the {len(free)} layers of `{stack}` that can go")
    return tuple(sorted(sorted(free, key=lambda layer: (float(rows[layer][0]), layer))[:count]))


def language_neurons_to_drop(
    scores: Scores,
    anatomy: Anatomy,
    keep_languages: Sequence[str],
    *,
    share: float = LANGUAGE_SPECIFIC_SHARE,
    quantile: float = ACTIVE_QUANTILE,
) -> Dropped:
    """Choose the neurons that serve only languages that are not kept.

    A neuron with no activation probability above the quantile of all of them is discarded; of the rest, those of the lowest
    entropy over languages are language-specific and belong to the languages whose probability is above that quantile.
    share    of all neurons that are language-specific at most
    Raises   LanguageError for a kept language without scores, or when no other language is left; ScoreError for other scores
    Source   Tang et al. 2024, arXiv 2402.16438, equations 3 to 5
    """
    specific, served, places = _specific_neurons(scores, anatomy, share, quantile)
    others = other_languages(scores, keep_languages)
    kept = np.array([language not in others for language in scores.languages])
    return _arrange(specific[~served[kept].any(0)], places)


def language_neurons(
    scores: Scores, anatomy: Anatomy, *, share: float = LANGUAGE_SPECIFIC_SHARE, quantile: float = ACTIVE_QUANTILE
) -> dict[str, Dropped]:
    """Every language's own neurons; one that serves several languages is in each of them.

    share, quantile  as for `language_neurons_to_drop`, whose source is this one's too
    Returns          language -> stack -> layer -> neurons
    Raises           ScoreError for other scores
    """
    specific, served, places = _specific_neurons(scores, anatomy, share, quantile)
    return {
        language: _arrange(specific[own], places, leave=0)
        for language, own in zip(scores.languages, served, strict=True)
    }


def _specific_neurons(
    scores: Scores, anatomy: Anatomy, share: float, quantile: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Places]:
    """Language-specific neurons, flat; (languages, those neurons) whether each serves a language; and the layers' places."""
    check_scores(scores, "neurons", 0.0)
    if scores.method != "lape":
        raise ScoreError(f"language neurons are chosen by lape scores, these are by {scores.method}")
    tables = {language: scores.values(language) for language in scores.languages}
    check_fit(tables[scores.languages[0]], anatomy.neurons)
    places = [
        (place, layer, len(row)) for place, one in tables[scores.languages[0]].items() for layer, row in one.items()
    ]
    chances = np.stack(
        [
            np.concatenate([tables[language][place][layer] for place, layer, _ in places])
            for language in scores.languages
        ]
    )  # (languages, neurons)
    bar = np.quantile(chances, quantile)
    total = chances.sum(0)
    parts = np.divide(chances, total, out=np.zeros_like(chances), where=total > 0)
    entropy = -np.sum(parts * np.log(parts, out=np.zeros_like(parts), where=parts > 0), axis=0)
    entropy[~(chances > bar).any(0)] = np.inf
    specific = np.argsort(entropy, kind="stable")[: count_of(share, len(entropy))]
    specific = specific[np.isfinite(entropy[specific])]
    return specific, chances[:, specific] > bar, places


def language_heads_to_drop(
    scores: Scores,
    anatomy: Anatomy,
    keep_languages: Sequence[str],
    *,
    high: float = HIGH_HEADS_SHARE,
    low: float = LOW_HEADS_SHARE,
) -> Dropped:
    """Choose the heads that are high for a language that is not kept, and low for every one that is.

    Heads are ranked within a language, scaled within a layer as in `heads_to_drop`. Those that are high for no language are
    left alone, as are the general ones, which are high for many.
    high     share of all heads that is high for a language
    low      share of all heads that is low for a language; the lowest ranks
    Raises   as language_neurons_to_drop
    Source   the split into language-specific and general heads: Liu et al. 2025, arXiv 2511.07498; the two shares are ours
    """
    sizes = {place: {at: one.query for at, one in layers.items()} for place, layers in anatomy.heads.items()}
    check_scores(scores, "heads", 0.0)
    others, _ = by_language(scores, keep_languages, sizes)
    ranks, places = _head_ranks(scores)
    total = sum(size for _, _, size in places)
    foreign = np.any([ranks[language] < max(count_of(high, total), 1) for language in others], axis=0)
    kept = [language for language in scores.languages if language not in others]
    unwanted = np.all([ranks[language] >= total - count_of(low, total) for language in kept], axis=0)
    return _arrange(np.flatnonzero(foreign & unwanted), places)


def language_heads(scores: Scores, anatomy: Anatomy, *, high: float = HIGH_HEADS_SHARE) -> dict[str, Dropped]:
    """The heads that are high for each language; a head may be high for several.

    high     share of all heads, ranked as in `language_heads_to_drop`; at least one head
    Returns  language -> attention -> layer -> heads
    """
    check_scores(scores, "heads", 0.0)
    sizes = {place: {at: one.query for at, one in layers.items()} for place, layers in anatomy.heads.items()}
    check_fit(scores.values(scores.languages[0]), sizes)
    ranks, places = _head_ranks(scores)
    count = max(count_of(high, sum(size for _, _, size in places)), 1)
    return {language: _arrange(np.flatnonzero(rank < count), places, leave=0) for language, rank in ranks.items()}


def _head_ranks(scores: Scores) -> tuple[dict[str, npt.NDArray[np.int64]], Places]:
    """Language -> the rank of each head, 0 for the highest, flat; and the layers' places."""
    tables = {language: _normalised(scores.values(language), scores.method) for language in scores.languages}
    places = [
        (place, layer, len(row)) for place, one in tables[scores.languages[0]].items() for layer, row in one.items()
    ]
    ranks = {}
    for language, table in tables.items():
        row = np.concatenate([table[place][layer] for place, layer, _ in places])
        ranks[language] = np.argsort(np.argsort(-row, kind="stable"))
    return ranks, places


def _arrange(flat: npt.NDArray[np.int64], places: Places, *, leave: int = 1) -> Dropped:
    """Flat positions as place -> layer -> indices; of a layer that would lose all, the last `leave` stay."""
    dropped: Dropped = {}
    start = 0
    for place, layer, size in places:
        inside = np.sort(flat[(flat >= start) & (flat < start + size)]) - start
        start += size
        if inside.size:
            dropped.setdefault(place, {})[layer] = tuple(int(at) for at in inside[: size - leave])
    return dropped


def random_control(dropped: Mapping[str, Mapping[int, Sequence[int]]], anatomy: Anatomy, seed: int) -> Dropped:
    """Choose as many heads or neurons in each layer as `dropped` has, at random: what the same slice costs without scores.

    dropped   of heads (attentions as keys) or of neurons (stacks as keys); where a layer's heads are whole groups, so is the
              control
    Example   {"layers": {0: (1, 5)}} may become {"layers": {0: (0, 7)}}
    """
    rng = random.Random(seed)
    control: Dropped = {}
    for place, layers in sorted(dropped.items()):
        for layer, gone in sorted(layers.items()):
            if place in anatomy.heads:
                heads = anatomy.heads[place][layer]
                groups = {at // heads.group for at in gone}
                whole = len(gone) == len(groups) * heads.group
                units = _units(heads, whole)
                chosen = rng.sample(units, len(gone) // len(units[0]))
                drawn = [at for unit in chosen for at in unit]
            elif place in anatomy.neurons:
                drawn = rng.sample(range(anatomy.neurons[place][layer]), len(gone))
            else:
                known = ", ".join([*anatomy.heads, *anatomy.neurons])
                raise PlanError(f"`{place}` is no attention and no stack of this model", hint=f"it has {known}")
            control.setdefault(place, {})[layer] = tuple(sorted(drawn))
    return control


def random_layers(dropped: Sequence[int], anatomy: Anatomy, seed: int, stack: str = "layers") -> tuple[int, ...]:
    """Choose as many layers of a stack at random, layer 0 only where it can go."""
    free = range(1 if anatomy.body.first_layer else 0, anatomy.layers[stack])
    return tuple(sorted(random.Random(seed).sample(free, len(dropped))))


def count_of(share: float, size: int) -> int:
    """How many a share is, rounded down."""
    # 0.3 of 10 is 2.9999999999999996.
    return floor(share * size + 1e-9)


def _normalised(values: Values, method: str) -> Values:
    if method in _COMPARABLE:
        return values
    return _each(values, lambda row: row / max(float(np.linalg.norm(row)), 1e-300))


def _each(values: Values, change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> Values:
    return {place: {layer: change(row) for layer, row in layers.items()} for place, layers in values.items()}
