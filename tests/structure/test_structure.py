"""Structural slices as their users meet them: the command line, trained models, and the libraries that load the result."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import langslice
from langslice.cli.app import main
from langslice.mini import heldout_text, mini_model_path
from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import open_checkpoint
from langslice.model.transformers_classes import dtype_option, model_class
from langslice.structure.dropped_parts import parse_numbers


def outputs_of(result):
    check = next(check for check in result.verification.checks if check.name == "outputs")
    assert check.passed, check
    return check.detail


def run(capsys, monkeypatch, *arguments):
    """Exit code and what stderr says."""
    monkeypatch.setattr("sys.argv", ["langslice", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    return code, capsys.readouterr().err


def load(folder, auto="AutoModelForCausalLM"):
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (
            getattr(transformers, auto)
            .from_pretrained(folder, trust_remote_code=True, **dtype_option("float32"))
            .eval()
        )


def test_numbers():
    assert parse_numbers("0-3,8", what="x") == [0, 1, 2, 3, 8]
    with pytest.raises(langslice.LangsliceError, match="`3-1` is not a number or a range"):
        parse_numbers("3-1", what="x")


def test_everything_in_one_pass_on_the_packaged_model(tmp_path):
    texts = []
    for code in ("ko", "en"):
        (tmp_path / f"{code}.txt").write_text("\n".join(heldout_text(code)[:40]), encoding="utf-8")
        texts.append(f"{code}={tmp_path / code}.txt")
    result = langslice.slice(
        mini_model_path(), tmp_path / "out", languages="ko,en", heads_sparsity=0.25, heads_by="l2", neurons_sparsity=0.2,
        uniform=True, drop_layers_by="block-influence:1", calibration=texts,
    )  # fmt: skip
    outputs_of(result)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"]) == (5, 6, 3)
    assert config["head_dim"] == 32
    assert config["intermediate_size"] == 410
    assert "auto_map" not in config
    assert langslice.verify(mini_model_path(), tmp_path / "out").passed
    plan = json.loads((tmp_path / "out/slice.json").read_text())["plan"]
    assert plan["structure"]["style"] == "stock"
    before, after = map(sum, zip(*result.parameters.values(), strict=True))
    assert after < 0.66 * before


def test_a_plan_in_between_does_the_same(tmp_path, capsys, monkeypatch):
    cut = ("--drop-layers", "2", "--drop-heads", "1:0,1", "-l", "ko,en")
    plan = tmp_path / "plan.json"
    assert run(capsys, monkeypatch, "plan", mini_model_path(), *cut, "-o", plan, "-q")[0] == 0
    assert run(capsys, monkeypatch, "slice", mini_model_path(), "--plan", plan, "-o", tmp_path / "a", "-q")[0] == 0
    assert run(capsys, monkeypatch, "slice", mini_model_path(), *cut, "-o", tmp_path / "b", "-q", "--no-verify")[0] == 0
    for name in ("config.json", "model.safetensors", "modeling_sliced.py"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    document = json.loads(plan.read_text())
    document["structure"]["heads"]["layers.self"]["1"] = [2, 3, 5, 6, 7]
    plan.write_text(json.dumps(document))
    code, said = run(capsys, monkeypatch, "slice", mini_model_path(), "--plan", plan, "-o", tmp_path / "c")
    assert code == 2
    assert "must go on sharing evenly" in said
    assert not (tmp_path / "c").exists()


def test_uneven_groups_are_offered_replication(tmp_path):
    with pytest.raises(langslice.LangsliceError, match="share a key-value head") as caught:
        langslice.slice(mini_model_path(), tmp_path / "out", drop_heads="1:0")
    assert "`replicate_kv` gives every query head" in caught.value.hint
    result = langslice.slice(mini_model_path(), tmp_path / "out", drop_heads="1:0", replicate_kv=True)
    assert result.plan.structure.key_value["layers.self"][1] == (0, 1, 1, 2, 2, 3, 3)
    outputs_of(result)


def test_rows_of_named_linears_become_zero(tmp_path):
    from safetensors.numpy import load_file

    result = langslice.slice(
        mini_model_path(), tmp_path / "out", prune_rows="layers.*.self_attn.q_proj=0.2:l1", drop_layers="0"
    )
    outputs_of(result)
    assert not any("--neurons-sparsity" in note for note in result.plan.notes)
    before = load_file(mini_model_path() / "model.safetensors")
    after = load_file(tmp_path / "out/model.safetensors")
    for layer in range(5):
        old = before[f"model.layers.{layer + 1}.self_attn.q_proj.weight"]
        new = after[f"model.layers.{layer}.self_attn.q_proj.weight"]
        lowest = np.argsort(np.abs(old.astype(np.float64)).sum(1), kind="stable")[: round(0.2 * len(old))]
        assert set(np.flatnonzero(~new.any(axis=1))) == set(lowest)
        kept = np.setdiff1d(np.arange(len(old)), lowest)
        assert np.array_equal(new[kept], old[kept])


def test_rows_that_are_neurons_are_offered_for_removal():
    plan = langslice.plan(mini_model_path(), prune_rows="*.up_proj=0.2:l1")
    assert any("--neurons-sparsity 0.2 --neurons-by l1 removes neurons" in note for note in plan.notes)


def test_language_neurons_say_what_they_drop(tmp_path):
    texts = []
    for code in ("ko", "ar"):
        (tmp_path / f"{code}.txt").write_text("\n".join(heldout_text(code)[:10]), encoding="utf-8")
        texts.append(f"{code}={tmp_path / code}.txt")
    result = langslice.slice(
        mini_model_path(), tmp_path / "out", languages="ko", language_neurons=True, calibration=texts
    )
    outputs_of(result)
    assert result.plan.structure.neurons
    notes = [note for note in result.plan.notes if "at random" in note]
    assert {note[:2] for note in notes} == {"ko", "ar"}


@pytest.mark.assets
@pytest.mark.parametrize(
    ("model", "cut"),
    [
        ("all-MiniLM-L6-v2", {"first_layers": "4"}),
        ("all-MiniLM-L6-v2", {"drop_heads": ["0:1,2", "3:5"], "neurons_sparsity": 0.2, "drop_layers": "5", "languages": "en"}),
        ("stories260K-llama", {"layers": "0-2,4"}),
        ("stories260K-llama", {"drop_heads": "0:0,1"}),
        ("stories260K-llama", {"neurons_sparsity": 0.25, "neurons_by": "l1"}),
        ("stories260K-llama", {"heads_sparsity": 0.25, "neurons_sparsity": 0.1, "uniform": True, "drop_layers": "2"}),
        ("misaki-bart-us", {"neurons_sparsity": 0.25}),  # one layer a side, of one head
    ],
)  # fmt: skip
def test_trained_models_equal_their_masked_source(assets, tmp_path, model, cut):
    outputs_of(langslice.slice(assets / "weights" / model, tmp_path / "out", **cut))


@pytest.mark.assets
def test_minilm_of_four_layers_finds_translations_as_well_as_skipping(assets, tmp_path):
    """The sliced model through sentence-transformers: the embeddings of the model whose last two layers are skipped."""
    source, out = assets / "weights/all-MiniLM-L6-v2", tmp_path / "out"
    langslice.slice(source, out, first_layers="4", verify=False)
    text = assets / "data/ntrex128"
    pairs = [
        (text / name).read_text(encoding="utf-8").splitlines()[:60]
        for name in ("newstest2019-src.eng.txt", "newstest2019-ref.kor.txt")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        before, after = SentenceTransformer(str(source), device="cpu"), SentenceTransformer(str(out), device="cpu")
        layers = before[0].auto_model.encoder.layer
        del layers[4:]
        for lines in pairs:
            assert np.allclose(before.encode(lines), after.encode(lines), atol=1e-6)


@pytest.mark.assets
def test_minilm_with_layers_of_different_sizes_in_sentence_transformers(assets, tmp_path):
    """Loads with trust_remote_code, and embeds as the masked model of the same shapes does."""
    source, cut = assets / "weights/all-MiniLM-L6-v2", {"drop_heads": ["0:1,2", "3:5"], "drop_neurons": "2:0-499"}
    for style in ("sliced", "masked"):
        result = langslice.slice(source, tmp_path / style, output_style=style, verify=False, **cut)
        assert result.plan.structure.style == style
    lines = (assets / "data/ntrex128/newstest2019-src.eng.txt").read_text(encoding="utf-8").splitlines()[:40]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        sliced = SentenceTransformer(str(tmp_path / "sliced"), device="cpu", trust_remote_code=True)
        masked = SentenceTransformer(str(tmp_path / "masked"), device="cpu")
        assert sliced[0].auto_model.encoder.layer[2].intermediate.dense.out_features == 1536 - 500
        assert np.allclose(sliced.encode(lines), masked.encode(lines), atol=1e-6)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """The packaged model with layers of different sizes."""
    out = tmp_path_factory.mktemp("uneven") / "out"
    langslice.slice(mini_model_path(), out, drop_heads="1:2,3", drop_neurons="2:0-99", verify=False)
    return out


def test_without_trust_remote_code_it_fails_loudly(uneven, monkeypatch):
    import transformers

    # transformers before 4.53 goes on using, in one process, the code that was trusted once.
    monkeypatch.setattr(transformers.AutoModelForCausalLM._model_mapping, "_extra_content", {})
    with pytest.raises(RuntimeError, match="mismatch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.AutoModelForCausalLM.from_pretrained(uneven)


def test_other_models_of_the_kind_load_beside_it(uneven, zoo):
    import torch

    load(uneven)
    whole = zoo("llama")
    model, alone = load(whole), model_class(whole).from_pretrained(whole).eval()
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, alone(ids).logits)


def test_generation_with_cache_is_generation_without(uneven):
    import torch

    model = load(uneven)
    start = torch.arange(300, 310)[None]
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 1, "eos_token_id": None}
    with torch.no_grad():
        assert torch.equal(model.generate(start, **settings), model.generate(start, use_cache=False, **settings))


def test_lora_trained_merged_and_reloaded(uneven, tmp_path):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        model = get_peft_model(load(uneven), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], lora_dropout=0.0))
        ids = torch.arange(400, 432)[None]
        optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        losses = []
        for _ in range(4):
            loss = model(input_ids=ids, labels=ids).loss
            losses.append(loss.item())
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        assert losses[-1] < losses[0]
        merged = model.eval().merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        again = load(tmp_path / "merged")
        with torch.no_grad():
            assert torch.allclose(merged(ids).logits, again(ids).logits, atol=1e-5)


def test_onnx_export_runs(uneven, tmp_path):
    import onnxruntime
    import torch

    class Logits(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids):
            return self.model(input_ids=input_ids, use_cache=False).logits

    model = load(uneven)
    ids = torch.arange(300, 316)[None]
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(Logits(model), (ids,), str(path), input_names=["input_ids"], dynamo=True, verbose=False)
        expected = model(ids).logits.numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"input_ids": ids.numpy()})[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--drop-layers", "9"], "layer 9 does not exist"),
        (["--layers", "0-2", "--drop-layers", "0-2"], "no layer of the layers stack would be left"),
        (["--drop-heads", "3:8"], "head 8 does not exist"),
        (["--drop-heads", "9:0"], "layer 9 of layers.self does not exist"),
        (["--drop-heads", "cross.3:0"], "there is no attention `cross`"),
        (["--drop-heads", "3"], "no heads"),
        (["--drop-heads", "3:0-7"], "no head of layers.self layer 3 would be left"),
        (["--drop-heads", "3:0,1", "--output-style", "stock"], "unmodified code cannot express this slice"),
        (["--drop-heads", "3:0,1", "--drop-layers", "3"], "is dropped as a whole"),
        (["--drop-neurons", "3:512"], "neuron 512 does not exist"),
        (["--heads-sparsity", "1.5"], "1.5"),
        (["--uniform"], "--uniform has no effect"),
        (["--prune-rows", "nothing.*=0.2"], "no linear layer is called like"),
        (["--prune-rows", "*q_proj=2"], "the share between 0 and 1"),
        (["--drop-layers", "1", "--output-style", "masked"], "a layer cannot be masked by zeros"),
        (["--first-layers", "7"], "the layers stack has 6 layers"),
        (["--language-neurons"], "none are given"),
        (["--heads-sparsity", "0.2", "--heads-by", "gradeint"], "gradient"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments, said, tmp_path, capsys, monkeypatch):
    code, error = run(capsys, monkeypatch, "slice", mini_model_path(), *arguments, "-o", tmp_path / "out")
    assert code == 2
    assert said in error
    assert error.count("error:") == 1
    assert not list(tmp_path.iterdir())


def test_scores_of_another_model_are_refused(zoo, tmp_path, capsys, monkeypatch):
    scores = tmp_path / "heads.parquet"
    assert run(capsys, monkeypatch, "score", mini_model_path(), "heads", "-m", "l2", "-o", scores, "-q")[0] == 0
    arguments = ("--heads-sparsity", "0.25", "--heads-by", scores, "-o", tmp_path / "out")
    code, error = run(capsys, monkeypatch, "slice", zoo("llama"), *arguments)
    assert code == 2
    assert "another model" in error


@pytest.fixture
def implicit(zoo, tmp_path):
    """Gemma 2 whose config.json leaves the kinds of its layers to its class."""
    import shutil

    source = shutil.copytree(zoo("gemma2"), tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    config.pop("layer_types", None)
    (source / "config.json").write_text(json.dumps(config))
    return source


def test_lists_that_config_leaves_implicit_are_written_out(implicit, tmp_path, monkeypatch):
    from langslice.model.transformers_classes import full_config

    types = ["sliding_attention", "full_attention", "sliding_attention"]
    known = "layer_types" in full_config(open_checkpoint(implicit).config)
    if not known:  # transformers before 4.53, which would not read the list either
        monkeypatch.setattr(
            "langslice.model.transformers_classes.full_config",
            lambda config: {**full_config(config), "layer_types": types},
        )
    result = langslice.slice(implicit, tmp_path / "out", drop_layers="0", verify=known)
    assert not known or outputs_of(result)
    assert json.loads((tmp_path / "out/config.json").read_text())["layer_types"] == types[1:]


def test_lists_that_the_class_does_not_write_out_either(implicit, tmp_path, monkeypatch):
    from langslice.model.transformers_classes import full_config

    def by_place(config):
        return {name: value for name, value in full_config(config).items() if name != "layer_types"}

    monkeypatch.setattr("langslice.model.transformers_classes.full_config", by_place)
    with pytest.raises(langslice.LangsliceError, match=r"only the last layers .* no `layer_types`, and transformers"):
        langslice.slice(implicit, tmp_path / "out", drop_layers="0")
    assert not (tmp_path / "out").exists()
    outputs_of(langslice.slice(implicit, tmp_path / "out", drop_layers="2"))


def test_a_list_as_long_as_the_layers_that_the_table_lacks_stops_the_job(zoo, tmp_path):
    import shutil

    source = tmp_path / "source"
    shutil.copytree(zoo("llama"), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "layer_gains": [1.0, 0.5, 2.0]}))
    with pytest.raises(langslice.LangsliceError, match="`layer_gains` may hold one entry for each of the 3 layers"):
        langslice.slice(source, tmp_path / "out", drop_layers="1")


def test_whisper_forgets_the_alignment_heads_that_are_gone(zoo, tmp_path):
    from langslice.structure.config_files import restructured
    from langslice.structure.kept import Kept

    checkpoint = open_checkpoint(zoo("whisper"))
    kept = Kept("sliced", {"decoder": (0, 2)}, {"decoder.cross": {2: (1, 3)}})
    anatomy = read_anatomy(checkpoint)
    assert anatomy.layers["decoder"] == 3
    document = restructured(
        checkpoint, anatomy, kept, "generation_config.json", {"alignment_heads": [[0, 2], [1, 1], [2, 3], [2, 0]]}
    )
    assert document["alignment_heads"] == [[0, 2], [1, 1]]


def test_uneven_heads_of_t5_share_the_bias_of_block_0(tmp_path):
    """Each block takes its own columns of the bias that block 0 makes; with padding, and with a cache."""
    import torch

    from tests.zoo import add_tokenizer, build

    source = add_tokenizer(build("mt5", tmp_path / "source", num_layers=3))
    cut = {"drop_heads": ["encoder.self.1:1", "decoder.self.0:0", "decoder.self.2:1,3", "decoder.cross.1:2"]}
    for style in ("sliced", "masked"):
        outputs_of(langslice.slice(source, tmp_path / style, output_style=style, **cut))
    sliced, masked = (load(tmp_path / style, "AutoModelForSeq2SeqLM") for style in ("sliced", "masked"))
    ids = torch.arange(10, 30).view(2, 10)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    settings = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
    with torch.no_grad():
        assert torch.equal(sliced.generate(ids, **settings), masked.generate(ids, **settings))
