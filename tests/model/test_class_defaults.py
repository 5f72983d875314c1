"""What configuration classes supply is the same with torch and in a process that does not see it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from langslice.model.transformers_classes import _asked_apart, _full_config, full_config

CONFIGS = [
    {"model_type": "llama", "vocab_size": 131, "torch_dtype": "bfloat16"},
    {"model_type": "gemma3_text", "num_hidden_layers": 7},
    {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]},
    {"model_type": "whisper"},
    {"model_type": "gemma3", "text_config": {"num_hidden_layers": 3}},
    {"model_type": "nobody_has_this"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_another_process_says_the_same(config):
    assert json.loads(_asked_apart(json.dumps(config))) == _full_config(config) == full_config(config)


def test_what_another_process_cannot_say_is_asked_here(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert _asked_apart(json.dumps(CONFIGS[0])) == b""
    program = (
        "import sys\nfrom langslice.model.transformers_classes import full_config\n"
        "sys.executable = '/nowhere/python'\n"
        "print(full_config({'model_type': 'llama'})['vocab_size'], 'torch' in sys.modules)"
    )
    monkeypatch.undo()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["32000", "True"]


def test_torch_is_not_imported_for_it():
    program = (
        "import sys\nfrom langslice.model.transformers_classes import full_config\n"
        "print(full_config({'model_type': 'llama'})['vocab_size'], 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["32000", "False", "False"]
