"""Pieces of the ordinary vocabulary that steer a model: found by form and by type, kept, and told."""

import json
from pathlib import Path

import pytest

from langslice.tokenizer import SourceTokenizer, open_tokenizer
from langslice.vocabulary.control_pieces import control_pieces, kept_codes, language_of
from langslice.vocabulary.vocabulary import VocabularyRequest, choose_vocabulary
from tests.tokenizer_samples import added, unigram, write_tokenizer_json

CODES = {
    "<2ko>": "ko", "<2zh_Hant>": "zh", ">>kor<<": "ko", ">>cmn_Hans<<": "zh", "__fr__": "fr", "[ko_KR]": "ko", "ko_KR": "ko",
    "kor_Hang": "ko", "▁<2en>": "en", "<to_pt>": "pt", "<lang:de>": "de", "<|sw|>": "sw", "[en]": "en",
}  # fmt: skip
OTHERS = ("<extra_id_0>", "▁<extra_id_99>", "<mask_1>", "<2back_translated>", "[S2S]", "<|task|>", "<ctrl0>")
PLAIN = ("hello", "▁a", "__init__", "__del__", "<html>", "<0x0A>", "ko", "[0]", "2ko", "_KR")


def listing(tokens, special=()):
    return SourceTokenizer(
        Path("/nowhere"),
        "unigram",
        tuple(tokens),
        frozenset(special),
        frozenset(),
        None,
        (),
        lambda texts: [],
        lambda ids: "",
    )


def test_codes_and_sentinels_by_form():
    tokens = (*CODES, *OTHERS, *PLAIN)
    found = control_pieces(listing(tokens))
    assert {tokens[old]: language for old, language in found.codes.items()} == CODES
    assert {tokens[old] for old in found.others} == set(OTHERS)
    assert not control_pieces(listing(tokens, range(len(tokens)))).codes


def test_tags_of_html_and_methods_of_python_alone_are_no_codes():
    tokens = ("<tr>", "<li>", "<div>", "__lt__", "__or__", "hello")
    assert not control_pieces(listing(tokens)).codes
    assert set(control_pieces(listing((*tokens, "<ko>"))).codes.values()) == {"ko", "tr", "li", "dv"}


def test_codes_of_kept_languages_whatever_their_script():
    tokens = tuple(CODES)
    pieces = control_pieces(listing(tokens))
    kept = {tokens[old] for old in kept_codes(pieces, ["zh-Hans", "pt-BR"], every=False)}
    assert kept == {"<2zh_Hant>", ">>cmn_Hans<<", "<to_pt>"}
    assert kept_codes(pieces, ["ko"], every=True) == kept_codes(pieces, [], every=False) == set(range(len(tokens)))
    assert language_of("iw") == "he"
    assert language_of("qqq-") is None


@pytest.fixture
def madlad(tmp_path):
    """Unigram with language codes and a control piece of score 0, and one learnt piece of each language."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<2ko>", 0.0), ("<2en>", 0.0), ("<2fr>", 0.0), ("@@control", 0.0)]
    pieces += [("▁한국", -3.0), ("▁the", -3.5), ("▁était", -4.0), ("▁", -5.0)]
    entries = [added(0, "<unk>"), added(1, "</s>")]
    return write_tokenizer_json(tmp_path / "madlad", unigram(pieces), added_tokens=entries)


def chosen(folder, **request):
    tokenizer = open_tokenizer(folder)
    choice = choose_vocabulary(tokenizer, VocabularyRequest(**request))
    return {tokenizer.tokens[old] for old in choice.reasons}, choice.notes


def test_the_code_of_a_kept_language_stays_and_the_rest_is_told(madlad):
    kept, notes = chosen(madlad, languages=("ko", "en"))
    assert {"<2ko>", "<2en>", "@@control"} <= kept
    assert "<2fr>" not in kept
    assert "language codes kept: <2ko>, <2en>" in notes
    assert "control pieces of the vocabulary kept: @@control" in notes
    assert "language codes of other languages dropped: <2fr>; --keep-all-language-codes keeps them" in notes
    assert "<2fr>" in chosen(madlad, languages=("ko",), keep_all_language_codes=True)[0]
    assert "<2fr>" in chosen(madlad, scripts=("Hang",))[0]


def test_types_of_a_sentencepiece_model(tmp_path, madlad):
    from sentencepiece import sentencepiece_model_pb2 as form

    document = json.loads((madlad / "tokenizer.json").read_text())
    document["model"]["vocab"] = [[piece, score or -9.0] for piece, score in document["model"]["vocab"]]
    (madlad / "tokenizer.json").write_text(json.dumps(document))
    assert "@@control" not in chosen(madlad, languages=("ko",))[0]
    model = form.ModelProto()
    for piece, kind in (("<unk>", 2), ("@@control", 4), ("▁the", 1)):
        model.pieces.add(piece=piece, score=0.0, type=kind)
    (madlad / "spiece.model").write_bytes(model.SerializeToString())
    assert "@@control" in chosen(madlad, languages=("ko",))[0]
