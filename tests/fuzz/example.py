"""A folder with a valid file of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from langslice.model.checkpoint import open_checkpoint
from langslice.slicing import main as job
from tests.tokenizer_samples import byte_level_folder, wordpiece, write_tokenizer_json
from tests.zoo import add_tokenizer, build

LETTERS = [chr(97 + number) for number in range(26)]
RECIPE = """\
model: mini
slice: {languages: "ko,en", coverage: [0.9, 0.99]}
sparsify: {sparsity: [0.3, 0.5], keep: {kind: mt, languages: "fr,en", count: 20}}
evaluate: {tasks: perplexity, languages: "ko,en", limit: 50}
"""
RUN = """\
model: {folder}/model
count: {{web: {{corpus: {folder}/text.txt}}}}
score: {{layers: {{kind: layers, method: block-influence, calibration: "{folder}/text.txt", seeds: 1}}}}
demonstrations: {{mt: {{mono: {folder}/text.txt, count: 20}}}}
slice: {{counts: $web, coverage: 0.9, drop_layers_by: "$layers:1"}}
verify: {{text: {folder}/text.txt}}
sparsify: {{sparsity: 0.3, keep_demos: $mt}}
evaluate: {{tasks: perplexity, languages: "ko,en", limit: 50}}
heal: {{corpus: {folder}/text.txt, steps: 3, batch_size: 2}}
restore: true
report: true
"""
EMBEDDING = "model.embed_tokens.weight"


def make_example(folder: Path) -> Path:
    """Write every valid file."""
    import torch

    from langslice.demonstrations import Demonstration, write_demonstrations
    from langslice.planning.plan import save_plan
    from langslice.scoring import ScoreSettings, compute

    torch.set_num_threads(1)
    add_tokenizer(build("llama", folder / "unigram"))
    model = build("llama", folder / "model", vocab_size=300)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *["##" + letter for letter in LETTERS], "ab", "##cd"]
    write_tokenizer_json(build("llama", folder / "wordpiece", vocab_size=64), wordpiece(words))
    byte_level_folder(model, [("a", "b"), ("ab", "c"), ("d", "e"), ("Ġ", "a")], ("<s>", "</s>"))
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}')
    (folder / "keep.txt").write_text("a\nb\n", encoding="utf-8")
    save_plan(job.plan(model, keep_tokens=str(folder / "keep.txt")), folder / "plan.json")
    job.slice(model, folder / "out", plan=folder / "plan.json", verify=False)
    checkpoint = open_checkpoint(model)
    _shard(checkpoint, folder / "sharded")
    (folder / "text.txt").write_text("a bad cab\n" * 50, encoding="utf-8")
    job.count(model, [str(folder / "text.txt")]).save(folder / "counts.parquet")
    settings = ScoreSettings((0,), 4, 16)
    compute(checkpoint, "layers", "block-influence", [str(folder / "text.txt")], settings=settings).save(
        folder / "layers.parquet"
    )
    write_demonstrations([Demonstration("mt", ("a b", "c d"), "\n", ("fr", "en"))] * 3, folder / "mt.jsonl")
    (folder / "sweep.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "here" / "now").mkdir(parents=True)
    (folder / "run.yaml").write_text(RUN.format(folder=folder), encoding="utf-8")
    _train(model, folder)
    return folder


def _train(model: Path, folder: Path) -> None:
    """A slice in vocabulary and structure, as if it had been trained, and an adapter of the model and of the slice."""
    import torch
    from safetensors.torch import save_file

    from langslice.planning.plan import save_plan
    from langslice.restoration import carry_adapter

    cut = {"keep_tokens": str(folder / "keep.txt"), "drop_layers": "0", "drop_neurons": "1:0-3"}
    save_plan(job.plan(model, **cut), folder / "trained.json")
    job.slice(model, folder / "trained", plan=folder / "trained.json", verify=False)
    shapes = open_checkpoint(model).shapes
    tensors = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": (3, shapes[EMBEDDING][1])}
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        rows, columns = shapes[f"{name}.weight"]
        tensors[f"base_model.model.{name}.lora_A.weight"] = (2, columns)
        tensors[f"base_model.model.{name}.lora_B.weight"] = (rows, 2)
    (folder / "adapter").mkdir()
    save_file(
        {name: torch.ones(shape) for name, shape in tensors.items()}, folder / "adapter" / "adapter_model.safetensors"
    )
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "bias": "none",
        "rank_pattern": {}, "alpha_pattern": {r"layers\.1\..*": 8}, "base_model_name_or_path": str(model), "revision": None,
        "trainable_token_indices": {"embed_tokens": [1, 5, 6]}, "layers_to_transform": None, "fan_in_fan_out": False,
        "use_dora": False, "init_lora_weights": True, "modules_to_save": None,
    }  # fmt: skip
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    carry_adapter(folder / "adapter", folder / "carried", plan=folder / "trained")


def _shard(checkpoint, folder: Path) -> None:
    """The same model in two shards with an index."""
    folder.mkdir()
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint.shards[0].path)
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    shutil.copy(checkpoint.folder / "config.json", folder)
