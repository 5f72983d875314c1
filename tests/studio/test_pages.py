"""The pages on the packaged model: what the library answers is what they show, and what they offer to type is taken."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from threading import Lock
from urllib.parse import urlencode

import pytest
import typer
import yaml

import langslice
from langslice.cli.app import app
from langslice.mini import mini_model_path
from langslice.recipes import load_recipe
from langslice.studio.commands import SCORES, job_request
from langslice.studio.jobs import RUNNING, Jobs
from langslice.studio.shelf import Offer, Shelf
from langslice.studio.views import Studio, _tried
from langslice.studio.wish import Wish
from tests.studio.serving import served

pytestmark = pytest.mark.usefixtures("one_thread")
RUNG = {"value": 0.5, "low": 0.25, "high": 0.75, "before": 1.0, "after": 1.5}
MEASURED = {
    "measure": "bits per byte", "text": "sentences of the package", "lines": {"ko": 4, "en": 4}, "notes": [],
    "before": {"rows": 12288, "size_bytes": 10_000_000},
    "rungs": [
        {"rows": rows, "size_bytes": 1000 * rows, "growth": {"ko": 1.25, "en": 1.0}, "loss": {"ko": RUNG, "en": RUNG}}
        for rows in (4000, 1700)
    ],
}  # fmt: skip


class Tags(HTMLParser):
    """Elements of a page, and those that were left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """The studio, whose jobs are a script that leaves a measurement."""
    root = tmp_path_factory.mktemp("pages")
    (root / "measured.json").write_text(json.dumps(MEASURED))
    script = root / "script"
    script.write_text(f"#!/bin/sh\ncp {root}/measured.json tradeoff.json; echo '<svg/>' > tradeoff.svg\n")
    script.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Jobs.__init__, "__defaults__", ((str(script),),))
        patch.setattr("langslice.slicing.inspect.COMMON_SETS", (("ko", "en"),))
        with served(["mini"], work=root / "work") as there:
            yield there


def read(studio, path: str) -> str:
    answer = studio.ask(path)
    assert answer.status == 200, answer.text[:2000]
    tags = Tags(answer.text)
    assert tags.open == []
    for tag, attributes in tags.found:
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes), tag
        for name in ("href", "src", "action", "formaction"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), attributes
    return unescape(answer.text)


def test_the_pages_show_what_the_library_says(studio):
    page = read(studio, "/model?model=mini")
    found = langslice.inspect("mini", languages="ko,en")
    for part in found.parts:
        assert f"{part.parameters:,}" in page, part.name
    for name, tokens in [*found.scripts.items()][:5]:
        assert re.search(rf"{name}</th><td class=\"n\">{tokens:,}<", page), name
    assert f"{found.savings[0].rows:,}" in page

    page = read(studio, "/size?model=mini&languages=ko,en")
    assert "has not been measured" in page
    answer = studio.post("/jobs", kind="tradeoff", model="mini", languages="ko,en")
    assert answer.status == 303
    job = answer.headers["location"]
    for _ in range(200):
        if "Everything is done" in read(studio, job):
            break
    page = read(studio, "/size?model=mini&languages=ko,en&rows=1700")
    assert re.findall(r'name="rows" value="(\d+)"( checked)?', page) == [("4000", ""), ("1700", " checked")]
    assert "+0.5000 [+0.2500, +0.7500]" in re.sub(r"<[^>]+>", "", page)
    assert studio.ask(f"{job}/files/picture").text == "<svg/>\n"


def test_a_sentence_is_spelled_by_each_size_and_answered_before_and_after(studio):
    text = "어제 the <b> weather"
    asked = {"model": "mini", "languages": "ko,en", "rows": "1700", "layer": "1", "text": text, "ask": "1"}
    page = read(studio, f"/sentence?{urlencode(asked)}")
    offer = Offer("mini", "mini", mini_model_path())
    wish = Wish("mini", "ko,en", 1700, ("1",), text=text, ask=True)
    found = _tried(offer, offer.state(), wish, text, (), True)  # what the page was told, not worked out again
    assert _tried.cache_info().hits
    (small,) = found.readings
    assert found.original.answer != small.answer
    for reading in (found.original, small):
        assert f"{reading.rows:,} rows" in page
        assert reading.answer.texts[0] in page
        assert all(piece.text.replace(" ", "␣") in page for piece in reading.pieces if piece.whole)
    assert f"{len(small.pieces)} tokens" in page and not small.same


def test_what_is_offered_to_type_is_what_was_chosen(studio):
    page = read(studio, "/parts?model=mini&languages=ko,en&layer=1&head=3:0&head=3:1")
    assert len(re.findall(r'name="head"', page)) == 6 * 8 + 1  # and one that is carried on
    checked = re.findall(r'name="(layer|head)" value="([\d:]+)" checked', page)
    assert checked == [("layer", "1"), ("head", "3:0"), ("head", "3:1")]
    page = read(studio, "/start?model=mini&languages=ko,en&rows=4000&layer=1&head=3:0&head=3:1")
    command, recipe = re.findall(r"<pre [^>]*data-copy>(.*?)</pre>", page, re.DOTALL)
    words = shlex.split(command)
    assert words == ["langslice", "slice", "mini", "--languages", "ko,en", "--max-vocab", "4000", "--drop-layers", "1",
                     "--drop-heads", "3:0,1", "-o", "OUT"]  # fmt: skip
    typer.main.get_command(app).commands["slice"].make_context("slice", words[2:]).close()
    asked = load_recipe(yaml.safe_load(recipe)).document
    assert asked["slice"] == {"languages": "ko,en", "max_vocab": 4000, "drop_layers": "1", "drop_heads": "3:0,1"}
    assert asked["report"] is True or asked["report"] == {}


def test_the_map_is_shaded_by_scores(tmp_path, monkeypatch):
    offer = Offer("mini", "mini", mini_model_path())
    wish = Wish(model="mini", languages="ko,en")
    request = job_request(SCORES, wish, offer)
    assert yaml.safe_load(request.recipe)["score"].keys() == {"heads", "layers"}
    jobs = Jobs(tmp_path / "jobs", ("/bin/true",))
    job = jobs.start(request)
    while jobs.find(job.name).status == RUNNING:
        pass
    scores = langslice.score("mini", "heads", "l1")
    (job.folder / "work/score").mkdir(parents=True)
    scores.save(job.folder / "work/score/heads.parquet")
    shown = Studio(Shelf(["mini"]), jobs, Lock()).parts(wish)
    assert (len(shown["shades"]), shown["method"]) == (48, {"heads": "l1"})
    values = scores.values()["layers.self"]
    for low, high in zip(values[0].argsort(), values[0].argsort()[1:], strict=False):
        assert shown["shades"]["layers.self", 0, low] <= shown["shades"]["layers.self", 0, high]
    # Scores of a model that was changed since do not shade it.
    monkeypatch.setattr("langslice.scoring.table.model_fingerprint", lambda checkpoint: "another")
    assert Studio(Shelf(["mini"]), jobs, Lock()).parts(wish)["shades"] == {}
