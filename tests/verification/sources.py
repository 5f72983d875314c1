"""Small real sources whose slices are damaged: a language model, an embedder, a SentencePiece encoder, sliding windows."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import sentencepiece

from langslice.mini import heldout_text, mini_model_path
from tests.tokenizer_samples import added, unigram, wordpiece, write_tokenizer_json
from tests.zoo import add_tokenizer, build

TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|endoftext|>{% endfor %}"


def edit(path: Path, **fields: object) -> None:
    """Set fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}, ensure_ascii=False))


def make_mini(folder: Path) -> Path:
    """The packaged model, byte-level BPE, with a chat template and settings for generation."""
    shutil.copytree(mini_model_path(), folder)
    edit(folder / "generation_config.json", temperature=0.7)
    edit(folder / "tokenizer_config.json", chat_template=TEMPLATE)
    return folder


def make_windowed(folder: Path) -> Path:
    """A model in which layers of two kinds take turns, every second with a short window."""
    return add_tokenizer(build("gemma3_text", folder, num_hidden_layers=4))


def make_embedder(folder: Path) -> Path:
    """A BERT encoder without a head, WordPiece, in a sentence-transformers folder with prompts, pooling and a dense layer."""
    from torch import nn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the place where versions before 6 have them
        from sentence_transformers import models as modules
    words = sorted({word for line in heldout_text("en") for word in line.lower().split() if word.isalpha()})
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789:,.?!"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokens += [*[chr(0xAC00 + 28 * number) for number in range(60)], *(word for word in words if len(word) > 1)]
    build("bert", folder, vocab_size=len(tokens), id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    _only_the_body(folder)
    special = [added(tokens.index(token), token) for token in tokens[:5]]
    processor = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    flags = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    normalizer = {"type": "BertNormalizer", **flags}
    write_tokenizer_json(
        folder, wordpiece(tokens), added_tokens=special, normalizer=normalizer, pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=processor, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )  # fmt: skip
    names = {f"{token[1:-1].lower()}_token": token for token in tokens[:5]}
    settings = {**names, "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 96}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    pooling = modules.Pooling(24, pooling_mode="mean")
    dense = modules.Dense(24, 16, activation_function=nn.Tanh())
    listing = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    for module, place in ((pooling, "1_Pooling"), (dense, "2_Dense")):
        (folder / place).mkdir()
        module.save(str(folder / place))
    kinds = [
        {"idx": at, "name": str(at), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for at, (place, kind) in enumerate(listing)
    ]
    (folder / "modules.json").write_text(json.dumps(kinds))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 90, "do_lower_case": False}))
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({**prompts, "similarity_fn_name": "cosine"}))
    return folder


def _only_the_body(folder: Path) -> None:
    """Take the head off a saved BERT, as embedders are published."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    body = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", architectures=["BertModel"])


def make_pieces(folder: Path) -> Path:
    """An XLM-RoBERTa of which only the SentencePiece model is there, no tokenizer.json."""
    text = folder.with_suffix(".txt")
    text.write_text("\n".join(heldout_text("en") + heldout_text("ko")))
    sentencepiece.SentencePieceTrainer.Train(
        input=str(text), model_prefix=str(folder.with_suffix("")), model_type="unigram", vocab_size=900, unk_id=0, bos_id=1,
        eos_id=2, pad_id=-1, character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    model = folder.with_suffix(".model")
    size = sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()
    build("xlm-roberta", folder, vocab_size=size + 2)
    shutil.copy(model, folder / "sentencepiece.bpe.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMRobertaTokenizer"}))
    return folder


def make_rembert(folder: Path) -> Path:
    """A RemBERT whose row 1 is an ordinary piece that a Latin slice drops, before [UNK]."""
    letters = sorted({letter for line in heldout_text("en") for letter in line.lower() if letter.isalpha()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [(special[0], 0.0), ("가나", -9.0), *((token, 0.0) for token in special[1:]), ("▁", -3.0), (",", -4.0)]
    pieces += [*((letter, -5.0) for letter in letters), ("zq", -15.0)]
    build("rembert", folder, vocab_size=len(pieces), pad_token_id=0, bos_token_id=3, eos_token_id=4)
    ids = {piece: place for place, (piece, _) in enumerate(pieces)}
    parts = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    parts.append({"SpecialToken": {"id": "[SEP]", "type_id": 0}})
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    around = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    processor = {"type": "TemplateProcessing", "single": parts, "pair": parts + second, "special_tokens": around}
    words = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    write_tokenizer_json(
        folder, unigram(pieces, unk_id=2, byte_fallback=False), added_tokens=[added(ids[token], token) for token in special],
        pre_tokenizer=words, decoder=words, post_processor=processor,
    )  # fmt: skip
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "tokenizer_class": "RemBertTokenizer"}))
    return folder


# Name of a source -> its maker, and what its slice keeps.
SOURCES = {
    "mini": (make_mini, {"scripts": ("Latn", "Hang")}),
    "windowed": (make_windowed, {"scripts": "Latn"}),
    "embedder": (make_embedder, {"languages": "en"}),
    "pieces": (make_pieces, {"languages": "en"}),
}
