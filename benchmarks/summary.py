"""One table of what the result pages claim: figures, against what, peak memory, machine, date, page.

    python benchmarks/summary.py            writes results/README.md
    python benchmarks/summary.py --check    says whether it is up to date, and exits 1 where it is not

Nothing is measured here and no figure is in this file: each is read from a cell of a page in results/, named by its
section, its row and its column; a page that no longer has the cell is an error. `run_all.py` ends with it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SUMMARY = RESULTS / "README.md"
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Cell:
    """Where a figure is.

    row      the row's first cells; a row may begin with several equal ones, of which the largest figure counts
    column   how the column's head begins
    says     the figure in words; {} is the number
    section  how the heading above the table begins; empty for the whole page
    total    add the column up over all rows
    place    which of the rows that begin so, where they are different things; None for all
    """

    row: tuple[str, ...]
    column: str
    says: str
    section: str = ""
    total: bool = False
    place: int | None = None


@dataclass(frozen=True)
class Claim:
    """A row of the summary; `memory` is the peak of the whole process."""

    what: str
    against: str
    page: str
    figures: tuple[Cell, ...]
    memory: tuple[Cell, ...] = ()


def _peaks(ours: tuple[str, ...], theirs: tuple[str, ...], column: str, section: str = "") -> tuple[Cell, ...]:
    """Peak memory in MB on both sides."""
    return (Cell(ours, column, "{} MB", section), Cell(theirs, column, "against {} MB", section))


_CP = "`cp -r --reflink=never`"
_WHOLE, _DRIVER, _XFS = "The whole command on ext4", "ext4, 16 GB", "Loop-mounted XFS"
_RATIO = "ratio to `cp -r`"
_TRIMBED = ("", "langslice / trimbed")  # of counting, of the rewrite, of rewrite and verification
# Before the headings of whole_command.md, under which is what was measured beside.
_FIRST = "# Whole commands"
# Commands of whole_command.md that another tool does too.
_COMMANDS = (
    ("`slice multilingual-e5-small -l ko,en`", "trimbed"),
    ("`slice xlm-roberta-base -l ko,en` (random weights)", "trimbed"),
    ("tokenizer of Qwen2 alone, `-l en --no-verify`", "prunetokens"),
    ("`slice gemma-3-270m --neurons-sparsity 0.2 --uniform --no-verify`", "optipfair"),
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "covered lines of real text that a sliced tokenizer encodes otherwise, all tokenizers and language pairs",
        "the whole tokenizer", "exactness",
        (Cell((), "**covered but different", "{} different", total=True), Cell((), "covered", "{} covered lines", total=True)),
    ),
    Claim(
        "the whole `slice` command, 16 GB (Qwen3-8B shapes), ext4, cold cache", "`cp -r` of the output", "rewrite",
        (Cell(("rewrite, copying",), _RATIO, "{} of the time", _WHOLE),),
        _peaks(("rewrite, copying",), (_CP,), "peak memory", _WHOLE),
    ),
    Claim(
        "the same with `--link`", "`cp -r` of the output", "rewrite",
        (Cell(("rewrite, `--link`",), _RATIO, "{} of the time", _WHOLE),),
        _peaks(("rewrite, `--link`",), (_CP,), "peak memory", _WHOLE),
    ),
    Claim(
        "rewrite of the weights alone, 16 GB, ext4, cold cache", "`cp -r` of the output", "rewrite",
        (Cell(("rewrite, copying",), _RATIO, "{} of the time", _DRIVER),
         Cell(("rewrite, `--link`",), _RATIO, "with `--link` {}", _DRIVER)),
        _peaks(("rewrite, copying",), (_CP,), "peak memory", _DRIVER),
    ),
    Claim(
        "rewrite of the weights alone, 16 GB, XFS, sharing blocks", "`cp -r --reflink=never`", "rewrite",
        (Cell(("rewrite, sharing blocks",), _RATIO, "{} of the time", _XFS),),
        _peaks(("rewrite, sharing blocks",), (_CP,), "peak memory", _XFS),
    ),
    Claim(
        "half of the heads and a quarter of the neurons of a 0.39 B Llama", "Torch-Pruning 1.6.1", "structure",
        (Cell(("heads and neurons", "langslice"), "CPU against", "{} of the CPU time"),
         Cell(("heads and neurons", "langslice"), "memory against", "{} of the memory")),
        _peaks(("heads and neurons", "langslice"), ("heads and neurons", "torch_pruning"), "peak memory"),
    ),
    Claim(
        "four layers of the same", "mergekit 0.1.5", "structure",
        (Cell(("layers", "langslice"), "CPU against", "{} of the CPU time"),
         Cell(("layers", "langslice"), "memory against", "{} of the memory")),
        _peaks(("layers", "langslice"), ("layers", "mergekit"), "peak memory"),
    ),
    Claim(
        "rewrite of XLM-R-base, tokenizer files included", "trimbed 0.0.4", "against_trimbed",
        (Cell(_TRIMBED, "wall", "{} of the time", place=1),
         Cell(_TRIMBED, "peak memory", "{} of the memory", place=1)),
        _peaks(("rewrite, without verification", "langslice"), ("rewrite, without verification", "trimbed"), "peak memory"),
    ),
    Claim(
        "counting 6 MB for the same model, start included", "trimbed 0.0.4", "against_trimbed",
        (Cell(_TRIMBED, "wall", "{} of the time", place=0),
         Cell(_TRIMBED, "peak memory", "{} of the memory", place=0)),
        _peaks(("counting", "langslice"), ("counting", "trimbed"), "peak memory"),
    ),
    Claim(
        "rewrite and verification of the same model", "trimbed 0.0.4", "against_trimbed",
        (Cell(_TRIMBED, "wall", "{} of the time", place=2),
         Cell(_TRIMBED, "peak memory", "{} of the memory", place=2)),
        _peaks(("rewrite and verification", "langslice"), ("rewrite and verification", "trimbed"), "peak memory"),
    ),
    Claim(
        "counting 100 MB without a repeated line", "`encode_batch_fast` of every line, same counts", "counting",
        (Cell(("unique-100", "o200k-base"), "CPU ratio", "{} times less CPU time"),),
        (Cell(("unique-100", "o200k-base"), "chunks, peak", "{} MB"),
         Cell(("unique-100", "o200k-base"), "full, peak", "against {} MB")),
    ),
    Claim(
        "counting 500 MB of pages and sources, 63% of it repeated", "`encode_batch_fast` of every line, same counts",
        "counting",
        (Cell(("natural-500", "o200k-base"), "CPU ratio", "{} times less CPU time (o200k-base)"),
         Cell(("natural-500", "xlm-roberta"), "CPU ratio", "{} (XLM-R)")),
        (Cell(("natural-500", "o200k-base"), "chunks, peak", "{} MB"),
         Cell(("natural-500", "o200k-base"), "full, peak", "against {} MB")),
    ),
    Claim(
        "XLM-R-base kept for Korean and English: checked against the source", "the source", "families",
        (Cell(("xlm-roberta-base",), "rows", "{} tokens"), Cell(("xlm-roberta-base",), "kept", "{} kept"),
         Cell(("xlm-roberta-base",), "checks", "{} of 6 checks equal")),
        (Cell(("xlm-roberta-base",), "rewrite peak", "{} MB, of the rewrite"),),
    ),
    Claim(
        "Wanda at 0.3, BLOOM-560M shapes, 16 × 256 tokens", "the Wanda core, written again from the paper", "sparsity",
        (Cell(("- langslice:",), "", "{} of the CPU time"),),
        _peaks(("langslice",), ("reference",), "peak MB"),
    ),
    Claim(
        "the same with `compute=\"bfloat16\"`", "the Wanda core, written again from the paper", "sparsity",
        (Cell(("- langslice-bfloat16:",), "", "{} of the CPU time"),),
        _peaks(("langslice-bfloat16",), ("reference",), "peak MB"),
    ),
    Claim(
        "Wanda at 0.3 on Qwen3-8B shapes (16.4 GB), 4 demonstrations of 64 tokens", "–", "sparsity_memory",
        (Cell((), "CPU s", "{} CPU seconds"),), (Cell((), "peak MB", "{} MB"),),
    ),
    Claim(
        "label scores of 300 examples of XNLI, Korean", "one pass for each filled prompt", "label_scores",
        (Cell(("model", "xnli ko"), "ratio", "{} times less CPU time"),),
    ),
    Claim(
        "langslice-mini without a third of its layers, 200 steps: loss on packaged lines, Korean and English",
        "the original", "healing",
        (Cell(("cut",), "mean", "{} cut", "Packaged lines"), Cell(("healed",), "mean", "{} healed", "Packaged lines"),
         Cell(("distilled",), "mean", "{} distilled", "Packaged lines"),
         Cell(("original",), "mean", "{} of the original", "Packaged lines")),
    ),
    Claim(
        "training every weight of a 494 M model's ko+en slice", "the whole model", "training_memory",
        (Cell(("every weight", "slice"), "memory against", "{} of the memory"),
         Cell(("every weight", "slice"), "CPU against", "{} of the CPU time")),
        (Cell(("every weight", "slice"), "peak memory, GB", "{} GB"),
         Cell(("every weight", "whole"), "peak memory, GB", "against {} GB")),
    ),
    Claim(
        "LoRA of rank 16 on the same", "the whole model", "training_memory",
        (Cell(("LoRA of rank 16", "slice"), "memory against", "{} of the memory"),
         Cell(("LoRA of rank 16", "slice"), "CPU against", "{} of the CPU time")),
        (Cell(("LoRA of rank 16", "slice"), "peak memory, GB", "{} GB"),
         Cell(("LoRA of rank 16", "whole"), "peak memory, GB", "against {} GB")),
    ),
    Claim(
        "`kill -9` at random moments of slice, prune and count", "the undisturbed run", "stress_kill",
        (Cell((), "kills", "{} kills", total=True), Cell((), "faults", "{} half outputs or touched sources", total=True)),
    ),
    Claim(
        "files made wrong at random", "a good end or a clean error", "fuzzing",
        (Cell((), "inputs", "{} inputs", total=True), Cell((), "faults", "faults: {}", total=True)),
    ),
    *(
        Claim(
            f"{command}, whole process", rival, "whole_command",
            (Cell((command, "after"), "processor", "{} CPU seconds", _FIRST),
             Cell((command, rival), "processor", "against {}", _FIRST)),
            _peaks((command, "after"), (command, rival), "peak MB", _FIRST),
        )
        for command, rival in _COMMANDS
    ),
    Claim(
        "`langslice --help`, whole process", "`python -c pass`", "start",
        (Cell(("langslice --help",), "CPU", "{} CPU seconds"), Cell(("python -c pass",), "CPU", "against {}"),
         Cell(("langslice --help",), "wall", "{} s of the clock")),
        _peaks(("langslice --help",), ("python -c pass",), "peak MB"),
    ),
)  # fmt: skip


def read_cell(text: str, cell: Cell) -> str:
    """The number in a cell of a page, as it is there; a sum for `total`.

    Raises  LookupError for no such number
    """
    if cell.row and cell.row[0].startswith("- "):
        found = [line.removeprefix(cell.row[0]) for line in text.splitlines() if line.startswith(cell.row[0])]
    else:
        found = _cells(_section(text, cell.section), cell.row, cell.column)
    if cell.place is not None:
        found = found[cell.place : cell.place + 1]
    numbers = [match.group().replace(",", "") for match in map(_NUMBER.search, found) if match]
    if not numbers:
        raise LookupError(f"no number in row {cell.row}, column {cell.column!r}, section {cell.section!r}")
    if cell.total:
        return f"{sum(map(int, numbers)):,}"
    number = max(numbers, key=float)
    return f"{int(number):,}" if number.isdigit() else number


def _section(text: str, heading: str) -> str:
    """The last section of that heading: what is measured again is put after what was measured before."""
    parts = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(heading)]
    return parts[-1] if heading and parts else "" if heading else text


def _cells(text: str, row: tuple[str, ...], column: str) -> list[str]:
    """Cells of a column in the rows that begin so; rows without a head of their own go on with the head above."""
    found: list[str] = []
    head: list[str] = []
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for number, line in enumerate(lines):
        cells = [one.strip() for one in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if re.fullmatch(r"[|:\- ]+", line):
            continue
        if (
            re.fullmatch(r"[|:\- ]+", lines[number + 1] if number + 1 < len(lines) else "")
            and lines[number + 1][1:2] != " "
        ):
            head = cells
            continue
        places = [place for place, one in enumerate(head) if one == column] or [
            place for place, one in enumerate(head) if one.startswith(column)
        ]
        if cells[: len(row)] == list(row) and places and places[0] < len(cells):
            found.append(cells[places[0]])
    return found


def machine(text: str) -> str:
    """What a page says of the machine: cores, load, Python, torch; a dash where it says nothing."""
    patterns = (
        r"\d+ (?:shared )?cores(?: \(x86_64\))?",
        r"load (?:average )?[\d.]*\d(?: to [\d.]*\d)?",
        r"Python 3[\d.]*\d",
        r"torch [\d.]*\d",
    )
    found = [match.group() for match in (re.search(pattern, text) for pattern in patterns) if match]
    return ", ".join(found) or "–"


def date(text: str) -> str:
    """The last date that a page names; a dash where it names none."""
    return max(re.findall(r"\b20\d\d-\d\d-\d\d\b", text), default="–")


def rows() -> list[list[str]]:
    """The summary's cells.

    Raises  LookupError naming the page, where a figure is no longer on it
    """
    made = []
    for claim in CLAIMS:
        text = (RESULTS / f"{claim.page}.md").read_text(encoding="utf-8")
        try:
            said = ["; ".join(cell.says.format(read_cell(text, cell)) for cell in part)
                    for part in (claim.figures, claim.memory)]  # fmt: skip
        except LookupError as error:
            raise LookupError(f"results/{claim.page}.md: {error}; mend the page or benchmarks/summary.py") from error
        page = f"[{claim.page}]({claim.page}.md)"
        # A section that was measured by itself names its own machine.
        own = machine(_section(text, claim.figures[0].section))
        ran = own if own != "–" else machine(text)
        made.append([claim.what, said[0], claim.against, said[1] or "–", ran, date(text), page])
    return made


def summary() -> str:
    """The page."""
    head = ("claim", "measured", "against", "peak memory", "machine", "date", "page")
    lines = [
        "# Summary",
        "",
        "Written by `benchmarks/summary.py` from the pages next to it; not to be edited. Peak memory is that of the",
        "whole process. A dash: the page does not say. What else was measured is in "
        + ", ".join(f"[{path.stem}]({path.name})" for path in others()) + ".",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in rows()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def others() -> list[Path]:
    """Pages that no claim cites."""
    cited = {claim.page for claim in CLAIMS} | {SUMMARY.stem}
    return sorted(path for path in RESULTS.glob("*.md") if path.stem not in cited)


def main() -> int:
    """Write, or check."""
    text = summary()
    if sys.argv[1:] == ["--check"]:
        same = SUMMARY.is_file() and SUMMARY.read_text(encoding="utf-8") == text
        print("up to date" if same else f"{SUMMARY} is not what its pages say: run python benchmarks/summary.py")
        return 0 if same else 1
    SUMMARY.write_text(text, encoding="utf-8")
    print(f"{SUMMARY}: {len(CLAIMS)} claims")
    return 0


if __name__ == "__main__":
    sys.exit(main())
