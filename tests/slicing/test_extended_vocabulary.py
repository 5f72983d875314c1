"""`slice --extend`: new rows, ids, plan, verification and the way back, on whole models."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import langslice
from langslice.errors import LangsliceError, PlanError
from langslice.model.checkpoint import open_checkpoint
from langslice.planning.plan import load_plan
from langslice.planning.source import settled
from langslice.restoration.merge import float_rows
from langslice.verification.main import verification_from_json
from langslice.verification.tensors import check_bytes

TEXT = "zamblifulo zamblifulo kwa qwertzuo, qwertzuo na zamblifulo.\n"


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended")
    (folder / "my.txt").write_text(TEXT * 3)
    (folder / "list.txt").write_text("▁zamblifulo\n")
    options = {"extend": folder / "list.txt", "extend_corpus": folder / "my.txt", "extend_to": "+5"}
    result = langslice.slice(
        "mini", folder / "out", corpus=folder / "my.txt", languages="en", max_vocab=3000, pad_to_multiple_of=16,
        text=str(folder / "my.txt"), **options,
    )  # fmt: skip
    return folder, result


def test_rows_ids_and_verification(extended):
    folder, result = extended
    plan, tensors = result.plan, open_checkpoint(folder / "out").tensors
    assert result.verification.passed and len(plan.new_to_old) % 16 == 0
    assert "Ġzamblifulo" in {one.token for one in plan.extension}
    assert json.loads((folder / "out/config.json").read_text())["vocab_size"] == len(plan.new_to_old)
    from langslice.mini import mini_model_path

    source = open_checkpoint(mini_model_path()).tensors
    ((name, _),) = [(name, one) for name, one in plan.tensors.items() if "vocab" in (one.axes or ())]
    new_of = {old: new for new, old in enumerate(plan.kept.tolist())}
    for row, one in enumerate(plan.extension, len(plan.kept)):
        found = float_rows(tensors[name], np.array([row]))[0]
        pieces = [one.origin] if one.origin is not None else list(one.pieces)
        expected = float_rows(source[name], np.array(pieces)).mean(axis=0)
        assert np.allclose(found, expected, rtol=2**-8, atol=1e-6) and set(one.pieces) <= set(new_of)
    record = json.loads((folder / "out/slice.json").read_text())
    texts = {text.name: text for text in verification_from_json(record["proof"]).texts}
    assert texts["my.txt"].extended > 0 == texts["my.txt"].differing
    langslice.report(folder / "out")
    assert f"{len(plan.extension)} tokens are new" in (folder / "out/report.html").read_text()


def test_rows_of_tokens_that_the_text_uses_alike(extended, tmp_path):
    """Each is the weighted mean that the plan says, and verification finds a weight that was changed since."""
    folder, _ = extended
    result = langslice.slice(
        "mini", tmp_path / "out", corpus=folder / "my.txt", languages="en", max_vocab=3000, extend_corpus=folder / "my.txt",
        extend_to="+5", extend_rows="similar",
    )  # fmt: skip
    plan = result.plan
    ((name, _),) = [(name, one) for name, one in plan.tensors.items() if "vocab" in (one.axes or ())]
    tensor = open_checkpoint(tmp_path / "out").tensors[name]
    alike = {row: one.alike for row, one in enumerate(plan.extension, len(plan.kept)) if one.alike}
    assert alike and any("too rare in it" in note for note in plan.notes)
    source = open_checkpoint("mini").tensors[name]
    for row, weighted in alike.items():
        rows = float_rows(source, np.array([old for old, _ in weighted]))
        expected = sum(weight * one for (_, weight), one in zip(weighted, rows, strict=True))
        assert np.allclose(float_rows(tensor, np.array([row]))[0], expected, rtol=2**-8, atol=1e-6)
    plan.save(tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json").extension == plan.extension
    row, weighted = next((row, one) for row, one in alike.items() if len(one) > 1)
    changed = [*plan.extension]
    swapped = tuple(zip([old for old, _ in weighted], [weight for _, weight in weighted[::-1]], strict=True))
    changed[row - len(plan.kept)] = replace(changed[row - len(plan.kept)], alike=swapped)
    source = settled(open_checkpoint("mini"), {}, needs_tokenizer=True)
    check = check_bytes(source, open_checkpoint(tmp_path / "out"), replace(plan, extension=tuple(changed)))
    assert not check.passed and f"new row {row} is not the weighted mean of {len(weighted)} rows" in check.examples[0]


def test_a_wrong_new_row_and_a_wrong_merge_are_found(extended, tmp_path):
    import shutil

    folder, result = extended
    out = shutil.copytree(folder / "out", tmp_path / "out")
    entry = next(one for one in open_checkpoint(out).tensors.values() if one.shape[0] == len(result.plan.new_to_old))
    row = len(result.plan.kept)
    with entry.path.open("r+b") as file:
        file.seek(entry.start + row * entry.size_bytes // entry.shape[0])
        file.write(b"\x01\x02")
    tokenizer = json.loads((out / "tokenizer.json").read_text())
    tokenizer["model"]["merges"][-1], tokenizer["model"]["merges"][-2] = tokenizer["model"]["merges"][-2:]
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))
    checks = {check.name: check for check in langslice.verify("mini", out).checks}
    assert checks["bytes"].passed is False and f"new row {row} is not the mean" in checks["bytes"].examples[0]
    assert checks["tokenizer"].passed is False


def test_restore_and_what_cannot_follow(extended, tmp_path):
    folder, result = extended
    restored = langslice.restore(folder / "out", tmp_path / "back", base="mini")
    assert restored.verification.passed and restored.rows == (len(result.plan.kept), result.plan.rows)
    with pytest.raises(LangsliceError, match="its teacher does not know"):
        langslice.heal(folder / "out", tmp_path / "healed", corpus=str(folder / "my.txt"), teacher="mini", steps=1)


def test_a_plan_is_read_back_and_checked(extended, tmp_path):
    _, result = extended
    result.plan.save(tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json").extension == result.plan.extension
    missing = result.plan.extension[0].pieces[0]
    place = result.plan.kept.tolist().index(missing)
    without = replace(
        result.plan, kept=np.delete(result.plan.kept, place),
        tokens=(*result.plan.tokens[:place], *result.plan.tokens[place + 1 :]),
        reasons=(*result.plan.reasons[:place], *result.plan.reasons[place + 1 :]),
    )  # fmt: skip
    without.save(tmp_path / "edited.json")
    with pytest.raises(PlanError, match=f"needs (row {missing}|')"):
        load_plan(tmp_path / "edited.json")
    heavy = replace(result.plan.extension[0], origin=None, alike=((missing, 0.5), (int(result.plan.kept[0]), 0.6)))
    replace(result.plan, extension=(heavy, *result.plan.extension[1:])).save(tmp_path / "heavy.json")
    with pytest.raises(PlanError, match=r"weights that are no shares: they add up to 1\.1"):
        load_plan(tmp_path / "heavy.json")


def test_nothing_is_cut_but_padding(tmp_path):
    (tmp_path / "my.txt").write_text(TEXT * 3)
    plan = langslice.plan("mini", extend_corpus=tmp_path / "my.txt", extend_to="+2")
    assert set(plan.reasons) == {"whole vocabulary"} and len(plan.extension) == 2 and not plan.keeps_vocabulary


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"extend_to": 500}, "no text to learn from"),
        ({"extend_corpus": "my.txt"}, "nothing says how many"),
        ({"extend": "list.txt", "extend_rows": "similar"}, "no text to learn likeness from"),
        ({"extend_rows": "pieces"}, "no effect: no token is new"),
        ({"extend_corpus": "my.txt", "extend_to": "many"}, "is no size"),
        ({"extend_corpus": "my.txt", "extend_to": 20}, "tokens already"),
        ({"extend_corpus": "once.txt", "extend_to": "+5"}, "occur twice"),
        ({"extend": "list.txt", "top_k": None, "max_size": "6MB"}, "new tokens take .* too many"),
    ],
)
def test_requests_that_mean_nothing_are_refused(tmp_path, monkeypatch, options, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text(TEXT * 3)
    (tmp_path / "once.txt").write_text("1 2 3\n")
    (tmp_path / "list.txt").write_text("▁zamblifulo\n")
    with pytest.raises(PlanError, match=named):
        langslice.plan("mini", **{"languages": "en", "top_k": 300, **options})
