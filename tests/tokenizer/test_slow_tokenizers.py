"""Every tokenizer class of transformers that a model type of the table names, loaded by AutoTokenizer before and after a slice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers

from langslice.errors import TokenizerError
from langslice.model.families import FAMILIES
from langslice.tokenizer import close, open_tokenizer, write_tokenizer
from langslice.tokenizer.sentencepiece_model import read_sentencepiece
from tests.tokenizer.test_slow_files import tekken, train
from tests.tokenizer_samples import byte_level_folder, wordpiece, write_tokenizer_json

Maker = Callable[[Path], object]
KEPT = ("the hat", "ban the cat")
TEXTS = (*KEPT, "the \u2708 hat", "\u2708", "hat")  # an aeroplane is in no vocabulary
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Classes that have no fast form and whose files nobody here understands.
REFUSED = {"PLBartTokenizer", "BlenderbotSmallTokenizer"}


def pieces(name: str, model_type: str = "unigram", **options: Any) -> Maker:
    return lambda folder: train(folder / name, model_type, **options)


def merges(*specials: str) -> Maker:
    def make(folder: Path) -> None:
        pairs = [
            ("t", "h"),
            ("th", "e"),
            ("a", "t"),
            ("\u0120", "b"),
            ("\u0120b", "an"),
            ("a", "n"),
            ("h", "at"),
            ("c", "at"),
        ]
        byte_level_folder(folder, [pair for pair in pairs if pair != ("\u0120b", "an")], specials)
        document = json.loads((folder / "tokenizer.json").read_text())["model"]
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(document["vocab"]))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in document["merges"]))

    return make


def words(folder: Path) -> None:
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "hat", "ban", "cat", "bath", "##e", "a"]
    write_tokenizer_json(folder, wordpiece(tokens))
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))


def looked_up(*models: str) -> Maker:
    def make(folder: Path) -> None:
        for name in models:
            train(folder / name, "unigram", byte_fallback=name.endswith(".spm"))
        texts = dict.fromkeys(text for name in models for text in read_sentencepiece(folder / name).texts[3:])
        first = ["<s>", "<pad>", "</s>", "<unk>"] if len(models) == 1 else ["</s>", "<unk>", ">>xx<<"]
        tokens = [*first, *texts, *(["<pad>"] if len(models) == 2 else [])]
        (folder / "vocab.json").write_text(json.dumps({token: old for old, token in enumerate(tokens)}))

    return make


BPE_MODEL = "sentencepiece.bpe.model"
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
ALBERT = {
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": -1,
    "eos_id": -1,
    "pad_piece": "<pad>",
    "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
}
DEBERTA = {
    "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]",
    "unk_piece": "[UNK]",
}  # fmt: skip
REMBERT = {
    "pad_id": 0, "unk_id": 2, "bos_id": 3, "eos_id": 4, "pad_piece": "[PAD]", "unk_piece": "[UNK]", "bos_piece": "[CLS]",
    "eos_piece": "[SEP]", "control_symbols": ["[MASK]"],
}  # fmt: skip
GEMMA = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "byte_fallback": True, "user_defined_symbols": ["<mask>"]}
CONTROLS = {"byte_fallback": True, "control_symbols": ["[INST]", "[/INST]"], "user_defined_symbols": ["<tool>"]}
REMBERT_TOKENS = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
COHERE = ("<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<EOP_TOKEN>")

# Class, and what else tells the case apart -> model type, files, settings.
CASES: dict[str, tuple[str, Maker, dict[str, Any]]] = {
    "BertTokenizer": ("bert", words, {}),
    "RobertaTokenizer": ("roberta", merges("<s>", "<pad>", "</s>", "<unk>", "<mask>"), {}),
    "XLMRobertaTokenizer": ("xlm-roberta", pieces(BPE_MODEL), {}),
    "XLMRobertaTokenizer, its own pad": ("xlm-roberta", pieces(BPE_MODEL, pad_id=3), {}),
    "CamembertTokenizer": ("camembert", pieces(BPE_MODEL), {}),
    "TokenizersBackend, control symbols": ("mistral", pieces("tokenizer.model", "bpe", **CONTROLS), {}),
    "TokenizersBackend, tekken": ("mistral", tekken, {}),
    "AlbertTokenizer": ("albert", pieces("spiece.model", **ALBERT), {}),
    "RemBertTokenizer": ("rembert", pieces("sentencepiece.model", **REMBERT), REMBERT_TOKENS),
    "DebertaV2Tokenizer": ("deberta-v2", pieces("spm.model", **DEBERTA), {}),
    "T5Tokenizer": ("t5", pieces("spiece.model", **T5), {}),
    "MBartTokenizer": ("mbart", pieces(BPE_MODEL), {}),
    "MBart50Tokenizer": ("mbart", pieces(BPE_MODEL), {}),
    "MBart50Tokenizer, its own pad": ("mbart", pieces(BPE_MODEL, pad_id=3), {}),
    "BarthezTokenizer": ("mbart", pieces(BPE_MODEL), {}),
    "M2M100Tokenizer": ("m2m_100", looked_up(BPE_MODEL), {}),
    "NllbTokenizer": ("nllb-moe", pieces(BPE_MODEL), {}),
    "MarianTokenizer": ("marian", looked_up("source.spm", "target.spm"), {}),
    "PegasusTokenizer": ("pegasus", pieces("spiece.model", **T5), {}),
    "BlenderbotTokenizer": ("blenderbot", merges("<s>", "<pad>", "</s>", "<unk>", "<mask>"), {}),
    "PLBartTokenizer": ("plbart", pieces(BPE_MODEL), {}),
    "WhisperTokenizer": ("whisper", merges("<|endoftext|>"), {}),
    "XGLMTokenizer": ("xglm", pieces(BPE_MODEL), {}),
    "GPTNeoXTokenizer": ("gpt_neox", merges("<|endoftext|>"), {}),
    "GPT2Tokenizer": ("gpt2", merges("<|endoftext|>"), {}),
    "CohereTokenizer": ("cohere", merges(*COHERE), {}),
    "Qwen2Tokenizer": ("qwen2", merges("<|endoftext|>"), {}),
    "GemmaTokenizer": ("gemma", pieces("tokenizer.model", "bpe", **GEMMA), {}),
    "LlamaTokenizer": ("llama", pieces("tokenizer.model", "bpe", byte_fallback=True), {}),
}
# Version 5 gives this class, where it makes it of a SentencePiece model alone, no special tokens around a text.
UNEQUAL_ALONE = {"RemBertTokenizer"}

pytestmark = [
    pytest.mark.skipif(transformers.__version__.startswith("4."), reason="the classes are those of version 5"),
    pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses"),
]


def test_every_class_of_the_table_has_a_case() -> None:
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    named = {TOKENIZER_MAPPING_NAMES.get(one) for family in FAMILIES for one in family.model_types} - {None}
    assert {name.removesuffix("Fast") for name in named} <= {name.split(",")[0] for name in CASES} | REFUSED


def source_of(folder: Path, name: str) -> Path:
    model_type, make, settings = CASES[name]
    folder.mkdir()
    make(folder)
    tokenizer_class = name.split(",")[0]
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class, **settings}))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def saved(folder: Path, out: Path) -> Path:
    """The same tokenizer as transformers 5 saves it."""
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    return out


def sliced(folder: Path, out: Path) -> tuple[int, ...]:
    source = open_tokenizer(folder)
    kept = close(source, {old for ids in source.encode(KEPT) for old in ids}).kept
    out.mkdir()
    write_tokenizer(source, kept, out)
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    return kept


@pytest.mark.parametrize("form", ["files", "saved"])
@pytest.mark.parametrize("name", CASES)
def test_clients_load_the_same_tokenizer(tmp_path: Path, name: str, form: str) -> None:
    source = source_of(tmp_path / "source", name)
    if form == "saved":
        source = saved(source, tmp_path / "saved")
    elif name in UNEQUAL_ALONE:
        pytest.skip("transformers 5 drops its special tokens around texts")
    if name in REFUSED:
        with pytest.raises(TokenizerError, match=f"{name} has no fast form"):
            open_tokenizer(source)
        return
    kept = sliced(source, tmp_path / "out")
    before, after = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (source, tmp_path / "out"))
    new_of = {old: new for new, old in enumerate(kept)}
    assert type(after) is type(before)
    assert [getattr(after, one) for one in NAMED] == [getattr(before, one) for one in NAMED]
    assert after.all_special_tokens == before.all_special_tokens
    assert after.all_special_ids == [new_of[old] for old in before.all_special_ids]
    assert mask(after, range(len(kept))) == mask(before, kept)
    if name != "XGLMTokenizer":  # which version 5 cannot make of its own file: nothing but special tokens
        compare_texts(before, after, kept)


def mask(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    found: list[int] = tokenizer.get_special_tokens_mask(list(ids), already_has_special_tokens=True)
    return found


def compare_texts(before: Any, after: Any, kept: Sequence[int]) -> None:
    covered = 0
    for text in TEXTS:
        for pair in (None, "the cat"):
            old, new = (one(text, pair, return_token_type_ids=True) for one in (before, after))
            if not set(kept).issuperset(old.input_ids):
                continue
            covered += 1
            assert [kept[one] for one in new.input_ids] == old.input_ids
            assert new.token_type_ids == old.token_type_ids
            assert mask(after, new.input_ids) == mask(before, old.input_ids)
            for skip in (True, False):
                decoded = [
                    tokenizer.decode(encoded.input_ids, skip_special_tokens=skip)
                    for tokenizer, encoded in ((before, old), (after, new))
                ]
                assert decoded[0] == decoded[1]
    assert covered >= 2 * len(KEPT)


def test_an_ordinary_row_below_the_unknown_token_of_rembert(tmp_path: Path) -> None:
    """Its class says that the unknown token has the id 2, whatever the file says."""
    source = saved(source_of(tmp_path / "source", "RemBertTokenizer"), tmp_path / "saved")
    document = json.loads((source / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    ordinary = next(place for place, (piece, _) in enumerate(vocabulary) if piece == "\u2581bandana")
    vocabulary[1], vocabulary[ordinary] = vocabulary[ordinary], vocabulary[1]
    next(entry for entry in document["added_tokens"] if entry["id"] == 1)["id"] = ordinary
    (source / "tokenizer.json").write_text(json.dumps(document))
    kept = sliced(source, tmp_path / "out")
    before, after = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (source, tmp_path / "out"))
    assert kept[:3] == (0, 1, 2) and before.unk_token_id == after.unk_token_id == 2
    assert 2 in after("\u2708").input_ids
    compare_texts(before, after, kept)
