"""Load a model as its user would: the unmodified class and tokenizer of transformers, in a chosen precision, on a chosen device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from langslice.errors import CheckpointError, TaskError, TokenizerError
from langslice.evaluation.options import DTYPES
from langslice.model.positions import longest_text

KINDS: Final = ("causal", "seq2seq", "encoder")
# Logits of one pass, in numbers; on a CPU larger passes are slower, because logits leave the cache.
_LOGITS: Final = {"cpu": 1 << 21, "cuda": 1 << 30}


@dataclass
class Loaded:
    """A model in memory, with what was already computed on it.

    folder        of the checkpoint
    kind          one of KINDS
    max_length    most tokens that it reads; None where its positions are not limited
    logits_limit  numbers that the logits of one forward pass may have
    memo          results that several tasks share: label scores by task and language
    notes         what a reader must know of how the model was run
    plain_head    the model returns what its output head gives; None as long as that was not tried
    reads_trees   the model reads a tree of sequences as it reads them one by one; None as long as that was not tried
    """

    folder: Path
    kind: str
    model: Any
    tokenizer: Any
    max_length: int | None
    logits_limit: int
    memo: dict[Any, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plain_head: bool | None = None
    reads_trees: bool | None = None

    @property
    def vocabulary(self) -> int:
        """Columns of the logits."""
        config = self.model.config
        return int(getattr(config.get_text_config(decoder=True), "vocab_size", 0) or config.vocab_size)

    def note(self, text: str) -> None:
        """Say something to the reader of the results, once."""
        if text not in self.notes:
            self.notes.append(text)


def model_kind(folder: Path, *, trust_remote_code: bool = False) -> str:
    """What a checkpoint can do: `causal`, `seq2seq` or `encoder`.

    Raises  CheckpointError when transformers does not know the class that config.json names
    """
    import transformers

    from langslice.model.transformers_classes import model_class, quiet_transformers

    with quiet_transformers():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{folder}: transformers cannot run it\n  {str(error).splitlines()[0]}",
                "tables of static embeddings, wrapped encoders and tokenizers alone are sliced and not run here",
            ) from error
    if config.is_encoder_decoder:
        return "seq2seq"
    stock = model_class(folder)
    names = tuple(config.architectures or ())
    if stock is None and not (trust_remote_code and names):
        raise CheckpointError(
            f"{folder}: transformers has no class {', '.join(names) or 'named in config.json'}",
            "pass --trust-remote-code where the model brings code that you trust",
        )
    generates = stock is not None and stock.can_generate()
    return "causal" if generates or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names) else "encoder"


def pick_device(device: str) -> str:
    """`auto` is the GPU where there is one."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_model(
    folder: Path, *, device: str = "auto", dtype: str = "float32", trust_remote_code: bool = False
) -> Loaded:
    """Load a checkpoint with its tokenizer.

    dtype   one of DTYPES; scores of two models are compared in the same one
    Raises  CheckpointError, TokenizerError
    """
    import torch

    from langslice.model.transformers_classes import quiet_transformers

    if dtype not in DTYPES:
        raise TaskError(f"unknown precision {dtype!r}", f"one of {', '.join(DTYPES)}")
    kind = model_kind(folder, trust_remote_code=trust_remote_code)
    device = pick_device(device)
    with quiet_transformers():
        try:
            model = stock_class(kind, folder).from_pretrained(folder, trust_remote_code=trust_remote_code)
            model = model.to(getattr(torch, dtype)).to(device).eval()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise CheckpointError(
                f"{folder}: transformers cannot load it\n  {error}", "run `langslice verify`"
            ) from error
    return loaded(folder, kind, model, load_tokenizer(folder, trust_remote_code=trust_remote_code))


def loaded(folder: Path, kind: str, model: Any, tokenizer: Any) -> Loaded:
    """A model of transformers that is in memory, with its limits."""
    limit = _LOGITS["cuda" if model.device.type == "cuda" else "cpu"]
    return Loaded(folder, kind, model, tokenizer, longest_text(model.config.to_dict()), limit)


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a folder, through transformers. Raises TokenizerError where it has none that transformers reads."""
    from transformers import AutoTokenizer

    from langslice.model.transformers_classes import quiet_transformers
    from langslice.tokenizer.marian import is_marian
    from langslice.tokenizer.slow_files import vocabulary_files

    known = (folder / "tokenizer.json").is_file() or vocabulary_files(folder) or is_marian(folder)
    if not known and not trust_remote_code:
        # transformers would make up a tokenizer of a few tokens, and say nothing.
        raise TokenizerError(f"{folder} holds no tokenizer that transformers reads", "evaluation needs a tokenizer")
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:  # the classes raise anything from ImportError to RuntimeError
            raise TokenizerError(
                f"{folder}: transformers cannot open its tokenizer\n  {error}", "evaluation needs a tokenizer"
            ) from error
    return tokenizer


def encode_texts(loaded: Loaded, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, encoded as the tokenizer does by default; without the end of text where one is put after them."""
    # Callers look at lengths themselves; the tokenizer would warn of long texts.
    found = [list(ids) for ids in loaded.tokenizer(list(texts), verbose=False).input_ids]
    end = loaded.tokenizer.eos_token_id
    if loaded.kind == "causal" and end is not None and loaded.tokenizer("a").input_ids[-1] == end:
        return [ids[:-1] if ids and ids[-1] == end else ids for ids in found]
    return found


def stock_class(kind: str, folder: Path) -> Any:
    """The class that a checkpoint of a kind is run with."""
    import transformers

    from langslice.model.transformers_classes import model_class

    automatic = {"causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM", "encoder": "AutoModel"}[kind]
    # An encoder is used by its hidden states; the head that it was trained with is not needed.
    stock = None if kind == "encoder" else model_class(folder)
    return stock if stock is not None else getattr(transformers, automatic)
