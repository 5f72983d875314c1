"""Vocabulary files next to tokenizer.json: against the libraries that read them."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import sentencepiece
import tiktoken

from langslice.errors import TokenizerError
from langslice.tokenizer import SourceTokenizer, close, open_tokenizer, write_tokenizer
from langslice.tokenizer.sentencepiece_model import (
    CONTROL,
    NORMAL,
    encode_varint,
    fields,
    message,
    read_sentencepiece,
    without_pieces,
)
from tests.tokenizer_samples import bpe, byte_level_folder, unigram, wordpiece, write_tokenizer_json

WORDS = [
    "the",
    "then",
    "there",
    "theme",
    "bath",
    "bathe",
    "birth",
    "mirth",
    "hat",
    "that",
    "what",
    "chat",
    "cat",
    "the",
    "a",
    "an",
    "bananas",
    "ban",
    "band",
    "bandana",
    "ana",
]


def train(path: Path, model_type: str, **options: object) -> None:
    """A small SentencePiece model of 60 pieces and perhaps bytes."""
    generator = random.Random(5)
    text = [" ".join(generator.choices(WORDS, k=8)) for _ in range(400)]
    target = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(text), model_writer=target, model_type=model_type, minloglevel=2,
        vocab_size=60 + 256 * bool(options.get("byte_fallback")),
        hard_vocab_limit=False, normalization_rule_name="identity", **options,
    )  # fmt: skip
    path.write_bytes(target.getvalue())


def sentences(count: int) -> list[str]:
    generator = random.Random(7)
    letters = "abehmnrtw "
    free = ["".join(generator.choices(letters, k=20)).strip() for _ in range(count)]
    return free + [" ".join(generator.choices(WORDS, k=5)) for _ in range(count)]


def load(content: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(content)
    return processor


def test_fields_of_the_wire_format() -> None:
    content = encode_varint(3 << 3) + encode_varint(300) + message(1, b"abc") + encode_varint(9 << 3 | 5) + b"\0\0\0\0"
    found = [(number, wire, content[start:end], value) for number, wire, start, end, value in fields(content)]
    assert found == [(3, 0, b"\xac\x02", 300), (1, 2, b"abc", 0), (9, 5, b"\0\0\0\0", 0)]
    assert encode_varint(-1) == b"\xff" * 9 + b"\x01"
    for damaged in (content[:-1], b"\x0a\x7f", b"\x03", b"\x80"):
        with pytest.raises((ValueError, IndexError)):
            list(fields(damaged))


def test_keeping_everything_changes_no_byte(tmp_path: Path) -> None:
    train(tmp_path / "m.model", "unigram")
    model = read_sentencepiece(tmp_path / "m.model")
    assert b"".join(without_pieces(model, range(len(model.texts)))) == (tmp_path / "m.model").read_bytes()


@pytest.mark.parametrize("options", [{}, {"byte_fallback": True}, {"pad_id": 5, "unk_id": 3, "bos_id": 7}])
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_rewritten_model_loads_and_cuts_kept_text_alike(
    tmp_path: Path, model_type: str, options: dict[str, int]
) -> None:
    train(tmp_path / "m.model", model_type, **options)
    model = read_sentencepiece(tmp_path / "m.model")
    before = load((tmp_path / "m.model").read_bytes())
    pieces = [(before.id_to_piece(old), before.get_score(old)) for old in range(len(before))]
    if model_type == "bpe":
        folder = write_tokenizer_json(tmp_path, bpe([text for text, _ in pieces], []))
    else:
        folder = write_tokenizer_json(tmp_path, unigram(pieces, unk_id=before.unk_id()))
    source = open_tokenizer(folder)
    structural = {old for old in range(len(before)) if model.types[old] != NORMAL}
    used = {old for line in sentences(40)[::2] for old in before.encode(line) if old % 3}
    kept = close(source, used | structural).kept
    (tmp_path / "out").mkdir()
    assert "m.model" in write_tokenizer(source, kept, tmp_path / "out").written
    after = load((tmp_path / "out" / "m.model").read_bytes())
    assert [after.id_to_piece(new) for new in range(len(after))] == [source.tokens[old] for old in kept]
    assert [after.get_score(new) for new in range(len(after))] == [before.get_score(old) for old in kept]
    for name in ("unk_id", "bos_id", "eos_id", "pad_id"):
        old = getattr(before, name)()
        assert getattr(after, name)() == (kept.index(old) if old >= 0 else -1)
    covered = [line for line in sentences(400) if set(kept).issuperset(before.encode(line))]
    assert len(covered) > 5 and len(kept) < len(before)
    for line in covered:
        assert after.encode(line, out_type=str) == before.encode(line, out_type=str)


def test_self_test_samples_of_removed_pieces_go(tmp_path: Path) -> None:
    train(tmp_path / "m.model", "unigram", self_test_sample_size=20)
    model = read_sentencepiece(tmp_path / "m.model")
    kept = [old for old, text in enumerate(model.texts) if old < 3 or len(text) < 3]
    content = b"".join(without_pieces(model, kept))
    assert len(load(content)) == len(kept)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.model").write_bytes(b"\x0a\xffgarbage")
    with pytest.raises(TokenizerError, match="is not a SentencePiece model"):
        read_sentencepiece(tmp_path / "m.model")
    assert CONTROL == 3


def slice_folder(folder: Path, chosen: Sequence[int]) -> tuple[SourceTokenizer, tuple[int, ...], Path, dict[str, str]]:
    source = open_tokenizer(folder)
    kept = close(source, chosen).kept
    (folder / "out").mkdir()
    return source, kept, folder / "out", dict(write_tokenizer(source, kept, folder / "out").left_out)


def test_vocab_txt_keeps_its_order(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "a", "##b", "c"]
    folder = write_tokenizer_json(tmp_path, wordpiece(tokens))
    (folder / "vocab.txt").write_text("".join(f"{token}\r\n" for token in tokens), newline="")
    _, _, out, left_out = slice_folder(folder, [0, 3])
    assert (out / "vocab.txt").read_bytes() == b"[PAD]\n[UNK]\n##b\n" and left_out == {}


def test_files_that_disagree_are_left_out_with_a_reason(tmp_path: Path) -> None:
    folder = write_tokenizer_json(tmp_path, wordpiece(["[UNK]", "a", "b"]))
    (folder / "vocab.txt").write_text("[UNK]\nb\na\n")
    (folder / "tekken.json").write_text("{}")
    _, _, out, left_out = slice_folder(folder, [1])
    assert left_out == {
        "vocab.txt": "line 2 is 'b', but id 1 of the tokenizer is 'a'",
        "tekken.json": "its format is not understood for a wordpiece tokenizer",
    }
    assert sorted(path.name for path in out.iterdir()) == ["tokenizer.json"]


def test_merges_and_vocabulary_go_together(tmp_path: Path) -> None:
    folder = byte_level_folder(tmp_path, [("h", "i"), ("hi", "s"), ("t", "o")])
    tokens = open_tokenizer(folder).tokens
    (folder / "vocab.json").write_text(json.dumps({token: old for old, token in enumerate(tokens)}))
    (folder / "merges.txt").write_bytes(b"#version: 0.2\r\nh i\r\nhi s\r\nt o\r\n")
    _, kept, out, left_out = slice_folder(folder, [257])
    assert left_out == {} and (out / "merges.txt").read_bytes() == b"#version: 0.2\r\nh i\r\nhi s\r\n"
    assert json.loads((out / "vocab.json").read_text()) == {tokens[old]: new for new, old in enumerate(kept)}
    shutil.rmtree(out)
    (folder / "merges.txt").write_text("h i\nx y\n")
    _, _, out, left_out = slice_folder(folder, [257])
    assert left_out == {
        "merges.txt": "line 2, 'x y': its parts or their product are no tokens",
        "vocab.json": "belongs to merges.txt, which is left out",
    }
    assert not (out / "vocab.json").exists()


def rank_folder(folder: Path, seed: int) -> tuple[Path, list[bytes]]:
    """A random rank file and the tokenizer.json that says the same, as converters write it: all pairs, by product."""
    generator = random.Random(seed)
    ranks = [bytes([byte]) for byte in range(256)]
    while len(ranks) < 330:
        pair = b"".join(generator.choices([token for token in ranks if set(token) <= set(b"abcd")], k=2))
        if pair not in ranks and len(pair) < 9:
            ranks.append(pair)
    from langslice.tokenizer.surface import byte_alphabet

    letter = {byte: character for character, byte in byte_alphabet().items()}
    spelled = ["".join(letter[byte] for byte in token) for token in ranks]
    known = set(spelled)
    merges = [
        [token[:cut], token[cut:]]
        for token in spelled
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    write_tokenizer_json(folder, bpe(spelled, merges, ignore_merges=True), pre_tokenizer=level, decoder=level)
    (folder / "r.tiktoken").write_bytes(
        b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks))
    )
    return folder, ranks


def encoding(path: Path) -> tiktoken.Encoding:
    lines = [line.split() for line in path.read_bytes().splitlines()]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    assert sorted(ranks.values()) == list(range(len(ranks)))
    return tiktoken.Encoding("test", pat_str=r"(?s).+", mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("seed", range(12))
def test_rank_files_keep_kept_text(tmp_path: Path, seed: int) -> None:
    folder, ranks = rank_folder(tmp_path, seed)
    generator = random.Random(seed)
    _, kept, out, left_out = slice_folder(folder, [old for old in range(256, len(ranks)) if generator.random() < 0.5])
    assert left_out == {} and 256 < len(kept) < len(ranks)
    before, after = encoding(folder / "r.tiktoken"), encoding(out / "r.tiktoken")
    texts = ["".join(generator.choices("abcd", k=generator.randint(1, 14))) for _ in range(600)]
    covered = [text for text in texts if set(kept).issuperset(before.encode(text))]
    assert len(covered) > 50
    for text in covered:
        assert [kept[new] for new in after.encode(text)] == before.encode(text)


def test_a_rank_file_of_another_tokenizer_is_left_out(tmp_path: Path) -> None:
    folder, ranks = rank_folder(tmp_path, 3)
    ranks[300], ranks[301] = ranks[301], ranks[300]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks)]
    (folder / "r.tiktoken").write_bytes(b"".join(lines))
    _, _, _, left_out = slice_folder(folder, [300])
    assert list(left_out) == ["r.tiktoken"] and "rank 300 is" in left_out["r.tiktoken"]


def test_a_tokenizer_alone_is_of_no_model_type_that_transformers_knows(tmp_path: Path) -> None:
    ranks = [bytes([byte]) for byte in range(256)] + [b"th", b"the"]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks)]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert open_tokenizer(tmp_path, model_type="tokenizer").encode(["the"]) == [[257]]


def test_a_folder_with_only_slow_files(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "x"]
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    source, kept, out, left_out = slice_folder(tmp_path, [5, 6, 7])
    assert left_out == {} and kept == tuple(range(8))
    assert sorted(path.name for path in out.iterdir()) == ["tokenizer.json", "vocab.txt"]
    assert source.encode(["unaffable"]) == [[5, 6, 7]]
    assert open_tokenizer(out).encode(["unaffable x"]) == [[5, 6, 7, 1]]


def test_marian_is_rewritten_in_all_three_files(tmp_path: Path) -> None:
    train(tmp_path / "source.spm", "unigram")
    train(tmp_path / "target.spm", "bpe")
    names = [read_sentencepiece(tmp_path / name).texts for name in ("source.spm", "target.spm")]
    joint = [
        "</s>",
        "<unk>",
        *sorted({text for texts in names for text in texts} - {"<s>", "</s>", "<unk>"}),
        ">>xx<<",
        "<pad>",
    ]
    joint.remove("th")  # a piece without an entry is unknown to the source, and stays so
    (tmp_path / "vocab.json").write_text(json.dumps({token: old for old, token in enumerate(joint)}))
    source = open_tokenizer(tmp_path)
    assert source.kind == "marian" and source.encode_target is not None
    assert source.encode([">>xx<<the"])[0][0] == joint.index(">>xx<<")
    chosen = {
        old
        for line in sentences(3)[::2]
        for encode in (source.encode, source.encode_target)
        for old in encode([line])[0]
    }
    _, kept, out, left_out = slice_folder(tmp_path, sorted(chosen))
    result = open_tokenizer(out)
    assert left_out == {} and set(result.files) == {"source.spm", "target.spm", "vocab.json"}
    assert len(kept) < len(joint) and result.tokens == tuple(joint[old] for old in kept)
    assert result.encode_target is not None
    checked = 0
    for before, after in ((source.encode, result.encode), (source.encode_target, result.encode_target)):
        for line, old in zip(sentences(300), before(sentences(300)), strict=True):
            if set(kept).issuperset(old):
                checked += 1
                assert [kept[new] for new in after([line])[0]] == old
    assert checked > 20
    (tmp_path / "target_vocab.json").write_text("{}")
    with pytest.raises(TokenizerError, match="separate vocabularies"):
        open_tokenizer(tmp_path)


def marian_folder(folder: Path, **options: object) -> list[str]:
    """Two models and their joint vocabulary; returns the tokens."""
    train(folder / "source.spm", "unigram", **options)
    train(folder / "target.spm", "bpe", **options)
    names = [read_sentencepiece(folder / name).texts for name in ("source.spm", "target.spm")]
    joint = ["</s>", "<unk>", *sorted({text for texts in names for text in texts} - {"<s>", "</s>", "<unk>"}), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: old for old, token in enumerate(joint)}))
    return joint


def test_marian_keeps_all_bytes(tmp_path: Path) -> None:
    joint = marian_folder(tmp_path, byte_fallback=True)
    source, kept, out, _ = slice_folder(tmp_path, [joint.index("▁the")])
    assert len(source.byte_ids) == 256 and source.byte_ids <= set(kept) and len(kept) < len(joint)
    result = open_tokenizer(out)
    (ids,) = result.encode(["한글"])
    assert result.unknown_id not in ids and result.decode(ids) == source.decode(source.encode(["한글"])[0]) == "한글"


def test_marian_files_beside_a_tokenizer_json(tmp_path: Path) -> None:
    """The unmodified class reads its three files, whatever is next to them."""
    joint = marian_folder(tmp_path)
    write_tokenizer_json(tmp_path, unigram([(token, -1.0) for token in joint], unk_id=1))
    source, kept, out, left_out = slice_folder(tmp_path, [joint.index("▁the")])
    assert source.kind == "marian" and "tokenizer.json" in source.files
    assert sorted(path.name for path in out.iterdir()) == ["source.spm", "target.spm", "vocab.json"]
    assert left_out == {"tokenizer.json": "it is not among the three files that define a Marian tokenizer"}
    assert open_tokenizer(out).tokens == tuple(joint[old] for old in kept)


def test_m2m100_keeps_the_languages_that_its_class_numbers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    train(tmp_path / "sentencepiece.bpe.model", "unigram")
    texts = read_sentencepiece(tmp_path / "sentencepiece.bpe.model").texts[3:]
    vocabulary = {token: old for old, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *texts])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "M2M100Tokenizer", "num_madeup_words": 8}')
    (tmp_path / "config.json").write_text('{"model_type": "m2m_100"}')
    source, kept, out, left_out = slice_folder(tmp_path, [vocabulary["▁the"], vocabulary["▁hat"]])
    shutil.copyfile(tmp_path / "config.json", out / "config.json")
    assert source.kind == "m2m100" and len(source.tokens) == len(vocabulary) + 100 and left_out == {}
    before, after = (AutoTokenizer.from_pretrained(folder, src_lang="ko") for folder in (tmp_path, out))
    assert before.get_lang_id("zu") == len(source.tokens) - 1 and after.get_lang_id("zu") == len(kept) - 1
    old = before("the hat", "hat").input_ids
    assert [kept[new] for new in after("the hat", "hat").input_ids] == old and before.get_lang_id("ko") in old
    assert source.encode(["the hat", "__ko__the"]) == [before.encode("the hat", add_special_tokens=False), [
        before.get_lang_id("ko"), vocabulary["▁the"]]]  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "M2M100Tokenizer", "language_codes": "more"}')
    with pytest.raises(TokenizerError, match="language_codes = 'more' is not a list that transformers has"):
        open_tokenizer(tmp_path)


def test_a_tokenizer_class_of_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder, _ = rank_folder(tmp_path, 1)
    document = (folder / "tokenizer.json").rename(tmp_path / "kept_for_later")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", null]}}'
    )
    with pytest.raises(TokenizerError, match="its tokenizer is a class of its own") as refusal:
        open_tokenizer(folder)
    assert "trust_remote_code" not in str(refusal.value)
    document.rename(folder / "tokenizer.json")  # what the hint says
    assert open_tokenizer(folder).kind == "byte-bpe"


def test_files_that_a_class_cannot_open_are_refused_by_name(tmp_path: Path) -> None:
    import transformers

    train(tmp_path / "sentencepiece.bpe.model", "bpe")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BarthezTokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "mbart"}')
    if transformers.__version__.startswith("4."):
        assert open_tokenizer(tmp_path).kind == "spm-bpe"  # an earlier version does open them, as the hint says
        return
    with pytest.raises(TokenizerError, match=r"transformers 5\S* cannot open sentencepiece.bpe.model") as refusal:
        open_tokenizer(tmp_path)
    assert "pip install" not in str(refusal.value.hint)


def tekken(folder: Path) -> Path:
    """A tekken.json of 30 special tokens, of which two are named, all bytes and some tokens more."""
    tokens = [bytes([byte]) for byte in range(256)] + [
        b"th",
        b"the",
        b" the",
        b"an",
        b"ban",
        b"at",
        b"cat",
        b"in",
        b"ing",
    ]
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate([*tokens, b"unused"])
    ]
    config = {
        "pattern": r" ?\p{L}+|\s+|[^\s]",
        "default_vocab_size": 30 + len(tokens),
        "default_num_special_tokens": 30,
    }
    special = [
        {"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(("<unk>", "<s>", "</s>"))
    ]
    document = {"config": {**config, "num_vocab_tokens": len(tokens), "version": "v7"}, "vocab": vocabulary}
    (folder / "tekken.json").write_text(json.dumps({**document, "special_tokens": special}))
    (folder / "config.json").write_text('{"model_type": "mistral"}')
    return folder


def test_tekken_is_opened_and_rewritten(tmp_path: Path) -> None:
    import transformers

    folder = tekken(tmp_path)
    try:
        open_tokenizer(folder)
    except TokenizerError as error:
        assert re.search(r"cannot (convert|open) tekken\.json", str(error)) and transformers.__version__ < "5", error
        pytest.skip(f"transformers {transformers.__version__} cannot open tekken.json")
    source, kept, out, left_out = slice_folder(folder, [30 + 258, 30 + 262])  # " the", "cat"
    assert left_out == {} and len(source.tokens) == 30 + 265 and len(kept) == 30 + 256 + 3 + 2
    written = json.loads((out / "tekken.json").read_text())
    assert [base64.b64decode(entry["token_bytes"]) for entry in written["vocab"][256:]] == [
        b"th",
        b"the",
        b" the",
        b"at",
        b"cat",
    ]
    assert [entry["rank"] for entry in written["vocab"]] == list(range(261))
    assert written["config"]["default_vocab_size"] == len(kept) and written["config"]["num_vocab_tokens"] == 261
    for name in ("tokenizer.json", "tokenizer_config.json"):  # tekken.json alone means the same tokenizer
        (out / name).unlink(missing_ok=True)
    assert open_tokenizer(out, model_type="mistral").tokens == tuple(source.tokens[old] for old in kept)


def test_characters_of_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"grapheme_chars": "____abcde", "phoneme_chars": "____axyz"}))
    source = open_tokenizer(tmp_path)
    assert (
        source.kind == "characters"
        and source.encode(["bad!"]) == [[5, 4, 7, 3]]
        and source.decode([1, 5, 4, 2]) == "ba"
    )
    _, kept, out, _ = slice_folder(tmp_path, [5])
    assert kept == (0, 1, 2, 3, 5) and not list(out.iterdir())
    from langslice.tokenizer.characters import sliced_table

    assert sliced_table("____abcde", kept) == "____b" and sliced_table("____a", (0, 1, 2, 3, 5)) == "____"
