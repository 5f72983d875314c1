"""Work on a local Ray cluster, with a worker killed in the middle: same counts, nothing lost, none counted twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from langslice.budgets.main import fit
from langslice.cluster.ray_cluster import RETRIES, run_tasks
from langslice.corpus.sources import CorpusFile
from langslice.corpus.units import read_part
from langslice.counting import cluster_count as spreading
from langslice.counting.cluster_count import parts_of
from langslice.demonstrations import Demonstration, write_demonstrations
from langslice.errors import ClusterError, CorpusError, PlanError
from langslice.mini import heldout_text, mini_model_path
from langslice.slicing import main as job
from langslice.sparsity import SparsityRequest, sparsify
from langslice.sparsity.cluster_calibration import Walker
from tests.outputs import lasting

LINES = [line for language in ("en", "ko", "ar") for line in heldout_text(language)]


def without_ray() -> str:
    try:
        import ray  # noqa: F401
    except ImportError:
        return "ray is an extra that is not installed"
    return ""


def needs_ray(test):
    return pytest.mark.robustness(pytest.mark.skipif(bool(without_ray()), reason=without_ray())(test))


@pytest.fixture
def corpus(tmp_path) -> list[str]:
    """Text and jsonl of some hundred kilobytes, in three files, one of them compressed."""
    import gzip

    generator = random.Random(0)
    lines = [" ".join(generator.sample(LINES, 3)) for _ in range(600)]
    (tmp_path / "a.txt").write_text("\n".join(lines[:400]) + "\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines[400:500]))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress("\n".join(lines[500:]).encode()))
    return [str(tmp_path / name) for name in ("a.txt", "b.jsonl", "c.txt.gz")]


@pytest.mark.parametrize("part_bytes", [1, 2, 3, 5, 7, 16, 1000])
@pytest.mark.parametrize("ending", ["\n", ""])
def test_parts_hold_every_line_once(tmp_path, part_bytes, ending):
    path = tmp_path / "a.txt"
    lines = ["\ufeffone", "", "två", "", "", "\ufeffdrei", "x" * 40, "最後"]
    path.write_text("\ufeff" + "\n".join(lines) + ending, encoding="utf-8")
    source = CorpusFile(path, "txt", "")
    parts = list(parts_of(source, part_bytes))
    assert parts[-1].end == path.stat().st_size
    found = [unit for part in parts for unit in read_part(source, part.start, part.end, "text")]
    assert found == [line for line in lines if line]


def test_an_error_in_a_part_says_from_where_it_counts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good line\n" * 4 + b"bad \xff line\n")
    with pytest.raises(CorpusError, match=r"a\.txt:2: not valid UTF-8 at byte 14 .*counted from byte 30 of it"):
        list(read_part(CorpusFile(path, "txt", ""), 25, path.stat().st_size, "text"))


def equal(found, expected) -> None:
    assert np.array_equal(found.counts, expected.counts)
    assert (found.units, found.characters, found.size_bytes) == (
        expected.units,
        expected.characters,
        expected.size_bytes,
    )
    assert (found.fingerprint, found.tokens, found.kind) == (expected.fingerprint, expected.tokens, expected.kind)


def test_without_the_package(corpus, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match="`ray` needs the package `ray`\nhint: pip install"):
        job.count(mini_model_path(), corpus, ray="local")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_nobody_at_the_address(corpus, monkeypatch, address):
    """Told at once, before Ray waits for minutes."""
    import sys
    import types

    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}\n.*Connection refused"):
        job.count(mini_model_path(), corpus, ray=address)


@pytest.fixture(scope="module")
def cluster():
    """A local cluster of three worker processes."""
    ray = pytest.importorskip("ray", reason=without_ray())
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


# Whoever counts the marked part first dies in the middle of it, with all that it has counted so far.
def dying(flag: str):
    count_part = spreading.count_part

    def count_or_die(packed, part, text_field, languages):
        if part.start == 0 and not Path(flag).exists():
            Path(flag).write_text(str(os.getpid()))
            count_part(packed, part, text_field, languages)
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return count_part(packed, part, text_field, languages)

    return count_or_die


@needs_ray
def test_counts_are_those_of_one_machine(corpus, cluster, monkeypatch):
    monkeypatch.setattr(spreading.count_on_cluster, "__kwdefaults__", {"part_bytes": 20_000})
    equal(job.count(mini_model_path(), corpus, ray="auto"), job.count(mini_model_path(), corpus))


@needs_ray
def test_a_worker_that_is_killed_is_replaced(corpus, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(spreading.count_on_cluster, "__kwdefaults__", {"part_bytes": 20_000})
    flag = tmp_path / "died"
    monkeypatch.setattr(spreading, "count_part", dying(str(flag)))
    counted = job.count(mini_model_path(), corpus, ray="auto")
    assert flag.exists()
    monkeypatch.undo()
    equal(counted, job.count(mini_model_path(), corpus))


def square_or_die(folder: str, number: int, lives: int) -> int:
    """Die as often as the folder does not say that it has happened."""
    flag = Path(folder) / f"{number}-{len(list(Path(folder).glob(f'{number}-*')))}"
    if number == 3 and len(list(Path(folder).glob("3-*"))) < lives:
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@needs_ray
@pytest.mark.parametrize("lives", [1, 99])
def test_each_task_ends_once(cluster, tmp_path, lives):
    """Ten tasks, of which one kills its worker: once, and whenever it is tried."""
    function = type(square_or_die)(square_or_die.__code__, {**globals(), "__name__": "__main__"})  # sent by value
    jobs = ((number, (str(tmp_path), number, lives)) for number in range(10))
    found = sorted(run_tasks(cluster, function, jobs), key=lambda outcome: outcome.key)
    assert [outcome.key for outcome in found] == list(range(10))
    assert [outcome.value for outcome in found if outcome.key != 3] == [n * n for n in range(10) if n != 3]
    assert found[3].value == (9 if lives == 1 else None)
    assert len(list(tmp_path.iterdir())) == (1 if lives == 1 else 1 + RETRIES)
    assert found[3].lost.startswith("the worker was lost") == (lives == 99)


@needs_ray
def test_errors_of_tasks_come_through(tmp_path, cluster):
    (tmp_path / "a.txt").write_text("\n\n")
    with pytest.raises(CorpusError, match=r"a\.txt: holds no text"):
        job.count(mini_model_path(), [str(tmp_path / "a.txt")], ray="auto")
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    with pytest.raises(CorpusError, match=r"b\.jsonl:2: no field 'text'; found: txt"):
        job.count(mini_model_path(), [str(tmp_path / "b.jsonl")], ray="auto")


# ---- calibration ---------------------------------------------------------------------------------------------------

DEMOS = tuple(
    Demonstration("mt", parts=(one, other), separator="\n")
    for one, other in (
        ("the lamb and", "sing ted"),
        ("nest lime", "a tent"),
        ("a", "test"),
        ("no let", "sum"),
        ("son", "men"),
    )
)


def copied(zoo, model_type: str, folder: Path) -> Path:
    return Path(shutil.copytree(zoo(model_type), folder))


@needs_ray
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("how", ["avoid", "languages"])
def test_masks_are_those_of_one_machine(zoo, cluster, tmp_path, how):
    if how == "avoid":
        request = SparsityRequest(0.3, keep_demos=DEMOS[:4], avoid_demos=DEMOS[4:], linears=("!*.1.*",))
    else:
        keep = tuple(
            replace(one, languages=(code,)) for one, code in zip(DEMOS, ("ko", "en", "ko", "fr", "en"), strict=True)
        )
        request = SparsityRequest(0.3, keep_demos=keep, score="mwanda", allocation="languages", linears=("!*.1.*",))
    alone = sparsify(copied(zoo, "llama", tmp_path / "alone"), request)
    done = sparsify(copied(zoo, "llama", tmp_path / "spread"), request, ray="auto")
    assert done.tensors == alone.tensors
    one, other = (tmp_path / name / "model.safetensors" for name in ("alone", "spread"))
    assert one.read_bytes() == other.read_bytes()


class Mortal(Walker):
    """A walker of which one dies in its third block."""

    flag = ""

    def observe(self):
        found = super().observe()
        if ".2" in found[0] and not Path(self.flag).exists():
            Path(self.flag).write_text(found[0])
            os.kill(os.getpid(), signal.SIGKILL)
        return found


@needs_ray
@pytest.mark.usefixtures("one_thread")
def test_a_machine_that_dies_while_it_calibrates_is_replaced(zoo, cluster, tmp_path, monkeypatch):
    """Two machines, as one of which the whole command is done elsewhere: the same files."""
    write_demonstrations(DEMOS, tmp_path / "mt.jsonl")
    choice = {"sparsity": 0.3, "keep_demos": str(tmp_path / "mt.jsonl"), "verify": False}
    job.slice(zoo("llama"), tmp_path / "alone", **choice)
    mortal = type("Mortal", (Mortal,), {"flag": str(tmp_path / "died"), "__module__": "__main__"})
    monkeypatch.setattr("langslice.sparsity.cluster_calibration.Walker", mortal)
    monkeypatch.setattr("langslice.sparsity.cluster_calibration.cluster_cpus", lambda ray: 2)
    job.slice(zoo("llama"), tmp_path / "spread", ray="auto", **choice)
    assert (tmp_path / "died").read_text() == "model.layers.2"
    one, other = (lasting(tmp_path / name) for name in ("alone", "spread"))
    assert one == other


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"drop_layers": "0"}, "`ray` has no effect: no weight is pruned"),
        (
            {"sparsity": 0.3, "weights_by": "magnitude"},
            "`ray` has no effect: score 'magnitude' reads no calibration data",
        ),
        (
            {"sparsity": 0.3, "weights_by": "sparsegpt", "keep_demos": "d.jsonl"},
            "score 'sparsegpt' is not spread over a cluster",
        ),
    ],
)
def test_a_cluster_that_would_do_nothing_is_refused(zoo, tmp_path, choice, message):
    with pytest.raises(PlanError, match=message):
        job.slice(zoo("llama"), tmp_path / "out", verify=False, ray="local", **choice)
    assert list(tmp_path.iterdir()) == []


# ---- points of a fit -----------------------------------------------------------------------------------------------


def fitted(model: Path, out: Path, **given) -> dict[str, str]:
    (out.parent / "text.txt").write_text("the cat\n")
    lines = {"": ["the cat sat", "a dog ran to it", "very long word"]}
    fit(
        model,
        out,
        corpus=out.parent / "text.txt",
        size=40_000,
        axes="layers,neurons",
        checks=1,
        loss_texts=lines,
        **given,
    )
    points = list((out / "points").glob("*.json"))
    return {
        path.name: path.read_text().replace(str(out), "") for path in (*points, out / "plan.json", out / "fit.json")
    }


@needs_ray
@pytest.mark.usefixtures("one_thread")
def test_a_fit_on_a_cluster_measures_the_same_points_and_makes_the_same_plan(zoo, cluster, tmp_path, monkeypatch):
    alone = fitted(zoo("bert"), tmp_path / "alone")
    monkeypatch.setattr("langslice.budgets.cluster_points.run_tasks", tasks := CountingTasks())
    spread = fitted(zoo("bert"), tmp_path / "spread", ray="auto")
    assert tasks.ended > 4
    assert spread == alone


class CountingTasks:
    """Tasks of a cluster, counted as they end."""

    ended = 0

    def __call__(self, *given):
        for outcome in run_tasks(*given):
            assert not outcome.lost
            self.ended += 1
            yield outcome
