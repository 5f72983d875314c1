"""Counting by chunks must equal counting by whole units, type by type, whatever the text and the tokenizer."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from langslice.counting import (
    TokenCounts,
    blocks,
    count,
    count_tokens,
    counter,
    distinct_chunks,
    load_counts,
    merge_counts,
)
from langslice.counting import split_points as splitting
from langslice.counting.blocks import TextBlock, Totals, UnitTable, take_rare, unit_blocks
from langslice.counting.counter import count_blocks
from langslice.counting.pieces import NO_PIECES, Pieces, PieceTable, distinct, split_units, split_words
from langslice.counting.split_points import LEFT, OPAQUE, RIGHT, START, SplitRules, crossing_pairs
from langslice.counting.unigram_splits import LONGEST_PART, decided, token_tree
from langslice.counting.weighted_texts import lines_of as lines
from langslice.errors import CorpusError, LangsliceError
from langslice.tokenizer import SourceTokenizer, open_tokenizer
from tests.tokenizer_samples import added, bpe, byte_level_folder, unigram, wordpiece, write_tokenizer_json

REAL = (
    "tokenizers/qwen2",
    "tokenizers/gemma-4",
    "tokenizers/xlm-roberta",
    "tokenizers/mbert-cased",
    "tokenizers/o200k-base",
    "tokenizers/mistral-v1-spm",
    "tokenizers/opus-mt-en-mg",
    "tokenizers/gpt2",
    "weights/all-MiniLM-L6-v2",
    "weights/stories260K-llama",
)
# What made counts differ, or might: white space of every kind next to spaces, characters that normalisers remove or turn
# into white space, marks, prepended signs, added tokens, SentencePiece's own space, runs of spaces, our own marks.
NASTY = (
    [
        "a",
        "word",
        "Zürich",
        "'s",
        "don't",
        "12",
        "1234",
        "한국어",
        "中文",
        "हिन्दी",
        "ไทย",
        "مرحبا",
        "😀",
        "👩\u200d👧",
        "é",
        "e\u0301",
    ]
    + [
        "\u0301",
        "\u00a0",
        "\u200b",
        "\u2581",
        "\u3000",
        "\u00ad",
        "\ufeff",
        "\u2028",
        "\u0085",
        "\t",
        "\n",
        "\r\n",
        "\v",
        "\x1c",
    ]
    + ["´", "¨", "\u0600", "\u06dd", "ﬁ", "\u0000", "\x01", "\x02", "\ufffd", "\u3164", "\U000e0041", "\ue000"]
    + [
        ">",
        "</",
        "<s>",
        "</s>",
        "<mask>",
        "[MASK]",
        "<unk>",
        "<|endoftext|>",
        "<pad>",
        "(",
        ")",
        "--",
        "...",
        "}",
        ";",
        "//",
    ]
    + [
        ".",
        ",",
        "_x",
        "f(x)",
        "a.b",
        "0.5",
        "x1",
        "/",
        "'",
        "क़",
        "²",
        "½",
        "ª",
        "Ⅷ",
        "℃",
        "ʼ",
        "\x03",
        "\u0338",
        "<\u0338",
        "ǅ",
    ]
    + [" ", "  ", "   ", " ", " ", " ", " ", "    "]
)


EVERYWHERE = SplitRules("", np.zeros(0x110000, np.uint8))


def brute(tokenizer: SourceTokenizer, units: list[str]) -> np.ndarray:
    ids = [token for unit in units for token in tokenizer.encode([unit])[0]]
    return np.bincount(np.array(ids, np.int64), minlength=len(tokenizer.tokens))


def block_of(units: list[str]) -> TextBlock:
    """One block, however many there are."""
    return next(unit_blocks(units, Totals()))


def texts_of(pieces: Pieces) -> list[str]:
    return [text for text, _ in pieces.texts()]


def split(rules: SplitRules, *units: str) -> list[str]:
    return texts_of(split_units(rules, block_of(list(units)).data))


def nasty_units(number: int, seed: int = 0) -> list[str]:
    """Random texts, a quarter of them indented."""
    chance = random.Random(seed)
    indents = [" " * max(0, depth - 60) for depth in range(81)]
    return [chance.choice(indents) + "".join(chance.choices(NASTY, k=chance.randrange(1, 14))) for _ in range(number)]


def added_up(tokenizer: SourceTokenizer, units: list[str]) -> np.ndarray:
    total = np.zeros(len(tokenizer.tokens), np.int64)
    for batch in distinct_chunks(tokenizer, units):
        for (_, weight), ids in zip(batch, tokenizer.encode([text for text, _ in batch]), strict=True):
            np.add.at(total, np.array(ids, np.int64), weight)
    return total


@pytest.fixture(autouse=True)
def cut_small_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests count little text, which would otherwise be encoded whole."""
    monkeypatch.setattr(count, "SMALL_CHARACTERS", 0)


@pytest.fixture(scope="module")
def real(assets: Path):
    """Open a real tokenizer, each once."""
    return cache(lambda name: open_tokenizer(assets / name))


@pytest.fixture
def letters(tmp_path: Path) -> SourceTokenizer:
    """Byte-level BPE with the merges of "the" and of " the"."""
    merges = [("h", "e"), ("t", "he"), ("Ġ", "the")]
    return open_tokenizer(byte_level_folder(tmp_path / "letters", merges))


# Numbers worked by hand


def test_counts_by_hand(letters: SourceTokenizer) -> None:
    counted = count_tokens(letters, ["the the", "the the", "he  the"])
    names = {letters.tokens[old]: int(number) for old, number in enumerate(counted.counts) if number}
    assert names == {"the": 2, "Ġthe": 3, "he": 1, "Ġ": 1}
    assert (counted.units, counted.characters, counted.size_bytes) == (3, 21, 21)
    assert (counted.method, counted.note) == ("chunks", "")


def test_sizes_are_of_the_text_as_it_came(letters: SourceTokenizer) -> None:
    seen: list[int] = []
    counted = count_tokens(letters, ["é", "é", "한", ""], progress=seen.append)
    assert (counted.units, counted.characters, counted.size_bytes) == (4, 3, 7)
    assert sum(seen) == 7


def test_units_that_cannot_stand_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONGEST_UNIT", 20)
    totals = Totals()
    (block,) = unit_blocks(["a", "", "b\x02c", "한" * 30], totals)
    assert block == TextBlock(b"\x02a\x02", ("b\x02c", "한" * 30))
    assert block.units == ["a", "", "b\x02c", "한" * 30]
    assert (totals.units, totals.characters, totals.size_bytes) == (4, 34, 94)


def test_chunks_by_hand(letters: SourceTokenizer) -> None:
    rules = count.prepare(letters)[1]
    assert split(rules, "to be  or", " not\u00a0 to be ", "a\u00a0b c") == (
        ["\x02to", " be", "  or"] + ["\x02", " not\u00a0 to", " be "] + ["\x02a\u00a0b", " c"]
    )
    assert rules.indents
    assert split(rules, "    def f", "  \u00a0x y", "   ") == (
        ["\x02   ", " def", " f"] + ["\x02  \u00a0x", " y"] + ["\x02   "]
    )
    assert split(rules, "é 한 😀 x") == ["\x02é", " 한", " 😀", " x"]


def test_punctuation_is_split_off_where_the_pre_tokeniser_parts_it(tmp_path: Path) -> None:
    words = {
        "type": "Split",
        "pattern": {"Regex": r"'s| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"},
        "behavior": "Isolated",
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    parts = {"type": "Sequence", "pretokenizers": [{**words, "invert": False}, byte_level]}
    tokenizer = open_tokenizer(byte_level_folder(tmp_path / "parts", [("h", "e")], pre_tokenizer=parts))
    rules = count.prepare(tokenizer)[1]
    assert rules.points == "digit"
    pieces = split(rules, "he(the, 3.1)", "he's hé.\u0301")
    assert pieces == ["\x02he", "(the", ",", " 3", ".1", ")", "\x02he's", " hé", ".\u0301"]
    units = ["he(he, 3.1)", "he(he)", "he's he.\u0301", "he(he)"]
    assert count_tokens(tokenizer, units).counts.tolist() == brute(tokenizer, units).tolist()


def test_punctuation_that_a_token_joins_to_a_letter_is_not_split_off(tmp_path: Path) -> None:
    tokens = ["<unk>", "▁", "a", "b", ".", ",", "(", "0", "a.", "0("]
    merges = [("a", "."), ("0", "(")]
    tokenizer = open_written(tmp_path, bpe(tokens, merges, unk_token="<unk>"), normalizer=SENTENCE_SPACE)
    rules = count.prepare(tokenizer)[1]
    assert rules.points == "alone"
    marked = {point for point in splitting.POINTS if rules.classes[ord(point)] & splitting.POINT}
    assert marked == {","}, "`.` has a token with a letter, `(` one with the anchor, the others have none of their own"
    units = ["a.b,a", "b.a", "ab,(a", "a,b"]
    assert split(rules, "a.b,a") == ["\x02a.b", ",a"]
    assert count_tokens(tokenizer, units).counts.tolist() == brute(tokenizer, units).tolist()


def test_crossing_tokens_by_hand() -> None:
    assert set(crossing_pairs([">▁</", "▁▁▁", "▁a", "a▁▁", "x▁▁y▁z", "b"], "▁")) == {
        (">", "<"),
        ("a", ""),
        ("x", "y"),
        ("y", "z"),
    }


def test_merging_by_hand() -> None:
    def counts(*numbers: int, note: str = "") -> TokenCounts:
        return TokenCounts(np.array(numbers, np.int64), 1, 2, 3, "chunks", note, "same")

    whole = merge_counts([counts(1, 0), counts(0, 4)], [3, 1.0])
    assert whole.counts.tolist() == [3, 4] and whole.counts.dtype == np.int64
    half = merge_counts([counts(1, 0, note="n"), counts(0, 4, note="n")], [1, 0.5])
    assert half.counts.tolist() == [1.0, 2.0] and half.counts.dtype == np.float64
    assert (half.units, half.characters, half.size_bytes, half.note) == (2, 4, 6, "n")


# Two ways that must agree


@pytest.mark.assets
@pytest.mark.parametrize("name", REAL)
def test_nasty_text_on_real_tokenizers(name: str, real) -> None:
    tokenizer = real(name)
    units = nasty_units(1500)
    if name == "tokenizers/opus-mt-en-mg":
        units = units[:200]  # no fast backend
    counted = count_tokens(tokenizer, units, processes=1)
    expected = brute(tokenizer, units)
    assert counted.counts.tolist() == expected.tolist()
    assert added_up(tokenizer, units).tolist() == expected.tolist()
    fast = tokenizer.backend is not None
    assert counted.method == ("chunks" if fast else "full"), counted.note
    weights = [weight for batch in distinct_chunks(tokenizer, ["a bb  c d "]) for _, weight in batch]
    assert min(weights) > 0, "the texts should need no anchor"
    assert counted.note == "" if fast else "marian tokenizers have no fast backend" in counted.note


@pytest.mark.assets
@pytest.mark.parametrize("name", ["tokenizers/o200k-base", "tokenizers/xlm-roberta", "tokenizers/gemma-4"])
def test_natural_text_on_real_tokenizers(name: str, real, assets: Path) -> None:
    tokenizer = real(name)
    units = []
    for path in sorted((assets / "data/ntrex128").glob("newstest*.txt")):
        units += path.read_text(encoding="utf-8").split("\n")[:60]
    units += Path(__file__).read_text(encoding="utf-8").split("\n") * 3
    expected = brute(tokenizer, units)
    assert count_tokens(tokenizer, units, processes=1).counts.tolist() == expected.tolist()
    assert added_up(tokenizer, units).tolist() == expected.tolist()


def test_several_processes_count_the_same(letters: SourceTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 2000)
    units = nasty_units(4000, seed=3)
    assert sum(map(len, units)) > 10 * 2000
    expected = brute(letters, units)
    one = count_tokens(letters, units, processes=1)
    several = count_tokens(letters, units, processes=3)
    assert one.counts.tolist() == several.counts.tolist() == expected.tolist()
    assert one == replace(several, counts=one.counts)


def test_full_tables_count_the_same(letters: SourceTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 2000)
    monkeypatch.setattr(counter, "SPLIT_BYTES", 5000)
    monkeypatch.setattr(blocks, "UNIT_TABLE_BYTES", 30_000)
    units = nasty_units(3000, seed=4) * 2 + ["the the he"] * 5000
    encode, rules, _ = count.prepare(letters)
    handed_out: list[int] = []
    monkeypatch.setattr(
        counter, "lines_of", lambda rules, pieces: handed_out.append(len(pieces)) or lines(rules, pieces)
    )
    counts, mismatches = count_blocks(encode, rules, len(letters.tokens), unit_blocks(units, Totals()), 40_000)
    assert mismatches == []
    assert counts.tolist() == brute(letters, units).tolist()
    assert len(handed_out) > 5, "the table should have been full several times"


def test_tables_stay_within_their_bounds() -> None:
    table = PieceTable(limit_bytes=200_000)
    handed_out = 0
    for number in range(300):
        unit = START + " ".join(f"w{number}x{word}" for word in range(200))
        handed_out += len(table.add(split_units(EVERYWHERE, unit.encode())))
        assert table.merged.size_bytes + sum(part.size_bytes for part in table.pending) < 260_000
    assert handed_out > 50_000


def test_tables_keep_what_is_frequent() -> None:
    def pieces(text: str) -> Pieces:
        return distinct([split_units(EVERYWHERE, (START + text).encode())])

    table = PieceTable(limit_bytes=160)
    words = "the the the of of " + " ".join(f"rare{number}" for number in range(4))
    assert set(texts_of(table.add(pieces(words)))) == {"\x02the", *(f" rare{number}" for number in range(4))}
    assert dict(table.merge().texts()) == {" the": 2, " of": 2}
    assert dict(distinct([pieces("a b b"), pieces("b a")]).texts()) == {"\x02a": 1, " b": 2, "\x02b": 1, " a": 1}
    assert len(distinct([NO_PIECES])) == 0 and not list(NO_PIECES.texts())
    units = UnitTable(limit_bytes=1000)
    assert units.add(["the", "the", "rare"]) == {}
    assert units.add([*"abcdefgh", "the"]) == {"rare": 1, **dict.fromkeys("abcdefgh", 1)}
    assert units.entries == {"the": 3}


def test_take_rare_keeps_what_is_frequent() -> None:
    table = Counter({"the": 9, "rare": 1, "odd": 1, "of": 3, "once": 1})
    assert take_rare(table) == {"rare": 1, "odd": 1, "once": 1}
    assert table == {"the": 9, "of": 3}
    assert take_rare(table) == {"the": 9, "of": 3}
    assert not table


# Unigram: words split before punctuation where rounding cannot matter


SCORES = [("<unk>", 0.0), ("▁", -3.0), ("▁a", -4.0), *((letter, -5.0) for letter in "abc0.,)(x"), ("))", -6.25)]


def unigram_with_words(folder: Path, *more: tuple[str, float]) -> SourceTokenizer:
    words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}
    return open_written(folder, unigram([*SCORES, *more], unk_id=0), pre_tokenizer=words)


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def test_decided_by_hand() -> None:
    tree = token_tree([("a", -5.0), ("b", -5.0), ("ab", -7.0), ("ba", -7.0), (")", -5.0), ("))", -6.25), ("é", -1.0)])
    texts = ["ab", "aba", "abab", ")))", "aé", "ax", "a" * (LONGEST_PART + 1), "b"]
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    ends = np.cumsum([len(text.encode()) for text in texts])
    found = decided(tree, data, ends - [len(text.encode()) for text in texts], ends)
    # aba: ab + a against a + ba, equal sums of different tokens; ))): )) + ) against ) + )), the same tokens
    assert found.tolist() == [True, False, True, True, False, False, False, True]
    assert token_tree([("é", 0.0)]) == ()


def test_unigram_words_are_split_before_punctuation(tmp_path: Path) -> None:
    tokenizer = unigram_with_words(tmp_path, ("a,", -6.0), ("ab", -7.0), ("ba", -7.0))
    rules = count.prepare(tokenizer)[1]
    assert (rules.reason, rules.points) == ("", "letter")
    marked = {point for point in splitting.POINTS if rules.classes[ord(point)] & splitting.POINT}
    assert marked == {".", "(", ")"}, "`,` has a token with a letter, the others have none of their own"
    words = distinct([split_units(rules, b"\x02x a(x))) b.aba) c.x).aba c,x")])
    assert texts_of(words) == ["\x02x", " a(x)))", " b.aba)", " c.x).aba", " c,x"]
    # `.aba` is not decided by itself, so it stays with what precedes it
    assert texts_of(split_words(rules, words)) == ["\x02x", " a", "(x", ")))", " b.aba", ")", " c.x).aba", " c,x"]
    units = ["x a(x))) b.aba) c.x).aba c,x", "a.b.c", "a,b)", "0.a x0.0", "é.é)", "a(x)))"] * 3
    counted = count_tokens(tokenizer, units)
    assert (counted.counts.tolist(), counted.note) == (brute(tokenizer, units).tolist(), "")


def test_a_self_check_of_words_leaves_them_whole(tmp_path: Path) -> None:
    tokenizer = unigram_with_words(tmp_path)
    encode, rules, _ = count.prepare(tokenizer)
    units = ["a(x)"] * 3

    def memory_of_the_word(texts: list[str]) -> list[list[int]]:
        return [ids[:-1] if text.endswith("a(x)") else ids for text, ids in zip(texts, encode(texts), strict=True)]

    counts, mismatches = count_blocks(memory_of_the_word, rules, len(tokenizer.tokens), [block_of(units)])
    assert mismatches == ["a(x)"]
    assert counts.tolist() == (3 * np.bincount(memory_of_the_word(["a(x)"])[0], minlength=len(counts))).tolist()


# Tokenizers that cannot be split everywhere, or anywhere


def open_written(folder: Path, model: dict[str, object], **parts: object) -> SourceTokenizer:
    return open_tokenizer(write_tokenizer_json(folder, model, **parts))


SENTENCE_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def test_tokens_that_reach_over_spaces_forbid_cuts_there(tmp_path: Path) -> None:
    tokens = ["<unk>", "▁", "a", "b", "c", "▁b", "a▁b", "▁c", "a▁"]
    merges = [("a", "▁"), ("▁", "b"), ("a", "▁b"), ("▁", "c")]
    tokenizer = open_written(tmp_path, bpe(tokens, merges, unk_token="<unk>"), normalizer=SENTENCE_SPACE)
    rules = count.prepare(tokenizer)[1]
    assert rules.reason == ""
    assert rules.classes[ord("a")] & LEFT and not rules.classes[ord("b")] & LEFT
    assert rules.classes[ord("x")] & RIGHT, "a token that ends in a space reaches before anything"
    units = ["a b c", "b c b c", "a c", "a  b", "c a b a b"] * 3
    counted = count_tokens(tokenizer, units)
    assert counted.counts.tolist() == brute(tokenizer, units).tolist()
    assert counted.method == "chunks"
    assert len([text for batch in distinct_chunks(tokenizer, ["b c b c"]) for text, _ in batch]) == 3


def test_tokens_that_reach_over_spaces_are_not_made_by_joining(tmp_path: Path) -> None:
    tokens = ["<unk>", "▁", "a", "b", "c", "0", "a▁b", "▁b"]
    merges = [("▁", "b"), ("a", "▁b")]
    tokenizer = open_written(tmp_path, bpe(tokens, merges, unk_token="<unk>"), normalizer=SENTENCE_SPACE)
    units = ["c a c b", "c b c a"]
    assert brute(tokenizer, units)[tokens.index("a▁b")] == 0
    assert count_tokens(tokenizer, units).counts.tolist() == brute(tokenizer, units).tolist()


def test_pre_tokeniser_that_joins_words_is_not_split(tmp_path: Path) -> None:
    pairs = {"type": "Split", "pattern": {"Regex": r"\w+ \w+"}, "behavior": "Isolated", "invert": False}
    tokenizer = open_written(
        tmp_path, bpe(["<unk>", "a", "b", " ", "a "], [("a", " ")], unk_token="<unk>"), pre_tokenizer=pairs
    )
    units = ["a b a b", "a a", "a b a b"]
    counted = count_tokens(tokenizer, units)
    assert counted.counts.tolist() == brute(tokenizer, units).tolist()
    assert counted.method == "full"
    assert counted.note == (
        "every distinct unit was encoded whole: its pre-tokeniser parts words elsewhere than at spaces"
    )
    assert dict(pair for batch in distinct_chunks(tokenizer, units) for pair in batch) == {"a b a b": 2, "a a": 1}


def test_unigram_without_pre_tokeniser_is_not_split(tmp_path: Path) -> None:
    tokenizer = open_written(tmp_path, unigram([("<unk>", 0.0), ("▁", -2.0), ("a", -1.0)]), normalizer=SENTENCE_SPACE)
    counted = count_tokens(tokenizer, ["a a a", "a b"])
    assert counted.counts.tolist() == brute(tokenizer, ["a a a", "a b"]).tolist()
    assert counted.note.endswith("it has no pre-tokeniser that parts words at spaces")


def test_dropout_is_named(tmp_path: Path) -> None:
    folder = write_tokenizer_json(tmp_path, bpe(["a", "b"], [], dropout=0.5))
    rules = count.prepare(open_tokenizer(folder))[1]
    assert rules.reason == "BPE dropout makes its tokens random"


def test_added_tokens_found_after_normalising(tmp_path: Path) -> None:
    words = ["[UNK]", "a", "b", "stop", "##s"]
    tokenizer = open_written(
        tmp_path,
        wordpiece(words),
        normalizer={"type": "Lowercase"},
        pre_tokenizer={"type": "WhitespaceSplit"},
        added_tokens=[added(0, "[UNK]"), added(5, "b STOP", normalized=True, special=False)],
    )
    rules = count.prepare(tokenizer)[1]
    assert rules.has_added_token("a B sToP") and not rules.has_added_token("a b")
    units = ["a b stop a", "a B sToP", "b a STOP", "b a"]
    counted = count_tokens(tokenizer, units)
    assert counted.counts.tolist() == brute(tokenizer, units).tolist()
    assert counted.counts[5] == 2 and counted.method == "chunks"


def test_truncation_and_padding_of_the_file_do_not_touch_counts(tmp_path: Path) -> None:
    tokenizer = open_written(
        tmp_path,
        wordpiece(["[PAD]", "[UNK]", "a", "b"]),
        pre_tokenizer={"type": "WhitespaceSplit"},
        truncation={"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        padding={
            "strategy": {"Fixed": 8},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    )
    assert count_tokens(tokenizer, ["a b a b a b"]).counts.tolist() == [0, 0, 3, 3]


def test_characters_that_normalise_to_space_or_nothing_are_opaque(tmp_path: Path) -> None:
    tokenizer = open_written(
        tmp_path, wordpiece(["[UNK]", "a"]), normalizer={"type": "NFKC"}, pre_tokenizer={"type": "WhitespaceSplit"}
    )
    classes = count.prepare(tokenizer)[1].classes
    assert all(classes[ord(character)] & OPAQUE for character in "\u00a0´¨\u3000\u2581\t\n\u0600\x02")
    assert not any(classes[ord(character)] & OPAQUE for character in "aé한中.😀\u0301")


# Must fail


def test_self_check_sends_a_block_the_slow_road(letters: SourceTokenizer) -> None:
    encode, rules, _ = count.prepare(letters)
    size = len(letters.tokens)
    the = letters.tokens.index("Ġthe")

    def memory_of_the_start(texts: list[str]) -> list[list[int]]:
        """An encoder that no split is safe for: what opens a text changes every later token."""
        return [[the if text.startswith("x") else old for old in encode([text])[0]] for text in texts]

    units = [["he the he", "he the he", "a b"], ["xa he the"] * 3 + ["x y"]]
    counts, mismatches = count_blocks(memory_of_the_start, rules, size, [block_of(some) for some in units])
    assert mismatches == ["xa he the"]
    expected = np.zeros(size, np.int64)
    for text in units[0] + units[1]:
        np.add.at(expected, memory_of_the_start([text])[0], 1)
    assert counts.tolist() == expected.tolist()
    assert count._note(rules, mismatches).startswith("1 blocks of a million characters were encoded whole: a sample")


def test_small_text_is_encoded_whole(letters: SourceTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "SMALL_CHARACTERS", 100)
    counted = count_tokens(letters, ["he the"] * 50)
    assert (counted.method, counted.note) == ("full", "every distinct unit was encoded whole: the text is small")
    assert list(distinct_chunks(letters, ["he the"] * 50)) == [[("he the", 50)]]
    assert count_tokens(letters, nasty_units(50)).method == "chunks"


def test_no_text_is_an_error(letters: SourceTokenizer) -> None:
    for units in ([], [""]):
        with pytest.raises(CorpusError, match="the corpus has no text to count"):
            count_tokens(letters, units)


def test_half_a_surrogate_pair_is_an_error(letters: SourceTokenizer) -> None:
    with pytest.raises(CorpusError, match=r"half of a surrogate pair, near unit 0: 'abad\\ud83d'"):
        count_tokens(letters, ["a", "bad\ud83d"])


def test_no_processes_is_an_error(letters: SourceTokenizer) -> None:
    with pytest.raises(CorpusError, match="0 processes: expected at least 1"):
        count_tokens(letters, ["a"], processes=0)


def test_a_process_that_dies_is_an_error(letters: SourceTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 500)
    backend = letters.backend
    rules = count.prepare(letters)[1]
    some = unit_blocks(nasty_units(3000), Totals())
    with pytest.raises(LangsliceError, match=r"a counting process ended early \(exit code"):
        count.count_in_processes(backend.to_str()[:50], rules, len(letters.tokens), some, 2, 1 << 20)


def test_errors_while_reading_pass_through_the_processes(
    letters: SourceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 500)

    def broken():
        yield from nasty_units(3000)
        raise CorpusError("the disk is gone")

    with pytest.raises(CorpusError, match="the disk is gone"):
        count_tokens(letters, broken(), processes=2)


# Files


def test_counts_survive_a_file(letters: SourceTokenizer, tmp_path: Path) -> None:
    counted = count_tokens(letters, ["the the é"])
    counted.save(tmp_path / "c.parquet")
    read = load_counts(tmp_path / "c.parquet", letters)
    assert read.counts.tolist() == counted.counts.tolist()
    assert replace(read, counts=counted.counts) == counted
    assert pq.read_table(tmp_path / "c.parquet").column_names == ["id", "token", "count"]


def test_counts_of_another_tokenizer_are_refused(letters: SourceTokenizer, tmp_path: Path) -> None:
    other = open_tokenizer(byte_level_folder(tmp_path / "other", [("h", "e")]))
    one, two = count_tokens(letters, ["the"]), count_tokens(other, ["the"])
    one.save(tmp_path / "c.parquet")
    with pytest.raises(CorpusError) as caught:
        load_counts(tmp_path / "c.parquet", other)
    assert "counts of another tokenizer" in caught.value.message
    assert one.fingerprint[:16] in caught.value.message and two.fingerprint[:16] in caught.value.message
    with pytest.raises(CorpusError, match="counts of different tokenizers cannot be added"):
        merge_counts([one, two], [1, 1])


def test_bad_weights_are_refused(letters: SourceTokenizer) -> None:
    one = count_tokens(letters, ["the"])
    with pytest.raises(CorpusError, match="1 counts and 2 weights"):
        merge_counts([one], [1, 1])
    with pytest.raises(CorpusError, match="expected finite numbers that are not negative"):
        merge_counts([one], [-1.0])


def test_files_that_are_no_counts_are_refused(letters: SourceTokenizer, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        load_counts(tmp_path / "none.parquet", letters)
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(CorpusError, match="not a file of token counts"):
        load_counts(tmp_path / "bad.parquet", letters)


def test_importing_is_light() -> None:
    heavy = {"torch", "transformers", "tokenizers", "pyarrow", "lingua"}
    program = (
        "import sys, langslice.counting, langslice.corpus, langslice.corpus.language_id; "
        f"print({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
