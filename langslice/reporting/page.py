"""The page: one HTML file that loads nothing, runs nothing, and fits a phone, a wall and paper."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePath

from langslice.reporting.data import Report
from langslice.reporting.markup import Markup, join, tag
from langslice.reporting.sections.features import features_section
from langslice.reporting.sections.origin import origin_section, total_bytes, unmeasured_section, verification_section
from langslice.reporting.sections.overview import headline, parts_section, tiles, verification_badge
from langslice.reporting.sections.quality import cost_section, healing_section, quality_section
from langslice.reporting.sections.section import Section
from langslice.reporting.sections.structure import scores_section, structure_section
from langslice.reporting.sections.vocabulary import texts_section, vocabulary_section
from langslice.reporting.sections.weights import sparsity_section
from langslice.version import __version__

# Nothing may be loaded or run, whatever a token or a file name says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(report: Report) -> str:
    """The whole page as text; encodes as UTF-8 whatever the model's tokens hold."""
    made = [
        parts_section(report),
        vocabulary_section(report),
        texts_section(report),
        structure_section(report),
        sparsity_section(report),
        quality_section(report),
        cost_section(report),
        healing_section(report),
        scores_section(report),
        features_section(report),
        verification_section(report),
        origin_section(report),
        unmeasured_section(report),
    ]
    sections = [section for section in made if section is not None]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"langslice {__version__}"),
        tag("title", f"{report.name}: a slice of {_short(report.source.model)}"),
        tag("style", Markup(files("langslice.reporting").joinpath("report.css").read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#report", class_="skip"),
        _header(report),
        _contents(sections),
        tag("main", *(section.markup() for section in sections), id="report"),
        _footer(report),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en", dir="ltr") + "\n"


def _header(report: Report) -> Markup:
    source = tag("p", "A slice of ", tag("bdi", _short(report.source.model)), class_="source")
    return tag(
        "header", tag("p", "langslice report", class_="kicker"), tag("h1", tag("bdi", report.name)), source,
        tag("p", headline(report), class_="headline"), verification_badge(report), tiles(report),
    )  # fmt: skip


def _short(model: str) -> str:
    """A hub id or a relative path as it was typed; of an absolute one the last part, the whole is further down."""
    return PurePath(model).name if PurePath(model).is_absolute() else model


def _contents(sections: list[Section]) -> Markup:
    links = [tag("li", tag("a", section.title, href=f"#{section.anchor}")) for section in sections]
    return tag("nav", tag("ol", *links), aria_label="Contents")


def _footer(report: Report) -> Markup:
    made = report.origin.versions.get("langslice")
    return tag(
        "footer",
        tag("p", join(f"Written by langslice {__version__}; the slice by langslice {made}. "
                      f"{len(report.origin.files)} files, {total_bytes(report)}. This page loads nothing and runs no script.")),
    )  # fmt: skip
