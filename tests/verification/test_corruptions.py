"""Every corruption of a finished slice fails its verification, by the check that is there for it; an intact slice passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import langslice
from langslice.verification import Verification, outputs
from tests.verification.sources import SOURCES, edit

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Give source and slice by name; each is made once and never written to."""
    root = tmp_path_factory.mktemp("slices")

    def pair(name: str) -> tuple[Path, Path]:
        source, out = root / name, root / f"{name}-slice"
        if not out.is_dir():
            make, choice = SOURCES[name]
            assert langslice.slice(make(source), out, **choice).verification.passed
        return source, out

    return pair


@pytest.fixture(scope="module", autouse=True)
def outputs_of_sources_once():
    """What a source computes for the same samples is worked out once, for all the slices of it that are damaged here."""
    run, known = outputs._run, {}

    def kept(load, batches, start, **named):
        folder = load.args[0]
        if folder.name not in SOURCES:
            return run(load, batches, start, **named)
        key = (folder, str(batches), start, str({**named, "keep": named["keep"].tolist()}))
        if key not in known:
            known[key] = run(load, batches, start, **named)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "_run", kept)
        yield


def failed(verification: Verification) -> dict[str, str]:
    """The checks that fail, with what they say."""
    return {c.name: " | ".join((c.detail, *c.examples)) for c in verification.checks if c.passed is False}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_an_intact_slice_passes(name, slices):
    source, out = slices(name)
    verification = langslice.verify(source, out)
    assert failed(verification) == {}
    assert {check.name for check in verification.checks if check.passed is None} == set()
    assert ("pipeline" in {check.name for check in verification.checks}) == (name == "embedder")


# -- what is done to a slice


def fields(file: str, **changes: object) -> Callable[[Path], None]:
    return lambda out: edit(out / file, **changes)


def without(file: str, key: str) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        document = json.loads((out / file).read_text())
        del document[key]
        (out / file).write_text(json.dumps(document))

    return damage


def tokenizer(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        document = json.loads((out / "tokenizer.json").read_text())
        change(document)
        (out / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False))

    return damage


def tensors(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        from safetensors.torch import load_file, save_file

        found = load_file(out / "model.safetensors")
        change(found)
        save_file(found, out / "model.safetensors", metadata={"format": "pt"})

    return damage


def laid_beside(file: str, content: str = "{}") -> Callable[[Path], None]:
    return lambda out: (out / file).write_text(content)


def gone(file: str) -> Callable[[Path], None]:
    return lambda out: (out / file).unlink()


def flipped(file: str, place: float) -> Callable[[Path], None]:
    """One bit of a file, at a share of its length."""

    def damage(out: Path) -> None:
        content = bytearray((out / file).read_bytes())
        content[int(place * len(content))] ^= 1
        (out / file).write_bytes(content)

    return damage


def swap(items: list, one: int, other: int) -> None:
    items[one], items[other] = items[other], items[one]


def swap_rows(name: str) -> Callable[[dict], None]:
    def change(found: dict) -> None:
        found[name][[20, 21]] = found[name][[21, 20]]

    return change


def add_to(name: str, place: tuple[int, ...]) -> Callable[[dict], None]:
    def change(found: dict) -> None:
        found[name][place] += 0.5

    return change


def swap_letters(document: dict) -> None:
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def repeat_first_row(found: dict) -> None:
    rows = found["model.embed_tokens.weight"]
    found["model.embed_tokens.weight"] = rows[[*range(len(rows)), 0]]


def swap_ends(document: dict) -> None:
    processor = document["post_processor"]
    processor["sep"], processor["cls"] = processor["cls"], processor["sep"]


def reverse_layers(out: Path) -> None:
    config = json.loads((out / "config.json").read_text())
    edit(out / "config.json", layer_types=list(reversed(config["layer_types"])))


def truncated(out: Path) -> None:
    content = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(content[: len(content) // 2])


def without_pooling(out: Path) -> None:
    modules = json.loads((out / "modules.json").read_text())
    (out / "modules.json").write_text(json.dumps([modules[0], {**modules[2], "idx": 1}]))


def second_shard(out: Path) -> None:
    shutil.copy(out / "model.safetensors", out / "model-00002-of-00002.safetensors")


TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": "BatchLongest",
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}
EMBEDDING = "embeddings.word_embeddings.weight"

# What `--verify-level quick` leaves out.
LOADING_CHECKS = {"clients", "loading", "outputs", "pipeline"}

# Slice, what is done to it, checks that must fail.
CORRUPTIONS = {
    # tokenizer.json
    "merges swapped": ("mini", tokenizer(lambda d: swap(d["model"]["merges"], 40, 41)), "files tokenizer"),
    "merge dropped": ("mini", tokenizer(lambda d: d["model"]["merges"].pop(100)), "files tokenizer"),
    "ignore_merges set": ("mini", tokenizer(lambda d: d["model"].update(ignore_merges=True)), "files tokenizer"),
    "truncation set": ("mini", tokenizer(lambda d: d.update(truncation=TRUNCATION)), "files tokenizer"),
    "special flag": ("mini", tokenizer(lambda d: d["added_tokens"][1].update(special=False)), "files tokenizer"),
    "lstrip flag": ("mini", tokenizer(lambda d: d["added_tokens"][1].update(lstrip=True)), "files tokenizer"),
    "single_word flag": ("mini", tokenizer(lambda d: d["added_tokens"][0].update(single_word=True)), "files tokenizer"),
    "added token gone": ("mini", tokenizer(lambda d: d["added_tokens"].pop()), "files tokenizer"),
    "tokens swapped": ("mini", tokenizer(swap_letters), "files ids tokenisation"),
    "pre-tokenizer": ("mini", tokenizer(lambda d: d["pre_tokenizer"]["pretokenizers"].pop(0)), "files tokenizer"),
    "decoder": ("mini", tokenizer(lambda d: d.update(decoder=None)), "files tokenizer"),
    "post-processor gone": ("embedder", tokenizer(lambda d: d.update(post_processor=None)), "files tokenizer"),
    "[CLS] and [SEP] swapped": ("embedder", tokenizer(swap_ends), "files tokenizer"),
    "[CLS] gone": ("embedder", tokenizer(lambda d: d["post_processor"].update(cls=["[UNK]", 1])), "files tokenizer"),
    "no lowercase": ("embedder", tokenizer(lambda d: d["normalizer"].update(lowercase=False)), "files tokenizer tokenisation"),
    "padding": ("embedder", tokenizer(lambda d: d.update(padding=PADDING)), "files tokenizer"),
    "longest word": ("embedder", tokenizer(lambda d: d["model"].update(max_input_chars_per_word=4)), "files tokenizer"),
    "score": ("pieces", tokenizer(lambda d: d["model"]["vocab"][50].__setitem__(1, -1.5)), "files tokenizer"),
    "unk_id": ("windowed", tokenizer(lambda d: d["model"].update(unk_id=0)), "files tokenizer"),
    "broken tokenizer.json": ("windowed", laid_beside("tokenizer.json", "{"), "files tokenizer"),
    "no tokenizer.json": ("windowed", gone("tokenizer.json"), "files tokenizer"),
    # next to it
    "one bit of a SentencePiece model": ("pieces", flipped("sentencepiece.bpe.model", 0.5), "files"),
    "another chat template": ("mini", fields("tokenizer_config.json", chat_template="{{ messages }}"), "files"),
    "chat_template.jinja": ("mini", laid_beside("chat_template.jinja", "{{ messages }}"), "files"),
    "eos_token": ("mini", fields("tokenizer_config.json", eos_token="<|pad|>"), "files"),
    "pad_token": ("mini", fields("tokenizer_config.json", pad_token="<|endoftext|>"), "files clients"),
    "tokenizer_class": ("mini", fields("tokenizer_config.json", tokenizer_class="GPT2Tokenizer"), "files"),
    "add_prefix_space": ("mini", fields("tokenizer_config.json", add_prefix_space=True), "files"),
    "model_max_length": ("mini", fields("tokenizer_config.json", model_max_length=8), "files"),
    "special_tokens_map.json": ("windowed", laid_beside("special_tokens_map.json", '{"bos_token": "<pad>"}'), "files"),
    "added_tokens.json": ("windowed", laid_beside("added_tokens.json", '{"<s>": 0}'), "files"),
    "no tokenizer_config.json": ("embedder", gone("tokenizer_config.json"), "files"),
    # config.json and generation_config.json
    "layer_types reversed": ("windowed", reverse_layers, "files outputs"),
    "sliding_window": ("windowed", fields("config.json", sliding_window=7), "files outputs"),
    "max_position_embeddings": ("windowed", fields("config.json", max_position_embeddings=2048), "files"),
    "dtype": ("mini", fields("config.json", torch_dtype="bfloat16"), "files outputs"),
    "rope_theta": ("mini", fields("config.json", rope_theta=500.0), "files outputs"),
    "a dynamic rope factor": ("mini", fields("config.json", rope_scaling={"rope_type": "dynamic", "factor": 4.0}), "files"),
    "norm": ("mini", fields("config.json", rms_norm_eps=1e-3), "files outputs"),
    "untied": ("mini", fields("config.json", tie_word_embeddings=False), "files loading"),
    "one layer less": ("mini", fields("config.json", num_hidden_layers=5), "files loading outputs"),
    "another architecture": ("mini", fields("config.json", architectures=["LlamaModel"]), "files"),
    "eos_token_id": ("mini", fields("config.json", eos_token_id=7), "files ids"),
    "vocab_size": ("mini", fields("config.json", vocab_size=12288), "files"),
    "a field that was not there": ("windowed", fields("config.json", decoder_start_token_id=3), "files ids"),
    "id2label swapped": ("embedder", fields("config.json", id2label={"0": "yes", "1": "no"}), "files"),
    "config.json broken": ("windowed", laid_beside("config.json", "{"), "files tensors"),
    "config.json gone": ("windowed", gone("config.json"), "files tensors"),
    "temperature": ("mini", fields("generation_config.json", temperature=1.7), "files"),
    "generation_config.json gone": ("mini", gone("generation_config.json"), "files ids"),
    "no temperature": ("mini", without("generation_config.json", "temperature"), "files"),
    # sentence-transformers
    "pooling": ("embedder", fields("1_Pooling/config.json", pooling_mode="cls"), "files pipeline"),
    "pooling module gone": ("embedder", without_pooling, "files pipeline"),
    "pooling configuration gone": ("embedder", gone("1_Pooling/config.json"), "files pipeline"),
    "max_seq_length": ("embedder", fields("sentence_bert_config.json", max_seq_length=8), "files pipeline"),
    "prompt": ("embedder", fields("config_sentence_transformers.json", prompts={"query": "q: "}), "files"),
    "similarity": ("embedder", fields("config_sentence_transformers.json", similarity_fn_name="dot"), "files"),
    "one bit of the dense layer": ("embedder", flipped("2_Dense/model.safetensors", 0.9), "files"),
    "modules.json gone": ("embedder", gone("modules.json"), "files pipeline"),
    # weights
    "rows swapped, no head": ("embedder", tensors(swap_rows(EMBEDDING)), "bytes"),
    "rows swapped, tied head": ("windowed", tensors(swap_rows("model.embed_tokens.weight")), "bytes outputs"),
    "one number of a row": ("embedder", tensors(add_to(EMBEDDING, (600, 5))), "bytes"),
    "one number of a block": ("windowed", tensors(add_to("model.layers.3.mlp.up_proj.weight", (3, 3))), "bytes outputs"),
    "a tensor gone": ("windowed", tensors(lambda t: t.pop("model.layers.3.mlp.up_proj.weight")), "tensors loading"),
    "a tensor more": ("windowed", tensors(lambda t: t.update({"model.extra": t["model.norm.weight"].clone()})), "tensors loading"),
    "a tensor's type": ("windowed", tensors(lambda t: t.update({"model.norm.weight": t["model.norm.weight"].half()})), "tensors"),
    "a row more": ("windowed", tensors(repeat_first_row), "tensors loading"),
    "weights cut short": ("windowed", truncated, "tensors"),
    "weights gone": ("windowed", gone("model.safetensors"), "tensors"),
    # files that nobody named
    "pytorch_model.bin": ("windowed", laid_beside("pytorch_model.bin"), "files"),
    "modeling.py": ("windowed", laid_beside("modeling.py", "import os"), "files"),
    "a second shard": ("windowed", second_shard, "files"),
    "an adapter": ("windowed", laid_beside("adapter_config.json"), "files"),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_fails(name, slices, tmp_path):
    of, damage, checks = CORRUPTIONS[name]
    source, intact = slices(of)
    out = tmp_path / "slice"
    shutil.copytree(intact, out)
    damage(out)
    found = failed(langslice.verify(source, out))
    assert set(checks.split()) <= set(found), found
    assert found.keys() - LOADING_CHECKS, "`--verify-level quick` would not notice it"


def test_what_other_programs_and_people_leave_is_no_corruption(slices, tmp_path):
    source, intact = slices("mini")
    out = tmp_path / "slice"
    shutil.copytree(intact, out)
    for name in (".git/config", ".cache/huggingface/x.lock", "__pycache__/modeling_sliced.cpython-311.pyc", "LICENSE"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")
    (out / "config.json").write_text(json.dumps(json.loads((out / "config.json").read_text()), indent=7))
    assert failed(langslice.verify(source, out)) == {}
