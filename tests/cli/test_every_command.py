"""Each command once, as it is typed: no command is missing here, and each leaves what it promises."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from langslice.cli.app import app
from langslice.evaluation import speed
from langslice.mini import heldout_text

pytestmark = pytest.mark.usefixtures("one_thread")
SLICE = "slice MODEL -l ko,en --drop-layers 1 -o cut"
RECIPE = """\
model: MODEL
slice: {languages: "ko,en"}
evaluate: {tasks: perplexity, languages: en, limit: 4}
heal: {corpus: en.txt, steps: 2, batch_size: 2, seq_length: 32}
restore: true
report: true
"""
GRID = """\
model: MODEL
sparsify: {sparsity: 0.3, weights_by: [magnitude, random], seed: 0}
evaluate: {tasks: perplexity, languages: en, limit: 4}
"""
HEAL = "--corpus en.txt --steps 2 --batch-size 2 --seq-length 32"
DEMONSTRATIONS = "demonstrations --corpus en.txt -l en --shots 2 --count 4 -o demos.jsonl"
# The commands that each needs first, its own last; and the file that it leaves.
COMMANDS = {
    "adapter": ([SLICE, f"heal cut {HEAL} --lora 2 --keep-adapter -o lora", "adapter lora --plan cut/slice.json -o original"],
                "original/adapter_model.safetensors"),
    "count": (["count MODEL --corpus ko.txt --processes 1 -o counts.parquet"], "counts.parquet"),
    "demo": (["demo -o demo"], "demo/slice.json"),
    "demonstrations": ([DEMONSTRATIONS], "demos.jsonl"),
    "evaluate": ([SLICE, "evaluate MODEL cut --tasks perplexity,speed -l en -n 4 --rounds 1 --device cpu -o results.json"],
                 "results.json"),
    "export": ([SLICE, "export cut --to gguf --pre qwen35 --precision q8_0 -o gguf"], "gguf/Modelfile"),
    "features": ([DEMONSTRATIONS, "features MODEL --demos demos.jsonl -o features"], "features"),
    "heal": ([SLICE, f"heal cut {HEAL} --teacher MODEL -o healed"], "healed/healing.parquet"),
    "init": (["init MODEL -l ko,en -o drafted.yaml"], "drafted.yaml"),
    "fit": (["fit MODEL -l ko,en --size 7MB --axes layers --loss-lines 4 --checks 1 -o fitted"], "fitted/slice/slice.json"),
    "inspect": (["inspect MODEL -l ko,en"], None),
    "mask": (["mask MODEL --drop-heads 0:0 -o masked"], "masked/model.safetensors"),
    "plan": (["plan MODEL -l ko,en -o plan.json"], "plan.json"),
    "push": ([SLICE, "push cut org/name --dry-run"], None),
    "report": ([SLICE, "report cut -o report.html"], "report.html"),
    "reproduce": (["reproduce kimkim2026 --model tiny --data . --limit 1 --new-tokens 4 --rounds 1 -o paper"], "paper"),
    "restore": ([SLICE, "restore cut --base MODEL -o full"], "full/restore.json"),
    "run": (["run recipe.yaml -o work"], "work/report.html"),
    "score": (["score MODEL heads --method gradient --calibration en=en.txt -o heads.parquet"], "heads.png"),
    "slice": ([DEMONSTRATIONS, "slice MODEL -l ko,en --sparsity 0.3 --keep-demos demos.jsonl -o pruned"], "pruned/slice.json"),
    "studio": (["studio MODEL --port 0"], "langslice-studio/jobs"),
    "sweep": (["sweep grid.yaml -o grid"], "grid"),
    "tradeoff": (["tradeoff MODEL -l ko,en --sizes 3000 --loss-lines 4 -o cost.json"], "cost.svg"),
    "verify": ([SLICE, "verify MODEL cut --text ko.txt"], None),
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch, zoo):
    """A folder with text, recipes and a random model, which the commands run in."""
    (tmp_path / "parallel").mkdir()
    for code in ("ko", "en", "zh"):
        lines = heldout_text(code)[:20]
        (tmp_path / f"{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (tmp_path / f"parallel/{code}.txt").write_text("\n".join(line[:20] for line in lines) + "\n", encoding="utf-8")
    (tmp_path / "tiny").symlink_to(zoo("llama"))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("MODEL", "mini"))
    (tmp_path / "grid.yaml").write_text(GRID.replace("MODEL", "mini"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def one_speed_server():
    """The process whose forks measure speed, kept from one command to the next: to load its libraries takes longest."""
    with speed._server() as measured, pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "_server", lambda: nullcontext(measured))
        yield


def test_no_command_is_missing():
    assert sorted(COMMANDS) == sorted(info.name or info.callback.__name__ for info in app.registered_commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_command(name, here, request, monkeypatch):
    if name in ("demo", "evaluate"):
        request.getfixturevalue("one_speed_server")
    if name == "studio":  # which serves until it is stopped
        monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    typed, made = COMMANDS[name]
    before = {path.name for path in here.iterdir()}
    for line in typed:
        done = CliRunner().invoke(app, line.replace("MODEL", "mini").split(), catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"
    assert typed[-1].split()[0] == name
    assert done.output.strip()
    if name == "demo":
        assert "\nSeconds: loading torch and transformers " in done.output
    if made is not None:
        assert made.split("/")[0] not in before
        assert (here / made).exists(), sorted(path.name for path in here.iterdir())
