"""What a model is given so that its outputs can be compared: token ids, and what it reads next to them."""

from __future__ import annotations

from inspect import signature
from typing import Any

from langslice.model.anatomy import is_cross_attention
from langslice.model.axes import is_tower
from langslice.model.class_shapes import input_table, reads_more

RANDOM_LENGTH = 24
# Outputs that are states of layers.
STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states", "last_hidden_state")
# What is raised for a model that this machine cannot run: a library or an operation that is missing,
# positions that are too few, sizes that it does not take.
CANNOT_RUN = (ImportError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError)


def text_reader(model: Any) -> Any:
    """The model, or the text model inside of one that does not run on text alone, as CLIP and BLIP do not.

    The outermost part that reads ids through the same table, and runs; the model itself where there is none.
    """
    if not reads_more(model) or _runs(model):
        return model
    table = input_table(model)
    for path, part in model.named_modules():
        if path and hasattr(part, "get_input_embeddings") and _takes(part, "input_ids"):
            try:
                same = part.get_input_embeddings() is table
            except NotImplementedError:  # a tower without a table
                continue
            if same and _runs(part):
                return part
    return model


def _runs(model: Any) -> bool:
    """Whether it runs on one token, and says what states that gives."""
    try:
        output = model(**inputs_of(model, [0], 0), **encode_sound(model), output_hidden_states=True, return_dict=True)
    except CANNOT_RUN:
        return False
    return any(getattr(output, name, None) is not None for name in STATES)


def encode_sound(model: Any) -> dict[str, Any]:
    """What the encoder of a model of speech or pictures makes of random ones, computed once; nothing for other models."""
    import torch

    if not _takes(model, "encoder_outputs"):  # a decoder alone
        return {}
    generator = torch.Generator().manual_seed(0)
    if model.main_input_name == "input_features":
        shape: tuple[int, ...] = (1, model.config.num_mel_bins, model.config.max_source_positions * 2)
    elif model.main_input_name == "pixel_values" and model.config.is_encoder_decoder:
        of_pictures = model.config.encoder
        shape = (1, of_pictures.num_channels, of_pictures.image_size, of_pictures.image_size)
    else:
        return {}
    features = torch.randn(shape, generator=generator)
    return {"encoder_outputs": model.get_encoder()(features.to(model.dtype), return_dict=True)}


def inputs_of(model: Any, ids: list[int], start: int) -> dict[str, Any]:
    """The arguments of one sample; a decoder reads it moved on by one, behind its start."""
    import torch

    tokens = torch.tensor([ids])
    cache = {"use_cache": False} if "use_cache" in signature(model.forward).parameters else {}
    # The encoder alone of an encoder-decoder has the configuration of both.
    if not model.config.is_encoder_decoder or not _takes(model, "decoder_input_ids"):
        return {"input_ids": tokens, **cache, **_encoder_states(model)}
    decoder = torch.tensor([[start, *ids[:-1]]])
    return (
        {"decoder_input_ids": decoder}
        if model.main_input_name != "input_ids"
        else {"input_ids": tokens, "decoder_input_ids": decoder}
    )


def _encoder_states(model: Any) -> dict[str, Any]:
    """Random states of an encoder for a decoder that reads one which is not part of it; nothing for other models."""
    import torch

    if not any(is_cross_attention(name) and not is_tower(name) for name, _ in model.named_parameters()):
        return {}
    hidden = getattr(model.config, "encoder_hidden_size", None) or getattr(model.config, "hidden_size", None)
    if hidden is None:  # a tower of another kind, such as the Q-Former that reads sound
        return {}
    states = torch.randn((1, RANDOM_LENGTH, hidden), generator=torch.Generator().manual_seed(1))
    # Half of an encoder-decoder counts the layers of its cache by the half that is not there.
    cache = {"use_cache": False} if _takes(model, "use_cache") else {}
    return {"encoder_hidden_states": states.to(model.dtype), **cache}


def _takes(model: Any, name: str) -> bool:
    """Whether the model's forward has an argument of this name, or passes on whatever it is given."""
    parameters = signature(model.forward).parameters
    return name in parameters or (
        name == "use_cache" and any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    )
