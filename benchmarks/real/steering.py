"""Steering gemma-3-270m to a language: DiffMean vectors, language neurons, random vectors; and language confusion with it.

    python benchmarks/real/steering.py

English half lines of NTREX-128 are continued under steering to Korean, French and Chinese. Layers and strength are chosen on other
prompts than those that are reported. Then Korean prompts that make the model answer in another language: whole, with its vocabulary
sliced, steered, and both. Writes results/real/steering.md; language_overlap.py gives the language neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import language_overlap
import numpy as np
from common import ONLY_KEPT, SEED, machine, models, ntrex, sliced, step, table, write_page

PAGE, MODEL, SOURCE = "steering", "gemma-3-270m", "en"
TARGETS = ("ko", "fr", "zh")
SAMPLES, LONGEST = 64, 64
RANGES = {"first third": range(6), "middle third": range(6, 12), "last third": range(12, 18), "all": range(18)}
STRENGTHS, GAINS = (0.1, 0.2, 0.4), (3.0, 10.0)
PROMPTS, NEW, WORDS = {"dev": 20, "test": 40}, {"dev": 12, "test": 16}, 6
DRAWS = (0, 1, 2)
KINDS = {
    "Korean line with English inside": "{korean} {english}",
    "instruction in Korean on English text": "다음 영어 글을 한국어로 요약하세요.\n\n{line}\n\n요약:",
}
CONFUSED, HELD_OUT = 24, 24
# Scores of thirds that differ by less are not told apart on so few prompts.
NEAR = 0.1
FORMS = {"whole": None, "sliced to ko, en": "ko,en", "sliced to ko": "ko"}


def prompts(part: str) -> list[str]:
    """First words of English lines, those to choose by or those to report."""
    first = {"dev": 1000, "test": 1110}[part]  # the ends differ: none is of both parts
    return [" ".join(line.split()[:WORDS]) for line in ntrex(SOURCE)[first : first + 20 * PROMPTS[part] : 20]]


@cache
def loaded(folder: str) -> Any:
    """A model in float32."""
    from langslice.evaluation.loaded_model import load_model

    return load_model(Path(folder))


@cache
def detector() -> Any:
    """Language identification over all languages that it knows."""
    from langslice.evaluation.confusion import language_detector

    return language_detector()


@cache
def tools() -> tuple[Any, Any, Any]:
    """The checkpoint, its anatomy, and the model ready to run."""
    from scores import opened

    return opened(MODEL).checkpoint, opened(MODEL).anatomy, opened(MODEL).running


def means() -> dict[str, Any]:
    """Language -> mean hidden states over tokens."""
    from langslice.scoring.batches import make_batches
    from langslice.steering.differences import token_means

    found = {}
    for code in (SOURCE, *TARGETS):
        lines = ntrex(code)[0 : 12 * SAMPLES : 12]
        running = tools()[2]
        found[code] = token_means(running, make_batches(running.reader, lines, SEED, predict=False)).tolist()
    return found


def adapter(vectors: dict[int, Any], method: str, strength: float) -> Any:
    """An adapter of the model, in memory."""
    from langslice.steering import Steering

    place = "model.layers.{}" if method == "diffmean" else "model.layers.{}.mlp.down_proj"
    vectors = {layer: np.asarray(vector, np.float32) for layer, vector in vectors.items()}
    modules = {layer: place.format(layer) for layer in vectors}
    return Steering(method, "", (), strength, vectors, modules, 18, MODEL, "gemma3_text", "")


def difference(found: dict[str, Any], code: str, layers: Sequence[int], strength: float) -> Any:
    """DiffMean of a language against English."""
    vectors = {layer: np.subtract(found[code][layer], found[SOURCE][layer]) for layer in layers}
    return adapter(vectors, "diffmean", strength)


def random_vectors(found: dict[str, Any], code: str, layers: Sequence[int], strength: float, seed: int) -> Any:
    """Random directions of the same norms."""
    rng = np.random.default_rng(seed)
    vectors = {}
    for layer in layers:
        norm = np.linalg.norm(np.subtract(found[code][layer], found[SOURCE][layer]))
        drawn = rng.standard_normal(len(found[code][layer]))
        vectors[layer] = drawn * norm / np.linalg.norm(drawn)
    return adapter(vectors, "diffmean", strength)


def neurons(code: str, method: str, strength: float) -> Any:
    """The language's own neurons scaled, or the English ones that are not its own zeroed."""
    found = language_overlap.measured_parts("neurons")
    own, source = (language_overlap.flat(found["parts"][each]) for each in (code, SOURCE))
    marks: dict[int, Any] = {}
    for layer, at in own if method == "scale" else source - own:
        marks.setdefault(layer, np.zeros(found["sizes"][layer], np.float32))[at] = 1
    return adapter(marks, method, strength)


def continued(texts: Sequence[str], new: int, steering: Any = None, folder: str | None = None) -> list[str]:
    """What the model writes after each text, the likeliest token each time."""
    from contextlib import nullcontext

    from langslice.evaluation.generation import decode, generate
    from langslice.evaluation.loaded_model import encode_texts
    from langslice.steering import apply_steering

    model = loaded(folder or str(models() / MODEL))
    with nullcontext() if steering is None else apply_steering(model.model, steering):
        return decode(model, generate(model, encode_texts(model, texts), new_tokens=new))


def languages(texts: Sequence[str]) -> list[str]:
    """Code of the language that each text is identified as; "" for none."""
    found = detector().detect_languages_in_parallel_of(list(texts))
    return [each.iso_code_639_1.name.lower() if each is not None else "" for each in found]


def repeated(texts: Sequence[str]) -> list[float]:
    """Share of each text's runs of five characters that were there before."""
    found = []
    for text in texts:
        runs = [text[at : at + 5] for at in range(len(text.strip()) - 4)]
        found.append(1 - len(set(runs)) / len(runs) if runs else 0.0)
    return found


def losses(texts: Sequence[str], steering: Any = None) -> list[list[float]]:
    """[bits, bytes] of each text after the start token; empty texts are [0, 0]."""
    from contextlib import nullcontext

    from langslice.evaluation.perplexity import measure_perplexity
    from langslice.steering import apply_steering

    model = loaded(str(models() / MODEL))
    kept = [at for at, text in enumerate(texts) if text.strip()]
    found = [[0.0, 0.0] for _ in texts]
    with nullcontext() if steering is None else apply_steering(model.model, steering):
        measured = measure_perplexity(model, "", [texts[at] for at in kept])[-1] if kept else None
    for at, item in zip(kept, measured.items.tolist() if measured else (), strict=True):
        found[at] = item
    return found


def tried(part: str, steering: Any) -> dict[str, Any]:
    """Continuations of English prompts, with what is known of each."""
    texts = continued(prompts(part), NEW[part], steering)
    found: dict[str, Any] = {"texts": texts, "languages": languages(texts)}
    return found | ({"losses": losses(texts)} if part == "test" else {})


def held_out(code: str) -> list[str]:
    """Lines of a language whose loss under steering is measured."""
    return [line[:120] for line in ntrex(code)[1800 : 1800 + 10 * HELD_OUT : 10]]


def score(found: dict[str, Any], code: str) -> float:
    """Harmonic mean of the share in the language and of what is not repeated."""
    share, fresh = np.mean([each == code for each in found["languages"]]), 1 - np.mean(repeated(found["texts"]))
    return float(2 * share * fresh / (share + fresh)) if share + fresh else 0.0


def best(grid: dict[str, Any], code: str) -> str:
    """Name of the choice that does best on the prompts to choose by; the first of those that are equal."""
    return max(grid, key=lambda name: score(grid[name], code))


def settings(name: str) -> tuple[range, float]:
    """Layers and strength of a choice."""
    layers, strength = name.rsplit(" × ", 1)
    return RANGES[layers], float(strength)


def measured() -> dict[str, Any]:
    """Every step; None for what was not made yet, with --kept."""
    make = partial(step, PAGE, only_kept=ONLY_KEPT)
    found: dict[str, Any] = {"means": make("means", means), "none": make("none", lambda: tried("test", None))}
    for code in TARGETS:
        one = target(found["means"], code, make)
        if one is not None:
            found[code] = one
        if code == "ko":
            found["confusion"] = confusion(found, make)
    return found


def target(states: dict[str, Any], code: str, make: Any) -> dict[str, Any] | None:
    """Every step of one language to steer to; None where some were not made yet, with --kept."""
    grid, gains = {}, {}
    for name in [f"{each} × {strength}" for each in RANGES for strength in STRENGTHS]:
        grid[name] = make(f"dev-{code}-{name}", lambda n=name: tried("dev", difference(states, code, *settings(n))))
    for gain in GAINS:
        gains[str(gain)] = make(f"dev-{code}-scale-{gain}", lambda g=gain: tried("dev", neurons(code, "scale", g)))
    if not all([*grid.values(), *gains.values()]):
        return None
    choice, gain = best(grid, code), float(best(gains, code))
    ways = {
        "DiffMean": lambda: difference(states, code, *settings(choice)),
        **{f"random {seed}": lambda s=seed: random_vectors(states, code, *settings(choice), s) for seed in DRAWS},
        "neurons scaled": lambda: neurons(code, "scale", gain),
        "neurons of en zeroed": lambda: neurons(code, "zero", 0.0),
    }
    one: dict[str, Any] = {"grid": grid, "gains": gains, "choice": choice, "gain": gain, "ways": {}}
    for way, made in ways.items():
        one["ways"][way] = make(f"test-{code}-{way}", lambda m=made: tried("test", m()))
    read = {"none": lambda: None, **{way: ways[way] for way in ("DiffMean", "random 0")}}
    one["held out"] = make(
        f"held-out-{code}", lambda: {name: losses(held_out(code), made()) for name, made in read.items()}
    )
    return one if all([*one["ways"].values(), one["held out"]]) else None


def confusing(kind: str) -> list[str]:
    """Prompts that are to be answered in Korean."""
    found = []
    for korean, english in list(zip(ntrex("ko"), ntrex("en"), strict=True))[1105 : 1105 + 20 * CONFUSED : 20]:
        words = korean.split()
        half, line = " ".join(words[: len(words) // 2]), " ".join(english.split()[:15])
        found.append(KINDS[kind].format(korean=half, english=" ".join(english.split()[:3]), line=line))
    return found


def confusion(found: dict[str, Any], make: Any) -> dict[str, Any]:
    """Answers to prompts in Korean: form of the model -> steered or not -> kind of prompt -> texts."""
    answers: dict[str, Any] = {}
    if "ko" not in found:
        return answers
    steering = difference(found["means"], "ko", *settings(found["ko"]["choice"]))
    for form, kept in FORMS.items():
        folder = (
            None
            if kept is None
            else str(
                Path(sliced(PAGE, kept.replace(",", "-"), MODEL, "-l", kept, "--verify-level", "quick")[0]).resolve()
            )
        )
        for steered in (False, True):
            for kind in KINDS:
                answers[f"{form}, {kind}, {steered}"] = make(
                    f"confusion-{kept}-{steered}-{list(KINDS).index(kind)}",
                    lambda k=kind, f=folder, s=steered: continued(
                        confusing(k), NEW["test"], steering if s else None, f
                    ),
                )
    return answers


def interval(items: Any) -> str:
    """A mean with its interval."""
    from langslice.evaluation.statistics import interval as bounds

    values = np.array(items, dtype=np.float64)[:, None]
    found = bounds("mean", values)
    return f"{values.mean():.2f} [{found.low:.2f}, {found.high:.2f}]"


def paired(first: Any, second: Any) -> tuple[float, float, float]:
    """Second minus first, with its interval."""
    from langslice.evaluation.statistics import difference as compare

    found = compare("mean", np.array(first, float)[:, None], np.array(second, float)[:, None])
    return found.value, found.low, found.high


def signed(found: tuple[float, float, float]) -> str:
    """A difference in writing."""
    return f"{found[0]:+.2f} [{found[1]:+.2f}, {found[2]:+.2f}]"


def hits(found: dict[str, Any], code: str) -> list[bool]:
    """Whether each continuation is in the language."""
    return [each == code for each in found["languages"]]


def at_random(one: dict[str, Any], code: str) -> list[float]:
    """Share of the random draws under which each continuation is in the language."""
    return np.mean([hits(one["ways"][f"random {seed}"], code) for seed in DRAWS], axis=0).tolist()


def targets(document: dict[str, Any]) -> list[str]:
    """Languages that were measured."""
    return [code for code in TARGETS if code in document]


def bits(items: Any) -> float:
    """Bits per byte of texts together."""
    values = np.array(items)
    return float(values[:, 0].sum() / max(values[:, 1].sum(), 1))


def grid_rows(document: dict[str, Any]) -> list[list[str]]:
    """Share in the target on the prompts to choose by, and the score in brackets."""
    rows = []
    for layers in RANGES:
        for strength in STRENGTHS:
            name = f"{layers} × {strength}"
            cells = []
            for code in targets(document):
                found = document[code]["grid"][name]
                mark = " *" if document[code]["choice"] == name else ""
                cells.append(f"{np.mean(hits(found, code)):.2f} ({score(found, code):.2f}){mark}")
            rows.append([layers, f"{strength:g}", *cells])
    return rows


def way_rows(document: dict[str, Any]) -> list[list[str]]:
    """What each way of steering does on the reported prompts."""
    rows = []
    for code in targets(document):
        one = document[code]
        for way, found in {"nothing": document["none"], **one["ways"]}.items():
            chosen = {"DiffMean": one["choice"], "neurons scaled": f"× {one['gain']:g}"}.get(way, "")
            english = np.mean([each == SOURCE for each in found["languages"]])
            rows.append([
                code, way, chosen, interval(hits(found, code)), f"{english:.2f}", f"{np.mean(repeated(found['texts'])):.2f}",
                f"{bits(found['losses']):.2f}",
            ])  # fmt: skip
    return rows


def held_out_rows(document: dict[str, Any]) -> list[list[str]]:
    """Bits per byte of held-out text under steering."""
    return [
        [code, *(f"{bits(each):.3f}" for each in document[code]["held out"].values())] for code in targets(document)
    ]


def example_lines(document: dict[str, Any]) -> str:
    """The first continuation of each target."""
    prompt = document["prompts"][0]
    lines = [f"- {prompt} … {' '.join(document['none']['texts'][0].split())}"]
    for code in targets(document):
        lines.append(f"  - {code}: {' '.join(document[code]['ways']['DiffMean']['texts'][0].split())}")
    return "\n".join(lines)


def confusion_rows(
    document: dict[str, Any],
) -> tuple[list[list[str]], dict[str, dict[str, tuple[float, float, float]]]]:
    """Answers in Korean by form of the model; and the differences from the whole model, by kind of prompt."""
    rows: list[list[str]] = []
    changes: dict[str, dict[str, tuple[float, float, float]]] = {}
    for kind in KINDS:
        whole = document["answers"].get(f"whole, {kind}, False")
        base = [each == "ko" for each in whole["languages"]] if whole else []
        for form in FORMS if whole else ():
            for steered in (False, True):
                found = document["answers"].get(f"{form}, {kind}, {steered}")
                if found is None:
                    continue
                own = [each == "ko" for each in found["languages"]]
                change = paired(base, own)
                name = form + (", steered" if steered else "")
                changes.setdefault(kind, {})[name] = change
                rows.append([
                    kind, name, interval(own), signed(change) if (form, steered) != ("whole", False) else "–",
                    f"{found['foreign']:.2f}", f"{np.mean(repeated(found['texts'])):.2f}",
                ])  # fmt: skip
    return rows, changes


def looked_at(answers: dict[str, Any]) -> dict[str, Any]:
    """Languages, letters of other scripts and repetition of the answers."""
    from langslice.evaluation.confusion import check_responses

    found = {}
    for name, texts in answers.items():
        checks = check_responses(texts, "ko", detector())
        letters, foreign = sum(each.letters for each in checks), sum(each.foreign for each in checks)
        found[name] = {
            "languages": languages(texts), "foreign": foreign / max(letters, 1), "texts": texts,
        }  # fmt: skip
    return found


def claims(document: dict[str, Any]) -> str:
    """Claims, and what is found here."""
    more, neurons_more, later = [], [], []
    for code in targets(document):
        one = document[code]
        own = hits(one["ways"]["DiffMean"], code)
        more.append(paired(at_random(one, code), own))
        best_neurons = max(
            (hits(one["ways"][way], code) for way in ("neurons scaled", "neurons of en zeroed")),
            key=lambda each: np.mean(each),
        )
        neurons_more.append(paired(best_neurons, own))
        later.append([
            max(score(one["grid"][f"{layers} × {strength}"], code) for strength in STRENGTHS) for layers in list(RANGES)[:3]
        ])  # fmt: skip
    wins = sum(each[1] > 0 for each in more)
    neuron_wins = sum(each[1] > 0 for each in neurons_more)
    ahead = [last - max(first, middle) for first, middle, last in later]
    thirds = "; ".join(
        f"{code} {', '.join(f'{each:.2f}' for each in row)}" for code, row in zip(targets(document), later, strict=True)
    )
    where = "cannot be told here"
    if all(each > NEAR for each in ahead) or all(each < -NEAR for each in ahead):
        where = "holds" if ahead[0] > 0 else "does not hold"
    count = len(targets(document))

    def said(number: int) -> str:
        verdict = "holds" if number == count else "does not hold" if number == 0 else "holds in part"
        return f"**{verdict}**: {number} of {count} target{'s' if count > 1 else ''}"

    def of_targets(values: Sequence[tuple[float, float, float]]) -> str:
        return ", ".join(f"{code} {signed(each)}" for code, each in zip(targets(document), values, strict=True))

    _, changes = confusion_rows(document)
    effects = {
        name: [changes[kind][name] for kind in KINDS if name in changes.get(kind, {})]
        for name in (
            "sliced to ko, en",
            "sliced to ko",
            "whole, steered",
            "sliced to ko, en, steered",
            "sliced to ko, steered",
        )
    }

    def of_kinds(values: Sequence[tuple[float, float, float]]) -> str:
        up, down = sum(each[1] > 0 for each in values), sum(each[2] < 0 for each in values)
        outcome = "holds" if up == len(values) else "does not hold" if down else "holds in part" if up else "not seen"
        return (
            f"**{outcome}**: in {up} of {len(values)} kinds of prompts ({'; '.join(signed(each) for each in values)})"
        )

    lines = [
        f"- DiffMean forces the language more than random vectors of equal norm → {said(wins)} ({of_targets(more)})",
        f"- DiffMean beats language neurons (CLaS-Bench, 2601.08331), the better of scaled and zeroed → {said(neuron_wins)}",
        f"  ({of_targets(neurons_more)})",
        f"- Steering works best in later layers (2601.08331) → **{where}**: best score in the first, middle and last third",
        f"  {thirds}",
        *(
            f"- More answers in Korean, {name} against whole → {of_kinds(values)}"
            for name, values in effects.items()
            if values
        ),
        "- Steered text answers what was asked; a larger model, or an instructed one, does better → **cannot be told here**:",
        "  one base model",
    ]
    return "\n".join(lines)


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    if not targets(document):
        return "# Steering to a language\n\nNot measured yet."
    rows, _ = confusion_rows(document)
    head = ["prompt", "model", "in Korean [95%]", "against whole", "letters of other scripts", "repeated"]
    ways = ["target", "steered by", "chosen", "in target [95%]", "in English", "repeated", "bits per byte"]
    gains = ", ".join(f"{gain:g}" for gain in GAINS)
    left = [f"steering to {code}" for code in TARGETS if code not in document]
    shown = len(rows)
    left += ["answers of the other forms of the model"] if shown < 2 * len(FORMS) * len(KINDS) else []
    return f"""# Steering to a language

`benchmarks/real/steering.py`: gemma-3-270m, a base model. The difference of mean hidden states (DiffMean) of {SAMPLES} lines of
NTREX-128 in each language and in English is added after each block of a range of layers. {document["machine"]}

## Forced language
The first {WORDS} words of English lines, continued greedily. Layers and strength are chosen on {PROMPTS["dev"]} prompts
({NEW["dev"]} tokens) by the harmonic mean of the share identified as the target (lingua, all of its languages) and of what is not
repeated; share (and score), * chosen:

{table(["layers", "strength", *targets(document)], grid_rows(document))}
Strengths of 0.5, 1 and 2 in each layer were tried before these on eight of these prompts, and made the model repeat itself; what
counts as repeated was settled then, before the other prompts were used.

On {PROMPTS["test"]} other prompts, {NEW["test"]} tokens. Random: vectors of the same norms, by seed. Neurons: LAPE of
language_overlap.md, by the factor chosen on the same {PROMPTS["dev"]} prompts of {gains}. Repeated: share of
runs of five characters that were there before. Bits per byte: of the continuations alone, by
the model without steering.

{table(ways, way_rows(document), text_columns=3)}
Bits per byte of {HELD_OUT} held-out lines of the target, read under steering:

{table(["target", "nothing", "DiffMean", "random 0"], held_out_rows(document))}
{example_lines(document)}

## Language confusion
{CONFUSED} prompts of each kind that are to be answered in Korean, {NEW["test"]} tokens, greedily; steered as chosen above for ko.

{table(head, rows, text_columns=2) if rows else "Not measured yet."}
## Claims
{claims(document)}
{f"Not measured yet: {'; '.join(left)}." if left else ""}
"""


def main() -> None:
    """Measure, and write the page."""
    found = measured()
    document: dict[str, Any] = {"none": found["none"], "prompts": prompts("test")}
    document |= {code: found[code] for code in TARGETS if code in found}
    document["answers"] = looked_at({name: each for name, each in (found.get("confusion") or {}).items() if each})
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


if __name__ == "__main__":
    main()
