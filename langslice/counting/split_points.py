"""Where text may be split so that the pieces, encoded apart, give the tokens of the whole.

A split falls before a run of ASCII spaces and, where the pre-tokeniser parts words there anyway, between a letter or digit
and ASCII punctuation. Whether that is safe depends on the tokenizer, and is found by asking it: normalising every
character, looking where its pre-tokeniser parts words, and searching its vocabulary for tokens that would reach across.
Nothing here reads a corpus.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np

from langslice.counting.unigram_splits import Level, token_tree

# Bits of the class of a character. OPAQUE: no split next to it. LEFT and RIGHT: a token of the vocabulary reaches over
# spaces from this character (LEFT before the spaces, RIGHT after them), so no split between such a pair. WORD, POINT: a
# letter or digit, and punctuation, between which it may be split where `SplitRules.points` says so.
OPAQUE, LEFT, RIGHT, WORD, POINT = (np.uint8(1 << bit) for bit in range(5))

# The mark that blocks.py puts before each unit. Units that hold one are encoded whole.
START = "\x02"
# Not the apostrophe: contractions belong to the word before them.
POINTS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'

# Grapheme_Cluster_Break=Prepend: such a character and the space after it are one grapheme, and SentencePiece's
# precompiled normaliser replaces graphemes, so a split there would change what it sees.
PREPENDED = (
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd\U000111c2\U000111c3"
    "\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85\U00011a86\U00011a87\U00011a88\U00011a89\U00011d46\U00011f02"
)

# Both sides of a trial split: letters with and without case, marks, digits, words that contract, punctuation, symbols.
PROBES = [
    *"aZéß1½²Ⅳ.,;:!?'\"()[]{}<>/\\|-_#@$%^&*+=~`€§…。、「」،।·«»“”😀ﬁǄ㎏",
    *(
        "12",
        "123",
        "1234",
        "3.14",
        "1,000",
        "한국",
        "中文",
        "かな",
        "हि",
        "ไทย",
        "עב",
        "عر",
        "Ωmega",
        "Жук",
        "ABC",
        "aBc",
    ),
    *("'s", "n't", "I'll", "don't", "x_y", "a-b", "a.b", "http://a.b/c", "--", "-->", "://", '."', "?!", "..."),
    *("a\u0301", "\u0301x", "e\u0302\u0301", "👩\u200d👩\u200d👧", "❤\ufe0f"),
]

DIGITS = "0123456789"
ANCHOR = "0"  # in front of joined chunks; a digit, so that it is among the tokens every slice keeps
LETTER = " a"  # in front of what was split off from a letter, where that must be in a word


@dataclass(frozen=True)
class SplitRules:
    """Where the text of one tokenizer may be split.

    reason    why it may not be split at all; empty when it may
    classes   (0x110000,) uint8 class of each code point, bits OPAQUE, LEFT, RIGHT, WORD, POINT
    raw       contents of added tokens, searched in the text as it is
    folded    normalised contents of added tokens that the tokenizer looks for after normalising
    normalize the normaliser's function where `folded` must be searched in normalised text, else None
    indents   whether spaces that open a unit may be split before the last of them, so that a word is one chunk whatever its
              indentation
    points    how what follows a split between a letter and punctuation is encoded: "" there is none; "space" as after a
              space; "digit" after a digit, several consecutively; "alone" after a digit, one by one; "letter" after a word
              of one letter, and only what `tree` decides the same way everywhere
    tree      tokens of a Unigram model (see unigram_splits.py)
    """

    reason: str
    classes: np.ndarray
    raw: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    normalize: Any = None
    indents: bool = False
    points: str = ""
    tree: tuple[Level, ...] = ()

    def has_added_token(self, text: str) -> bool:
        """Tell whether the tokenizer might find an added token in this text (it may say yes where there is none)."""
        if _contains(text, self.raw):
            return True
        return self.normalize is not None and _contains(self.normalize(text), self.folded)


def _contains(text: str, contents: tuple[str, ...]) -> bool:
    """Search many strings at once; `contents` is sorted, so those with a common head of three follow each other."""
    heads: dict[str, list[str]] = {}
    for content in contents:
        heads.setdefault(content[:3], []).append(content)
    return any(head in text and any(content in text for content in group) for head, group in heads.items())


def split_rules(backend: Any) -> SplitRules:
    """Find the rules of one `tokenizers.Tokenizer`, which must neither truncate nor pad."""
    simple = _is_simple(backend.normalizer)  # such a normaliser treats every other character alike: none to look for
    classes = character_classes(None if simple else backend.normalizer)
    reason = ""
    if getattr(backend.model, "dropout", None):
        reason = "BPE dropout makes its tokens random"
    parts_words = _parts_words(backend, classes)
    if not reason and not parts_words:
        reason = _mark_crossing_tokens(backend, classes)
    reason = reason or _differing_probe(backend, classes)
    indents = not reason and parts_words and _parts_indents(backend, classes)
    raw, folded = _added_contents(backend)
    normalize = backend.normalizer.normalize_str if folded and not simple else None
    points = ""
    if not reason:
        _mark_words(None if simple else backend.normalizer, classes)
        if type(backend.model).__name__ == "Unigram":
            points = "letter"
        elif parts_words:
            points = _parts_points(backend, classes)
        else:
            points = "alone"
    if points in ("letter", "alone"):
        _mark_uncrossed(backend, classes, anchor=ANCHOR if points == "alone" else "")
    tree = _ascii_tree(backend, simple) if points == "letter" else ()
    return SplitRules(
        reason, classes, raw, folded, normalize, indents, points if points != "letter" or tree else "", tree
    )


def character_classes(normalizer: Any) -> np.ndarray:
    """Mark as OPAQUE white space and every character that the normaliser turns into white space or into nothing.

    Returns  (0x110000,) uint8, by code point
    Source  found by comparing counts on real text: U+200B and U+00A0 in XLM-R's charsmap, `´` (space and accent in
            compatibility forms), U+2581 typed in the text itself, control characters in BERT's cleaning
    """
    classes = np.zeros(sys.maxunicode + 1, np.uint8)
    for character in PREPENDED + START + "\u2581":
        classes[ord(character)] = OPAQUE
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if character.isspace() and character != " ":
            classes[code] = OPAQUE
    classes[0xD800:0xE000] = OPAQUE
    if normalizer is not None:
        _mark_vanishing(normalizer, classes)
    return classes


def _mark_vanishing(normalizer: Any, classes: np.ndarray) -> None:
    bare = normalizer.normalize_str("ab")
    head = len(bare) - 2 if bare.endswith("ab") else 0
    for code in range(0x80):
        _mark_one(normalizer, classes, code, bare, head)
    for code in range(0x80, sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Cn", "Co", "Cs"):
            classes[code] = OPAQUE  # cleaning normalisers drop them by their own Unicode version, which we cannot ask
        else:
            _mark_one(normalizer, classes, code, bare, head)


def _mark_one(normalizer: Any, classes: np.ndarray, code: int, bare: str, head: int) -> None:
    if code == 0x20:
        return
    changed = normalizer.normalize_str(f"a{chr(code)}b")[head:]
    if changed == bare[head:] or "\u2581" in changed or any(map(str.isspace, changed)):
        classes[code] = OPAQUE


def probe_pairs(classes: np.ndarray) -> list[tuple[str, str]]:
    """(left, right) with a permitted split between them; `right` begins with its spaces."""
    left = [p for p in PROBES if not classes[ord(p[-1])] & OPAQUE]
    right = [p for p in PROBES if not classes[ord(p[0])] & OPAQUE]
    pairs = [(a, " " + b) for a, b in product(left, right)]
    pairs += [(a, "  " + b) for a, b in zip(left, right, strict=False)]
    return pairs + [(a, "    " + b) for a, b in zip(left, reversed(right), strict=False)]


def _parts_words(backend: Any, classes: np.ndarray) -> bool:
    """Tell whether every word of the pre-tokeniser ends before, or begins at or after, each trial split."""
    if backend.pre_tokenizer is None:
        return False
    pairs = probe_pairs(classes)
    texts = [f"{ANCHOR} {left}{right} {ANCHOR}" for left, right in pairs]
    for (left, _), encoding in zip(pairs, backend.encode_batch(texts, add_special_tokens=False), strict=True):
        split = len(ANCHOR) + 1 + len(left)
        ends: dict[int, tuple[int, int]] = {}
        for word, (begin, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            first, last = ends.get(word, (begin, end))
            ends[word] = (min(first, begin), max(last, end))
        if any(begin < split < end for begin, end in ends.values()):
            return False
    return True


def _parts_indents(backend: Any, classes: np.ndarray) -> bool:
    """Tell whether spaces at the start of a text may be split before the last: true of byte-level BPE, whose patterns leave
    one space to the word, and where white space vanishes; not where a token may hold spaces and letters.
    """
    words = [probe for probe in PROBES if not classes[ord(probe[0])] & OPAQUE]
    trials = [(depth, words[(depth * 7 + at) % len(words)]) for depth in range(1, 130) for at in range(12)]
    trials += [(depth, word) for depth in range(1, 9) for word in words]
    texts = [" " * depth + word for depth, word in trials]
    texts += [" " * (depth - 1) for depth, _ in trials] + [f"{ANCHOR} {word}" for _, word in trials]
    anchor, *ids = [e.ids for e in backend.encode_batch_fast([ANCHOR, *texts], add_special_tokens=False)]
    number = len(trials)
    return all(
        whole == indent + word[len(anchor) :]
        for whole, indent, word in zip(ids, ids[number:], ids[2 * number :], strict=False)
    )


def _mark_words(normalizer: Any, classes: np.ndarray) -> None:
    """Mark letters and digits that stay such when normalised, and punctuation.

    Letters are those of Unicode 3.2, which the patterns of every tokenizer know; of digits only ASCII's.
    """
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if classes[code] & OPAQUE or not (character.isalpha() or character in DIGITS):
            continue
        changed = character if normalizer is None else normalizer.normalize_str("a" + character)
        if changed[-1:] in DIGITS or unicodedata.ucd_3_2_0.category(changed[-1:] or " ")[0] == "L":
            classes[code] |= WORD
    for character in POINTS:
        if not classes[ord(character)] & OPAQUE:
            classes[ord(character)] |= POINT


def _parts_points(backend: Any, classes: np.ndarray) -> str:
    """Tell how text may be split between a letter or digit and punctuation; see `SplitRules.points`."""
    left = [p for p in PROBES if classes[ord(p[-1])] & WORD]
    right = [p for p in PROBES if classes[ord(p[0])] & POINT]
    right += [point + text for point in POINTS for text in ("", "a", "Zé", "1", "한", "\u0301", "'s", "  x")]
    pairs = [(a, b) for a, b in product(left, right) if classes[ord(b[0])] & POINT]
    encode = backend.encode_batch_fast
    texts = [a + b for a, b in pairs] + left + [ANCHOR + b for b in right] + [f"{ANCHOR} {b}" for b in right]
    encoded = iter(e.ids for e in encode([ANCHOR, *texts], add_special_tokens=False))
    anchor = next(encoded)
    wholes = [next(encoded) for _ in pairs]
    alone = {a: next(encoded) for a in left}
    for way in ("digit", "space"):
        behind = {b: next(encoded) for b in right}
        same = all(whole == alone[a] + behind[b][len(anchor) :] for (a, b), whole in zip(pairs, wholes, strict=True))
        same = same and all(ids[: len(anchor)] == anchor for ids in behind.values())
        if same and (way == "space" or _joins_at_digits(backend, classes, right, behind)):
            return way
    return ""


def _mark_uncrossed(backend: Any, classes: np.ndarray, anchor: str) -> None:
    """Inside a word, neither BPE nor Unigram makes a token over a place that no token of the vocabulary holds.

    Takes the mark from digits, and from punctuation that some token has after a letter or after the anchor.
    """
    for digit in DIGITS:
        classes[ord(digit)] &= ~WORD
    crossed = {point for point in POINTS if backend.token_to_id(point) is None}
    for token in backend.get_vocab(with_added_tokens=False):
        for before, after in pairwise(token):
            if after in POINTS and (classes[ord(before)] & WORD or before == anchor):
                crossed.add(after)
    for point in crossed:
        classes[ord(point)] &= ~POINT


def _ascii_tree(backend: Any, simple: bool) -> tuple[Level, ...]:
    """The tokens of a Unigram model; none where its normaliser changes ASCII text."""
    letters = "".join(chr(code) for code in range(0x21, 0x7F))
    if not simple and backend.normalizer.normalize_str(letters) != letters:
        return ()
    model = json.loads(backend.to_str())["model"]
    if model.get("byte_fallback"):
        return ()
    return token_tree((token, score) for token, score in model["vocab"])


def _joins_at_digits(backend: Any, classes: np.ndarray, pieces: list[str], behind: dict[str, list[int]]) -> bool:
    """Tell whether pieces that end in a letter or in punctuation are encoded together, a digit before each, as alone."""
    last = np.array([ord(piece[-1]) for piece in pieces])
    ending = [pieces[place] for place in np.flatnonzero(joins(classes[last], last))]
    rows = [[ending[(at * 7 + step * 13) % len(ending)] for step in range(8)] for at in range(len(ending))]
    encoded = backend.encode_batch_fast(
        ["".join(ANCHOR + piece for piece in row) for row in rows], add_special_tokens=False
    )
    return all(
        found.ids == [token for piece in row for token in behind[piece]]
        for row, found in zip(rows, encoded, strict=True)
    )


def joins(classes: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Whether a digit after a piece stays a word of its own: not after a digit, nor after what nobody has tried.

    classes, last  (n,) of each piece the class of its last character, and its last code point or byte of UTF-8
    """
    free: np.ndarray = ((classes & (WORD | POINT)) != 0) & ~np.isin(last, [ord(digit) for digit in DIGITS])
    return free


def _mark_crossing_tokens(backend: Any, classes: np.ndarray) -> str:
    """Without a pre-tokeniser that parts words: forbid splits where a token of the vocabulary could reach across.

    A merge across a split makes a token that holds the character before it and a space after it. Gemma has one such token
    (`>▁</`), Llama-2 and Mistral none.
    Returns  why no split is safe, or ""
    """
    if type(backend.model).__name__ != "BPE":
        return "it has no pre-tokeniser that parts words at spaces"  # Unigram: sums of scores round with the length
    for left, right in [*probe_pairs(classes), ("aa bb cc", " dd 1 2"), ("xx", " y")]:
        words = _words(backend, left + right)
        if len(words) != 1:
            return "its pre-tokeniser parts words elsewhere than at spaces"
    if words[0][-3:-2] != "x" or words[0][-1:] != "y":
        return "its pre-tokeniser changes the text"
    space = words[0][-2]
    if backend.token_to_id(space) is None:
        return "its vocabulary lacks the space, so unknown runs may join across it"
    pairs = list(crossing_pairs(backend.get_vocab(with_added_tokens=False), space))
    if pairs and not (_is_simple(backend.normalizer) and space == "\u2581"):
        return f"{len(pairs)} of its tokens reach across spaces"
    for before, after in pairs:
        classes[ord(before)] |= LEFT
        if after:
            classes[ord(after)] |= RIGHT
        else:
            classes |= RIGHT
    return "a token reaches from a digit over spaces" if classes[ord(ANCHOR)] & LEFT else ""


def _words(backend: Any, text: str) -> list[str]:
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text]
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def crossing_pairs(vocabulary: Iterable[str], space: str) -> Iterable[tuple[str, str]]:
    """(character before a space, first character after the spaces or "") for each token that has a space inside.

    Example  `>▁</` gives (">", "<"); `a▁▁` gives ("a", "")
    """
    for token in vocabulary:
        at = token.find(space, 1)
        while at > 0:
            if token[at - 1] != space:
                yield token[at - 1], token[at:].lstrip(space)[:1]
            at = token.find(space, at + 1)


def _differing_probe(backend: Any, classes: np.ndarray) -> str:
    """Compare, for every trial split, the tokens of the whole with those of the two sides; name the first difference."""
    pairs = [
        p
        for p in probe_pairs(classes)
        if not (classes[ord(p[0][-1])] & LEFT and classes[ord(p[1].lstrip(" ")[0])] & RIGHT)
    ]
    texts = (
        [left for left, _ in pairs] + [ANCHOR + right for _, right in pairs] + [left + right for left, right in pairs]
    )
    ids = [e.ids for e in backend.encode_batch_fast([ANCHOR, *texts], add_special_tokens=False)]
    anchor, ids, number = ids[0], ids[1:], len(pairs)
    for (left, right), first, second, whole in zip(pairs, ids, ids[number:], ids[2 * number :], strict=False):
        if second[: len(anchor)] != anchor or first + second[len(anchor) :] != whole:
            return f"it encodes {left + right!r} differently when split before the space"
    return ""


def _added_contents(backend: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    raw, folded = set(), set()
    for token in backend.get_added_tokens_decoder().values():
        raw.add(token.content)
        if token.normalized and backend.normalizer is not None:
            changed = backend.normalizer.normalize_str(token.content)
            raw.add(changed.lstrip("\u2581"))
            folded.add(changed.strip("\u2581 "))
    return tuple(sorted(raw - {""})), tuple(sorted(folded - {""}))


def _is_simple(normalizer: Any) -> bool:
    """Tell whether a normaliser only writes spaces as another character, or puts one in front."""
    if normalizer is None:
        return True
    settings = json.loads(normalizer.__getstate__())
    parts: Sequence[dict[str, Any]] = settings["normalizers"] if settings["type"] == "Sequence" else [settings]
    return all(p["type"] == "Prepend" or (p["type"] == "Replace" and p["pattern"] == {"String": " "}) for p in parts)
