"""One command for each extra that serves users, which does not run without it: `python -m tests.project.distribution extras`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extra:
    """An extra of pyproject.toml, and a command that needs it.

    command  words after `langslice`, run where ko.txt and en.txt are
    prepare  Python that writes what the command reads, run with the extra
    without  what the command says only where the extra is absent; empty where it is not tried
    said     what it says with it
    code     its exit code then
    """

    name: str
    command: str
    prepare: str = ""
    without: str = ""
    said: str = ""
    code: int = 0


_PIECES = """
import json, pathlib, sentencepiece
pathlib.Path("pieces").mkdir()
sentencepiece.SentencePieceTrainer.train(
    input="en.txt", model_prefix="pieces/tokenizer", vocab_size=300, model_type="bpe", byte_fallback=True,
    character_coverage=1.0, hard_vocab_limit=False, minloglevel=2)
pathlib.Path("pieces/tokenizer.vocab").unlink()
pathlib.Path("pieces/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
"""
_RANKS = """
import base64, json, pathlib
pathlib.Path("ranks").mkdir()
ranks = [bytes([byte]) for byte in range(256)] + [b"th", b"the", b"in"]
lines = [base64.b64encode(token) + b" %d\\n" % rank for rank, token in enumerate(ranks)]
pathlib.Path("ranks/tokenizer.model").write_bytes(b"".join(lines))
pathlib.Path("ranks/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
"""
_SENTENCES = """
import json
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from langslice.mini import mini_model_path
size = json.loads((mini_model_path() / "config.json").read_text())["hidden_size"]
SentenceTransformer(modules=[Transformer(str(mini_model_path())), Pooling(size, pooling_mode="mean")]).save("sentences")
"""
_ENCODER = """
import transformers
from langslice.mini import mini_model_path

tokenizer = transformers.AutoTokenizer.from_pretrained(mini_model_path())
tokenizer.save_pretrained("encoder")
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
transformers.BertModel(transformers.BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained("encoder")
"""
_HARNESS = """
import json, pathlib
rows = [{"q": "Seoul is in", "c": [" Korea.", " France."], "a": 0}] * 4
pathlib.Path("rows.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
pathlib.Path("task.yaml").write_text(json.dumps({
    "task": "where", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(pathlib.Path("rows.jsonl").resolve())}},
    "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{c}}",
    "doc_to_target": "a", "metric_list": [{"metric": "acc"}]}))
"""
_TRANSLATION = (
    "evaluate mini --tasks translation --languages ko,en --pairs ko-en --limit 2 --new-tokens 4 -o direct.json"
)
EXTRAS = (
    # The package is loaded, and asks the hub, which is not there.
    Extra(
        "datasets", "count mini --corpus ORG/NAME -o counts.parquet", "", "langslice[datasets]", "cannot be opened", 2
    ),
    Extra("evaluate", _TRANSLATION, "", "langslice[evaluate]"),
    Extra("lm-eval", "evaluate mini --tasks lm-eval:task.yaml -o harness.json", _HARNESS),
    Extra(
        "lora",
        "heal mini --corpus en.txt --lora 2 --steps 1 --batch-size 1 --seq-length 32 -o healed",
        "",
        "langslice[lora]",
    ),
    Extra("ray", "count mini --corpus en.txt --ray local -o counts.parquet", "", "langslice[ray]"),
    Extra(
        "language-id",
        "count mini --corpus en.txt --corpus ko.txt --languages ko -o counts.parquet",
        "",
        "langslice[language-id]",
    ),
    # It serves until it is stopped, unless it is asked to serve everybody.
    Extra("studio", "studio mini --bind 0.0.0.0", "", "langslice[studio]", "lets other machines ask", 2),
    Extra("sentencepiece", "slice pieces --corpus en.txt -o slice", _PIECES),
    Extra("tiktoken", "slice ranks --corpus en.txt -o slice", _RANKS),
    Extra("sentence-transformers", "slice sentences --languages ko,en -o slice", _SENTENCES),
    Extra("pictures", "score mini heads --method l2 --overwrite -o heads.parquet", "", "langslice[pictures]"),
    # llama.cpp has no name for how the packaged model splits words: both packages run, and find that.
    Extra(
        "gguf",
        "export mini --to gguf --precision f16 --pre gpt-2 -o GGUF",
        "",
        "langslice[gguf]",
        "lines have the same ids in llama.cpp",
        1,
    ),
    Extra("onnx", "export encoder --to onnx -o ONNX", _ENCODER),
    Extra("all", _TRANSLATION, _PIECES + _RANKS + _SENTENCES),
)
