"""Options: declared once, read by Python, command line and recipes alike; names and values that do not fit are refused by all."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

import langslice
from langslice.cli import app as cli
from langslice.errors import CorpusError, HealError, LangsliceError, OptionError, PlanError, ScoreError, TaskError
from langslice.options import Entry, Options, build, declared, taking, typed_words
from langslice.options.values import misfit
from langslice.planning.options import PlanOptions
from langslice.planning.validate import refuse_beside_plan
from langslice.planning.weights import weights_request
from langslice.recipes.parts import parts
from langslice.recipes.validation import load_recipe
from langslice.slicing.options import SliceOptions
from langslice.wording import ENTRIES, OPTIONS, speaking, worded

OPTION_FILES = sorted(Path(langslice.__file__).parent.glob("*/options.py"))


def kinds_of_options():
    """Every dataclass of options of every room."""
    found = {}
    for path in OPTION_FILES:
        module = import_module(f"langslice.{path.parent.name}.options")
        for name, item in vars(module).items():
            if inspect.isclass(item) and issubclass(item, Options) and item is not Options:
                found[name] = item
    return found


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"sparsty": 0.5}, "unknown parameter `sparsty`", "did you mean `sparsity`?"),
        ({"drop_layer": 2}, "unknown parameter `drop_layer`", "did you mean `drop_layers`?"),
        ({"topk": 10}, "unknown parameter `topk`", "did you mean `top_k`?"),
        ({"verfy": False}, "unknown parameter `verfy`", "did you mean `verify`?"),
        ({"coverage": "0.9"}, "`coverage` must be a number from 0 to 1, found '0.9'", "keep the most frequent"),
        ({"coverage": float("nan")}, "`coverage` must be a number from 0 to 1, found nan", ""),
        ({"max_vocab": "500"}, "`max_vocab` must be a whole number at least 1, found '500'", "Maximum vocabulary"),
        ({"max_vocab": True}, "`max_vocab` must be a whole number at least 1, found True", ""),
        ({"language_id": "ko"}, "`language_id` must be true or false, found 'ko'", ""),
        ({"corpus": [["a.txt"]]}, "`corpus` must be a list of text, found ['a.txt'] in it", ""),
        (
            {"weights_by": "wander", "sparsity": 0.3},
            "`weights_by` must be one of wanda, mwanda, magnitude",
            "did you mean `wanda`?",
        ),
        ({"threads": 0}, "`threads` must be a whole number at least 1, found 0", ""),
        ({"overwrite": "no"}, "`overwrite` must be true or false, found 'no'", ""),
    ],
)
def test_slice_refuses_names_and_values_before_anything_is_done(given, message, hint, tmp_path):
    with pytest.raises(PlanError) as caught:
        langslice.slice("mini", tmp_path / "out", **{"languages": "ko", **given})
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_every_public_function_refuses_unknown_names(tmp_path):
    from langslice.demonstrations import make_demonstrations
    from langslice.evaluation.main import evaluate
    from langslice.features import find_features
    from langslice.healing import heal
    from langslice.recipes.draft import draft
    from langslice.reporting import write_report
    from langslice.reproduction.main import reproduce
    from langslice.restoration import carry_adapter, restore
    from langslice.scoring import score
    from langslice.slicing.main import mask
    from langslice.slicing.publish import push
    from langslice.sweeps.main import sweep

    out = tmp_path / "out"
    for function, arguments in (
        (langslice.inspect, ("mini",)), (langslice.plan, ("mini",)), (langslice.slice, ("mini", out)),
        (langslice.verify, ("mini", out)), (langslice.count, ("mini", "a.txt")), (mask, ("mini", out)),
        (evaluate, ("mini",)), (heal, ("mini", out)), (restore, ("mini", out)), (score, ("mini", "heads", "l2")),
        (write_report, (out,)), (sweep, ("r.yaml", out)), (push, (out, "org/name")), (find_features, ("mini", out)),
        (make_demonstrations, (out,)), (draft, ("mini", "ko")), (reproduce, ("kim2024", "mini", out)),
        (carry_adapter, ("a", out)),
    ):  # fmt: skip
        name = next(iter(declared(inspect.signature(function).parameters["options"].annotation.__args__[0])))
        with pytest.raises(LangsliceError) as caught:
            function(*arguments, **{f"{name}x": 1})
        assert caught.value.message == f"unknown parameter `{name}x`", function
        assert caught.value.hint == f"did you mean `{name}`?", function
    assert list(tmp_path.iterdir()) == []


def test_rooms_raise_their_own_errors():
    from langslice.evaluation.main import evaluate
    from langslice.healing import heal
    from langslice.scoring import ScoreSettings

    with pytest.raises(HealError, match="`steps` must be a whole number at least 1, found 0"):
        heal("mini", "out", corpus="a.txt", steps=0)
    with pytest.raises(TaskError, match="`limit` must be a whole number at least 1, found 0"):
        evaluate("mini", languages="ko", limit=0)
    with pytest.raises(ScoreError, match="`samples` must be a whole number at least 1, found 0"):
        ScoreSettings(samples=0)
    with pytest.raises(CorpusError, match="`corpus` is missing"):
        langslice.count("mini")


def test_values_of_other_libraries_and_paths_are_values():
    options = PlanOptions(layers=np.arange(3), coverage=np.float32(0.5), max_vocab=np.int64(5), lexicon=Path("a.txt"))
    assert set(options.given()) == {"layers", "coverage", "max_vocab", "lexicon"}
    assert PlanOptions(languages={"ko"}, text_field="text", drop_layers=0, even=False).given() == {
        "languages": {"ko"},
        "drop_layers": 0,
    }
    assert build(PlanOptions, {"languages": "ko", "coverage": None}) == PlanOptions(languages="ko")


def test_paths_are_recorded_as_text():
    options = kinds_of_options()["HealOptions"](corpus=Path("a.txt"), teacher=Path("m"), teacher_cache=Path("c"))
    assert json.loads(json.dumps(options.to_json()))["teacher"] == "m"
    assert (options.corpus, options.teacher_cache) == (("a.txt",), "c")


def test_each_option_is_declared_soundly():
    for name, kind in kinds_of_options().items():
        options = declared(kind)
        called = [option.called for option in options.values()]
        assert len(called) == len(set(called)), name
        shorts = [option.entry.short for option in options.values() if option.entry.short]
        assert len(shorts) == len(set(shorts)), name
        for option in options.values():
            assert option.entry.help.endswith((".", "!")), (name, option.name)
            assert option.required or misfit(option.default, option.schema()) is None, (name, option.name)


def test_a_command_has_the_options_of_its_room_and_a_part_its_entries():
    for command, kind, hidden in (
        ("slice", SliceOptions, set()),
        ("plan", PlanOptions, set()),
        ("heal", kinds_of_options()["HealOptions"], set()),
        ("evaluate", kinds_of_options()["EvaluateOptions"], {"separator", "reference"}),
        ("score", kinds_of_options()["ScoreOptions"], set()),
        ("count", kinds_of_options()["CountOptions"], set()),
        ("restore", kinds_of_options()["RestoreOptions"], set()),
    ):
        options = {option.called for option in declared(kind).values()}
        shown = set(inspect.signature(getattr(cli, command)).parameters)
        assert options - shown == hidden, command
    assert set(parts()["heal"].entries) == {
        each.called for each in declared(kinds_of_options()["HealOptions"]).values()
    }
    assert "languages" in parts()["count"].entries and "language_id" not in parts()["count"].entries
    assert load_recipe({"model": "mini", "count": {"a": {"corpus": "x.txt", "languages": "ko"}}})


@dataclass(frozen=True, kw_only=True)
class Sample(Options):
    """Options of a test."""

    size: Annotated[int, Entry("How large.", least=1)] = 3
    names: Annotated[tuple[str, ...], Entry("Which.")] = ()


@taking(Sample, "size")
def sample(model: str | Path, *, options: Sample, loud: bool = False) -> tuple[object, ...]:
    """A function of a test."""
    return model, options, loud


def test_a_function_takes_options_by_name_by_place_or_as_one_value():
    assert list(inspect.signature(sample).parameters) == ["model", "size", "names", "options", "loud"]
    assert inspect.signature(sample).parameters["size"].default == 3
    assert sample("m", 5, names="a", loud=True) == ("m", Sample(size=5, names="a"), True)
    assert sample("m", size=5) == sample("m", 5) == sample("m", options=Sample(size=5))
    with pytest.raises(OptionError, match="`size` cannot be given together with it"):
        sample("m", options=Sample(), size=4)
    with pytest.raises(OptionError, match="`options` must be Sample, found dict"):
        sample("m", options={})
    with pytest.raises(OptionError, match="`loud` must be true or false, found 1"):
        sample("m", loud=1)
    with pytest.raises(OptionError, match="`size` must be a whole number at least 1, found 0"):
        sample("m", 0)
    with pytest.raises(OptionError, match=r"unknown parameter `lod`\nhint: did you mean `loud`\?"):
        sample("m", lod=True)
    with pytest.raises(TypeError, match="given twice"):
        sample("m", 5, size=5)
    with pytest.raises(TypeError, match="at most 2 values"):
        sample("m", 5, "a")


@pytest.mark.parametrize(
    ("text", "parameters", "entries"),
    [
        ("add --corpus PATH, or leave --language-id away", "add `corpus=PATH`, or leave `language_id` away",
         "add `corpus: PATH`, or leave `language_id` away"),
        ("--max-vocab must be 3", "`max_vocab` must be 3", "`max_vocab` must be 3"),
        ("add --languages ko,en.", 'add `languages="ko,en"`.', "add `languages: ko,en`."),
        ("pass --no-verify, or `--out`", "pass `verify=False`, or `out`", "pass `verify: false`, or `out`"),
        ("--lora 16 --seed x", "`lora=16` `seed` x", "`lora: 16` `seed` x"),
        ("run `langslice slice --drop-layers 3` first", "run `langslice slice --drop-layers 3` first",
         "run `langslice slice --drop-layers 3` first"),
        ("pass --carry 'a b.dat', or --out x.json", "pass `carry='a b.dat'`, or `out=\"x.json\"`",
         "pass `carry: 'a b.dat'`, or `out: x.json`"),
        ("a--b and |---|", "a--b and |---|", "a--b and |---|"),
    ],
)  # fmt: skip
def test_messages_speak_the_words_of_the_caller(text, parameters, entries):
    assert worded(text) == parameters
    with speaking(ENTRIES):
        assert worded(text) == entries
    with speaking(OPTIONS):
        assert worded(text) == text


def test_one_refusal_in_three_voices(tmp_path, capsys, monkeypatch):
    with pytest.raises(PlanError, match=r"`dtype` has no effect: no weight is pruned\nhint: add `sparsity=0\.3`"):
        langslice.plan("mini", languages="ko", dtype="bfloat16")
    with pytest.raises(PlanError, match=r"recipe, slice: `dtype` has no effect.*\nhint: add `sparsity: 0\.3`"):
        langslice.run({"model": "mini", "slice": {"languages": "ko", "dtype": "bfloat16"}}, tmp_path / "work")
    monkeypatch.setattr(
        sys, "argv", ["langslice", "plan", "mini", "-l", "ko", "--dtype", "bfloat16", "-o", str(tmp_path / "p.json")]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "error: --dtype has no effect: no weight is pruned\nhint: add --sparsity 0.3" in capsys.readouterr().err
    assert worded("--dtype") == "`dtype`"


def test_declaring_imports_nothing_heavy():
    rooms = ", ".join(f"langslice.{path.parent.name}.options" for path in OPTION_FILES)
    code = f"import sys, {rooms}\nheavy = {{'numpy', 'torch', 'pyarrow', 'yaml', 'tokenizers'}} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(str(heavy) if heavy else 0)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def options_of_commands():
    """Command -> its options by name, as the command line has them."""
    import typer.main

    group = typer.main.get_command(cli.app)
    return {
        name: {flag: option for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        for name, command in group.commands.items()
    }


def test_one_flag_has_one_meaning_in_every_command():
    """As far as that can be seen: values of one kind, a metavar, and one letter; former names are not shown."""
    seen: dict[str, tuple[str, object]] = {}
    letters: dict[str, set[str]] = {}
    twofold = []
    for name, options in options_of_commands().items():
        for flag, option in options.items():
            if option.hidden or option.param_type_name == "argument" or flag in ("-o", "--out", "--model", "--json"):
                continue
            if len(flag) == 2:
                letters.setdefault(flag, set()).add(option.name)
                continue
            meaning = (option.metavar if flag != "--revision" else "", bool(option.is_flag))
            assert seen.setdefault(flag, (name, meaning))[1] == meaning, (
                flag,
                name,
                seen[flag][0],
                meaning,
                seen[flag][1],
            )
    assert twofold == []
    assert all(len(names) == 1 for names in letters.values()), letters


FORMER = [
    (kind, option.called, old)
    for kind in ("VocabularyOptions", "StructureOptions", "WeightOptions", "CountOptions", "ScoreOptions", "HealOptions",
                 "EvaluateOptions", "FeatureOptions", "DemonstrationOptions", "PushOptions", "TradeoffOptions")
    for option in declared(kinds_of_options()[kind]).values()
    for old in option.entry.was
]  # fmt: skip


def test_former_names_are_those_of_the_last_release():
    assert {(new, old) for _, new, old in FORMER} == {
        ("languages", "language_id"), ("calibration", "score_texts"), ("calibration", "texts"), ("uniform", "even"),
        ("weights_by", "score"), ("dtype", "compute"), ("dtype", "precision"), ("label_scores", "scores"),
        ("parallel", "pairs"), ("corpus", "mono"), ("seq_length", "max_tokens"), ("removals", "count"),
        ("unverified", "unproven"),
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "new", "old"), FORMER)
def test_a_former_name_means_the_same_and_says_so(kind, new, old):
    found = kinds_of_options()[kind]
    option = next(each for each in declared(found).values() if each.called == new)
    sample = {"boolean": True, "integer": 7, "string": "float32", "array": ("a",)}
    value = (option.entry.values or [sample[option.schema()["type"][0]]])[-1]
    needed = {"CountOptions": {"corpus": "a"}, "ScoreOptions": {"kind": "heads", "method": "l2"}}.get(kind, {})
    with pytest.warns(FutureWarning, match=f"`{old}` is now called `{new}`; the former name works until") as notices:
        assert build(found, {**needed, old: value}) == build(found, {**needed, new: value}) != build(found, needed)
    assert len(notices) == 1
    with pytest.raises(found.error, match=f"`{old}` is the former name of `{new}`, and both are given"):
        build(found, {**needed, old: value, new: value})


def test_former_names_on_the_command_line_and_in_recipes(tmp_path, monkeypatch, capsys):
    commands = {
        "slice": (["mini", "-o", "o", "--sparsity", "0.3", "--show-recipe"], [
            (["--score", "magnitude"], ["--weights-by", "magnitude"]), (["--even"], ["--uniform"]),
            (["--score-texts", "a.txt"], ["--calibration", "a.txt"]), (["--compute", "bfloat16"], ["--dtype", "bfloat16"]),
        ]),
        "count": (["mini", "-o", "o", "-c", "x", "--show-recipe"], [(["--language-id", "ko,en"], ["--languages", "ko,en"])]),
        "heal": (["mini", "-o", "o", "-c", "x", "--show-recipe"], [
            (["--pairs", "a.tsv"], ["--parallel", "a.tsv"]), (["--precision", "bfloat16"], ["--dtype", "bfloat16"]),
        ]),
        "score": (["mini", "heads", "-m", "gradient", "-o", "o", "--show-recipe"], [
            (["--texts", "ko=a.txt"], ["--calibration", "ko=a.txt"]), (["-t", "a.txt"], ["--calibration", "a.txt"]),
            (["--max-tokens", "64"], ["--seq-length", "64"]), (["--count", "2"], ["--removals", "2"]),
        ]),
        "evaluate": (["mini", "-l", "ko", "--show-recipe"], [(["--scores", "pmi"], ["--label-scores", "pmi"])]),
        "demonstrations": (["-o", "o", "--show-recipe"], [(["--mono", "a.txt"], ["--corpus", "a.txt"])]),
        "features": (["mini", "-o", "o", "--show-recipe"], [(["--max-tokens", "64"], ["--seq-length", "64"])]),
    }  # fmt: skip
    for command, (fixed, pairs) in commands.items():
        for old, new in pairs:
            told = []
            for given in (old, new):
                monkeypatch.setattr(sys, "argv", ["langslice", command, *fixed, *given])
                with warnings.catch_warnings():
                    warnings.simplefilter("always")
                    with pytest.raises(SystemExit) as stop:
                        cli.main()
                told.append(capsys.readouterr())
                assert not stop.value.code, told[-1].err
            assert told[0].out == told[1].out != "" and told[1].err == ""
            assert told[0].err.count("\n") == 1 and f"is now called {new[0]};" in told[0].err, told[0].err
    with pytest.warns(FutureWarning, match="`compute` is now called `dtype`"):
        asked = load_recipe({"model": "mini", "slice": {"languages": "ko", "sparsity": 0.3, "compute": "bfloat16",
                                                        "weights_by": "magnitude"}})  # fmt: skip
    assert asked.document["slice"]["dtype"] == "bfloat16"


def test_messages_call_options_by_their_names_of_today():
    with pytest.raises(PlanError, match="so `weights_by` cannot be given together with it"):
        refuse_beside_plan({"score": "magnitude"})
    with pytest.raises(PlanError, match="`weights_by` has no effect"):
        weights_request({"score": "magnitude"})


def test_what_is_given_is_typed_as_the_command_line_takes_it(monkeypatch):
    taken = {}
    monkeypatch.setattr("langslice.slicing.main.slice", lambda model, out, **given: taken.update(given) or sys.exit(0))
    given = {
        "languages": ("ko", "en"), "max_vocab": 4000, "drop_heads": ("0:1", "2:3"), "drop_layers": (), "verify": False,
        "uniform": True, "calibration": ("ko=ko txt",), "corpus": None, "coverage": 0.5,
    }  # fmt: skip
    words = typed_words(SliceOptions, given)
    assert words[:4] == ["--languages", "ko,en", "--max-vocab", "4000"]
    monkeypatch.setattr(sys, "argv", ["langslice", "slice", "mini", *words, "-o", "OUT"])
    with pytest.raises(SystemExit):
        cli.main()
    told = {**given, "languages": "ko,en", "drop_heads": ["0:1", "2:3"], "calibration": ["ko=ko txt"]}
    expected = {name: told[name] for name in given if name not in ("drop_layers", "corpus")}
    assert {name: taken[name] for name in expected} == expected
    assert not {"drop_layers", "corpus"} & set(taken)
