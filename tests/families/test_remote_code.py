"""A model folder that brings its modeling file: sliced and proven once it is trusted, and nothing of it is run before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import langslice
from langslice.errors import CheckpointError, LangsliceError, RecipeError, TaskError, UnknownFamilyError
from langslice.mini import mini_model_path
from langslice.model import class_shapes, remote_code
from langslice.recipes.equivalent import part_recipe
from langslice.slicing.main import model_row

ROWS = 12288
CODE = """
from pathlib import Path
import torch
from torch import nn
import transformers
from transformers.modeling_outputs import CausalLMOutput
Path(r"MARKER").write_text("run")

class OwnConfig(transformers.PreTrainedConfig):
    model_type = "own_code"
    def __init__(self, vocab_size=12288, num_hidden_layers=3, intermediate_size=24, **more):
        self.vocab_size, self.num_hidden_layers = vocab_size, num_hidden_layers
        self.hidden_size, self.intermediate_size = 16, intermediate_size
        super().__init__(**more)

class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up_proj = nn.Linear(16, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, 16)
    def forward(self, hidden_states):
        return hidden_states + self.down_proj(self.up_proj(hidden_states).relu())

class OwnForCausalLM(transformers.PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    def __init__(self, config):
        super().__init__(config)
        self.lexemes = nn.Embedding(config.vocab_size, 16)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
        self.speak = nn.Linear(16, config.vocab_size, bias=False)
        self.post_init()
    def get_input_embeddings(self):
        return self.lexemes
    def forward(self, input_ids, output_hidden_states=False, return_dict=True, **_):
        states = self.lexemes(input_ids)
        seen = [states]
        for block in self.blocks:
            states = block(states)
            seen.append(states)
        return CausalLMOutput(logits=self.speak(states), hidden_states=tuple(seen))
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A random checkpoint of a class that only its folder has; its code writes the file `was_run`."""
    from transformers import dynamic_module_utils
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    trusted = {}
    for module in (class_shapes, remote_code):
        monkeypatch.setattr(module, "TRUSTED", trusted)
    monkeypatch.setattr(CONFIG_MAPPING, "_extra_content", dict(CONFIG_MAPPING._extra_content))
    return save(tmp_path / "source", tmp_path / "was_run")


def save(folder: Path, marker: Path) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(mini_model_path() / name, folder)
    (folder / "modeling_own.py").write_text(CODE.replace("MARKER", str(marker)))
    generator = torch.Generator().manual_seed(0)
    shapes = {"lexemes.weight": (ROWS, 16), "speak.weight": (ROWS, 16)}
    for at in range(3):
        shapes |= {
            f"blocks.{at}.up_proj.weight": (24, 16), f"blocks.{at}.up_proj.bias": (24,),
            f"blocks.{at}.down_proj.weight": (16, 24), f"blocks.{at}.down_proj.bias": (16,),
        }  # fmt: skip
    tensors = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "own_code", "architectures": ["OwnForCausalLM"], "vocab_size": ROWS, "num_hidden_layers": 3,
        "intermediate_size": 24, "hidden_size": 16, "tie_word_embeddings": False,
        "auto_map": {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_nothing_is_run_that_is_not_trusted(source, tmp_path):
    with pytest.raises(UnknownFamilyError) as refused:
        langslice.slice(source, tmp_path / "out", scripts="Hang")
    assert "add `trust_remote_code`" in refused.value.hint
    assert not (tmp_path / "was_run").exists()
    assert not (tmp_path / "out").exists()


def test_trusted_code_is_sliced_proven_and_carried(source, tmp_path):
    result = langslice.slice(
        source, tmp_path / "out", scripts="Hang", drop_layers="1", neurons_sparsity=0.25, neurons_by="l2", uniform=True,
        trust_remote_code=True,
    )  # fmt: skip
    assert result.verification.passed
    assert result.plan.row
    assert "code of the model folder was run: modeling_own.py (--trust-remote-code)" in result.notes
    assert result.plan.request["trust_remote_code"] is True
    out = tmp_path / "out"
    assert (out / "modeling_own.py").read_bytes() == (source / "modeling_own.py").read_bytes()
    model = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert len(model.blocks) == 2
    assert model.blocks[0].up_proj.weight.shape == (18, 16)
    assert model.lexemes.weight.shape[0] == len(result.plan.new_to_old)
    assert langslice.verify(source, out, trust_remote_code=True).passed
    assert "own_code" in model_row(source, trust_remote_code=True)
    evaluation = langslice.evaluate(source, out, languages="ko", limit=4, trust_remote_code=True)
    assert {one.metric for one in evaluation.scores} >= {"bits per byte"}
    with pytest.raises(
        TaskError, match="OwnForCausalLM returns no cache"
    ):  # so its code was run, in a process of its own
        langslice.evaluate(source, tasks="speed", rounds=1, trust_remote_code=True)
    with pytest.raises(RecipeError, match="no recipe trusts"):
        part_recipe("slice", str(source), {"scripts": "Hang", "trust_remote_code": True})
    with pytest.raises(LangsliceError, match="verif"):
        langslice.slice(source, tmp_path / "more", scripts="Hang", verify=False, trust_remote_code=True)


def test_code_that_would_replace_a_class_or_cannot_be_imported_is_refused(source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(CheckpointError, match="would take the place of transformers' own `llama`"):
        langslice.slice(source, tmp_path / "out", scripts="Hang", trust_remote_code=True)
    assert not (tmp_path / "was_run").exists()
    (source / "config.json").write_text(json.dumps(config))
    (source / "modeling_own.py").write_text("raise OSError('no such thing')")
    with pytest.raises(CheckpointError, match="its code cannot be used: OSError: no such thing"):
        langslice.slice(source, tmp_path / "out", scripts="Hang", trust_remote_code=True)
    assert not (tmp_path / "out").exists()
