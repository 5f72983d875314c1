"""Reading and writing tokenizer.json: every id moves to its place, and what is not understood stops the job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from langslice.errors import TokenizerError
from langslice.tokenizer import SourceTokenizer, check_renumbering, close, open_tokenizer, write_tokenizer
from langslice.tokenizer.document import read_document
from langslice.tokenizer.rewrite import check_written
from tests.tokenizer_samples import added, bpe, byte_level_folder, unigram, wordpiece, write_tokenizer_json


def slice_folder(folder: Path, chosen: Sequence[int]) -> tuple[SourceTokenizer, tuple[int, ...], Path, dict[str, Any]]:
    source = open_tokenizer(folder)
    kept = close(source, chosen).kept
    out = folder / "out"
    out.mkdir()
    rewrite = write_tokenizer(source, kept, out)
    content = (out / "tokenizer.json").read_bytes()
    assert rewrite.written["tokenizer.json"] == hashlib.sha256(content).hexdigest()
    return source, kept, out, json.loads(content)


def test_reading_in_parts_equals_reading_at_once(tmp_path: Path) -> None:
    tokens = [f't{number}"\\ é\n{{[,]}}' for number in range(9000)]
    merges = [[tokens[0], tokens[1]]]
    model = bpe([*tokens, tokens[0] + tokens[1]], merges)
    document = read_document(write_tokenizer_json(tmp_path, model) / "tokenizer.json")
    assert document.tokens == (*tokens, tokens[0] + tokens[1])
    assert document.merges is not None and document.merges.product.tolist() == [9000]
    assert document.skeleton["model"]["vocab"] is None and document.in_model == bytes([1]) * 9001


def test_merges_of_old_files_are_strings_and_the_type_may_be_missing(tmp_path: Path) -> None:
    model: dict[str, Any] = bpe(["a", "b", "ab"], ["a b"])
    del model["type"]
    _, kept, _, written = slice_folder(write_tokenizer_json(tmp_path, model), [2])
    assert kept == (0, 1, 2) and written["model"]["merges"] == [["a", "b"]]
    assert "type" not in written["model"]


def test_a_symbol_may_hold_a_space(tmp_path: Path) -> None:
    _, _, _, written = slice_folder(write_tokenizer_json(tmp_path, bpe(["x", " ", "y", " y"], [[" ", "y"]])), [3])
    assert written["model"]["vocab"] == {" ": 0, "y": 1, " y": 2}
    assert written["model"]["merges"] == [[" ", "y"]]


def test_ids_everywhere_are_renumbered(tmp_path: Path) -> None:
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [4], "tokens": ["[CLS]"]}},
    }
    bert = {"type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 4]}
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 2, "pad_type_id": 0, "pad_token": "[PAD]"}
    normalizer = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
    folder = write_tokenizer_json(
        tmp_path,
        wordpiece(["a", "b", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "c"]),
        post_processor={"type": "Sequence", "processors": [template, bert]},
        padding=padding,
        normalizer=normalizer,
        added_tokens=[added(5, "[SEP]"), added(4, "[CLS]"), added(2, "[PAD]"), added(3, "[UNK]")],
    )
    _, kept, _, written = slice_folder(folder, [6])
    assert kept == (2, 3, 4, 5, 6)
    first, second = written["post_processor"]["processors"]
    assert first["special_tokens"]["[CLS]"]["ids"] == [2] and first["single"] == template["single"]
    assert second == {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    assert written["padding"] == {**padding, "pad_id": 0}
    assert [(entry["id"], entry["content"]) for entry in written["added_tokens"]] == [
        (0, "[PAD]"), (1, "[UNK]"), (2, "[CLS]"), (3, "[SEP]"),
    ]  # fmt: skip
    assert written["normalizer"] == normalizer and written["truncation"] is None


def test_unigram_unknown_id_and_scores(tmp_path: Path) -> None:
    folder = write_tokenizer_json(
        tmp_path, unigram([("<unk>", 0.0), ("x", -0.1), ("y", -3.4635426998138428)], unk_id=0)
    )
    _, _, _, written = slice_folder(folder, [2])
    assert written["model"]["vocab"] == [["<unk>", 0.0], ["y", -3.4635426998138428]]
    assert written["model"]["unk_id"] == 0


def test_a_unigram_unknown_token_that_classes_have_built_in_keeps_its_id(tmp_path: Path) -> None:
    pieces = [("[PAD]", 0.0), (",", -0.1), ("[UNK]", 0.0), ("x", -1.0), ("y", -2.0)]
    _, kept, _, written = slice_folder(write_tokenizer_json(tmp_path / "low", unigram(pieces, unk_id=2)), [4])
    assert kept == (0, 1, 2, 4) and written["model"]["unk_id"] == 2
    many = [(f"p{number}", -1.0) for number in range(200)]
    _, kept, _, written = slice_folder(write_tokenizer_json(tmp_path / "high", unigram(many, unk_id=150)), [160])
    assert kept == (150, 160) and written["model"]["unk_id"] == 0


def test_switches_that_the_library_ignores_hold_no_ids(tmp_path: Path) -> None:
    stray = {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    template = {
        "type": "TemplateProcessing",
        **stray,
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [2], "tokens": ["<s>"]}},
    }
    folder = write_tokenizer_json(tmp_path / "stray", bpe(["a", "b", "<s>"], []), post_processor=template)
    _, kept, out, written = slice_folder(folder, [1])
    assert kept == (1, 2) and written["post_processor"]["special_tokens"]["<s>"]["ids"] == [1]
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode("b").ids == [1, 0]
    write_tokenizer_json(tmp_path, bpe(["a", "b", "<s>"], []), post_processor={**template, "more_ids": [1]})
    with pytest.raises(TokenizerError, match="key 'more_ids' is not understood"):  # when it is opened, not when written
        open_tokenizer(tmp_path)


def placements() -> Mapping[str, tuple[dict[str, int], list[dict[str, Any]], dict[str, int]]]:
    """Name -> model.vocab, added tokens, expected ids after slicing to `b` and the added tokens."""
    return {
        "after the model": ({"a": 0, "b": 1}, [added(2, "<x>"), added(3, "<y>")], {"b": 0, "<x>": 1, "<y>": 2}),
        "listed in the wrong order": (
            {"a": 0, "b": 1, "<y>": 2},
            [added(3, "<x>"), added(2, "<y>")],
            {"b": 0, "<y>": 1, "<x>": 2},
        ),
        "first": (
            {"<x>": 0, "<y>": 1, "a": 2, "b": 3},
            [added(0, "<x>"), added(1, "<y>")],
            {"<x>": 0, "<y>": 1, "b": 2},
        ),
        "in the middle": ({"a": 0, "<x>": 1, "b": 2}, [added(1, "<x>"), added(3, "<y>")], {"<x>": 0, "b": 1, "<y>": 2}),
        # three entries with ids 0, 1 and 9: the library gives <x> the id 3, a hole before 9
        "in a hole": ({"a": 0, "c": 1, "b": 9}, [added(3, "<x>")], {"<x>": 0, "b": 1}),
    }


@pytest.mark.parametrize("name", placements())
def test_added_tokens_wherever_they_stand(tmp_path: Path, name: str) -> None:
    vocab, entries, expected = placements()[name]
    model = {**bpe([], []), "vocab": vocab}
    folder = write_tokenizer_json(tmp_path, model, added_tokens=entries)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    source, _, out, _ = slice_folder(folder, [vocab["b"]])
    for old, token in enumerate(source.tokens):
        if token is not None:
            assert library.token_to_id(token) == old
    loaded = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert loaded.get_vocab(with_added_tokens=True) == expected
    assert loaded.encode("<x>b").tokens == ["<x>", "b"]


def test_an_added_token_with_an_impossible_id_is_refused(tmp_path: Path) -> None:
    write_tokenizer_json(tmp_path, bpe(["a", "b"], []), added_tokens=[added(7, "<x>")])
    with pytest.raises(TokenizerError, match="'<x>' says id 7, but every loader gives it 2"):
        open_tokenizer(tmp_path)


def test_tokens_that_only_the_settings_declare_are_kept_and_written(tmp_path: Path) -> None:
    folder = write_tokenizer_json(tmp_path, bpe(["a", "b", "c"], []), added_tokens=[added(3, "<s>")])
    (folder / "added_tokens.json").write_text(json.dumps({"<extra>": 4}))
    config = {"pad_token": "<pad>", "image_token_id": 4, "model_max_length": 512}
    config |= {"added_tokens_decoder": {"3": {"content": "<s>", "special": True}}, "pad_token_type_id": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>"}))
    source, kept, out, _ = slice_folder(folder, [1])
    assert source.tokens == ("a", "b", "c", "<s>", "<extra>", "<pad>") and kept == (1, 3, 4, 5)
    loaded = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert loaded.get_vocab() == {"b": 0, "<s>": 1, "<extra>": 2, "<pad>": 3}
    assert json.loads((out / "added_tokens.json").read_text()) == {"<extra>": 2}
    changed = json.loads((out / "tokenizer_config.json").read_text())
    assert changed["added_tokens_decoder"] == {"1": {"content": "<s>", "special": True}}
    assert changed["image_token_id"] == 2 and changed["model_max_length"] == 512 and changed["pad_token_type_id"] == 0
    assert json.loads((out / "special_tokens_map.json").read_text()) == {"bos_token": "<s>"}


@pytest.mark.parametrize(
    ("parts", "model", "message"),
    [
        ({"post_processor": {"type": "Novel", "ids": [1]}}, {}, "post-processor 'Novel' is not understood"),
        ({"glossary": {}}, {}, "key 'glossary' is not understood"),
        ({"normalizer": {"type": "Map", "token_id": 3}}, {}, "Map has token_id = 3"),
        ({}, {"start_id": 1}, "key 'start_id' is not understood"),
        ({}, {"type": "Novel"}, "model type 'Novel' is not understood"),
        ({"padding": {"pad_id": 9, "pad_token": "x"}}, {}, "uses id 9, which has no token"),
        ({"added_tokens": [{**added(0, "a"), "fuzzy": 1}]}, {}, "key 'fuzzy' is not understood"),
    ],
)
def test_what_is_not_understood_stops_the_job(
    tmp_path: Path, parts: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    write_tokenizer_json(tmp_path, {**bpe(["a", "b"], []), **model}, **parts)
    with pytest.raises(TokenizerError, match=message):
        source = open_tokenizer(tmp_path)
        (tmp_path / "out").mkdir()
        write_tokenizer(source, close(source, [0]).kept, tmp_path / "out")


def test_an_unknown_id_field_of_the_settings_stops_the_job(tmp_path: Path) -> None:
    folder = write_tokenizer_json(tmp_path, bpe(["a", "b"], []))
    (folder / "tokenizer_config.json").write_text('{"separator_id": 1}')
    (folder / "out").mkdir()
    with pytest.raises(TokenizerError, match="separator_id = 1 may hold token ids and is not understood"):
        write_tokenizer(open_tokenizer(folder), [0], folder / "out")
    with pytest.raises(TokenizerError, match="separator_id = 1 may hold token ids and is not understood"):
        check_renumbering(open_tokenizer(folder), [0])


def test_the_number_of_the_unknown_piece_in_the_settings_is_understood(tmp_path: Path) -> None:
    folder = write_tokenizer_json(
        tmp_path, unigram([("[PAD]", 0.0), ("a", -1.0), ("[UNK]", 0.0), ("b", -2.0)], unk_id=2)
    )
    (folder / "tokenizer_config.json").write_text('{"unk_id": 2}')
    _, kept, out, _ = slice_folder(folder, [3])
    assert kept == (0, 1, 2, 3) and json.loads((out / "tokenizer_config.json").read_text()) == {"unk_id": 2}


def test_equal_pieces_are_counted_as_the_library_counts_them(tmp_path: Path) -> None:
    """A class may put <pad> before the pieces of a file that has one already."""
    folder = write_tokenizer_json(
        tmp_path,
        unigram([("<unk>", 0.0), ("<pad>", 0.0), ("a", -1.0), ("<pad>", 0.0)]),
        added_tokens=[added(3, "<pad>")],
    )
    if Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == 3:  # the library before 0.22
        with pytest.raises(TokenizerError, match="loads with 3 tokens, expected 4"):
            slice_folder(folder, [1, 2])
        return
    _, kept, _, _ = slice_folder(folder, [1, 2])
    assert kept == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"', ""]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"is not a (readable )?tokenizer\.json"):
        open_tokenizer(tmp_path)


def test_a_merge_without_its_product_is_refused(tmp_path: Path) -> None:
    write_tokenizer_json(tmp_path, bpe(["a", "b"], [["a", "b"]]))
    with pytest.raises(TokenizerError, match=r"merge 'a' \+ 'b' needs 'ab', not in model.vocab"):
        open_tokenizer(tmp_path)


def test_two_tokens_of_one_id_are_refused(tmp_path: Path) -> None:
    write_tokenizer_json(tmp_path, {**bpe([], []), "vocab": {"a": 0, "b": 0}})
    with pytest.raises(TokenizerError, match="'a' and 'b' share the id 0"):
        open_tokenizer(tmp_path)


def test_a_choice_that_is_not_closed_is_refused(tmp_path: Path) -> None:
    source = open_tokenizer(byte_level_folder(tmp_path, [("h", "i"), ("hi", "s")]))
    (tmp_path / "out").mkdir()
    with pytest.raises(TokenizerError, match=r"lack 1 that they need, first id 256, 'hi' \(closure of 'his'\)"):
        write_tokenizer(source, [*range(256), 257], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kept", [[1, 0], [0, 0], [-1, 0]])
def test_kept_ids_must_ascend(tmp_path: Path, kept: list[int]) -> None:
    source = open_tokenizer(write_tokenizer_json(tmp_path, bpe(["a", "b"], [])))
    with pytest.raises(TokenizerError, match="ascending, without repetition, and not negative"):
        write_tokenizer(source, kept, tmp_path)


def test_rows_without_a_token_may_only_follow(tmp_path: Path) -> None:
    source = open_tokenizer(write_tokenizer_json(tmp_path, {**bpe([], []), "vocab": {"a": 0, "b": 2}}))
    (tmp_path / "out").mkdir()
    with pytest.raises(TokenizerError, match="id 1 has no token but is before kept tokens"):
        write_tokenizer(source, [0, 1, 2], tmp_path / "out")
    write_tokenizer(source, [0, 2, 3, 4], tmp_path / "out")
    assert Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_vocab() == {"a": 0, "b": 1}


def test_the_check_finds_a_wrong_id(tmp_path: Path) -> None:
    path = write_tokenizer_json(tmp_path, bpe(["a", "b"], [])) / "tokenizer.json"
    check_written(path, ["a", "b"])
    with pytest.raises(TokenizerError, match="id 0 loads as 'a', expected 'b'"):
        check_written(path, ["b", "a"])
    with pytest.raises(TokenizerError, match="loads with 2 tokens, expected 1"):
        check_written(path, ["a"])


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        open_tokenizer(tmp_path)
