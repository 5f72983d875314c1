"""Translations with dimensions zeroed: nothing zeroed is evaluate's own, and zeroing is what an independent hook does."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from langslice.cli.app import app
from langslice.demonstrations import Demonstration
from langslice.errors import LangsliceError, LanguageError, NoDataError, PlanError, TaskError
from langslice.evaluation.loaded_model import load_model
from langslice.evaluation.statistics import difference
from langslice.evaluation.translation import Pair, measure_translation, translate
from langslice.features import Magnitudes, measure_magnitudes, read_pairs_to_translate, translate_ablated
from langslice.features.ablation import zeroed
from langslice.mini import heldout_text, mini_model_path
from langslice.reporting.measurements import read_features
from langslice.reporting.sections.features import features_section
from tests.zoo import add_tokenizer, build

LAYERS, HIDDEN = 7, 192


def demonstrations(lines=slice(150, 156)):
    """fr-en, French and English, from lines that the tests do not translate."""
    sides = {code: heldout_text(code)[lines] for code in ("fr", "en")}
    pairs = [f"French: {a}\nEnglish: {b}" for a, b in zip(sides["fr"], sides["en"], strict=True)]
    made = {"fr-en": [Demonstration("mt", (text,), languages=("fr", "en")) for text in pairs]}
    return made | {code: [Demonstration(code, (text,)) for text in found] for code, found in sides.items()}


@pytest.fixture(scope="module")
def measured():
    return measure_magnitudes(mini_model_path(), demonstrations())


def marks(layers=LAYERS, hidden=HIDDEN, each=4):
    chosen = np.zeros((layers, hidden), dtype=bool)
    chosen[:, :each] = True
    return chosen


def test_nothing_zeroed_translates_as_evaluate_does(measured):
    pairs = read_pairs_to_translate("fr-en,en-fr", 4, shots=2)
    rows = translate_ablated(
        mini_model_path(), measured, "fr-en", marks(), pairs, seeds=(0,), new_tokens=8, resamples=50
    )
    loaded = load_model(mini_model_path(), device="cpu")
    for pair in pairs:
        plain = [row for row in rows if row.zeroed == "nothing" and row.pair == pair.name]
        for row, expected in zip(plain, measure_translation(loaded, pair, new_tokens=8), strict=True):
            assert (row.metric, row.score) == (expected.metric, expected.value)
            assert row.signature == expected.details["signature"]
            assert (row.lines, row.unchanged, row.change, row.p) == (4, 4, 0.0, None)
    # Pairs, kinds and metrics: 2 x 4 x 2. Six layers of four dimensions; the embeddings stay.
    assert len(rows) == 16
    assert {row.dimensions for row in rows if row.zeroed != "nothing"} == {24}
    assert {row.shots for row in rows} == {2}


def test_zeroing_equals_an_independent_hook_and_its_change_a_bootstrap_of_its_own(measured):
    import torch

    (pair,) = read_pairs_to_translate("ko-en", 5, shots=2)
    chosen = np.zeros((LAYERS, HIDDEN), dtype=bool)
    chosen[2, [3, 50, 117]], chosen[5, 7] = True, True
    rows = translate_ablated(
        mini_model_path(), measured, "fr-en", chosen, [pair], seeds=(), new_tokens=10, resamples=200
    )
    loaded = load_model(mini_model_path(), device="cpu")
    plain = measure_translation(loaded, pair, new_tokens=10)
    before = translate(loaded, pair, new_tokens=10)

    # Layer 2 of the table is after block 1, and so in front of block 2; likewise 5.
    def project(block, given, named):
        states = given[0] if given else named["hidden_states"]
        which = [3, 50, 117] if block is loaded.model.model.layers[2] else [7]
        states = states.index_fill(-1, torch.tensor(which), 0.0)
        return ((states, *given[1:]), named) if given else ((), named | {"hidden_states": states})

    for number in (2, 5):
        loaded.model.model.layers[number].register_forward_pre_hook(project, with_kwargs=True)
    cut = measure_translation(loaded, pair, new_tokens=10)
    texts = translate(loaded, pair, new_tokens=10)
    assert texts != before
    for row, first, second in zip(rows[2:], plain, cut, strict=True):
        expected = difference(first.statistic, first.items, second.items, resamples=200)
        assert row.zeroed == "particular" and row.score == second.value
        assert (row.change, row.change_low, row.change_high, row.p) == (
            expected.value, expected.low, expected.high, expected.p
        )  # fmt: skip
        assert row.unchanged == sum(one == other for one, other in zip(before, texts, strict=True))


def test_the_hooks_are_gone_behind_it(measured):
    (pair,) = read_pairs_to_translate("fr-en", 2, shots=1)
    loaded = load_model(mini_model_path(), device="cpu")
    before = translate(loaded, pair, new_tokens=6)
    with zeroed(loaded.model, measured.layers, np.ones((LAYERS, HIDDEN), dtype=bool)):
        assert translate(loaded, pair, new_tokens=6) != before
    assert translate(loaded, pair, new_tokens=6) == before


def test_an_encoder_decoder_is_ablated_in_both_stacks(tmp_path):
    # As many layers on both sides: generate() of transformers 5.23 sizes T5's cache by its encoder.
    folder = add_tokenizer(build("t5", tmp_path / "t5", num_decoder_layers=2))
    sets = {"mt": [Demonstration("mt", ("the lamb", "and net"), "\n", answer=True)] * 2}
    found = measure_magnitudes(folder, sets)
    assert [name.split(".")[0] for name in found.layers] == ["embeddings", "encoder", "encoder", "decoder", "decoder"]
    pair = Pair("fr", "en", ("the lamb", "and net", "sing"), ("a b", "net", "c"), ())
    everything = np.ones(found.values.shape[1:], dtype=bool)
    rows = translate_ablated(folder, found, "mt", everything, [pair], seeds=(), new_tokens=4, resamples=50)
    assert {row.shots for row in rows} == {0}
    loaded = load_model(folder, device="cpu")
    decoder = np.zeros_like(everything)
    decoder[3:] = True
    texts = []
    for chosen in (everything, decoder):
        with zeroed(loaded.model, found.layers, chosen):
            texts.append(translate(loaded, pair, new_tokens=4))
    # Without any state of the decoder every logit is the same, and the first id is written, whatever was read.
    assert texts[0] == texts[1] and len(set(texts[1])) == 1


def test_pairs_come_from_the_demonstrations_unless_named():
    made = demonstrations()["fr-en"]
    assert [pair.name for pair in read_pairs_to_translate((), 3, demonstrations=made)] == ["fr-en"]
    assert [pair.name for pair in read_pairs_to_translate("ko-en", 3, demonstrations=made)] == ["ko-en"]
    with pytest.raises(TaskError, match="no pair of languages to translate, and the demonstrations name none"):
        read_pairs_to_translate((), 3, demonstrations=demonstrations()["fr"])
    with pytest.raises(LanguageError, match="expected two languages, found the pair 'fr'"):
        read_pairs_to_translate("fr", 3)
    with pytest.raises(NoDataError, match="no data in language tr"):
        read_pairs_to_translate("tr-en", 3)
    with pytest.raises(TaskError, match="expected at least 1 line and 0 shots to translate, found 0 and 4"):
        read_pairs_to_translate("fr-en", 0)


def test_what_cannot_be_translated_is_refused(zoo, measured):
    (pair,) = read_pairs_to_translate("fr-en", 2, shots=1)
    with pytest.raises(TaskError, match="translation needs a model that writes, and this is an encoder"):
        translate_ablated(zoo("bert"), measured, "fr-en", marks(), [pair])
    with pytest.raises(PlanError, match="no dimension after a layer is large in fr-en"):
        translate_ablated(mini_model_path(), measured, "fr-en", marks(each=0), [pair])


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if isinstance(done.exception, LangsliceError):
        raise done.exception
    return done


@pytest.fixture
def files(tmp_path):
    for name, found in demonstrations().items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(one.to_json()) for one in found))
    return tmp_path


def test_the_command_writes_prints_draws_and_is_reported(files):
    sets = ["--demos", files / "fr-en.jsonl", "--against", files / "fr.jsonl", "--against", files / "en.jsonl"]
    done = run(
        "features", "mini", *sets, "--stand-out", 3, "--ablate", "--ablation-count", 1, "--translate", 3,
        "--shots", 1, "--new-tokens", 4, "-o", files / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Translations with dimensions of fr-en zeroed" in done.stdout and "3 of 3" in done.stdout
    rows = pq.read_table(files / "out/ablation-fr-en.parquet").to_pylist()
    losses, translated = ([row for row in rows if (row["pair"] is None) is kind] for kind in (True, False))
    # Eight cases: nothing, particular, and twice three seeds; three sets, two metrics.
    assert (len(losses), len(translated)) == (8 * 3, 8 * 2)
    assert all(row["loss"] is not None and row["score"] is None for row in losses)
    assert all(row["loss"] is None and 0 <= row["score"] <= 100 and row["lines"] == 3 for row in translated)
    assert (files / "out/ablation-fr-en.png").read_bytes()[1:4] == b"PNG"

    class Whole:
        features = read_features(files / "out")

    page = str(features_section(Whole()).body)
    assert "Loss when the dimensions of fr-en are zeroed" in page
    assert "Translations when the dimensions of fr-en are zeroed" in page and "chrF2++, fr-en, random" in page


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--translate", 3], PlanError, "--translate compares what is zeroed, and --ablate was not given"),
        (["--ablate", "--pairs", "fr-en"], PlanError, "--pairs is for --translate, which was not given"),
        (["--ablate", "--translate", 0], PlanError, "--translate must be a whole number at least 1, found 0"),
        (["--ablate", "--translate", 3, "--shots", 300], TaskError, "expected 300"),
        (["--ablate", "--translate", 3, "--data", "none"], TaskError, "--data none is not a folder"),
    ],
)
def test_the_command_refuses_before_it_measures(files, monkeypatch, arguments, error, message):
    monkeypatch.setattr("langslice.features.measure_magnitudes", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(error, match=message):
        run("features", "mini", "--demos", files / "fr-en.jsonl", "--against", files / "fr.jsonl", *arguments,
            "-o", files / "out")  # fmt: skip
    assert not (files / "out").exists()


def test_a_magnitude_table_by_hand_chooses_what_is_zeroed():
    from langslice.features.ablation import cases

    values = np.array([[[1.0, 1, 1, 1], [4, 3, 2, 1]]])
    table = Magnitudes(("mt",), ("embeddings", "h.0"), values, (1,))
    particular = np.array([[False] * 4, [True, False, False, False]])
    found = {kind: chosen for kind, _, chosen in cases(table, "mt", particular, 0.5, (0,))}
    assert found["other large"].tolist() == [[False] * 4, [False, True, False, False]]
    assert found["nothing"].sum() == 0 and found["random"].sum() == 1
