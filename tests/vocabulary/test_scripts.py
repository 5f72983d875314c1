"""Scripts of characters, and kinds and scripts of tokens."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from langslice.errors import LanguageError
from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary.pieces import scripts_of_piece, split_bytes
from langslice.vocabulary.scripts import (
    resolve_scripts,
    script_of_text,
    script_table,
    scripts_of_character,
    token_scripts,
)


class Words(SourceTokenizer):
    """A vocabulary given as bytes: what a token stands for is what it says."""

    def surface(self, token_id):
        return self.tokens[token_id].encode("latin-1")


def vocabulary(*surfaces, special=(), single_bytes=()):
    tokens = tuple(surface.decode("latin-1") for surface in surfaces)
    nothing = lambda texts: [[] for _ in texts]  # noqa: E731
    return Words(
        Path(), "byte-bpe", tokens, frozenset(special), frozenset(single_bytes), None, (), nothing, lambda ids: ""
    )


def classify(*texts):
    return token_scripts(vocabulary(*[text if isinstance(text, bytes) else text.encode() for text in texts]))


def test_table_agrees_with_the_reference_on_every_code_point():
    from fontTools.unicodedata import script

    table = script_table()
    assert len(table.codes) == 0x110000
    different = [code for code in range(0, 0x110000, 7) if table.names[table.codes[code]] != script(chr(code))]
    assert different == []


def test_characters():
    assert scripts_of_character("a") == {"Latn"}
    assert scripts_of_character("한") == {"Hang"}
    assert scripts_of_character("!") == frozenset()
    assert scripts_of_character("ー") == {"Hira", "Kana"}
    assert "Arab" in scripts_of_character("،")
    assert scripts_of_character("\u0378") == {"Zzzz"}


def test_script_of_text():
    assert script_of_text("Hello, 세계 안녕하세요!") == "Hang"
    assert script_of_text("Hello, мир") == "Latn"
    assert script_of_text("123 …") == "Zyyy"


def test_script_names():
    assert resolve_scripts(["Kore", "latn", "Hangul", "cyrillic"]) == ("Hang", "Hani", "Latn", "Cyrl")
    assert resolve_scripts(["Jpan"]) == ("Hira", "Kana", "Hani")
    with pytest.raises(LanguageError, match="unknown script 'Latin1'") as caught:
        resolve_scripts(["Latin1"])
    assert "did you mean Latn" in caught.value.hint


def test_kinds():
    texts = ["the", " The", "한국", "12", " 7", "!?", " …", "€", "  ", "\n\t", "a1", "x_y", "аb", "1.5", "中文"]
    assert classify(*texts).kinds == (
        "letters:Latn", "letters:Latn", "letters:Hang", "digits", "digits", "punctuation", "punctuation", "symbol",
        "whitespace", "whitespace", "mixed", "mixed", "mixed", "mixed", "letters:Hani",
    )  # fmt: skip


def test_special_and_byte_tokens_are_not_read():
    classes = token_scripts(vocabulary(b"<s>", b"\xea", b"a", special=(0,), single_bytes=(1,)))
    assert classes.kinds == ("special", "byte", "letters:Latn")
    assert classes.by_kind() == {"special": 1, "byte": 1, "letters": 1}
    assert classes.by_script() == {"special": 1, "byte": 1, "Latn": 1}
    assert classes.characters.tolist() == [0, 0, 1]


def test_within_and_touching():
    classes = classify("한국", "한 the", "the", "...", "中", "한中", "،", "は、", "ー")
    assert classes.within({"Hang", "Hani"}).tolist() == [True, False, False, True, True, True, False, False, False]
    assert classes.touching({"Hang"}).tolist() == [True, True, False, False, False, True, False, False, False]
    assert classes.within({"Arab"}).tolist()[6]
    assert classes.within({"Kana"}).tolist()[7:] == [False, True]
    assert classes.sharing({"Arab"}).tolist() == [False] * 6 + [True, False, False]
    assert classes.neutral.tolist() == [False, False, False, True, False, False, True, False, True]


def test_national_han_character_sets():
    classes = classify("我们", "我們", "国", "國", "the")
    assert classes.han_in("gb2312").tolist() == [True, False, True, False, True]
    assert classes.han_in("big5hkscs").tolist() == [False, True, True, True, True]  # Hong Kong adds 国


def scripts_by_search(piece):
    """All assigned characters whose UTF-8 holds the piece and more: the slow way."""
    table = script_table()
    codes = np.flatnonzero(table.codes != table.names.index("Zzzz"))
    found = set()
    for code in codes.tolist():
        if code >= 0x80 and not 0xD800 <= code < 0xE000:
            encoded = chr(code).encode()
            if piece in encoded and piece != encoded:
                found.add(scripts_of_character(chr(code)))
    return found


@pytest.mark.parametrize("piece", [b"\xea", b"\xed\x95", b"\x95\x9c", b"\xe0\xa4", b"\xf0\x9f", b"\xc3", b"\x80"])
def test_scripts_of_a_piece_equal_a_search_of_all_characters(piece):
    ((key,),) = [tuple(split_bytes(piece))]
    assert scripts_of_piece(-key) == scripts_by_search(piece)


def test_a_lead_byte_is_never_guessed_from():
    classes = classify(b"\xea", b"\xed\x95", b"\xea\xb0", b"\xed\x95\x9c\xea", b"\xe4\xbd", b"\xf0\x9f\x98")
    assert classes.kinds == ("fragment",) * 6
    assert classes.within({"Hang"}).tolist() == [False, True, True, False, False, True]
    assert classes.within({"Hang", "Yiii", "Vaii"}).tolist()[0] is False  # 0xEA also begins Cham, Javanese and more
    assert classes.within({"Hani"}).tolist() == [False, False, False, False, True, True]


def test_bytes_that_no_character_has():
    classes = classify(b"\xff\xff")
    assert classes.within({"Latn"}).tolist() == [False]
    assert classes.kinds == ("fragment",)


@pytest.mark.assets
@pytest.mark.parametrize("name", ["qwen2", "mbert-cased"])
def test_real_vocabularies_agree_with_a_loop(assets, name):
    from langslice.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(assets / "tokenizers" / name)
    classes = token_scripts(tokenizer)
    assert len(classes.kinds) == len(tokenizer.tokens)
    hangul = classes.within({"Hang"}) & ~classes.neutral
    skipped = tokenizer.special_ids | tokenizer.byte_ids | {tokenizer.unknown_id}
    for index in range(0, len(tokenizer.tokens), 11):
        if index in skipped or tokenizer.tokens[index] is None or classes.kinds[index] == "fragment":
            continue
        text = tokenizer.surface(index).decode()
        own = [scripts_of_character(character) for character in text]
        expected = any(own) and all(not scripts or "Hang" in scripts for scripts in own)
        solo = expected and any(scripts == {"Hang"} for scripts in own)
        assert bool(hangul[index]) == solo, (index, text)
        if classes.kinds[index].startswith("letters"):
            assert all(unicodedata.category(character)[0] in "LMZC" for character in text)


def test_import_is_light():
    code = (
        "import sys, langslice.vocabulary.vocabulary\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'wordfreq', 'langcodes', 'fontTools', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
