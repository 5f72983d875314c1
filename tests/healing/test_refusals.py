"""What healing refuses, as a user meets it: one message, a hint, exit code 2, and nothing written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import langslice
from langslice.cli import app as cli
from langslice.errors import HealError
from langslice.healing import HealOptions
from langslice.healing.options import check_settings, settings_from
from langslice.mini import heldout_text, mini_model_path


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    out = tmp_path_factory.mktemp("cut") / "cut"
    langslice.slice(
        mini_model_path(), out, languages="ko,en", drop_layers="2-4", sparsity=0.2, weights_by="magnitude", verify=False
    )
    return out


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n".join(heldout_text("en")[:20]), encoding="utf-8")
    return file


def run(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["langslice", "heal", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


@pytest.mark.usefixtures("one_thread")
def test_a_user_heals(cut, text, tmp_path, capsys, monkeypatch):
    arguments = (cut, "--corpus", text, "--steps", 2, "--batch-size", 2, "--seq-length", 32, "-o", tmp_path / "out")
    code, out, err = run(capsys, monkeypatch, *arguments)
    assert (code, err) == (0, "")
    assert "2 steps in" in out
    assert "held-out text" in out
    assert "zeros: 265,410 in 21 pruned tensors, as many and the same as before" in out
    assert "curves: healing.parquet, healing.png" in out
    code, _, err = run(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "the output exists" in err
    code, out, _ = run(capsys, monkeypatch, *arguments, "--overwrite", "--quiet", "--train", "norms")
    assert (code, out) == (0, "")
    assert json.loads((tmp_path / "out/slice.json").read_text())["healed"]["settings"]["train"] == ["norms"]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ((), "there is no text to heal on", "add --corpus ko.jsonl"),
        (("--corpus", "TEXT", "--steps", "0"), "--steps must be a whole number at least 1, found 0", ""),
        (("--corpus", "TEXT", "--train", "norms,*.nothing"), "--train *.nothing matches none of the model's", "words are all"),
        (("--corpus", "TEXT", "--train", "norms,!norms"), "leaves nothing to train", "begins with !"),
        (("--corpus", "TEXT", "--lora", "4", "--lora-targets", "*.nothing"), "--lora-targets *.nothing matches no", "are like"),
        (("--corpus", "TEXT", "--lora-targets", "*.q_proj"), "--lora-targets has no effect without --lora", "add --lora 16"),
        (("--corpus", "TEXT", "--lora", "4", "--keep-adapter"), "--keep-adapter: 21 layers are pruned", "merged, it is masked"),
        (("--corpus", "TEXT", "--temperature", "2"), "--temperature has no effect without a teacher", "--teacher MODEL"),
        (("--corpus", "TEXT", "--teacher", "TEXT"), "is a file", "name the folder instead"),
        (("--corpus", "TEXT", "--teacher", "MINI", "--teacher-cache", "C", "--hidden", "1"), "--hidden needs the teacher's", ""),
        (("--corpus", "TEXT", "--objective", "masked"), "--objective masked does not fit LlamaForCausalLM", "by `causal`"),
        (("--corpus", "TEXT", "--objective", "mse"), "has no modules.json", "sentence-transformers folders"),
        (("--corpus", "TEXT", "--objective", "next"), "--objective must be one of auto, causal", "contrastive, mse"),
        (("--corpus", "TEXT", "--seq-length", "4096"), "--seq-length is 4096, the model reads 512 tokens", "pass --seq-length 512"),
        (("--corpus", "NOTHING"), "no such file or folder", ""),
        (("--corpus", "EMPTY"), "holds no text", ""),
        (("--corpus", "BLANK"), "the corpus tokenises to nothing", "is it empty"),
        (("--corpus", "TEXT", "--parallel", "TEXT"), "--parallel is for sentence embedding models", ""),
    ],
)  # fmt: skip
def test_bad_input(cut, text, tmp_path, capsys, monkeypatch, arguments, message, hint):
    (tmp_path / "empty.txt").write_text("\n\n")
    blank = tmp_path / "blank.txt"
    blank.write_text("​\n" if "BLANK" in arguments else "x\n", encoding="utf-8")
    if "BLANK" in arguments:
        from langslice.healing import sequences as rows

        monkeypatch.setattr(rows, "_encode", lambda *_: ([], None))
    names = {"TEXT": text, "NOTHING": tmp_path / "nothing.txt", "EMPTY": tmp_path / "empty.txt", "BLANK": blank,
             "MINI": mini_model_path(), "C": tmp_path / "cache"}  # fmt: skip
    before = {path: path.read_bytes() for path in cut.iterdir()}
    given = [names.get(argument, argument) for argument in arguments]
    code, out, err = run(capsys, monkeypatch, cut, *given, "-o", tmp_path / "out")
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert hint in err
    assert len([line for line in err.splitlines() if line.startswith("hint: ")]) <= 1
    assert {path: path.read_bytes() for path in cut.iterdir()} == before
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.healing").exists()


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("m2m_100", "`m2m_100` models read a language token with every text"),
        ("whisper", "speech models are not healed on text"),
        ("t5", "the tokenizer has 0 sentinels"),
        ("xlm-roberta", "the tokenizer has no mask token"),
    ],
)
def test_models_without_an_objective(zoo, text, tmp_path, capsys, monkeypatch, family, message):
    code, _, err = run(capsys, monkeypatch, zoo(family), "--corpus", text, "-o", tmp_path / "out")
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_lacks_a_weight(zoo, text, tmp_path, capsys, monkeypatch):
    from safetensors.numpy import load_file, save_file

    source = tmp_path / "source"
    shutil.copytree(zoo("llama"), source)
    tensors = load_file(source / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    code, _, err = run(capsys, monkeypatch, source, "--corpus", text, "--seq-length", 32, "-o", tmp_path / "out")
    assert code == 2
    assert "lacks 1 weights of its class, model.layers.1.mlp.up_proj.weight for one" in err


def test_a_corpus_of_another_script(zoo, tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_text("ᚠᚢᚦ ᚨᚱᚲ\n" * 5, encoding="utf-8")
    code, _, err = run(capsys, monkeypatch, zoo("llama"), "--corpus", tmp_path / "text.txt", "-o", tmp_path / "out")
    assert code == 2
    assert "error: the corpus tokenises to nothing: 10 of its 20 tokens are unknown" in err


@pytest.mark.usefixtures("one_thread")
def test_an_interrupt_says_what_is_kept(cut, text, tmp_path, capsys, monkeypatch):
    from langslice.healing import main as healing

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(healing, "_write", stopped)
    arguments = ("--steps", 2, "--batch-size", 2, "--seq-length", 32, "--save-every", 1)
    code, _, err = run(capsys, monkeypatch, cut, "--corpus", text, "-o", tmp_path / "out", *arguments)
    assert code == 130
    assert "interrupted; step 2 is kept in" in err
    assert "hint: the same command goes on from there" in err
    assert "nothing was left behind" not in err


@pytest.mark.usefixtures("one_thread")
def test_a_lost_loss_stops_the_run(cut, text, tmp_path, capsys, monkeypatch):
    arguments = ("--steps", 5, "--batch-size", 2, "--seq-length", 32, "--learning-rate", 1e30, "--warmup", 0)
    code, _, err = run(capsys, monkeypatch, cut, "--corpus", text, "-o", tmp_path / "out", *arguments)
    assert code == 2
    assert "error: the loss is " in err
    assert "lower --learning-rate" in err
    assert not (tmp_path / "out").exists()


def test_settings_of_a_recipe():
    assert settings_from({"corpus": ["a.txt"], "steps": 5, "train": "norms, embeddings"}).train == (
        "norms",
        "embeddings",
    )
    assert HealOptions(**settings_from({"corpus": "a.txt"}).to_json()) == HealOptions(corpus=("a.txt",))
    with pytest.raises(HealError, match="unknown setting `learning_rat`") as caught:
        settings_from({"corpus": "a.txt", "learning_rat": 1})
    assert caught.value.hint == "did you mean `learning_rate`?"
    for entry in (
        {"steps": "many"},
        {"steps": 1.5},
        {"alpha": "half"},
        {"packing": 1},
        {"teacher": 3},
        {"heldout": 0.9},
    ):
        with pytest.raises(HealError, match=f"`{next(iter(entry))}` must be"):
            settings_from({"corpus": "a.txt", **entry})
    check_settings(HealOptions(corpus=("a.txt",)))


def test_the_room_imports_nothing_heavy():
    code = (
        "import sys, langslice.healing, langslice.healing.main, langslice.healing.sentence_embeddings, langslice.healing.lora\n"
        "import langslice.cli.commands.heal\n"
        "heavy = {'torch', 'transformers', 'peft', 'sentence_transformers', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
