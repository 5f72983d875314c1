"""The command line as a user meets it: help, results on stdout, and one clear message for every bad input."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys

import pytest

from langslice.cli import app as cli


def run(capsys, monkeypatch, *arguments):
    """Exit code, stdout and stderr of one command."""
    monkeypatch.setattr(sys, "argv", ["langslice", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def snapshot(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def source(zoo, tmp_path):
    """A writable copy of a tiny Llama with a tokenizer."""
    folder = tmp_path / "source"
    shutil.copytree(zoo("llama"), folder)
    return folder


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['langslice', '--help']\n"
        "from langslice.cli import app\n"
        "try: app.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'pyarrow', 'wordfreq', 'rich.progress'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("inspect", "plan", "slice", "verify", "count", "demo"):
        assert command in done.stdout


def test_reading_a_recipe_imports_nothing_heavy():
    code = (
        "import sys, langslice.recipes.main, langslice.sweeps.main\n"
        "from langslice.recipes.validation import load_recipe\n"
        "load_recipe({'model': 'mini', 'slice': {'languages': 'ko'}, 'evaluate': {'languages': 'ko'}})\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_entry_of_a_choice_is_an_option(capsys, monkeypatch):
    """The options are built from PlanOptions; they arrive as the library takes them, and what was not typed does not."""
    from langslice.options import declared
    from langslice.planning.options import PlanOptions
    from langslice.slicing import main as job

    found = []
    monkeypatch.setattr(job, "plan", lambda model, *, report, **choice: found.append(choice) or 1 / 0)
    words = {bool: [], int: ["3"], float: ["0.5"]}
    arguments, expected = [], {}
    for option in declared(PlanOptions).values():
        kind = option.kind
        scalars = [each for each in getattr(kind, "__args__", (kind,)) if each in words]
        only = scalars[0] if scalars and str not in getattr(kind, "__args__", ()) else str
        arguments += [f"--{option.called.replace('_', '-')}", *words.get(only, ["x"])]
        expected[option.called] = {bool: True, int: 3, float: 0.5}.get(only, "x")
    with pytest.raises(ZeroDivisionError):
        run(capsys, monkeypatch, "plan", "mini", "-o", "none.json", *arguments)
    with pytest.raises(ZeroDivisionError):
        run(capsys, monkeypatch, "plan", "mini", "-o", "none.json", "--text-field", "text", "-l", "ko", "-l", "en")
    plain = {name: value[0] if isinstance(value, list) else value for name, value in found[0].items()}
    assert {name: str(value) if name == "cache_dir" else value for name, value in plain.items()} == expected
    assert [name for name, value in found[0].items() if isinstance(value, list)] == [
        "corpus", "counts", "lexicon", "keep_tokens", "only_tokens", "keep_text", "extend", "extend_corpus",
        "layers", "drop_layers", "first_layers", "every_layer",
        "drop_layers_by", "drop_heads", "drop_neurons", "calibration", "prune_rows", "drop_experts", "keep_demos",
        "avoid_demos", "linears", "loss_texts", "ignore_field", "carry", "leave_out",
    ]  # fmt: skip
    assert found[1] == {"languages": "en"}


def test_an_interrupt_says_that_nothing_is_left(capsys, monkeypatch, source, tmp_path):
    from langslice.slicing import main as job

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "write_shards", interrupted)
    monkeypatch.setattr("langslice.planning.build.make_plan", lambda *_: interrupted())
    code, _, err = run(capsys, monkeypatch, "slice", source, "--scripts", "Latn", "-o", tmp_path / "out")
    assert code == 130
    assert err.strip().endswith("interrupted; nothing was left behind")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_language_id_without_languages_or_corpus_is_refused(capsys, monkeypatch, source, tmp_path):
    (tmp_path / "text.txt").write_text("the and\n")
    arguments = ("plan", source, "--scripts", "Latn", "--language-id", "-o", tmp_path / "plan.json")
    code, _, err = run(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "there is no --corpus" in err
    code, _, err = run(capsys, monkeypatch, *arguments, "--corpus", tmp_path / "text.txt")
    assert code == 2
    assert "--languages names none" in err


def test_version(capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch, "--version")
    assert code == 0
    assert out.startswith("langslice 0.")


def test_inspect_json_goes_to_stdout_alone(source, capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch, "inspect", source, "--languages", "en", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["model_type"] == "llama"
    assert found["parameters"] == sum(part["parameters"] for part in found["parts"])
    assert found["rows"] == 131
    assert found["savings"][0]["languages"] == ["en"]


def test_plan_slice_verify(source, tmp_path, capsys, monkeypatch):
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    code, shown, _ = run(capsys, monkeypatch, "plan", source, "--scripts", "Latn", "-o", plan)
    assert code == 0
    assert "of 131 vocabulary rows" in shown
    code, shown, _ = run(capsys, monkeypatch, "slice", source, "--plan", plan, "-o", out)
    assert code == 0
    assert "equal" in shown
    assert "DIFFERS" not in shown
    held_out = tmp_path / "heldout.txt"
    held_out.write_text("the land and men\n가나다\n", encoding="utf-8")
    code, shown, _ = run(capsys, monkeypatch, "verify", source, out, "--text", held_out)
    assert code == 0
    assert "heldout.txt" in shown
    code, shown, _ = run(capsys, monkeypatch, "verify", source, out, "--json")
    assert json.loads(shown)["passed"] is True


def test_verify_exits_with_1_and_examples(source, tmp_path, capsys, monkeypatch):
    from safetensors.torch import load_file, save_file

    out = tmp_path / "out"
    assert run(capsys, monkeypatch, "slice", source, "--scripts", "Latn", "-o", out)[0] == 0
    tensors = load_file(out / "model.safetensors")
    tensors["model.embed_tokens.weight"][12] += 1
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    code, shown, _ = run(capsys, monkeypatch, "verify", source, out)
    assert code == 1
    assert "DIFFERS" in shown
    assert "new row 12 is not old row" in shown


def unknown_model_type(source):
    edit_config(source, model_type="llamma")


def vocabulary_size_lies(source):
    edit_config(source, vocab_size=140)


def id_beyond_the_rows(source):
    edit_config(source, eos_token_id=4000)


def unknown_id_field(source):
    edit_config(source, wizard_token=7)


def no_config(source):
    (source / "config.json").unlink()


def config_is_no_json(source):
    (source / "config.json").write_text("{")


def no_weights(source):
    (source / "model.safetensors").unlink()


def truncated(source):
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(data[:-100])


def offsets_overlap(source):
    data = (source / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (source / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def index_leaves_the_folder(source):
    (source / "model.safetensors").rename(source.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../outside.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))


def missing_shard(source):
    (source / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))


class Boom:
    """What a malicious pickle would run."""

    def __reduce__(self):
        return (print, ("code was run",))


def pickle_with_code(source):
    import torch

    (source / "model.safetensors").unlink()
    torch.save({"model.norm.weight": torch.ones(3), "boom": Boom()}, source / "pytorch_model.bin", pickle_module=pickle)


def tokenizer_too_large(source):
    from tests.zoo import add_tokenizer

    add_tokenizer(source)
    document = json.loads((source / "tokenizer.json").read_text())
    document["model"]["vocab"] += [[f"▁extra{number}", -9.0] for number in range(40)]
    (source / "tokenizer.json").write_text(json.dumps(document))


def no_tokenizer(source):
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()


def edit_config(source, **changes):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unknown_model_type, "unknown model type `llamma`"),
        (vocabulary_size_lies, "vocab_size = 140, but the embedding has 131 rows"),
        (id_beyond_the_rows, "eos_token_id = 4000, but the model has 131 rows"),
        (unknown_id_field, "wizard_token = 7 may hold token ids, and is not understood"),
        (no_config, "config.json"),
        (config_is_no_json, "config.json"),
        (no_weights, "no weights"),
        (truncated, "model.safetensors"),
        (offsets_overlap, "model.safetensors"),
        (index_leaves_the_folder, "outside.safetensors"),
        (missing_shard, "model-00001-of-00002.safetensors"),
        (pickle_with_code, "pytorch_model.bin"),
        (tokenizer_too_large, "the tokenizer has 162 ids, the model 131 rows"),
        (no_tokenizer, "tokenizer"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_model(damage, message, source, tmp_path, capsys, monkeypatch):
    damage(source)
    before = snapshot(source)
    siblings = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = run(capsys, monkeypatch, "slice", source, "--scripts", "Latn", "-o", tmp_path / "out")
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "hint: " in err
    assert "Traceback" not in err
    assert "code was run" not in out + err
    assert snapshot(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == siblings


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--languages", "koo"], "koo", "ko"),
        (["--languages", "sw"], "no lexicon for Swahili", "--corpus"),
        (["--languages", "korean"], "korean", "ko"),
        ([], "nothing says which tokens to keep", "--languages"),
        (["--scripts", "Hangl"], "Hangl", ""),
        (["--corpus", "missing.txt"], "missing.txt", ""),
        (["--corpus", "{tmp}/empty.txt"], "empty.txt", ""),
        (["--corpus", "{tmp}/latin1.txt"], "latin1.txt", ""),
        (["--languages", "en", "--coverage", "1.5"], "coverage", ""),
        (["--languages", "en", "--max-vocab", "3"], "cannot be sliced to 3", "--max-vocab"),
        (["--languages", "en", "--counts", "{tmp}/none.parquet"], "none.parquet", ""),
        (["--plan", "{tmp}/none.json"], "no such plan", ""),
        (["--plan", "{tmp}/empty.txt", "--languages", "en"], "--languages cannot be given together with it", ""),
        (["--keep-tokens", "{tmp}/tokens.txt"], "nosuchtokenhere", ""),
        (["--languages", "en", "--pad-to-multiple-of", "0"], "pad-to-multiple-of", ""),
    ],
)
def test_bad_choice(arguments, message, hint, source, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin1.txt").write_bytes("good line\ncaf\xe9\n".encode("latin-1"))
    (tmp_path / "tokens.txt").write_text("nosuchtokenhere\n")
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    before = snapshot(source)
    siblings = sorted(path.name for path in tmp_path.iterdir())
    code, _, err = run(capsys, monkeypatch, "slice", source, *filled, "-o", tmp_path / "out")
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "hint: " in err
    assert hint in err
    assert snapshot(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == siblings


def test_bad_output(source, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    for out, message in ((tmp_path / "out", "exists"), (source / "inner", "inside"), (source, "source")):
        code, _, err = run(capsys, monkeypatch, "slice", source, "--scripts", "Latn", "-o", out)
        assert code == 2
        assert message in err
    assert list((tmp_path / "out").iterdir()) == []
    plan = tmp_path / "plan.json"
    plan.write_text("mine")
    code, _, err = run(capsys, monkeypatch, "plan", source, "--scripts", "Latn", "-o", plan)
    assert code == 2
    assert "exists already" in err
    assert plan.read_text() == "mine"


def test_a_model_that_is_not_there(tmp_path, capsys, monkeypatch):
    code, _, err = run(capsys, monkeypatch, "inspect", tmp_path / "nothing")
    assert code == 2
    assert "nothing" in err
    code, _, err = run(capsys, monkeypatch, "inspect", "some-org/some-model-that-is-not-cached")
    assert code == 2
    assert "some-org/some-model-that-is-not-cached" in err
    assert "hint: " in err


def test_quiet_prints_nothing(source, tmp_path, capsys, monkeypatch):
    code, out, err = run(capsys, monkeypatch, "slice", source, "--scripts", "Latn", "-o", tmp_path / "out", "--quiet")
    assert (code, out, err) == (0, "", "")


def test_custom_code_is_never_run(source, tmp_path, capsys, monkeypatch):
    marker = tmp_path / "was_run"
    (source / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w').write('x')\n")
    edit_config(
        source, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.EvilConfig"}
    )
    code, _, _ = run(capsys, monkeypatch, "slice", source, "--scripts", "Latn", "-o", tmp_path / "out")
    assert code in {0, 2}
    assert not marker.exists()


def test_progress_is_written_for_programs_that_watch(tmp_path):
    from typer.testing import CliRunner

    from langslice.cli.app import app

    path = tmp_path / "progress.jsonl"
    for count in (1, 2):  # a second run adds to the first
        done = CliRunner().invoke(app, ["--progress", str(path), "inspect", "mini", "-l", "ko"], catch_exceptions=False)
        assert done.exit_code == 0
        events = [json.loads(line) for line in path.read_text().splitlines()]
        assert [event["step"] for event in events] == ["reading the vocabulary", "what ko would save"] * count
        assert all(set(event) == {"time", "step", "done", "total"} for event in events)
