"""A transformers model whose layers have sizes of their own, as `sliced_shapes` in config.json says.

The unmodified class builds its layers alike; the parameters that were sliced are then replaced by smaller ones, and the
modules that remember a number of heads are told the new one. Everything else, loading and generation included, is the
unmodified class's.
"""

from pathlib import Path
from shutil import copyfile
from typing import Any

from torch import empty, nn


def sliced(stock: Any, code: str = "") -> Any:
    """The unmodified class with the sizes of `config.sliced_shapes`.

    code  this file, which every folder that the model is saved to needs too; "" to save weights alone
    """

    class Sliced(stock):  # type: ignore[misc]
        def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
            super().__init__(config, *arguments, **options)
            if getattr(config, "sliced_shapes", None) is None:
                return  # transformers before 4.53 takes this class for every model of the kind, once it has loaded one
            body: Any = getattr(self, self.base_model_prefix, self)
            for name, shape in config.sliced_shapes["parameters"].items():
                _resize(body, name, shape)
            for name, attributes in config.sliced_shapes["attributes"].items():
                for attribute, value in attributes.items():
                    setattr(body.get_submodule(name), attribute, value)
            for name, heads in config.sliced_shapes.get("slopes", {}).items():
                _keep_slopes(body.get_submodule(name), heads, config.num_attention_heads)
            for name, entry in config.sliced_shapes.get("position_bias", {}).items():
                _keep_bias(body.get_submodule(name), body.get_submodule(entry["first"]), **entry["heads"])
            for name, count in config.sliced_shapes.get("cross_bias", {}).items():
                _spread_bias(body.get_submodule(name), count)

        def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> Any:
            """Save the model with this file next to it, which early versions of transformers leave behind."""
            saved = super().save_pretrained(save_directory, *arguments, **options)
            copy = Path(save_directory, "modeling_sliced.py")
            if code and getattr(self.config, "sliced_shapes", None) and copy.parent.is_dir() and not copy.exists():
                copyfile(code, copy)
            return saved

        @classmethod
        def is_custom_code(cls) -> bool:
            """Names on disk are those of the unmodified class: version 5 renames them for classes of its own only."""
            return False

    Sliced.__name__ = Sliced.__qualname__ = stock.__name__
    return Sliced


def _resize(body: Any, name: str, shape: list[int]) -> None:
    """Replace one parameter; its module's own record of its size follows."""
    owner, _, leaf = name.rpartition(".")
    module = body.get_submodule(owner)
    old = getattr(module, leaf)
    setattr(module, leaf, nn.Parameter(empty(shape, dtype=old.dtype, device=old.device), old.requires_grad))
    if leaf == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif leaf == "weight" and hasattr(module, "nf"):  # GPT-2's Conv1D
        module.nx, module.nf = shape


def _keep_slopes(attention: Any, heads: list[int], count: int) -> None:
    """Give an attention the position slopes of the heads that it kept, (batch * heads, 1, length)."""

    def select(_: Any, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        alibi = options["alibi"]
        kept = alibi.view(-1, count, *alibi.shape[1:])[:, heads]
        return arguments, {**options, "alibi": kept.flatten(0, 1)}

    attention.register_forward_pre_hook(select, with_kwargs=True)


def _keep_bias(attention: Any, first: Any, own: list[int], before: list[int]) -> None:
    """Give a self-attention of T5 the columns of the heads that it kept, of the position bias that block 0 makes for all."""
    if attention is first:
        whole_bias = first.compute_bias

        def kept_bias(*arguments: Any, **options: Any) -> Any:
            first.whole_bias = whole_bias(*arguments, **options)
            return first.whole_bias[:, own]

        first.compute_bias = kept_bias
        return

    def select(_: Any, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = options["position_bias"]  # from the block before, for its heads
        if first.whole_bias.shape[-2:] != given.shape[-2:]:
            first.compute_bias(*given.shape[-2:])  # blocks that run one at a time: block 0 has read another text since
        mask = (given - first.whole_bias[:, before])[:, :1]  # version 4 adds the mask to the bias
        return arguments, {**options, "position_bias": first.whole_bias[:, own] + mask}

    attention.register_forward_pre_hook(select, with_kwargs=True)


def _spread_bias(attention: Any, count: int) -> None:
    """Give a cross-attention of T5 as many columns of the bias as it kept heads: all are alike, zeros or a mask."""

    def select(_: Any, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = options["position_bias"]
        return arguments, options if given is None else {
            **options,
            "position_bias": given[:, :1].expand(-1, count, -1, -1),
        }

    attention.register_forward_pre_hook(select, with_kwargs=True)
