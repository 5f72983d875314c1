"""Classes that nobody wrote for: each does something of its own with the vocabulary or with its layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from langslice.mini import mini_model_path

ROWS, HIDDEN, LAYERS = 12288, 16, 4


class MadeUpConfig(transformers.PreTrainedConfig):
    """Sizes of all of them."""

    model_type = "made_up"

    def __init__(self, trick: str = "", vocab_size: int = ROWS, num_hidden_layers: int = LAYERS, **more: Any):
        self.trick, self.vocab_size, self.num_hidden_layers = trick, vocab_size, num_hidden_layers
        self.hidden_size, self.intermediate_size = HIDDEN, more.pop("intermediate_size", 40)
        self.bins = more.pop("bins", ROWS)
        self.lexicon_size = more.pop("lexicon_size", ROWS)
        self.gains = more.pop("gains", [1.0, 2.0, 3.0, 4.0])
        super().__init__(**more)


class Layer(nn.Module):
    """A feed-forward part with a gain of its own."""

    def __init__(self, config: MadeUpConfig, at: int):
        super().__init__()
        self.up_proj = nn.Linear(HIDDEN, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, HIDDEN)
        self.gain = config.gains[at % len(config.gains)] if config.trick == "list" else 1.0

    def forward(self, hidden_states: Any) -> Any:
        return hidden_states + self.gain * self.down_proj(self.up_proj(hidden_states).relu())


class MadeUp(transformers.PreTrainedModel):
    """One class with a trick that its configuration names."""

    config_class = MadeUpConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _tied_weights_keys = None

    def __init__(self, config: MadeUpConfig):
        super().__init__(config)
        rows, trick = config.vocab_size, config.trick
        if trick == "other field":
            rows = config.lexicon_size
        if trick == "padded":
            rows = -(-rows // 64) * 64
        self.words = nn.Embedding(rows, HIDDEN)
        self.layers = nn.ModuleList([Layer(config, at) for at in range(config.num_hidden_layers)])
        self.out = nn.Linear(HIDDEN, rows, bias=False)
        if trick == "tie":
            self._tied_weights_keys = {"out.weight": "words.weight"}
            self.out.weight = self.words.weight
        if trick == "second table":
            self.colour = nn.Parameter(torch.zeros(rows, HIDDEN))
        if trick == "hidden buffer":
            self.register_buffer("weights", torch.linspace(0.5, 1.5, rows), persistent=False)
        if trick == "pairs":
            self.pairs = nn.Embedding(2 * rows, HIDDEN)
        if trick == "by chance":
            self.histogram = nn.Parameter(torch.zeros(config.bins))
        if trick == "square":
            self.follows = nn.Parameter(torch.zeros(rows // 96, rows // 96))
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.words

    def forward(self, input_ids: Any, output_hidden_states: bool = False, return_dict: bool = True) -> Any:
        trick, states = self.config.trick, self.words(input_ids)
        if trick == "scaled":
            states = states * self.config.vocab_size**0.5
        if trick == "second table":
            states = states + self.colour[input_ids]
        if trick == "hidden buffer":
            states = states * self.weights[input_ids][..., None]
        if trick == "pairs":
            states = states + self.pairs(2 * input_ids) + self.pairs(2 * input_ids + 1)
        if trick == "by chance":
            states = states + self.histogram.mean()
        if trick == "one id":
            states = torch.where((input_ids == 300)[..., None], -states, states)
        if trick == "hashed":
            states = states + self.words.weight[:7][input_ids % 7]
        seen = [states]
        for layer in self.layers:
            states = layer(states)
            seen.append(states)
        logits = self.out(states)
        return CausalLMOutput(logits=logits, hidden_states=tuple(seen))


def save(folder: Path, trick: str, **more: Any) -> Path:
    """A random checkpoint of the class with a trick, beside the packaged tokenizer."""
    torch.manual_seed(1)
    model = MadeUp(MadeUpConfig(trick=trick, **more))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(mini_model_path() / name, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["MadeUp"]
    return folder
