"""What keeping Korean and English leaves of the models that docs/recipes/ has recipes for, computed from their configurations.

    python benchmarks/real/catalogue.py

Each model's class is built without memory from the published configuration, its tensors are written as a sparse file that has
a header and no data, the real tokenizer is put beside it, and `langslice inspect` says what a slice would hold. Where no tokenizer
of the model is at hand, what the vocabulary holds of it is said and nothing else. The parameters are held against the published
count, so that a wrong configuration is seen. Trained models at hand are sliced. Writes results/real/catalogue.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import data, machine, models, sliced, step, table, write_page

PAGE = "catalogue"
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
XLMR = {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TRANSLATOR = {
    "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096,
    "encoder_attention_heads": 16, "decoder_attention_heads": 16,
}  # fmt: skip
WHISPER = {"vocab_size": 51865, "num_mel_bins": 80}


@dataclass(frozen=True)
class Published:
    """A model as it is published.

    kind        class of transformers; None where the model brings its own: then `config` has rows and width alone
    dtype       of the published weights
    millions    of parameters, as its card or paper counts them
    config      fields of its configuration that differ from the class's defaults
    tokenizer   folder at hand that holds its tokenizer: of the assets, or of the trained models
    """

    kind: str | None
    dtype: str
    millions: float
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None


def whisper(width: int, layers: int, decoder: int, heads: int) -> dict[str, Any]:
    """Fields of a Whisper."""
    return {
        **WHISPER, "d_model": width, "encoder_layers": layers, "decoder_layers": decoder,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width,
    }  # fmt: skip


MODELS: dict[str, Published] = {
    "intfloat/multilingual-e5-small": Published("BertModel", "float32", 118, {}, "models/multilingual-e5-small"),
    "intfloat/multilingual-e5-base": Published("XLMRobertaModel", "float32", 278, {**XLMR, **BASE}, "xlm-roberta"),
    "intfloat/multilingual-e5-large": Published("XLMRobertaModel", "float32", 560, {**XLMR, **LARGE}, "xlm-roberta"),
    "BAAI/bge-m3": Published(
        "XLMRobertaModel", "float32", 568, {**XLMR, **LARGE, "max_position_embeddings": 8194}, "xlm-roberta"
    ),
    "BAAI/bge-reranker-v2-m3": Published(
        "XLMRobertaForSequenceClassification", "float32", 568,
        {**XLMR, **LARGE, "max_position_embeddings": 8194, "num_labels": 1}, "xlm-roberta",
    ),
    "sentence-transformers/LaBSE": Published(
        "BertModel", "float32", 471, {**BASE, "vocab_size": 501153, "max_position_embeddings": 512}
    ),
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": Published(
        "BertModel", "float32", 118,
        {**BASE, "hidden_size": 384, "intermediate_size": 1536, "vocab_size": 250037, "max_position_embeddings": 512},
        "models/multilingual-e5-small",
    ),
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2": Published(
        "XLMRobertaModel", "float32", 278, {**XLMR, **BASE}, "xlm-roberta"
    ),
    "FacebookAI/xlm-roberta-base": Published("XLMRobertaForMaskedLM", "float32", 278, {**XLMR, **BASE}, "xlm-roberta"),
    "FacebookAI/xlm-roberta-large": Published("XLMRobertaForMaskedLM", "float32", 560, {**XLMR, **LARGE}, "xlm-roberta"),
    "google-bert/bert-base-multilingual-cased": Published(
        "BertForMaskedLM", "float32", 178, {**BASE, "vocab_size": 119547, "max_position_embeddings": 512}, "mbert-cased"
    ),
    "microsoft/mdeberta-v3-base": Published(
        "DebertaV2Model", "float32", 279,
        {
            **BASE, "vocab_size": 251000, "type_vocab_size": 0, "position_buckets": 256, "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "position_biased_input": False, "share_att_key": True,
        },
    ),
    "facebook/nllb-200-distilled-600M": Published(
        "M2M100ForConditionalGeneration", "float32", 615,
        {**TRANSLATOR, "vocab_size": 256206},
    ),
    "facebook/mbart-large-50-many-to-many-mmt": Published(
        "MBartForConditionalGeneration", "float32", 611,
        {**TRANSLATOR, "vocab_size": 250054},
    ),
    "google/mt5-small": Published(
        "MT5ForConditionalGeneration", "float32", 300,
        {
            "vocab_size": 250112, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8,
            "num_heads": 6, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
        },
    ),
    "openai/whisper-base": Published("WhisperForConditionalGeneration", "float32", 74, {}, "models/whisper-base"),
    "openai/whisper-small": Published(
        "WhisperForConditionalGeneration", "float32", 244, whisper(768, 12, 12, 12), "models/whisper-base"
    ),
    "openai/whisper-large-v3-turbo": Published(
        "WhisperForConditionalGeneration", "float16", 809,
        {**whisper(1280, 32, 4, 20), "vocab_size": 51866, "num_mel_bins": 128},
    ),
    "Qwen/Qwen3-0.6B": Published(
        "Qwen3ForCausalLM", "bfloat16", 596,
        {
            "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
        },
        "qwen2",
    ),
    "Qwen/Qwen3-4B": Published(
        "Qwen3ForCausalLM", "bfloat16", 4022,
        {
            "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
        },
        "qwen2",
    ),
    "Alibaba-NLP/gte-multilingual-base": Published(None, "float32", 305, {"rows": 250048, "width": 768}),
    "jinaai/jina-embeddings-v3": Published(None, "float32", 572, {"rows": 250002, "width": 1024}),
    "LGAI-EXAONE/EXAONE-4.0-1.2B": Published(
        "Exaone4ForCausalLM", "bfloat16", 1279,
        {
            "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 4096, "num_hidden_layers": 30,
            "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
        },
    ),
    "google/gemma-3-270m": Published("Gemma3ForCausalLM", "bfloat16", 268, {}, "models/gemma-3-270m"),
    "google/gemma-3-1b-it": Published(
        "Gemma3ForCausalLM", "bfloat16", 1000,
        {
            "vocab_size": 262144, "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "tie_word_embeddings": True,
        },
        "models/gemma-3-270m",
    ),
    "meta-llama/Llama-3.2-1B-Instruct": Published(
        "LlamaForCausalLM", "bfloat16", 1236,
        {
            "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True,
        },
    ),
    "CohereLabs/aya-expanse-8b": Published(
        "CohereForCausalLM", "float16", 8028,
        {
            "vocab_size": 256000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
        },
    ),
}  # fmt: skip


def header_only(name: str, model: Published, out: Path) -> int:
    """Write a checkpoint whose weights are a header and a hole. Returns the bytes of its tensors."""
    import torch
    import transformers

    kind = getattr(transformers, model.kind)
    config = kind.config_class(**model.config)
    config.architectures, config.dtype = [model.kind], getattr(torch, model.dtype)
    with torch.device("meta"):
        built = kind(config)
    config.save_pretrained(out)
    tied, tensors, end = set(built.all_tied_weights_keys), {}, 0
    if (
        model.config.get("tie_word_embeddings") is False
    ):  # transformers 5 ties mT5's head, which is published beside its table
        tied -= {"lm_head.weight"}
    for tensor, value in built.state_dict().items():
        if tensor not in tied and "position_ids" not in tensor:
            size = value.numel() * BYTES[model.dtype]
            tensors[tensor] = {
                "dtype": TYPES[model.dtype],
                "shape": list(value.shape),
                "data_offsets": [end, end + size],
            }
            end += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    with (out / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return end


def inspected(name: str, model: Published) -> dict[str, Any]:
    """What `langslice inspect` says of a header-only checkpoint, for Korean and English where there is a tokenizer."""

    def make() -> dict[str, Any]:
        if model.kind is None:
            rows, width = model.config["rows"], model.config["width"]
            parameters, each = round(model.millions * 1e6), BYTES[model.dtype]
            return {
                "parameters": parameters,
                "bytes": parameters * each,
                "rows": rows,
                "vocabulary_bytes": rows * width * each,
            }
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            header_only(name, model, out)
            asked = [sys.executable, "-m", "langslice", "inspect", folder, "--json", "--quiet"]
            if model.tokenizer:
                home = models().parent if "/" in model.tokenizer else data().parent / "tokenizers"
                for file in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(home / model.tokenizer / file, out)
                asked += ["-l", "ko,en"]
            said = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
        vocabulary = next(part for part in said["parts"] if part["name"] == "vocabulary")
        found = {"parameters": said["parameters"], "bytes": said["size_bytes"], "rows": said["rows"],
                 "vocabulary_bytes": vocabulary["size_bytes"]}  # fmt: skip
        return found | ({"slice": said["savings"][0]} if model.tokenizer else {})

    found: dict[str, Any] = step(PAGE, name.replace("/", "--"), make)
    return found


def measured(name: str) -> dict[str, Any] | None:
    """A verified slice of a model that is at hand."""
    folder = name.rpartition("/")[2]
    _, found = sliced(PAGE, folder, folder, "-l", "ko,en")
    return found


def main() -> None:
    """Compute, and write the page."""
    from langslice.recipes.purposes import catalogue

    document: dict[str, Any] = {"models": {}, "machine": machine()}
    for known in catalogue():
        model = MODELS[known.model]
        at_hand = model.kind is not None and not model.config
        found = None if at_hand else inspected(known.model, model)
        slice_made = measured(known.model) if at_hand else None
        document["models"][known.model] = {
            "for": known.purpose, "published_millions": model.millions, "class": model.kind, "computed": found,
            "measured": slice_made,
        }  # fmt: skip
    write_page(PAGE, document, page(document))


def page(document: dict[str, Any]) -> str:
    """The page, from what was computed."""
    rows = []
    for name, found in document["models"].items():
        one, made = found["computed"], found["measured"]
        if made:
            before, after = made["before"], made["after"]
            rows.append([
                name, "measured", f"{before['parameters'] / 1e6:,.0f} M", f"{found['published_millions']:,.0f} M",
                f"{before['rows']:,}", f"{after['rows']:,}", f"{before['mb']:,.0f}", f"{after['mb']:,.0f}",
            ])  # fmt: skip
        elif one:
            kept = one.get("slice")
            rows.append([
                name, "computed" if kept else "vocabulary only", f"{one['parameters'] / 1e6:,.0f} M",
                f"{found['published_millions']:,.0f} M", f"{one['rows']:,}", f"{kept['rows']:,}" if kept else "–",
                f"{one['bytes'] / 1e6:,.0f}",
                f"{kept['size_bytes'] / 1e6:,.0f}" if kept else f"({one['vocabulary_bytes'] / 1e6:,.0f} are vocabulary)",
            ])  # fmt: skip
    head = ["model", "how", "parameters", "published", "rows", "rows kept", "MB", "MB kept"]
    return f"""# Models that there are recipes for

`benchmarks/real/catalogue.py`: Korean and English, word lists alone. *Measured*: a verified slice of the trained model. *Computed*:
`langslice inspect` on the published configuration with the real tokenizer and without weights. *Vocabulary only*: the tokenizer
was not at hand. {document["machine"]}

{table(head, rows, text_columns=2)}
Qwen2's tokenizer stands for Qwen3's, which has 23 control tokens more. Whisper's small model shares the tokenizer of the base
model.
"""


if __name__ == "__main__":
    main()
