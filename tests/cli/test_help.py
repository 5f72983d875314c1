"""Help pages: whole summaries, options under headings, the most used first, and examples that run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from langslice.cli import app as cli
from langslice.cli.help import summary
from langslice.mini import heldout_text
from langslice.options import declared
from langslice.slicing.options import SliceOptions

COMMANDS = typer.main.get_command(cli.app).commands
RUNNER = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"})
# In an order in which each finds what it names; the others need data or a network.
EXAMPLES = ("inspect", "plan", "slice", "verify", "mask", "count", "score", "demonstrations", "features", "heal", "restore",
            "report", "push")  # fmt: skip


def page(*arguments):
    result = RUNNER.invoke(cli.app, [*arguments, "--help"], prog_name="langslice", terminal_width=80)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_a_page_fits_80_columns_and_nothing_is_cut_off(name):
    text = page(*filter(None, [name]))
    assert "…" not in text and not re.search(r"\w\.\.\.(\s|$)", text)
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("  langslice ")), text


def test_the_program_lists_every_command_with_its_whole_summary_in_one_line():
    lines = page().splitlines()
    for name, command in COMMANDS.items():
        assert len(summary(command)) <= 60, name
        assert [line for line in lines if re.fullmatch(rf"  {name} +{re.escape(summary(command))}", line)], name


def test_options_stand_under_the_headings_that_their_rooms_declare():
    sections = re.split(r"\n(?=\S[^\n]*:\n)", page("slice"))
    found = {
        text.partition(":\n")[0].strip(): re.findall(r"^  (?:-\w, )?--([a-z][\w-]*)", text, re.M) for text in sections
    }
    names = list(found)
    assert names[names.index("Most used") :][:4] == ["Most used", "Vocabulary", "Layers, heads, neurons", "Weights"]
    assert names[-5:] == ["Source", "Verification", "Output", "Run", "Example"]
    assert 8 <= len(found["Most used"]) <= 14
    for option in declared(SliceOptions).values():
        heading = "Most used" if option.entry.common else option.group
        assert option.called.replace("_", "-") in found[heading], option.called


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_it_understands(name):
    words = shlex.split(COMMANDS[name].epilog)
    assert words[:2] == ["langslice", name] and COMMANDS[name].epilog in page(name)
    context = COMMANDS[name].make_context(name, words[2:], resilient_parsing=False)
    context.close()


@pytest.mark.usefixtures("one_thread")
def test_the_examples_run_as_they_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("ko.txt").write_text("\n".join(heldout_text("ko")), encoding="utf-8")
    pairs = zip(*(heldout_text(code)[:60] for code in ("fr", "en")), strict=True)
    Path("fr-en.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in pairs), encoding="utf-8")
    for name in EXAMPLES:
        if name == "features":
            shutil.copy("fr-en.jsonl", "en.jsonl")
        monkeypatch.setattr(sys, "argv", shlex.split(COMMANDS[name].epilog))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, (name, capsys.readouterr().err)
    made = {path.name for path in Path().iterdir()}
    assert {"plan.json", "mini-ko-en", "mini-masked", "counts.parquet", "heads.parquet", "healed", "restored"} <= made


def test_help_loads_little():
    """So it comes at once on any machine; benchmarks/start.py has the seconds."""
    code = "import json, sys\nsys.argv = ['langslice', '--help']\nfrom langslice.cli import app\ntry: app.main()\n"
    code += "except SystemExit: print(json.dumps(list(sys.modules)), file=sys.stderr)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stderr)
    heavy = {"torch", "transformers", "tokenizers", "numpy", "rich", "huggingface_hub", "safetensors", "asyncio"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in loaded)
    assert len(loaded) < 300
