"""Options of steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Entry, Options, TextField

METHODS: Final = ("diffmean", "scale", "zero")


@dataclass(frozen=True, kw_only=True)
class SteeringOptions(Options):
    """To which language, away from which, by what, and where."""

    error = PlanError
    group = "Steering"

    steer: Annotated[
        str | None, Entry("Language to steer to, such as ko; writes an adapter for generation.", "CODE")
    ] = None
    steer_from: Annotated[
        str | Sequence[str],
        Entry(
            "Languages to steer away from: en,fr. Default: the other languages of --calibration; without it en.",
            "CODES",
            codes=True,
        ),
    ] = ()
    steer_by: Annotated[
        str,
        Entry(
            "diffmean: add the difference of mean hidden states; scale: multiply the language's own neurons; "
            "zero: zero the other languages' neurons.",
            "NAME",
            values=METHODS,
        ),
    ] = "diffmean"
    steer_layers: Annotated[
        str | None, Entry("Layers to steer at: 6-11. Default: the middle third for diffmean, otherwise all.", "LAYERS")
    ] = None
    strength: Annotated[
        float | None,
        Entry(
            "Factor of the vectors (default: 1 over the number of layers), or of the neurons with scale (default: 2).",
            "NUMBER",
        ),
    ] = None
    texts: Annotated[
        Sequence[str] | Mapping[str, Sequence[str]],
        Entry(
            "Text of one language to steer by: ko=ko.txt. May be repeated. Default: lines of --data.",
            "[CODE=]PATH",
            named="calibration",
        ),
    ] = ()
    text_field: TextField = "text"
    samples: Annotated[int, Entry("Lines per language to steer by.", "N", least=1)] = 128
    fold: Annotated[
        bool, Entry("Also write a checkpoint of the unmodified class that has the vectors in its biases.")
    ] = False
