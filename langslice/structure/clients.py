"""Which clients will load a slice, by what the table of families says of each, and by sizes that mean something to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.model.anatomy import Anatomy
from langslice.model.layer_fields import LLAMA_CPP_SIZES
from langslice.structure.kept import Kept

CLIENTS = ("vLLM", "llama.cpp", "CTranslate2", "MLX", "TEI")
_EVERYWHERE = "transformers, sentence-transformers, ONNX Runtime (by export)"


def client_note(anatomy: Anatomy, kept: Kept, quantised: str = "") -> str:
    """One sentence for people: where the slice loads, where it does not, and where that is not known.

    quantised  how the source's weights are stored, "" for plain ones
    """
    if quantised:
        return (
            f"the weights are quantised ({quantised}) and carried as they are; clients other than transformers were not tried "
            "with such a slice, transformers where verification says that it loads"
        )
    if kept.style == "masked" or not (kept.layers or kept.heads or kept.neurons or kept.experts or kept.hidden):
        return "loads wherever the source does: shapes and configuration are the source's"
    if kept.style == "sliced":
        return (
            f"loads in {_EVERYWHERE} and PEFT with trust_remote_code=True; not in {', '.join(CLIENTS)}, which expect layers "
            "of one size"
        )
    parts = {"layers": kept.layers, "heads": kept.heads, "neurons": kept.neurons}
    cut = {word for word, part in parts.items() if part}
    known = anatomy.body.clients
    refuses = {
        name: f"{name} (not with fewer {' and '.join(sorted(cut - known[name]))})"
        for name in CLIENTS
        if name in known and not cut <= known[name]
    }
    # None was tried with fewer experts, or hidden dimensions.
    untried = bool(kept.experts or kept.hidden)
    unknown = [name for name in CLIENTS if name not in refuses and (untried or name not in known)]
    loads = [name for name in CLIENTS if name not in refuses and name not in unknown]
    told = [f"loads in {', '.join([_EVERYWHERE, *loads])}"]
    told += [f"not in {', '.join(refuses.values())}"] if refuses else []
    told += [f"not known of {', '.join(unknown)}"] if unknown else []
    return "; ".join(told)


def depth_note(anatomy: Anatomy, kept: Kept) -> str:
    """A warning for T5: some versions of transformers size the decoder's cache by the encoder's depth; else ""."""
    depths = {stack: len(kept.layers.get(stack, range(count))) for stack, count in anatomy.layers.items()}
    if anatomy.body.head_size != "d_kv" or not kept.layers or len(depths) < 2 or depths["encoder"] >= depths["decoder"]:
        return ""
    return (
        f"the decoder now has {depths['decoder']} layers and the encoder {depths['encoder']}: transformers 5.23 can generate "
        "from such a model with use_cache=False only"
    )


def place_note(anatomy: Anatomy, kept: Kept) -> str:
    """A warning where clients that derive a layer's kind from its place would compute something else; else ""."""
    for stack, stay in kept.layers.items():
        for name in ("layer_types", "no_rope_layers"):
            values = anatomy.config.get(name) if name in anatomy.body.lists else None
            if isinstance(values, list) and [values[layer] for layer in stay] != values[: len(stay)]:
                return (
                    f"`{name}` of the {stack} stack no longer follows the family's pattern: it is written out in config.json, "
                    "and clients that derive it from a layer's place (llama.cpp, MLX, TEI, vLLM of early 2025, transformers before "
                    "4.53) would go wrong"
                )
    return ""


def size_note(config: Mapping[str, Any], before: int, after: int) -> str:
    """What changes in llama.cpp where a vocabulary leaves or hits a size that it takes for a certain model; else "".

    config  of the source
    before  rows of the source
    after   rows of the slice, padding included
    """
    for size, (model_types, layers, what) in LLAMA_CPP_SIZES.items():
        here = config.get("model_type") in model_types and layers in (None, config.get("num_hidden_layers"))
        if not here or before == after or size not in (before, after):
            continue
        told = f"llama.cpp takes a vocabulary of {size} rows for {what}; "
        told += f"the slice has {after} and is no longer taken for it" if size == before else "the slice has as many"
        return told if layers else f"{told}. Only its converter has this rule: `langslice export` goes by the files"
    return ""
