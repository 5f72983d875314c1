"""A combination of cuts, as a value: how many rows stay, which layers go, and which shares of everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from langslice.formatting import number_runs

Layer = tuple[str, int]
"""Stack and number of a layer."""
PARTS: Final = ("heads", "neurons", "experts")
"""What goes by shares inside layers, the same of every layer."""
KINDS: Final = (*PARTS, "hidden")
"""What goes by shares; each is a field of Cut."""
WORDS: Final = {"hidden": "hidden dimensions"}
"""Kind -> what people are told, where that is another word."""


@dataclass(frozen=True)
class Cut:
    """What is cut.

    rows     of the vocabulary that stay, at most
    layers   (stack, layer) of those that go, ascending
    heads    share of the heads of every layer that goes
    neurons  share of the neurons of every layer that goes
    experts  share of the experts of every layer that goes
    hidden   share of the hidden dimensions of the whole model that goes, with as many heads where the class ties them
    """

    rows: int
    layers: tuple[Layer, ...] = ()
    heads: float = 0.0
    neurons: float = 0.0
    experts: float = 0.0
    hidden: float = 0.0

    def layer_texts(self) -> list[str]:
        """The layers that go, as --drop-layers takes them: ["3,5"], ["encoder.3", "decoder.5"]."""
        stacks = dict.fromkeys(stack for stack, _ in self.layers)
        return [f"{stack}." + ",".join(str(at) for name, at in self.layers if name == stack) for stack in stacks]

    def text(self) -> str:
        """In words: `9,000 rows; without layers 3-5; 0.25 of the neurons`."""
        parts = [f"{self.rows:,} rows"]
        for stack in dict.fromkeys(stack for stack, _ in self.layers):
            numbers = ",".join(number_runs([at for name, at in self.layers if name == stack]))
            parts.append(f"without {'layers' if stack == 'layers' else f'{stack} layers'} {numbers}")
        parts += [
            f"without {share:.3g} of the {WORDS.get(name, name)}" for name, share in self.shares().items() if share
        ]
        return "; ".join(parts)

    def shares(self) -> dict[str, float]:
        """Kind -> share that goes."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @property
    def axes(self) -> tuple[str, ...]:
        """What besides the vocabulary is cut."""
        return (*(["layers"] if self.layers else []), *(name for name, share in self.shares().items() if share))

    def all_axes(self, full: int) -> tuple[str, ...]:
        """What is cut, the vocabulary among it where fewer rows than `full` stay."""
        return (*(["vocabulary"] if self.rows < full else []), *self.axes)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**found, "layers": [list(one) for one in self.layers]}

    def choice(self, files: Mapping[str, str], hidden: Mapping[str, Any], tied: float) -> dict[str, Any]:
        """The entries of a choice, but for the vocabulary, that ask for this.

        files   kind -> file of its scores
        hidden  entries for the hidden dimensions
        tied    share of the heads that goes with these
        """
        entries: dict[str, Any] = dict(hidden)
        if self.layers:
            entries["drop_layers"] = self.layer_texts()
        shares = {kind: getattr(self, kind) for kind in PARTS}
        for kind, share in ({**shares, "heads": tied} if tied else shares).items():
            if share:
                entries |= {f"{kind}_sparsity": share, f"{kind}_by": files[kind]}
                if kind != "experts":  # of which as many of each layer go in any case
                    entries["even"] = True
        return {**entries, "output_style": "stock"} if entries else {}


def cut_of(rows: int, kind: str, share: float) -> Cut:
    """A cut of one of KINDS alone, next to that of the vocabulary."""
    return replace(Cut(rows), **{kind: share})  # type: ignore[arg-type]
