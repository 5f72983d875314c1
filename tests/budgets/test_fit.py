"""A slice that fits a budget: measured in memory as the written slice is, resumed, and the best of what was tried."""

from __future__ import annotations

import json
import pickle
import types
import xml.etree.ElementTree as ET
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import langslice
from langslice import version
from langslice.budgets import cluster_points
from langslice.budgets.costs import Costs, Measured
from langslice.budgets.cut import Cut
from langslice.budgets.evaluator import Evaluator
from langslice.budgets.latency import measure_latency, measure_times, time_need
from langslice.budgets.limits import Need, rows_that_fit
from langslice.budgets.narrowing import Narrowing
from langslice.budgets.parts import find_parts
from langslice.budgets.search import candidates, corrected, frontier
from langslice.cli.app import app
from langslice.cluster.ray_cluster import Outcome
from langslice.errors import ClusterError, LangsliceError, OutputError, PlanError
from langslice.mini import heldout_text
from langslice.model.checkpoint import open_checkpoint
from langslice.planning.source import Source
from langslice.structure.kept import Kept
from langslice.tradeoffs.losses import Loss

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = {"ko": heldout_text("ko")[:8], "en": heldout_text("en")[:8]}


def weights(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def values(losses):
    return {code: loss.value for code, loss in losses.items()}


def test_a_killed_fit_goes_on_and_writes_what_it_measured(tmp_path, monkeypatch):
    """Vocabulary, layers, heads and neurons in one budget; what was measured in memory is what the written slice loses."""
    items, seen = Evaluator.items, []

    def counting(self, cut, *given):
        if len(seen) == 5 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        seen.append(cut)
        return items(self, cut, *given)

    monkeypatch.setattr(Evaluator, "items", counting)
    monkeypatch.setattr("langslice.budgets.costs._VOCABULARIES", 3)
    monkeypatch.setattr("langslice.budgets.costs._TRIED", 2)
    out = tmp_path / "out"
    (tmp_path / "ko.txt").write_text("\n".join(heldout_text("ko")[20:60]), encoding="utf-8")
    asked = {"languages": "ko,en", "size": "1.6MB", "memory": "3MB", "loss_texts": TEXTS, "checks": 2, "heal": 2,
             "heal_corpus": tmp_path / "ko.txt"}  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        langslice.fit("mini", out, **asked)
    assert sorted(path.name for path in out.iterdir()) == ["points"]
    (tmp_path / "again").mkdir()
    found = langslice.fit("mini", out, **asked)
    assert len(seen) == len(set(seen)) == len(found.points)
    assert found.chosen.worst == min(one.worst for one in found.tried)
    assert len({one.cut for one in found.tried if len(one.cut.all_axes(7407)) > 1}) == 2
    assert set(found.chosen.cut.axes) > {"layers"}
    assert values(found.written) == pytest.approx(values(found.chosen.loss), abs=1e-4)
    assert weights(out / "slice") <= 1.6e6
    assert weights(out / "slice") == pytest.approx(found.chosen.takes["size"], rel=0.05)
    plan = langslice.load_plan(out / "plan.json")
    assert plan.notes[0].startswith("size at most 1.6 MB, memory at most 3.0 MB: ")
    assert {"max_vocab", "drop_layers", "even"} < set(plan.request)
    document = json.loads((out / "fit.json").read_text())
    assert len(document["points"]) == len(found.points)
    assert "combinations" in [node.text for node in ET.parse(out / "fit.svg").getroot().iter()]
    with pytest.raises(OutputError, match=r"fit\.json"):
        langslice.fit("mini", out, **asked)
    # Trained on from the slice; and another budget from the same points.
    assert (out / "healed/model.safetensors").is_file()
    assert values(found.healed) != values(found.written)
    more = {
        **asked,
        "memory": None,
        "heal": None,
        "heal_corpus": (),
        "axes": "vocabulary,layers",
        "checks": 1,
        "measured": out / "points",
    }
    with pytest.raises(PlanError, match="within the budget, the nearest loses"):
        langslice.fit("mini", tmp_path / "other", max_loss=1e-9, **more)
    assert len(seen) <= len(found.points) + 1


@pytest.mark.parametrize(("family", "texts"), [("bert", {"": ["the cat sat", "a dog ran to it", "very long word"]}),
                                               ("t5", {"": ["the cat sat", "the dog ran", "it is a long word"]})])  # fmt: skip
def test_other_kinds_lose_what_their_written_slices_lose(family, texts, zoo, tmp_path):
    (tmp_path / "text.txt").write_text("the cat\n")
    model = zoo(family)
    size = int(0.8 * weights(model))
    found = langslice.fit(
        model, tmp_path / "out", corpus=tmp_path / "text.txt", size=size, loss_texts=texts, axes="layers,neurons,heads",
        checks=2,
    )  # fmt: skip
    assert found.chosen.cut.axes
    assert values(found.written) == pytest.approx(values(found.chosen.loss), abs=1e-4)
    assert weights(tmp_path / "out/slice") <= size
    assert not [note for note in found.notes if "other than was measured" in note]


def test_a_budget_that_cannot_be_reached_says_the_nearest(tmp_path):
    out = tmp_path / "out"
    said = CliRunner().invoke(app, ["fit", "mini", "-l", "ko,en", "--size", "100kB", "-o", str(out)])
    assert isinstance(said.exception, PlanError)
    assert said.exception.exit_code == 2
    assert said.exception.message.startswith("a size of at most 100.0 kB cannot be reached: the nearest is ")
    assert not out.exists()
    nearest = said.exception.message.rpartition(" is ")[2].replace(" ", "")
    assert nearest.endswith("kB")


def test_a_listed_vocabulary_stays_and_a_loss_beyond_the_limit_leaves_only_points(tmp_path):
    """--only-tokens takes no limit on rows: none is given to the plan."""
    out, listing = tmp_path / "out", tmp_path / "tokens.txt"
    chosen = langslice.plan("mini", languages="ko,en", max_vocab=2500)
    listing.write_text("\n".join(token for token in chosen.tokens if token and token.isalpha()), encoding="utf-8")
    with pytest.raises(PlanError, match=r"max_loss=0\.001`: within the budget, the nearest loses \d") as caught:
        langslice.fit("mini", out, only_tokens=listing, size="2.5MB", loss_texts=TEXTS, max_loss=0.001, checks=1)
    assert "without" in caught.value.message
    assert [path.name for path in out.iterdir()] == ["points"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no budget was given"),
        ({"size": "many"}, "`size` many is no size"),
        ({"latency": "2x"}, "latency.*2x.* is no share"),
        ({"latency": "fast"}, "latency.*fast.* is no share"),
        ({"size": "1MB", "axes": "layers,width"}, "`axes` width: no axis"),
        ({"size": "1MB", "max_size": "1MB"}, "`max_size` limits the vocabulary alone"),
        ({"size": "1MB", "heal": 5}, "`heal` has no text"),
        ({"size": "1MB", "heal_corpus": "a.txt"}, "`heal_corpus` has no effect"),
        ({"size": "1MB", "axes": "vocabulary", "only_tokens": "a.txt"}, "says exactly which tokens stay"),
        ({"size": "1MB", "checks": 0}, "`checks` must be"),
    ],
)
def test_refusals(given, said, tmp_path):
    with pytest.raises(LangsliceError, match=said) as caught:
        langslice.fit("mini", tmp_path / "out", languages="ko,en", **given)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="no folder of a fit"):
        langslice.fit("mini", tmp_path, languages="ko,en", size="1.5MB")


def measured(cut, loss):
    return Measured(cut, {"ko": Loss(0, loss, loss, loss, loss), "en": Loss(0, 0, 0, 0, 0)})


def costs():
    base = measured(Cut(1000), 0.1)
    return Costs(
        [base, measured(Cut(100), 0.5)],
        [base, measured(Cut(1000, (("layers", 1),)), 0.4)],
        {"heads": [base], "neurons": [base, measured(Cut(1000, neurons=0.5), 0.2)]},
    )


def needs(cut):
    return {"size": Need(1000 * (2 - len(cut.layers)) - 800 * cut.neurons, 1.0)}


def test_losses_add_up_and_rows_fill_what_the_budget_leaves():
    found = candidates(costs(), needs, {"size": 2000.0}, least=50, multiple=None)
    by_cut = {(one.cut.axes, one.cut.rows): one for one in found}
    # The whole structure leaves no rows; without half of the neurons 400 stay, without a layer all.
    assert set(by_cut) == {(("layers",), 1000), (("neurons",), 400), (("layers", "neurons"), 1000)}
    assert by_cut[("layers", "neurons"), 1000].predicted["ko"] == pytest.approx(0.5)
    assert by_cut[("neurons",), 400].predicted["ko"] == pytest.approx(0.1 + 0.4 * (1 - 0.60206) + 0.1, abs=1e-4)
    assert found[0].cut.axes == ("neurons",)
    assert rows_that_fit({"size": Need(0, 1.0)}, {"size": 130.0}, 1000, 64) == 128
    assert rows_that_fit({"size": Need(200, 1.0)}, {"size": 130.0}, 1000, None) == 0


def test_what_a_try_lost_corrects_the_like_of_it():
    known = costs()
    found = candidates(known, needs, {"size": 2000.0}, least=50, multiple=None)
    tried = replace(found[0], loss={"ko": Loss(0, 2, 2, 2, 2)})
    assert corrected(known, found[0], [tried]) > 2 * found[0].expected
    far = next(one for one in found if one.cut.axes == ("layers",))
    assert corrected(known, far, [tried]) / far.expected < corrected(known, found[0], [tried]) / found[0].expected
    assert frontier([tried], "size") == [tried]


def test_time_goes_with_layers_and_a_tighter_budget_is_set_where_it_does_not(tmp_path, monkeypatch):
    source = Source(open_checkpoint("mini"))
    lines = TEXTS["en"][:4]
    times = measure_times(source, lines)
    assert 0 < times.head < 1
    assert sum(times.layers.values()) + times.head == pytest.approx(1)
    plan = langslice.plan("mini", languages="ko,en", drop_layers="1-5", max_vocab=2500)
    need = time_need(source, times, plan.structure)
    assert need.fixed == pytest.approx(times.layers["layers", 0])
    assert 0 < measure_latency(source, plan, lines) < 1
    slower = iter((0.95, 0.84))
    monkeypatch.setattr("langslice.budgets.main.measure_latency", lambda *given: next(slower))
    found = langslice.fit(
        "mini", tmp_path / "out", languages="ko,en", latency="0.85x", loss_texts=TEXTS, axes="layers", checks=2
    )
    assert [one.latency for one in found.tried] == [0.95, 0.84]
    assert found.chosen == found.tried[1]
    assert found.tried[1].takes["latency"] < found.tried[0].takes["latency"] <= 0.85


def test_experts_go_like_other_axes_and_lose_what_the_written_slice_loses(zoo, tmp_path):
    (tmp_path / "text.txt").write_text("the cat\n")
    model = zoo("qwen3_moe")
    size = int(0.8 * weights(model))
    texts = {
        "en": ["the cat sat", "a dog ran to it", "very long word", "the dog sat", "it is a long word", "a cat ran"]
    }
    found = langslice.fit(
        model,
        tmp_path / "out",
        corpus=tmp_path / "text.txt",
        size=size,
        loss_texts=texts,
        axes="layers,experts",
        checks=2,
    )
    assert {axis for point in found.points for axis in point.cut.axes} == {"layers", "experts"}
    alone = next(point for point in found.tried if point.cut.axes == ("experts",))
    assert alone.cut.experts in (0.25, 0.5)
    assert values(found.written) == pytest.approx(values(found.chosen.loss), abs=1e-4)
    assert not [note for note in found.notes if "other than was measured" in note]


@pytest.mark.parametrize("family", ["bert", "llama", "gemma3_text", "t5"])
def test_hidden_dimensions_lose_what_their_written_slices_lose(family, zoo, tmp_path, monkeypatch):
    """As many as the classes allow: in a BERT with a head of each layer; of a Llama after a rotation, where its head is its own."""
    monkeypatch.setattr("langslice.budgets.main.measure_latency", lambda *given: 0.5)
    (tmp_path / "text.txt").write_text("the cat\n")
    model = zoo(family)
    texts = {"": ["the cat sat", "a dog ran to it", "very long word", "the dog sat", "it is a long word"]}
    size = int((0.8 if family == "llama" else 0.9) * weights(model))
    found = langslice.fit(
        model, tmp_path / "out", corpus=tmp_path / "text.txt", size=size, latency=0.99, loss_texts=texts, axes="hidden", checks=1
    )  # fmt: skip
    assert found.chosen.cut.axes == ("hidden",)
    assert values(found.written) == pytest.approx(values(found.chosen.loss), abs=1e-4)
    assert found.written[""].value != 0
    assert weights(tmp_path / "out/slice") <= found.chosen.takes["size"] <= 1.2 * weights(tmp_path / "out/slice")
    assert found.chosen.takes["latency"] < 1
    request = langslice.load_plan(tmp_path / "out/plan.json").request
    assert request["hidden_by"] == ("rotation" if family == "llama" else "activation")
    assert ("heads_sparsity" in request) == (family == "bert")


def test_hidden_dimensions_of_a_family_without_a_known_stream_stay_whole(zoo):
    source = Source(open_checkpoint(zoo("gpt2")))
    found = find_parts(source, {}, ("hidden",))
    assert found.shares == {} and found.narrowing is None and found.scored_kinds == ()
    note = find_parts(source, {}, ("hidden",), extended=True).notes[0]
    assert note.startswith("hidden dimensions stay whole: the vocabulary gets new tokens")
    assert found.notes == (
        "hidden dimensions stay whole: the hidden size of a `gpt2` model cannot be cut: what its class derives from it is not in "
        "the table",
    )


@pytest.mark.parametrize(
    ("share", "number", "heads"),
    [(1 / 12, 352, 1 / 12), (1 / 6, 320, 1 / 6), (0.001, 352, 1 / 12), (0.99, 32, 11 / 12)],
)
def test_dimensions_go_in_units_with_their_heads(share, number, heads):
    narrowing = Narrowing(384, 32, True, "activation", np.arange(384)[::-1])
    assert narrowing.number(share) == number == len(narrowing.kept(share).hidden)
    assert narrowing.kept(share).hidden == tuple(range(384 - number, 384))
    assert narrowing.heads(share) == pytest.approx(heads) and narrowing.heads(0) == 0
    assert replace(narrowing, tied=False).heads(share) == 0 and narrowing.choice(0) == {}


def points_in(folder):
    return {path.name: path.read_text().replace(str(folder), "") for path in folder.glob("*.json")}


def test_points_of_tasks_are_those_measured_here_and_a_lost_one_is_measured_here(zoo, tmp_path, monkeypatch):
    """Everything that a task gets or gives passes through pickle, as on another machine."""
    (tmp_path / "text.txt").write_text("the cat\n")
    model, far = zoo("bert"), []
    asked = {"corpus": tmp_path / "text.txt", "size": int(0.8 * weights(model)), "axes": "layers,neurons", "checks": 1,
             "max_loss": 1e-9, "loss_texts": {"": ["the cat sat", "a dog ran to it", "very long word"]}}  # fmt: skip

    def run_tasks(ray, function, jobs):
        for key, given in jobs:
            far.append(key.path)
            if len(far) == 2:
                yield Outcome(key, None, "the worker was lost")
            else:
                yield Outcome(key, function(*map(pickle.loads, map(pickle.dumps, given))))

    ray = types.SimpleNamespace(put=lambda value: value)
    monkeypatch.setattr(cluster_points, "connected", lambda address: nullcontext(ray))
    monkeypatch.setattr(cluster_points, "run_tasks", run_tasks)
    with pytest.raises(PlanError, match="the nearest loses") as spread:  # so that no slice need be written
        langslice.fit(model, tmp_path / "far", ray="auto", **asked)
    assert len(far) == len(set(far)) > 4
    monkeypatch.undo()
    with pytest.raises(PlanError) as alone:
        langslice.fit(model, tmp_path / "here", **asked)
    assert str(spread.value) == str(alone.value)
    assert points_in(tmp_path / "far/points") == points_in(tmp_path / "here/points")


@pytest.mark.parametrize(("other", "said"), [({"version": "0"}, r"has langslice .*, not 0"),
                                             ({"digest": "0"}, "has another model")])  # fmt: skip
def test_a_machine_with_another_model_or_version_is_refused(zoo, other, said):
    checkpoint = open_checkpoint(zoo("bert"))
    digest = Evaluator(Source(checkpoint), {}).model_digest
    given = cluster_points.Given(said, version.__version__, digest, checkpoint.folder, False, (), (), {}, {})
    with pytest.raises(ClusterError, match=said):
        cluster_points.measure_point(replace(given, **other), Cut(1), None, {}, Kept())
