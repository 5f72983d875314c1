"""New tokens: every encoding without one is the old one, under real tokenizers of every kind."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from langslice.errors import CorpusError, PlanError, TokenizerError
from langslice.progress import silent
from langslice.tokenizer import close, open_tokenizer, write_tokenizer
from langslice.tokenizer.extension import lone_characters, piece_score
from langslice.vocabulary import similar_tokens as likeness
from langslice.vocabulary.extension import ExtensionRequest, extend_vocabulary
from langslice.vocabulary.new_merges import MergeLearner, replaced

LEARNED, HELD_OUT = slice(0, 120), slice(120, 200)


def lines_of(assets, language):
    path = assets / "data/ntrex128" / f"newstest2019-ref.{language}.txt"
    return path.read_text(encoding="utf-8").splitlines()


def naive_learner(words, steps):
    """Byte-pair encoding by counting everything anew at each step: what `MergeLearner` must find faster."""
    words, found = [(list(word), weight) for word, weight in words], []
    for _ in range(steps):
        pairs = {}
        for word, weight in words:
            for pair in pairwise(word):
                pairs[pair] = pairs.get(pair, 0) + weight
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], "".join(pair)))
        words = [(replaced(word, best, "".join(best)), weight) for word, weight in words]
        found.append("".join(best))
    return found


def test_merges_are_those_of_byte_pair_encoding():
    text = [*["wakati"] * 2, *["watu"] * 3, "aaaa", "aaa", *["kwa"] * 2, *["kwake"] * 2, "kwao", "baba", "babake"]
    words = [(word, text.count(word)) for word in dict.fromkeys(text)]
    letters = sorted({letter for word in text for letter in word})
    learner = MergeLearner(lambda left, right: left + right, list(letters), {})
    learner.add((tuple(map(letters.index, word)), weight) for word, weight in words)
    expected = naive_learner(words, 30)
    assert [merge.token for merge in learner.learn(2)] == expected and len(expected) > 10


@pytest.mark.parametrize(
    ("name", "language"), [("gpt2", "tha"), ("mistral-v1-spm", "tam"), ("mbert-cased", "swa"), ("xlm-roberta", "swa")]
)
def test_an_encoding_without_new_tokens_is_the_old_one(assets, tmp_path, name, language):
    """A cut vocabulary, extended; each line is encoded whole by the cut one and the extended one."""
    source = open_tokenizer(assets / "tokenizers" / name)
    lines, other = lines_of(assets, language), lines_of(assets, "deu")[HELD_OUT]
    used = {old for ids in source.encode([*lines[:100], *other]) for old in ids}
    kept = close(source, sorted(used)).kept
    (tmp_path / "list.txt").write_text(
        {"gpt2": " Vereinigte\n", "mbert-cased": "##schaftlandung\n"}.get(name, "▁Vereinigte\n")
    )
    request = ExtensionRequest((tmp_path / "list.txt",), lambda: lines[LEARNED], more=60)
    made, notes = extend_vocabulary(source, kept, request, silent)
    learned = [one for one in made if one.count]
    assert len(learned) == 60 and any("new tokens, learned from 120 lines" in note for note in notes)
    for folder, extension in (("cut", ()), ("extended", made)):
        (tmp_path / folder).mkdir()
        write_tokenizer(source, kept, tmp_path / folder, closed=True, extension=extension)
    before, after = open_tokenizer(tmp_path / "cut"), open_tokenizer(tmp_path / "extended")
    assert after.tokens == (*before.tokens, *(one.token for one in made))
    new_of, changed = {old: new for new, old in enumerate(kept)}, 0
    for old, new in zip(before.encode([*lines, *other]), after.encode([*lines, *other]), strict=True):
        if max(new) < len(kept):
            assert new == old
        changed += new != old
        if name in ("gpt2", "mistral-v1-spm"):
            pieces = [made[one - len(kept)].pieces if one >= len(kept) else (kept[one],) for one in new]
            assert [new_of[one] for part in pieces for one in part] == old
    assert changed > 100
    tokens = [sum(map(len, each.encode(lines[HELD_OUT]))) for each in (before, after)]
    assert tokens[1] < 0.995 * tokens[0]
    shown = [after.surface(len(kept) + made.index(one)).decode() for one in learned if one.pieces]
    assert not any(" " in text[1:] or any(map(str.isdigit, text)) for text in shown)


def test_a_score_wins_over_its_split_alone():
    assert -20 < piece_score([-9.0, -11.0], -30.0) < -19.999
    assert piece_score([-9.0, -11.0, -12.0], -15.0) == -15.0


def test_what_follows_a_new_piece_can_be_spelled(tmp_path):
    """`ab` and `##cd` spell `abcd`; with `abc` the longest match leaves a `d`, which must have a piece of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = ["[UNK]", "ab", "##cd", "##c", "e"]
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "list.txt").write_text("abc\n")
    source, kept = open_tokenizer(tmp_path), tuple(range(5))
    assert lone_characters(source.document, kept) == ["##b", "##d"]
    made, _ = extend_vocabulary(source, kept, ExtensionRequest((tmp_path / "list.txt",)), silent)
    (tmp_path / "out").mkdir()
    write_tokenizer(source, kept, tmp_path / "out", closed=True, extension=made)
    after = open_tokenizer(tmp_path / "out")
    assert [after.tokens[one] for one in after.encode(["abcd"])[0]] == ["abc", "##d"]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("the", "it is a token already"),
        (" habari gani", "before its model sees it"),
        ("don't", "before its model sees it"),
        ("", "is empty"),
    ],
)
def test_what_cannot_become_a_token_is_named(assets, tmp_path, entry, named):
    source = open_tokenizer(assets / "tokenizers/gpt2")
    kept = close(source, range(2000)).kept
    (tmp_path / "list.txt").write_text(entry)
    with pytest.raises((PlanError, CorpusError), match=named):
        extend_vocabulary(source, kept, ExtensionRequest((tmp_path / "list.txt",)), silent)


def test_a_kind_without_a_way_to_say_it_is_refused(assets, tmp_path):
    source = open_tokenizer(assets / "tokenizers/opus-mt-en-mg")
    with pytest.raises(TokenizerError, match="'marian' cannot be extended"):
        extend_vocabulary(source, range(100), ExtensionRequest((tmp_path / "list.txt",)), silent)


def naive_counts(lines, tokens, contexts):
    found = [[0] * contexts for _ in tokens]
    for line in lines:
        for at, token in enumerate(line):
            for near, other in enumerate(line):
                if near != at and abs(near - at) <= likeness.WINDOW and token in tokens and other in tokens[:contexts]:
                    found[tokens.index(token)][tokens.index(other)] += 1
    return np.array(found, dtype=float)


def naive_cosines(counts, dimensions):
    """Cosines of the singular vectors of positive pointwise mutual information, number by number."""
    smooth = [sum(column) ** 0.75 for column in counts.T]
    matrix = [
        [max(0.0, math.log(n / (sum(row) * smooth[at] / sum(smooth)))) if n else 0.0 for at, n in enumerate(row)]
        for row in counts
    ]
    left, sizes, _ = np.linalg.svd(np.array(matrix), full_matrices=False)
    vectors = left[:, :dimensions] * np.sqrt(sizes[:dimensions])
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in vectors] for a in vectors])


def naive_sparsemax(scores):
    """The threshold by halving."""
    low, high = min(scores) - 1, max(scores)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(max(0, one - middle) for one in scores) > 1 else (low, middle)
    return [max(0, one - low) for one in scores]


def test_likeness_is_that_of_a_naive_count(monkeypatch):
    """New tokens 90 and 91 stand where 1 and 2 stand; 92 is too rare to tell."""
    monkeypatch.setattr(likeness, "DIMENSIONS", 4)
    monkeypatch.setattr(likeness, "WINDOW", 2)
    monkeypatch.setattr(likeness, "_BATCH", 3)
    random = np.random.default_rng(0)
    slots = ([1, 1, 90], [5, 6], [2, 91, 91], [7, 8], [3, 4])
    lines = [[int(random.choice(given)) for given in slots] for _ in range(60)]
    lines[0] += [92]
    every = [token for line in lines for token in line if token != 92]
    tokens = sorted(set(every), key=lambda one: (-every.count(one), one))
    arrays = [np.array(line) for line in lines]
    counts = likeness.co_occurrences(arrays, np.array(tokens), 6)
    assert np.array_equal(counts, naive_counts(lines, tokens, 6))
    cosines = naive_cosines(naive_counts(lines, tokens, len(tokens)), 4)
    found = likeness.similar_tokens(lines, [90, 91, 92])
    assert set(found) == {90, 91}
    old = [at for at, token in enumerate(tokens) if token < 90]
    for new, alike in found.items():
        expected = naive_sparsemax([cosines[tokens.index(new)][at] for at in old])
        weights = {tokens[at]: weight for at, weight in zip(old, expected, strict=True) if weight > 1e-12}
        assert dict(alike) == pytest.approx(weights) and sum(dict(alike).values()) == pytest.approx(1)
    assert found[90][0][0] == 1 and found[91][0][0] == 2


def test_sparsemax():
    assert likeness.sparsemax(np.array([0.9, 0.5, -1])) == pytest.approx([0.7, 0.3, 0])
    scores = np.random.default_rng(1).normal(0, 0.4, 50)
    assert likeness.sparsemax(scores) == pytest.approx(naive_sparsemax(scores.tolist()))
