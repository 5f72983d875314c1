"""The page of a report: well formed, loading nothing, escaping everything, readable in every width and scheme."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest

from langslice.errors import OutputError
from langslice.reporting import collect_report, write_report
from langslice.reporting.charts import Line, _log_ticks, _ticks, kept_strip, line_plot
from langslice.reporting.data import KeptLanguage
from langslice.reporting.markup import Markup, foreign, tag, visible
from langslice.reporting.numbers import change_text, figures, percent
from langslice.reporting.page import page
from langslice.reporting.sections.structure import ranges
from tests.report_samples import make_slice, write_features, write_results, write_scores

VOID = {"meta", "br", "hr", "col", "img", "link", "input", "wbr"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.exe",
    "\ud83d",
    "a\x00b",
    "</style>",
    "&amp;",
)


class Reader(HTMLParser):
    """Elements in order, and whether every end tag closes the element that is open."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.wrong, self.elements, self.text = [], [], [], []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes), tuple(self.open)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        if not self.open or self.open.pop() != name:
            self.wrong.append(name)

    def handle_data(self, data):
        self.text.append(data)

    def named(self, *names):
        return [(name, attributes) for name, attributes, _ in self.elements if name in names]


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@pytest.fixture(scope="module")
def sliced(cut_slice):
    return cut_slice


@pytest.fixture(scope="module")
def report(sliced, tmp_path_factory):
    """A report with every section."""
    folder = tmp_path_factory.mktemp("measured")
    found = collect_report(
        sliced,
        results=[write_results(sliced, folder / "r.json")],
        scores=[
            write_scores(folder / "h.parquet"),
            write_scores(folder / "n.parquet", "neurons", count=44),
            write_scores(folder / "l.parquet", "layers", count=1),
        ],
        features=[write_features(folder / "f")],
        recipe="languages: ko,en\n",
        hashes=True,
    )
    from langslice.reporting.data import Healing

    return replace(
        found,
        healing=Healing(
            {"steps": 20, "loss": {"first": 3.0}, "trained": ["a"]},
            {"train": ((0.0, 3.0), (20.0, 2.0)), "heldout": ((20.0, 2.5),)},
        ),
    )


def test_every_section_is_there(report):
    headings = [attributes["id"] for name, attributes in read(page(report)).named("section")]
    assert headings == [
        "parts", "vocabulary", "texts", "structure", "sparsity", "quality", "cost", "healing", "scores", "features", "proof",
        "origin",
    ]  # fmt: skip


def test_well_formed_with_headings_in_order(report):
    reader = read(page(report))
    assert reader.wrong == [] and reader.open == []
    (root,) = reader.named("html")
    assert root[1]["lang"] == "en"
    levels = [int(name[1]) for name, _ in reader.named("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes, _ in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for _, attributes in reader.named("a")}
    assert targets <= {f"#{name}" for name in ids}


def test_nothing_is_loaded_or_run(report):
    text = page(report)
    reader = read(text)
    assert reader.named("script", "link", "img", "iframe", "object", "form", "base") == []
    loading = {"src", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href"}
    for _, attributes, _ in reader.elements:
        assert not loading & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    policy = next(a["content"] for _, a in reader.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_figure_has_title_unit_and_numbers(report):
    text = page(report)
    found = re.findall(r"<figure>(.*?)</figure>", text, re.DOTALL)
    assert len(found) >= 20
    for body in found:
        unit = re.search(
            r'<figcaption><span class="figure-title">.+?</span> <span class="unit">(.+?)</span></figcaption>', body
        )
        assert unit and len(unit[1]) > 4, body[:200]
        assert re.search(r"\d", re.sub(r"<svg.*?</svg>|style=\"[^\"]*\"", "", body, flags=re.DOTALL)), body[:200]
    reader = read(text)
    for name, attributes, _ in reader.elements:
        if name == "svg":
            assert attributes.get("aria-hidden") == "true" or len(attributes.get("aria-label", "")) > 20
        if "tabindex" in attributes:
            assert attributes["tabindex"] == "0" and attributes["aria-label"]
    assert all("scope" in attributes for _, attributes in reader.named("th"))


def test_hostile_text_stays_text(report):
    (language, *_) = report.vocabulary.languages
    languages = (replace(language, examples=HOSTILE, label=HOSTILE[1]), KeptLanguage("x", "<b>", None, 1, 0, None, ()))
    origin = replace(
        report.origin,
        command=("langslice", "slice", HOSTILE[0], HOSTILE[2]),
        recipe="\n".join(HOSTILE),
        notes=HOSTILE,
        left_out={HOSTILE[1]: HOSTILE[0]},
        files=dict.fromkeys(HOSTILE, (1, "0" * 64)),
    )
    evil = replace(
        report,
        name=HOSTILE[5],
        source=replace(report.source, model=HOSTILE[0], licence={"license": HOSTILE[1]}),
        vocabulary=replace(report.vocabulary, languages=languages, reasons=((HOSTILE[0], 3),)),
        texts=tuple(replace(text, name=HOSTILE[1]) for text in report.texts),
        checks=tuple(replace(check, examples=HOSTILE, passed=False) for check in report.checks),
        origin=origin,
    )
    text = page(evil)
    encoded = text.encode("utf-8")  # a lone surrogate would raise here
    assert b"\x00" not in encoded
    reader = read(text)
    assert reader.wrong == [] and reader.open == []
    assert reader.named("script", "img", "b") == []
    shown = "".join(reader.text)
    assert "<script>alert(1)</script>" in shown and "&amp;" in shown
    assert "\u202e" not in shown and "⟨U+202E⟩gnp.exe" in shown and "⟨U+D83D⟩" in shown and "a⟨U+0000⟩b" in shown
    assert "Verification failed" in shown


def test_sections_without_data_are_left_out(zoo, tmp_path):
    out = make_slice(
        zoo("llama"), tmp_path / "plain", drop_layers=(), drop_heads=(), drop_neurons=(), sparsity=None, weights_by=None,
        output_style=None,
    )  # fmt: skip
    text = page(collect_report(out))
    headings = [attributes["id"] for _, attributes in read(text).named("section")]
    assert headings == ["parts", "vocabulary", "texts", "proof", "origin", "unmeasured"]
    assert "quality by language" in text and "speed and memory" in text


def test_writing(sliced, tmp_path):
    folder = shutil.copytree(sliced, tmp_path / "copy")
    path = write_report(folder)
    assert path == folder / "report.html"
    first = path.read_text()
    assert write_report(folder).read_text() == first
    assert sorted(p.name for p in folder.iterdir()) == sorted([*(p.name for p in sliced.iterdir()), "report.html"])
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    with pytest.raises(OutputError, match=r"mine\.html exists already, and is no report"):
        write_report(folder, tmp_path / "mine.html")
    assert write_report(folder, tmp_path / "mine.html", overwrite=True).read_text() != "<p>mine</p>"
    with pytest.raises(OutputError, match="is not a folder"):
        write_report(folder, tmp_path / "nowhere/report.html")


def test_numbers_and_marks():
    assert percent(0.99996) == "99.996%" and percent(1.0) == "100.0%" and percent(0.9999999) == "<100%"
    assert change_text(-0.3634) == "−36.3%" and change_text(0.0) == "same"
    assert [figures(value) for value in (0.034123, 12.5, 1234.4, 0.0, -2.0, float("nan"))] == [
        "0.03412", "12.50", "1,234", "0", "−2.000", "–",
    ]  # fmt: skip
    assert ranges([0, 1, 2, 5]) == "0-2, 5"
    assert visible("a\u202eb") == "a⟨U+202E⟩b"
    assert tag("p", "a < b", class_="x", hidden=None) == '<p class="x">a &lt; b</p>'
    assert foreign("<") == '<bdi class="token">&lt;</bdi>'
    assert isinstance(tag("p"), Markup)


def test_ticks_are_round():
    assert _ticks(0.0, 1.04) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert _ticks(3.1, 3.9) == [3.2, 3.4, 3.6, 3.8]
    assert _log_ticks(1.0, 5000.0) == [1.0, 10.0, 100.0, 1000.0]


def test_strip_of_heads_by_hand():
    strip = kept_strip(3, [1])
    assert strip.count('class="cell gone"') == 2 and strip.count('class="cross"') == 2
    assert '<rect x="10" y="0" width="8.8" height="14" class="cell" fill-opacity="1">' in strip


def test_line_goes_where_its_points_are():
    plot = line_plot(
        [Line("a", [(0, 0.0), (10, 1.0)])], x_title="x", y_title="y", y_range=(0.0, 1.0), alternative="a line up"
    )
    assert 'd="M0.00 100.00L100.00 0.00"' in plot


def colours(scheme):
    """Name -> (r, g, b) of the style sheet's variables in one scheme."""
    style = files("langslice.reporting").joinpath("report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    found = {}
    for block in (light, dark) if scheme == "dark" else (light,):
        for name, value in re.findall(r"--([\w-]+): #([0-9a-f]{6})", block):
            found[name] = tuple(int(value[at : at + 2], 16) for at in (0, 2, 4))
    return found


def contrast(first, second):
    """Contrast ratio of WCAG 2.2."""

    def luminance(colour):
        parts = [v / 255 for v in colour]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme):
    c = colours(scheme)
    texts = [(name, ground) for name in ("text", "muted", "accent", "good", "bad") for ground in ("ground", "surface")]
    texts += [
        ("text", "code"),
        ("good", "good-ground"),
        ("bad", "bad-ground"),
        ("open", "open-ground"),
        ("open", "ground"),
    ]
    for name, ground in texts:
        assert contrast(c[name], c[ground]) >= 4.5, (name, ground)
    shaded = tuple(round(0.45 * a + 0.55 * s) for a, s in zip(c["accent"], c["surface"], strict=True))
    assert contrast(c["text"], shaded) >= 4.5
    marks = [(name, "surface") for name in (*(f"part-{n}" for n in range(8)), "before", "mark", "accent")]
    marks += [("accent", "faint"), ("before", "faint"), ("mark", "faint")]
    for name, ground in marks:
        assert contrast(c[name], c[ground]) >= 3, (name, ground)


MEASURE = """<!DOCTYPE html><html><body><iframe id="f" style="width:%dpx;height:900px;border:0" srcdoc="%s"></iframe><script>
const frame = document.getElementById("f");
frame.onload = () => {
  const page = frame.contentDocument, width = page.documentElement.clientWidth, wide = [];
  for (const detail of page.querySelectorAll("details")) detail.open = true;
  for (const one of page.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect();
    if (box.right > width + 1 && !one.closest(".scroll")) wide.push(one.outerHTML.slice(0, 80));
  }
  document.body.textContent = JSON.stringify([page.documentElement.scrollWidth, width, wide.slice(0, 5)]);
};
</script></body></html>"""


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_overflows_in_a_browser(report, tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    long = replace(report, name="a" * 200, source=replace(report.source, model="no-space-" * 40))
    (tmp_path / "measure.html").write_text(MEASURE % (width, html.escape(page(long))))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=10000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(tmp_path / "measure.html")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    body = re.search(r"<body>(\[.*\])</body>", done.stdout, re.DOTALL)
    assert body, done.stderr[-500:]
    scroll_width, inner, wide = json.loads(html.unescape(body[1]))
    assert inner in (width, width - 15)
    assert scroll_width <= inner
    assert wide == []
