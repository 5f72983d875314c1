"""What a person sees: progress, tables and summaries. Tables go to stdout, progress to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from langslice.formatting import bytes_text, count_text, stdout_console
from langslice.planning.plan import kept_text
from langslice.planning.summary import reason_counts
from langslice.verification.check import LEFT_FOR_LATER
from langslice.writing.shards import WriteReport

if TYPE_CHECKING:
    from langslice.counting import TokenCounts
    from langslice.planning.plan import SlicePlan
    from langslice.slicing.demo import Demo
    from langslice.slicing.inspect import Inspection
    from langslice.slicing.result import SliceResult
    from langslice.verification.main import Verification

_SHOWN_NAMES = 4  # of what is left out for one reason; a layer's tensors are summed up
_NEXT = (
    "\nThe slice scores kept tokens as the original does, and shares their probability among fewer; a dropped language\n"
    "still round-trips, in smaller pieces. Now a model of your own:\n\n"
    "  langslice inspect MODEL                               a folder, or a hub id such as intfloat/multilingual-e5-small\n"
    "  langslice slice MODEL --languages ko,en -o OUT        plan, slice, verify\n"
    "  langslice plan MODEL --languages ko,en --corpus my.jsonl --coverage 0.9999 -o plan.json\n"
)
_VERDICTS = {True: "[green]equal[/]", False: "[red]DIFFERS[/]", None: "[yellow]not checked[/]"}


@contextmanager
def live_progress() -> Iterator[Callable[[str, int, int], None]]:
    """One line on stderr: the step, a bar in bytes with time left while shards are written."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def report(step: str, done: int, total: int) -> None:
            progress.update(task, description=escape(step), completed=done, total=total or None)

        yield report


def print_inspection(found: Inspection) -> None:
    """Parts, vocabulary and savings of a model."""
    console = stdout_console()
    name = ", ".join(found.architectures) or found.model_type
    console.print(
        f"[bold]{escape(found.model)}[/]  {name}, {count_text(found.parameters)} parameters, {bytes_text(found.size_bytes)}"
    )
    parts = Table(
        "part", *_right("tensors", "parameters", "share", "bytes"), box=None, title="By part", title_justify="left"
    )
    for part in found.parts:
        share = part.parameters / max(found.parameters, 1)
        parts.add_row(
            part.name, f"{part.tensors:,}", f"{part.parameters:,}", f"{share:.1%}", bytes_text(part.size_bytes)
        )
    console.print(parts)
    beyond = f", {found.rows - found.tokens} rows without a token" if found.rows > found.tokens else ""
    console.print(f"\n[bold]Vocabulary[/]: {found.tokens:,} tokens ({found.tokenizer}){beyond}")
    table = Table("script or kind", *_right("tokens", "share"), box=None)
    shown = list(found.scripts.items())[:14]
    rest = sum(found.scripts.values()) - sum(number for _, number in shown)
    for label, number in [*shown, *([(f"{len(found.scripts) - len(shown)} others", rest)] if rest else [])]:
        table.add_row(label, f"{number:,}", f"{number / max(found.tokens, 1):.1%}")
    console.print(table)
    savings = Table(
        "keep",
        *_right("tokens", "parameters", "bytes", "saved"),
        box=None,
        title="What keeping languages saves",
        title_justify="left",
    )
    for saving in found.savings:
        saved = 1 - saving.size_bytes / max(found.size_bytes, 1)
        savings.add_row(
            ",".join(saving.languages),
            f"{saving.rows:,}",
            count_text(saving.parameters),
            bytes_text(saving.size_bytes),
            f"{saved:.1%}",
        )
    if found.savings:
        console.print()
        console.print(savings)
    units = Table(
        "one", "of", *_right("number", "parameters", "bytes", "FLOPs per token"), box=None,
        title="What removing one saves", title_justify="left",
    )  # fmt: skip
    for unit in found.units:
        units.add_row(
            unit.name,
            unit.place,
            f"{unit.count:,}",
            f"{unit.parameters:,}",
            bytes_text(unit.size_bytes),
            f"{unit.flops:,}",
        )
    if found.units:
        console.print()
        console.print(units)
    _print_left_out(console, found.left_out, found.notes)


def print_plan(plan: SlicePlan, path: Path) -> None:
    """What a plan keeps, and where it was written."""
    console = stdout_console()
    console.print(f"[bold]{escape(str(path))}[/]: keeps {kept_text(plan)}")
    if not plan.keeps_vocabulary:
        _print_reasons(console, plan)
    _print_left_out(console, {}, plan.notes)
    console.print(f"Next: langslice slice {escape(plan.model)} --plan {escape(str(path))} -o OUT", highlight=False)


def print_result(result: SliceResult) -> None:
    """Before and after of a slice, its verification, and what was left out."""
    console = stdout_console()
    plan = result.plan
    console.print(f"[bold]{escape(str(result.out))}[/]: keeps {kept_text(plan)}")
    if not plan.keeps_vocabulary:
        _print_reasons(console, plan)
    table = Table("part", *_right("parameters before", "after", "change"), box=None)
    for part, (before, after) in sorted(result.parameters.items(), key=lambda item: -item[1][0]):
        change = after / before - 1 if before else 0.0
        table.add_row(part, f"{before:,}", f"{after:,}", f"{change:+.1%}" if change else "same")
    total = [sum(pair[at] for pair in result.parameters.values()) for at in range(2)]
    table.add_row("[bold]all[/]", f"{total[0]:,}", f"{total[1]:,}", f"{total[1] / max(total[0], 1) - 1:+.1%}")
    console.print(table)
    console.print(f"Weights: {bytes_text(result.written.size_bytes)} ({_methods(result.written)})", highlight=False)
    if result.verification is not None:
        print_verification(result.verification)
        if any(check.detail == LEFT_FOR_LATER for check in result.verification.checks):
            console.print(
                "[yellow]verified in part[/] (--verify-level quick); run `langslice verify` before you ship it"
            )
    else:
        console.print("[yellow]not verified[/] (--no-verify); run `langslice verify` before you ship it")
    _print_left_out(console, result.left_out, result.notes)


def print_verification(verification: Verification) -> None:
    """Every check with its verdict, the texts, and the first ten differences."""
    console = stdout_console()
    table = Table("check", "source and slice", "what was compared", box=None)
    for check in verification.checks:
        table.add_row(check.name, _VERDICTS[check.passed], escape(check.detail))
    console.print(table)
    texts = Table("text", *_right("units", "tokens", "kept", "growth", "unknown", "identical", "differing"), box=None)
    for text in verification.texts:
        unknown = f"{text.unknown_before:,} → {text.unknown_after:,}"
        texts.add_row(
            escape(text.name), f"{text.units:,}", f"{text.tokens_before:,}", f"{text.covered:.3%}", f"×{text.growth:.3f}",
            unknown, f"{text.identical:,}", f"{text.differing:,}",
        )  # fmt: skip
    if verification.texts:
        console.print(texts)
    for check in verification.checks:
        for example in check.examples:
            console.print(f"  [red]{check.name}[/]: {escape(example)}", highlight=False)


def print_warnings(verification: Verification | None) -> None:
    """What a user must know before using a slice that passed, on stderr; also where tables are not asked for."""
    from rich.console import Console

    for check in () if verification is None else verification.checks:
        if check.warning:
            Console(stderr=True).print(f"[bold yellow]WARNING[/] {escape(check.warning)}", highlight=False)


def print_counts(counts: TokenCounts, path: Path) -> None:
    """How much was counted."""
    used = int((counts.counts > 0).sum())
    console = stdout_console()
    console.print(
        f"[bold]{escape(str(path))}[/]: {int(counts.counts.sum()):,} tokens in {counts.units:,} texts "
        f"({bytes_text(counts.size_bytes)}), {used:,} of {len(counts.counts):,} types occur"
    )
    if counts.note:
        console.print(f"note: {escape(counts.note)}")


def _print_reasons(console: Console, plan: SlicePlan) -> None:
    """How many tokens each kind of reason keeps; a token may have several."""
    listed = list(reason_counts(plan.reasons).items())[:12]
    console.print("  kept for: " + ", ".join(f"{escape(kind)} {number:,}" for kind, number in listed), highlight=False)


def _print_left_out(console: Console, left_out: Mapping[str, str], notes: tuple[str, ...]) -> None:
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    for reason, group in names.items():
        shown = ", ".join(group) if len(group) <= _SHOWN_NAMES else f"{len(group)} tensors, {group[0]} to {group[-1]}"
        console.print(f"left out: {escape(shown)} ({escape(reason)})", highlight=False)
    for note in notes:
        console.print(f"note: {escape(note)}", highlight=False)


def _methods(written: WriteReport) -> str:
    used = {method: size for method, size in written.bytes_by_method.items() if size}
    return ", ".join(f"{bytes_text(size)} by {method}" for method, size in used.items()) or "nothing"


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def print_demo(demo: Demo) -> None:
    """Before and after of the packaged model, by size, speed and language."""
    console = stdout_console()
    before, after = (sum(sizes) for sizes in zip(*demo.result.parameters.values(), strict=True))
    rows = [
        ("parameters", before, after, count_text),
        ("bytes on disk", demo.disk["before"], demo.disk["after"], bytes_text),
        (
            "memory to load and run (float32)",
            demo.speed["before"].memory_bytes,
            demo.speed["after"].memory_bytes,
            bytes_text,
        ),
        ("prefill, tokens per second", demo.speed["before"].prefill, demo.speed["after"].prefill, count_text),
        ("decode, tokens per second", demo.speed["before"].decode, demo.speed["after"].decode, count_text),
    ]
    table = Table("", *_right("original", "ko + en", "change"), box=None, title="Size and speed", title_justify="left")
    for name, old, new, text in rows:
        table.add_row(name, text(old), text(new), f"{new / old - 1:+.1%}" if old else "")
    console.print(table)
    console.print()
    quality = Table(
        "language", *_right("kept tokens", "original", "original, kept tokens only", "slice"), box=None,
        title="Bits per byte on held-out sentences (lower is better)", title_justify="left",
    )  # fmt: skip
    for row in demo.quality:
        restricted = f"{row.restricted.bits_per_byte:.6f}" if row.restricted else "–"
        quality.add_row(
            row.language,
            f"{row.covered:.2%}",
            f"{row.before.bits_per_byte:.4f}",
            restricted,
            f"{row.after.bits_per_byte:.6f}",
        )
    console.print(quality)
    console.print()
    _print_further(console, demo)
    if demo.report is not None:
        console.print(f"\nThe whole report: {escape(str(demo.report))}", highlight=False)
    spent = ", ".join(f"{what} {seconds:.1f}" for what, seconds in demo.seconds.items())
    console.print(f"\nSeconds: {spent}", highlight=False)
    console.print(_NEXT, highlight=False)


def _print_further(console: Console, demo: Demo) -> None:
    """What else can be sliced, in addition to the vocabulary."""
    after = sum(size for _, size in demo.result.parameters.values())
    further = Table(
        "the slice, and besides", *_right("parameters", "bytes", *demo.further[0].bits_per_byte), box=None,
        title="What else can be sliced (bits per byte)", title_justify="left",
    )  # fmt: skip
    plain = {row.language: row.after.bits_per_byte for row in demo.quality}
    for name, parameters, size_bytes, bits in [
        (
            "nothing",
            after,
            demo.disk["after"],
            {language: plain[language] for language in demo.further[0].bits_per_byte},
        ),
        *((cut.name, cut.parameters, cut.size_bytes, cut.bits_per_byte) for cut in demo.further),
    ]:
        values = [f"{value:.4f}" for value in bits.values()]
        further.add_row(name, count_text(parameters), bytes_text(size_bytes), *values)
    console.print(further)
