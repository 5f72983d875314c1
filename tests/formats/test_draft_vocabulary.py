"""Reduced output heads: the rows are the model's, the map leads to their tokens, and what cannot be one is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

import langslice
from langslice.cli.app import main
from langslice.formats.draft_check import check_head
from langslice.mini import heldout_text, mini_model_path
from langslice.model.checkpoint import open_checkpoint
from langslice.model.draft_head import DraftMap
from langslice.planning.source import Source
from tests.slicing.test_drafts import HIDDEN, config_of, load, save, tensors_of

SIZE = 1500


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The packaged model's head over the tokens that Korean and English use most."""
    out = tmp_path_factory.mktemp("head") / "out"
    return out, langslice.export("mini", out, draft_vocabulary=SIZE, languages="ko,en")


def test_the_head_gives_the_models_logits_of_its_tokens(head):
    import torch
    import transformers

    out, done = head
    tensors, folder = load(out), mini_model_path()
    targets = tensors["d2t"] + torch.arange(SIZE)
    assert targets.tolist() == sorted(set(targets.tolist())) and tensors["t2d"].nonzero().ravel().equal(targets)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert all(special in targets for special in auto.all_special_ids)
    with torch.inference_mode():
        given = auto(heldout_text("ko")[0], return_tensors="pt")["input_ids"]
        whole = model(given, output_hidden_states=True)
        ours = whole.hidden_states[-1] @ tensors["lm_head.weight"].T
    torch.testing.assert_close(ours, whole.logits[..., targets], rtol=1e-4, atol=1e-4)
    assert [check.name for check in done.checks if check.passed] == ["head", "outputs"]
    assert any(check.name.startswith("proposed, ") for check in done.checks)


def test_frequent_tokens_of_the_languages_are_in_it_and_others_are_not(head):
    """Of what text of a kept language is made of the head holds most, of another language much less."""
    flags, tokenizer = np.load(head[0] / "t2d.npy"), Source(open_checkpoint("mini")).tokenizer
    share = {}
    for code in ("ko", "en", "fr"):
        ids = np.concatenate([np.array(each, dtype=int) for each in tokenizer.encode(heldout_text(code)[:40])])
        share[code] = float(flags[ids].mean())
    assert min(share["ko"], share["en"]) > max(0.75, share["fr"] + 0.15), share


def test_other_programs_find_the_same_map(head):
    from safetensors.torch import load_file

    out, tensors = head[0], load(head[0])
    targets = tensors["d2t"].numpy() + np.arange(SIZE)
    assert np.array_equal(np.load(out / "d2t.npy"), tensors["d2t"].numpy())
    vocab_map = load_file(out / "vocab_map.safetensors")["vocab_map"]
    assert (str(vocab_map.dtype), vocab_map.tolist()) == ("torch.int32", targets.tolist())
    assert json.loads((out / "reduced_vocab.json").read_text()) == {
        "vocab_size": len(tensors["t2d"]),
        "reduced_vocab_size": SIZE,
    }


def test_a_slice_is_ranked_by_its_own_languages_and_a_wrong_row_is_found(head, tmp_path):
    langslice.slice("mini", tmp_path / "ko", languages="ko", verify=False)
    done = langslice.export(tmp_path / "ko", tmp_path / "out", draft_vocabulary=SIZE)
    texts = {check.name for check in done.checks if check.name.startswith("proposed, sentences")}
    assert texts == {"proposed, sentences, ko"}
    checkpoint = open_checkpoint("mini")
    entry = checkpoint.tensors[json.loads((head[0] / "export.json").read_text())["head"]]
    rows = np.flatnonzero(np.load(head[0] / "t2d.npy"))
    assert check_head(head[0], entry, rows, DraftMap(rows, entry.shape[0])).passed
    other = rows.copy()
    other[-1] -= 1 if rows[-2] != rows[-1] - 1 else -1
    for these, expected in ((other, DraftMap(rows, entry.shape[0])), (rows, DraftMap(other, entry.shape[0]))):
        assert check_head(head[0], entry, these, expected).passed is False


@pytest.fixture
def draft(tmp_path):
    """A draft of the packaged model, whose head has a thousand tokens more than are asked for."""
    import torch

    rows = open_checkpoint("mini").shapes["model.embed_tokens.weight"][0]
    targets = torch.arange(rows - 2, rows - 2 - 3 * (SIZE + 1000) // 2, -1)[: SIZE + 1000] % rows
    tensors = {**tensors_of(rows, embedding=True), "lm_head.weight": torch.randn(len(targets), HIDDEN)}
    flags = torch.zeros(rows, dtype=torch.bool)
    flags[targets] = True
    tensors |= {"d2t": targets - torch.arange(len(targets)), "t2d": flags}
    return save(tmp_path / "draft", tensors, {**config_of(rows), "draft_vocab_size": len(targets)})


def test_a_draft_keeps_everything_but_rows_of_its_head(draft, tmp_path):
    import torch

    size = 900
    langslice.export(draft, tmp_path / "out", draft_vocabulary=size, languages="ko,en", target="mini")
    before, after = load(draft), load(tmp_path / "out")
    old = (before["d2t"] + torch.arange(len(before["d2t"]))).tolist()
    new = (after["d2t"] + torch.arange(size)).tolist()
    assert len(new) == len(set(new)) == size and after["t2d"].nonzero().ravel().tolist() == sorted(new)
    places = [old.index(token) for token in new]
    assert places == sorted(places) and torch.equal(after["lm_head.weight"], before["lm_head.weight"][places])
    same = set(before) - {"d2t", "t2d", "lm_head.weight"}
    assert all(torch.equal(before[name], after[name]) for name in same)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == {**json.loads((draft / "config.json").read_text()), "draft_vocab_size": size}


def test_what_cannot_be_a_head_is_refused_by_name(draft, zoo, tmp_path, monkeypatch, capsys):
    def refused(*arguments):
        monkeypatch.setattr(
            "sys.argv", ["langslice", "export", *map(str, arguments), "-o", str(tmp_path / "out"), "--quiet"]
        )
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    korean = ("-l", "ko", "--draft-vocabulary")
    assert "always stay" in refused("mini", *korean, 10)
    assert "so that nothing would be left out" in refused("mini", *korean, 10**6)
    assert "add --draft-vocabulary" in refused("mini", "--to", "draft")
    assert "nothing says which tokens are used most" in refused("mini", "--draft-vocabulary", SIZE)
    assert "--draft-vocabulary has no effect on GGUF files" in refused("mini", "--to", "gguf", *korean, SIZE)
    assert "--precision has no effect on a draft's head" in refused("mini", *korean, SIZE, "--precision", "f32")
    assert "--target is for a draft model" in refused("mini", *korean, SIZE, "--target", "mini")
    assert "no tokenizer to rank tokens by" in refused(draft, *korean, SIZE)
    assert "the draft's head has 2,500 rows already" in refused(draft, *korean, 2600, "--target", "mini")
    assert "131" in refused(draft, *korean, SIZE, "--target", zoo("llama"))
    assert "is a draft model, which langslice does not write as gguf" in refused(draft, "--to", "gguf")
    assert "only a decoder's output head" in refused(zoo("bert"), *korean, 100)
    assert not (tmp_path / "out").exists()
