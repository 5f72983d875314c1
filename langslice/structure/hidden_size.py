"""Hidden states of fewer dimensions: what can be written, what it asks of config.json, and which weights it scales.

Dimensions that go are left out of the residual stream: of every embedding, of what each part of a layer adds, and of every matrix
that reads. With H dimensions of which N stay:

- A root mean square over the N that stay is sqrt(H/N) of that over all H where the others are zero. Weights of norms over the
  stream are scaled by sqrt(H/N), so that what stays is divided by what the source divides it by.
- Gemma's classes multiply embeddings by sqrt(N), not sqrt(H). So the whole stream is sqrt(N/H) of the source's: what is added to it
  is scaled by that, and rows of the vocabulary stay the bytes they are. A norm behind a part of a layer then needs no factor,
  for the two cancel.
- T5's classes divide what the head reads by sqrt(N), not sqrt(H): the factors of this and of the decoder's last norm cancel.
- A layer norm (BERT) takes mean and variance of the N that stay, and its weights stay as they are.

The epsilon of config.json stays. To a norm that is scaled by sqrt(H/N) it is what N/H of it is to the source's, but for those that
read Gemma's smaller stream, where the two are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy
from langslice.model.axes import TensorAxes, describe_tensors, find_vocabulary_size
from langslice.model.body import Residual
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.structure.kept import Kept


@dataclass(frozen=True)
class Scaling:
    """What is done to the elements of a tensor: (value + offset) * factor - offset."""

    factor: float
    offset: float = 0.0


def hidden_size(anatomy: Anatomy) -> int:
    """Dimensions of the source's hidden states.

    Raises   PlanError for a family that the table does not know enough of
    """
    residual = residual_of(anatomy)
    return int(anatomy.config[residual.size])


def refuse_hidden(anatomy: Anatomy, kept: Kept) -> None:
    """Refuse hidden states of a size that unmodified code cannot compute with.

    Raises   PlanError with the reason and the nearest sizes that can be
    """
    if not kept.hidden:
        return
    before, after = hidden_size(anatomy), len(kept.hidden)
    if kept.style == "masked":
        raise PlanError(
            "hidden dimensions cannot be masked by zeros: norms would go on counting them",
            hint="remove them: langslice slice --hidden-size",
        )
    body = anatomy.body
    sizes = {heads.size for layers in anatomy.heads.values() for heads in layers.values()}
    if not body.head_size:
        (size,) = sizes
        counts = {
            len(kept.heads.get(place, {}).get(layer, range(heads.query)))
            for place, layers in anatomy.heads.items()
            for layer, heads in layers.items()
            if kept.keeps_layer(place.split(".")[0], layer)
        }
        if counts != {after // size} or after % size:
            whole = max(after // size, 1)
            raise PlanError(
                f"unmodified code of `{body.model_types[0]}` makes heads of hidden size / heads dimensions: hidden states of "
                f"{after} dimensions go with {after / size:g} heads of {size} in every layer, and {_counts(counts)} stay",
                hint=f"--hidden-size {whole * size} and as many heads less in every layer: "
                f"--heads-sparsity {1 - whole * size / before:.4g} --uniform",
            )


def refuse_beside_hidden(anatomy: Anatomy, kept: Kept, reason: str) -> None:
    """Refuse what unmodified code cannot express, where hidden states have fewer dimensions: no other code is written for them.

    reason   what unmodified code has against it
    Raises   PlanError
    """
    if not kept.hidden:
        return
    heads = {len(row) for rows in kept.heads.values() for row in rows.values()}
    heads = heads or {one.query for layers in anatomy.heads.values() for one in layers.values()}
    number, count = len(kept.hidden), max(heads)
    near = [one for one in (number // count * count, -(-number // count) * count) if 0 < one < hidden_size(anatomy)]
    raise PlanError(
        f"hidden states of {number} dimensions go with the unmodified class alone, which cannot express this slice: {reason}",
        hint=f"a multiple of {count} heads: --hidden-size {' or '.join(map(str, near or [count]))}"
        if number % count
        else "--uniform slices all layers alike",
    )


def _counts(counts: set[int]) -> str:
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def check_hidden(anatomy: Anatomy, number: int) -> None:
    """Refuse a number of dimensions, or a family, before anything is measured.

    Raises   PlanError
    """
    before = hidden_size(anatomy)
    if number >= before:
        raise PlanError(
            f"--hidden-size {number}: the hidden states of this model have {before} dimensions",
            hint=f"give a smaller number, such as {before * 7 // 8 // 8 * 8 or 1}",
        )


def hidden_fields(anatomy: Anatomy, kept: Kept) -> dict[str, Any]:
    """Fields of config.json that change with the number of dimensions; the size of a head is written out."""
    if not kept.hidden:
        return {}
    fields: dict[str, Any] = {residual_of(anatomy).size: len(kept.hidden)}
    if anatomy.body.head_size:
        fields[anatomy.body.head_size] = next(
            heads.size for layers in anatomy.heads.values() for heads in layers.values()
        )
    return fields


def scalings(anatomy: Anatomy, kept: Kept, tensors: Mapping[str, TensorAxes]) -> dict[str, Scaling]:
    """Which tensors (old names) are scaled as dimensions go, and how.

    tensors  of the source: name -> part and axes
    """
    if not kept.hidden or kept.rotation or (residual := residual_of(anatomy)).norm == "layer":
        return {}
    up = (hidden_size(anatomy) / len(kept.hidden)) ** 0.5
    stream = 1 / up if residual.scaled else 1.0
    found: dict[str, Scaling] = {}
    for name, tensor in tensors.items():
        if tensor.axes == ("hidden",) and tensor.part == "norm":
            factor = up * stream if _is_after(residual, name) else up
            if _is_divided(anatomy, name):
                factor /= up
            found[name] = Scaling(factor, 1.0 if residual.norm == "rms+1" else 0.0)
        elif tensor.axes and tensor.axes[0] == "hidden" and not residual.after and tensor.part in _WRITERS:
            found[name] = Scaling(stream)
    return {name: one for name, one in found.items() if abs(one.factor - 1) > 1e-12}


def scalings_of(checkpoint: Checkpoint, anatomy: Anatomy, kept: Kept) -> dict[str, Scaling]:
    """The same, for whoever does not have the axes of the tensors at hand."""
    if not kept.hidden:
        return {}
    family = family_of(checkpoint.config)
    shapes = checkpoint.shapes
    return scalings(anatomy, kept, describe_tensors(family, shapes, find_vocabulary_size(family, shapes)))


# Parts of a layer whose output is added to the stream.
_WRITERS = ("attention", "feed-forward")


def _is_after(residual: Residual, name: str) -> bool:
    return bool(residual.after) and re.search(rf"(?:^|\.)(?:{residual.after})\.", name) is not None


def is_headed(architectures: Any) -> bool:
    """Whether the class that config.json names has an output head over the vocabulary."""
    return any(str(name).endswith("ConditionalGeneration") for name in architectures or ())


def _is_divided(anatomy: Anatomy, name: str) -> bool:
    """Whether a norm gives what unmodified code divides by the root of the size on its way to the head."""
    given = anatomy.given
    tied = given.get("tie_word_embeddings") is not False
    return residual_of(anatomy).divided and tied and is_headed(given.get("architectures")) and "decoder.final_" in name


def residual_of(anatomy: Anatomy) -> Residual:
    """What the table knows of the residual stream of a family.

    Raises   PlanError where it knows nothing
    """
    residual = anatomy.body.residual
    if residual is None:
        raise PlanError(
            f"the hidden size of a `{anatomy.body.model_types[0]}` model cannot be cut: what its class derives from it is not in "
            "the table",
            hint="layers, heads, neurons and the vocabulary can be cut; to add it, see `residual` in "
            "langslice/model/layer_fields.py",
        )
    return residual
