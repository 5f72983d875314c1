"""The adapter: one vector per layer in steering.safetensors, and what they are in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import CheckpointError
from langslice.files.json_forms import check_form
from langslice.steering.options import METHODS

FORMAT = "langslice-steering-1"
FILE = "steering.safetensors"
_KEY = "langslice"
_FORM = {
    "format": str, "method": str, "language": str, "sources": [str], "strength": (float, int), "modules": dict, "layers": int,
    "model": str, "model_type": str, "fingerprint": str, "texts": [str],
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Steering:
    """Vectors that steer a model to a language.

    method       "diffmean": strength times the vector is added to what the block returns; "scale" and "zero": where the vector is
                 1, what the neuron gives to the second feed-forward matrix is multiplied by the strength
    language     that is steered to; sources are those that it was compared with
    strength     1 for the difference itself; 0 for "zero"
    vectors      layer -> (hidden,) float32, or (neurons,) float32 of 0 and 1
    modules      layer -> the module of the unmodified class whose output, or input, is changed
    layers       number of layers of the model
    model        what the user called it; fingerprint is what ties the vectors to its configuration and shapes
    texts        names of the texts
    """

    method: str
    language: str
    sources: tuple[str, ...]
    strength: float
    vectors: Mapping[int, npt.NDArray[np.float32]]
    modules: Mapping[int, str]
    layers: int
    model: str
    model_type: str
    fingerprint: str
    texts: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Everything but the vectors, as JSON."""
        return {
            "format": FORMAT, "method": self.method, "language": self.language, "sources": list(self.sources),
            "strength": self.strength, "modules": {str(layer): name for layer, name in self.modules.items()},
            "layers": self.layers, "model": self.model, "model_type": self.model_type, "fingerprint": self.fingerprint,
            "texts": list(self.texts),
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write steering.safetensors and README.md into a folder that is there."""
        from safetensors.numpy import save_file

        tensors = {f"layers.{layer}": vector for layer, vector in self.vectors.items()}
        save_file(tensors, folder / FILE, metadata={_KEY: json.dumps(self.facts(), ensure_ascii=False)})
        (folder / "README.md").write_text(self._card(), encoding="utf-8")

    def _card(self) -> str:
        layers = ", ".join(map(str, sorted(self.vectors)))
        what = {
            "diffmean": f"adds {self.strength:g} times the difference of mean hidden states to what each of these blocks returns",
            "scale": f"multiplies the neurons of `{self.language}` by {self.strength:g}",
            "zero": f"zeroes the neurons of {', '.join(self.sources)} that are not those of `{self.language}`",
        }[self.method]
        return _CARD.format(
            language=self.language, model=Path(self.model).name if Path(self.model).is_dir() else self.model,
            sources=", ".join(self.sources), layers=layers, what=what,
        )  # fmt: skip


_CARD = """# Steering to {language}

For `{model}`, away from {sources}: {what}. Layers {layers}.

```python
from langslice.steering import apply_steering

with apply_steering(model, "this-folder"):  # strength=0.5 for half of it
    model.generate(**inputs)
```

`model` is the model as transformers loads it, or a slice of its vocabulary. `steering.safetensors` has one tensor per layer; its
metadata, under `langslice`, says the method, the strength, the modules, and the model's fingerprint.
"""


def load_steering(folder: str | Path) -> Steering:
    """Read an adapter.

    folder   that `langslice features --steer` wrote, or its steering.safetensors
    Raises   CheckpointError when it is missing, damaged, or of another format
    """
    from safetensors import SafetensorError, safe_open

    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    hint = "write it with `langslice features MODEL --steer CODE`"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", hint)
    try:
        with safe_open(path, "numpy") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            vectors = {int(name.removeprefix("layers.")): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a steering adapter ({error})", hint) from error
    check_form(facts, _FORM, f"{path}, its metadata", CheckpointError, hint)
    _check(path, facts, vectors, hint)
    return Steering(
        facts["method"], facts["language"], tuple(facts["sources"]), float(facts["strength"]), vectors,
        {int(layer): name for layer, name in facts["modules"].items()}, facts["layers"], facts["model"],
        facts["model_type"], facts["fingerprint"], tuple(facts["texts"]),
    )  # fmt: skip


def _check(path: Path, facts: Mapping[str, Any], vectors: Mapping[int, Any], hint: str) -> None:
    if facts["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {facts['format']!r}, expected {FORMAT!r}", hint)
    if facts["method"] not in METHODS:
        raise CheckpointError(f"{path}: unknown method {facts['method']!r}, known are {', '.join(METHODS)}", hint)
    if set(facts["modules"]) != {str(layer) for layer in vectors} or not vectors:
        raise CheckpointError(f"{path}: its tensors are of other layers than its metadata says", hint)
    wrong = [layer for layer, vector in vectors.items() if vector.dtype != np.float32 or vector.ndim != 1]
    if wrong:
        raise CheckpointError(f"{path}: layers.{wrong[0]} is not a vector of float32", hint)
