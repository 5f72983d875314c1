"""What a choice of tokens needs, by hand, by random search against the library, and where refusing is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from langslice.errors import TokenizerError
from langslice.tokenizer import close, missing_closure, open_tokenizer
from langslice.tokenizer.bpe import Spelling, listed_merges, merges_to_keep, ranked_merges, route, route_closure
from langslice.tokenizer.bpe_splits import OPEN, REACHED, split_tokens
from langslice.tokenizer.document import index_of, unique_merges
from tests.tokenizer_samples import added, bpe, byte_level_folder, unigram, wordpiece, write_tokenizer_json

COUNTEREXAMPLE = (["a", "c", "ac", "aac"], [["a", "c"], ["a", "ac"]])


def test_counterexample_needs_its_intermediate(tmp_path: Path) -> None:
    source = open_tokenizer(write_tokenizer_json(tmp_path, bpe(*COUNTEREXAMPLE)))
    assert source.kind == "char-bpe"
    closure = close(source, [0, 1, 3])
    assert closure.kept == (0, 1, 2, 3)
    assert closure.added == {2: "closure of 'aac'"}
    assert missing_closure(source, [0, 1, 3]) == {2: "closure of 'aac'"}
    assert missing_closure(source, closure.kept) == {}


def test_route_walks_the_lowest_rank_first() -> None:
    merges = unique_merges([0, 0], [1, 2], [2, 3])
    assert route([0, 0, 1], listed_merges(merges, 4)) == ([2, 3], 1)
    assert route([1, 0], listed_merges(merges, 4)) == ([], 2)


def test_of_duplicate_merges_the_later_rank_counts() -> None:
    # a b c: with (a,b) at rank 0 the route of abc is ab; its duplicate at rank 2 comes after (b,c)
    merges = unique_merges([0, 1, 0, 0, 3], [1, 2, 1, 4, 2], [3, 4, 3, 5, 5])
    assert merges.left.tolist() == [1, 0, 0, 3]
    assert route([0, 1, 2], listed_merges(merges, 6)) == ([4, 5], 1)
    library = Tokenizer(
        BPE(
            vocab={"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5},
            merges=[("a", "b"), ("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")],
        )
    )
    assert library.encode("ab").tokens == ["ab"]
    without = Tokenizer(BPE(vocab={"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}, merges=[("b", "c"), ("a", "b")]))
    with_duplicate = Tokenizer(
        BPE(vocab={"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}, merges=[("a", "b"), ("b", "c"), ("a", "b")])
    )
    assert with_duplicate.encode("abc").tokens == without.encode("abc").tokens == ["a", "bc"]


def test_rank_rule_joins_any_neighbours_that_spell_a_token() -> None:
    tokens = ["a", "b", "c", "bc", "abc"]
    rule = ranked_merges(tokens, index_of(tokens), lambda old: old)
    assert route([0, 1, 2], rule) == ([3, 4], 1)


def test_suffix_and_prefix_belong_to_the_symbols(tmp_path: Path) -> None:
    tokens = ["l", "o", "o</w>", "lo", "lo</w>", "w", "w</w>", "low", "low</w>"]
    merges = [["l", "o"], ["lo", "w</w>"]]
    source = open_tokenizer(write_tokenizer_json(tmp_path, bpe(tokens, merges, end_of_word_suffix="</w>")))
    assert [source.tokens[old] for old in close(source, [8]).kept] == ["l", "o", "lo", "w</w>", "low</w>"]
    assert source.surface(8) == b"low "
    spelling = Spelling({"h": 0, "##i": 1, "##h": 2}, prefix="##")
    assert spelling.symbols("hi") == [0, 1]
    assert spelling.symbols("##hi") == [2, 1]
    assert spelling.symbols("hx") is None


def test_orphans_need_nothing(tmp_path: Path) -> None:
    source = open_tokenizer(
        write_tokenizer_json(tmp_path, bpe(["a", "b", "ab", "ba"], [["a", "b"]], ignore_merges=True))
    )
    assert close(source, [3]).kept == (3,)
    assert close(source, [2]).kept == (0, 1, 2)


def test_bytes_and_specials_always_stay(tmp_path: Path) -> None:
    folder = byte_level_folder(tmp_path, [("h", "i")], extra=["<|end|>"], added_tokens=[added(257, "<|end|>")])
    source = open_tokenizer(folder)
    closure = close(source, [])
    assert source.kind == "byte-bpe" and source.unknown_id is None and len(source.byte_ids) == 256
    assert closure.kept == (*range(256), 257)
    assert closure.added[257] == "special" and closure.added[0] == "byte"
    assert source.surface(source.tokens.index("Ġ")) == b" "
    assert source.surface(source.tokens.index("Ã")) == b"\xc3"


def test_unigram_keeps_a_piece_of_the_lowest_score(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("▁a", -1.0), ("b", -7.0), ("c", -7.0), ("d", -2.0)]
    source = open_tokenizer(write_tokenizer_json(tmp_path, unigram(pieces)))
    assert close(source, [1]).added == {0: "special", 2: "lowest score"}
    assert close(source, [1, 3]).kept == (0, 1, 3)
    assert source.surface(1) == b" a"


def test_unigram_keeps_the_last_of_equal_pieces(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("ab", -1.0), ("a", -1.0), ("b", -9.0), ("ab", -8.0)]
    source = open_tokenizer(write_tokenizer_json(tmp_path, unigram(pieces)))
    assert close(source, [1]).added[4] == "last of the pieces spelled 'ab'"


def test_wordpiece_needs_only_its_unknown_token(tmp_path: Path) -> None:
    source = open_tokenizer(write_tokenizer_json(tmp_path, wordpiece(["[PAD]", "[UNK]", "un", "##aff", "##able"])))
    assert close(source, [3]).kept == (1, 3)
    assert source.surface(3) == b"aff"


def test_an_id_without_a_token_is_refused(tmp_path: Path) -> None:
    source = open_tokenizer(write_tokenizer_json(tmp_path, bpe(*COUNTEREXAMPLE)))
    with pytest.raises(TokenizerError, match="id 4 has no token"):
        close(source, [4])


@st.composite
def vocabularies(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    """A small random BPE vocabulary over a, b, c: merges join tokens that exist already."""
    tokens = ["a", "b", "c"]
    merges: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(2, 14))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if pair not in merges and len(pair[0] + pair[1]) <= 8:
            merges.append(pair)
            if pair[0] + pair[1] not in tokens:
                tokens.append(pair[0] + pair[1])
    return tokens, draw(st.permutations(merges))


def sliced(
    tokens: list[str], merges: list[tuple[str, str]], kept: set[int], routes: bool
) -> tuple[Tokenizer, set[int]]:
    """The library's tokenizer on kept tokens, with or without their routes; merges as when writing."""
    index = index_of(tokens)
    columns = [[index[pair[side]] for pair in merges] for side in (0, 1)]
    table = unique_merges(*columns, [index[left + right] for left, right in merges])
    if routes:
        found = route_closure(sorted(kept), tokens, Spelling(index), listed_merges(table, len(tokens)))
        kept = kept | {needed for needed, _ in found}
    marked = merges_to_keep(table, sorted(kept), len(tokens))
    rules = zip(table.left[marked].tolist(), table.right[marked].tolist(), strict=True)
    vocab = {tokens[old]: new for new, old in enumerate(sorted(kept))}
    return Tokenizer(BPE(vocab=vocab, merges=[(tokens[left], tokens[right]) for left, right in rules])), kept


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(vocabularies(), st.data())
def test_routes_are_exact_on_random_vocabularies(
    vocabulary: tuple[list[str], list[tuple[str, str]]], data: st.DataObject
) -> None:
    tokens, merges = vocabulary
    source = Tokenizer(BPE(vocab={token: old for old, token in enumerate(tokens)}, merges=merges))
    chosen = {0, 1, 2} | data.draw(st.sets(st.sampled_from(range(len(tokens)))))
    result, kept = sliced(tokens, merges, chosen, routes=True)
    texts = data.draw(st.lists(st.text("abc", min_size=1, max_size=16), min_size=5, max_size=20))
    for text in [*texts, *("".join(pair) for pair in merges)]:
        before = source.encode(text)
        if kept.issuperset(before.ids):
            assert result.encode(text).tokens == before.tokens


def test_without_routes_the_counterexample_changes() -> None:
    tokens, merges = COUNTEREXAMPLE[0], [tuple(pair) for pair in COUNTEREXAMPLE[1]]
    source = Tokenizer(BPE(vocab={token: old for old, token in enumerate(tokens)}, merges=merges))
    assert source.encode("aac").tokens == ["aac"]
    broken, _ = sliced(tokens, merges, {0, 1, 3}, routes=False)
    assert broken.encode("aac").tokens == ["a", "a", "c"]
    exact, _ = sliced(tokens, merges, {0, 1, 3}, routes=True)
    assert exact.encode("aac").tokens == ["aac"]


def built_from(splits, old: int) -> list[int]:
    """Every token on the way to one that is reached, itself included and symbols not, each as often as it is built."""
    found, left = [], [old]
    while left:
        one = left.pop()
        if splits.left[one] >= 0:
            found.append(one)
            left += [int(splits.left[one]), int(splits.right[one])]
    return sorted(found)


def check_splits(tokens, merges, spelling: Spelling, symbols) -> int:
    """Compare the last merge of every token with its route, run merge by merge; returns how many were compared."""
    splits = split_tokens(merges, symbols)
    rule = listed_merges(merges, len(tokens))
    compared = 0
    for old, token in enumerate(tokens):
        if not symbols[old] or splits.state[old] == OPEN:
            continue
        start = spelling.symbols(token)
        products, left = route(start, rule) if start else ([], 0)
        reached = left == 1 and (not products or products[-1] == old)
        assert bool(splits.state[old] == REACHED) is reached, token
        if reached:
            assert built_from(splits, old) == sorted(products), token
        compared += 1
    return compared


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(vocabularies())
def test_the_last_merge_of_a_token_is_that_of_its_route(vocabulary: tuple[list[str], list[tuple[str, str]]]) -> None:
    tokens, pairs = vocabulary
    index = index_of(tokens)
    columns = [[index[pair[side]] for pair in pairs] for side in (0, 1)]
    merges = unique_merges(*columns, [index[left + right] for left, right in pairs])
    check_splits(tokens, merges, Spelling(index), np.array([len(token) for token in tokens]))


@pytest.mark.parametrize("order", [0, 1])
def test_of_equal_pairs_the_left_one_merges_first(order: int) -> None:
    # aaa is aa + a: the pair on the left fires first, so a + aa is never there, whichever merge is listed first.
    longer = [(1, 0, 2), (0, 1, 2)][:: 1 if order else -1]
    merges = unique_merges(*zip((0, 0, 1), *longer, strict=True))
    splits = split_tokens(merges, np.array([1, 2, 3]))
    assert splits.state.tolist() == [REACHED] * 3
    assert (int(splits.left[2]), int(splits.right[2])) == (1, 0)


@pytest.mark.assets
@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma-4", "o200k-base", "mistral-v1-spm"])
def test_last_merges_of_real_vocabularies_are_those_of_their_routes(assets: Path, name: str) -> None:
    source = open_tokenizer(assets / "tokenizers" / name)
    document = source.document
    assert document is not None and document.merges is not None
    index = index_of([token if document.in_model[old] else None for old, token in enumerate(source.tokens)])
    symbols = [len(token) if token and document.in_model[old] else 0 for old, token in enumerate(source.tokens)]
    symbols = np.array(symbols)
    fallback = bool(document.skeleton["model"]["byte_fallback"])
    compared = check_splits(source.tokens, document.merges, Spelling(index, byte_fallback=fallback), symbols)
    assert compared > 0.999 * sum(symbols > 0)


def test_what_arrays_leave_open_is_walked_and_reasons_agree(tmp_path: Path) -> None:
    # ab, whose merge comes after that of abc, makes abc of a merge that fires late: its state is open.
    tokens = ["a", "b", "c", "ab", "abc", "bc", "abcbc"]
    merges = [["ab", "c"], ["a", "b"], ["b", "c"], ["abc", "bc"]]
    source = open_tokenizer(write_tokenizer_json(tmp_path, bpe(tokens, merges)))
    assert source.document is not None and source.document.merges is not None
    assert split_tokens(source.document.merges, np.array([len(token) for token in tokens])).state[4] == OPEN
    assert close(source, [6]).added == dict.fromkeys(range(6), "closure of 'abcbc'")
    assert close(source, [4, 6]).added[3] == "closure of 'abc'"
