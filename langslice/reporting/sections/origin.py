"""Verification, and where the slice comes from: command, recipe, hashes, versions, what was left out, what was not measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from langslice.reporting.charts import data_table
from langslice.reporting.data import Report, VerificationCheck
from langslice.reporting.markup import Child, Markup, join, tag
from langslice.reporting.numbers import bytes_text
from langslice.reporting.sections.section import Section, note, subheading

_VERDICTS = {True: ("equal", "good"), False: ("DIFFERENT", "bad"), None: ("not checked", "open")}
_SHOWN_NAMES = 6


def verification_section(report: Report) -> Section:
    """Each check, what it compared, and its result."""
    if report.checks is None:
        text = "This slice was not compared with its source (--no-verify). Run `langslice verify` before it is used."
        return Section("proof", "Verification", (tag("p", text),))
    rows = [_check(check) for check in report.checks]
    examples = [
        tag("li", tag("strong", check.name), ": ", example) for check in report.checks for example in check.examples
    ]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("check", "source and slice", "what was compared")))
    table = tag("table", tag("caption", "Verification checks"), tag("thead", head), tag("tbody", *rows), class_="proof")
    box = tag("div", table, class_="scroll", tabindex="0", role="group", aria_label="Verification checks")
    body: list[Child] = [tag("p", "The slice as it was written, compared with the model that it was sliced from."), box]
    if examples:
        body += [subheading("Differences"), tag("ul", *examples)]
    body += [note(f"Warning: {check.warning}.") for check in report.checks if check.warning]
    if report.healing is not None:
        body.append(note("Verification describes the slice as it was written; training has changed its weights since."))
    return Section("proof", "Verification", tuple(body))


def _check(check: VerificationCheck) -> Markup:
    word, tone = _VERDICTS[check.passed]
    return tag(
        "tr", tag("th", check.name, scope="row"), tag("td", tag("span", word, class_=f"verdict {tone}")),
        tag("td", check.detail),
    )  # fmt: skip


def origin_section(report: Report) -> Section:
    """How the slice was made, and by which files and versions it can be made again."""
    origin = report.origin
    body: list[Child] = []
    equivalent = _code(_command(origin.equivalent), "A command that asks for what the plan records")
    if origin.command:
        body += [subheading("Command"), _code(_command(origin.command), "The command as it was typed")]
        body.append(tag("details", tag("summary", "What the plan records, as a command"), equivalent))
    else:
        body += [subheading("What the plan records, as a command"), equivalent]
    if origin.recipe is not None:
        body += [subheading("Recipe"), _code(origin.recipe, "The recipe")]
    body += [subheading("Source"), _facts(report)]
    hashes: list[list[Child]] = [
        [name, _hash(entry.get("sha256")), _hash(entry.get("tensors_sha256")), f"{int(entry['size_bytes']):,}"]
        for name, entry in origin.source_files.items()
    ]
    columns = ["file of the source", "sha256", "sha256 of its tensors' names and shapes", "bytes"]
    body.append(data_table(columns, hashes, caption="Files of the source", text_columns=3))
    made: list[list[Child]] = [[name, _hash(digest), f"{size:,}"] for name, (size, digest) in origin.files.items()]
    body += [
        subheading("Files of the slice"),
        data_table(
            ["file", "sha256", "bytes"], made, caption="Files of the slice, next to this report", text_columns=2
        ),
        subheading("Versions"),
        _versions(report),
    ]
    if origin.left_out:
        body += [subheading("Left out"), tag("ul", *(tag("li", line) for line in left_out_lines(report)))]
    if origin.notes:
        body += [subheading("Notes"), tag("ul", *(tag("li", line) for line in origin.notes))]
    return Section("origin", "How it was made", tuple(body))


def _command(words: Sequence[str]) -> str:
    """A command with one option a line, to be read and to be pasted into a shell."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-") and len(lines[-1]) > 0 and not _is_number(word):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(shlex.join(line) for line in lines)


def _is_number(word: str) -> bool:
    return word.lstrip("-").replace(".", "", 1).isdigit()


def _code(text: str, label: str) -> Markup:
    return tag("pre", tag("code", text), class_="scroll", tabindex="0", role="group", aria_label=label)


def _hash(digest: object) -> Child:
    return tag("code", str(digest), class_="hash") if digest else "–"


def _facts(report: Report) -> Markup:
    source = report.source
    licence = ", ".join(str(value) for value in source.licence.values()) or "not stated in its card"
    facts = [
        ("model", source.model),
        ("commit", source.revision),
        ("type", source.model_type),
        ("licence", licence),
        ("licence files", ", ".join(source.licence_files)),
        ("its card", source.card),
        ("fingerprint", report.origin.fingerprint),
    ]
    pairs = [join(tag("dt", name), tag("dd", value)) for name, value in facts if value]
    return tag("dl", *pairs, class_="facts")


def _versions(report: Report) -> Markup:
    known = [join(tag("dt", name), tag("dd", number)) for name, number in report.origin.versions.items() if number]
    return tag("dl", *known, class_="facts")


def left_out_lines(report: Report) -> list[str]:
    """Files and tensors of the source that are not in the slice, those with one reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in report.origin.left_out.items():
        names.setdefault(reason, []).append(name)
    return [f"{_joined(group)}: {reason}" for reason, group in names.items()]


def _joined(group: Sequence[str]) -> str:
    return ", ".join(group) if len(group) <= _SHOWN_NAMES else f"{len(group)} of them, {group[0]} to {group[-1]}"


def unmeasured_section(report: Report) -> Section | None:
    """What a reader may look for and not find, and how to measure it."""
    if not report.unmeasured:
        return None
    items = [tag("li", f"{what}: ", tag("code", how)) for what, how in report.unmeasured]
    return Section("unmeasured", "Not measured", (tag("ul", *items),))


def total_bytes(report: Report) -> str:
    """Size of all files of the slice, for people."""
    return bytes_text(sum(size for size, _ in report.origin.files.values()))
