"""New tokens for a vocabulary: listed by the user, or learned from text, on the tokenizer as the slice will have it.

The slice's tokenizer is written to a temporary folder and asked how it spells the text now; what is learned continues from
there. What a new token may change, and what not, is in tokenizer/extension.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from langslice.errors import PlanError, TokenizerError
from langslice.progress import Report
from langslice.tokenizer import SourceTokenizer, open_tokenizer, write_tokenizer
from langslice.tokenizer.document import Document, index_of
from langslice.tokenizer.extension import NewToken, check_extendable, lone_characters, piece_score
from langslice.vocabulary.listed_pieces import pieces_of, spelled_entries
from langslice.vocabulary.new_merges import Merge, MergeLearner
from langslice.vocabulary.similar_tokens import similar_tokens
from langslice.vocabulary.word_pieces import Symbols, Words, may_be_token, read_words

_BATCH = 1024  # lines
_LEAST = 2  # tokens that a learned one must save


@dataclass(frozen=True)
class ExtensionRequest:
    """What is asked of an extension.

    lists   files of tokens, one per line
    units   reads the text to learn from; None without one
    more    how many tokens to learn
    size    instead, the size that the vocabulary is filled up to
    asked   as the user wrote it
    alike   make rows of those of the tokens that the text uses alike, where it tells
    """

    lists: tuple[Path, ...] = ()
    units: Callable[[], Iterable[str]] | None = None
    more: int | None = None
    size: int | None = None
    asked: str = ""
    alike: bool = False


@dataclass
class _Growing:
    """A vocabulary while tokens are added to it.

    kept   ascending source ids
    made   the new tokens so far
    notes  what is to be said of them
    """

    source: SourceTokenizer
    document: Document
    kept: Sequence[int]
    made: list[NewToken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        tokens, scores = self.source.tokens, self.document.scores
        self.spelled: dict[str, tuple[int, ...]] = {str(tokens[old]): (old,) for old in self.kept}
        taken = self.source.special_ids.union(self.kept)
        self._dropped = {token: old for token, old in index_of(tokens).items() if old not in taken}
        self._lowest = min((scores[old] for old in self.kept if old < len(scores)), default=0.0)

    @property
    def merges(self) -> bool:
        """Whether tokens come about by merges alone."""
        return self.document.model_type == "BPE"

    def add(self, token: str, pieces: Sequence[int], parts: tuple[str, str] | None = None, count: int = 0) -> None:
        """Append a token that these source ids spell."""
        self.spelled[token] = tuple(pieces)
        origin = self._dropped.get(token)
        score = None
        if self.document.model_type == "Unigram":
            scores = self.document.scores
            own = piece_score([scores[old] for old in pieces], self._lowest)
            score = own if origin is None else max(scores[origin], self._lowest)
        self.made.append(NewToken(token, tuple(pieces), parts if self.merges else None, score, count, origin))


def extend_vocabulary(
    source: SourceTokenizer, kept: Sequence[int], request: ExtensionRequest, report: Report
) -> tuple[tuple[NewToken, ...], tuple[str, ...]]:
    """New tokens for a slice that keeps `kept`, listed ones first, and what is to be said of them.

    kept    ascending source ids with a token, closed
    Raises  TokenizerError for a kind of tokenizer to which none can be added; PlanError, CorpusError
    """
    document = check_extendable(source.document, source.kind, str(source.folder))
    growing = _Growing(source, document, kept)
    report("choosing new tokens", 0, 0)
    for path in request.lists:
        with _as_sliced(growing) as now:
            _add_listed(growing, now, path)
    if request.units is not None:
        with _as_sliced(growing) as now:
            _add_learned(growing, now, request, read_words(now, request.units()))
    if document.model_type == "WordPiece":
        _add_lone_characters(growing)
    with _as_sliced(growing) as now:
        _check_reached(growing, now)
        if request.alike and request.units is not None:
            _weigh(growing, now, request.units())
    again = sum(one.origin is not None for one in growing.made)
    if again:
        growing.notes.append(
            f"{again:,} of the new tokens are tokens of the source that were dropped: their rows are its own"
        )
    return tuple(growing.made), tuple(growing.notes)


@contextmanager
def _as_sliced(growing: _Growing) -> Iterator[SourceTokenizer]:
    """The tokenizer as the slice has it, new tokens so far included."""
    with TemporaryDirectory(prefix="langslice-extend-") as folder:
        write_tokenizer(
            growing.source, growing.kept, Path(folder), closed=True, check=False, extension=growing.made, slow=False
        )
        now = open_tokenizer(Path(folder))
        yield now
        now.release()


def _joined(now: SourceTokenizer, known: set[str | None], *, words: bool, left: str, right: str) -> str | None:
    """Two neighbours as one token; None where that is a token already, or, with `words`, no part of a word."""
    prefix = (now.document.skeleton["model"].get("continuing_subword_prefix") or "") if now.document else ""
    token = left + right.removeprefix(prefix)
    return None if token in known or (words and not may_be_token(now.spelled(token))) else token


def _learner(now: SourceTokenizer, characters: dict[int, tuple[str, int]], *, words: bool) -> MergeLearner:
    join = partial(_joined, now, set(now.tokens), words=words)
    return MergeLearner(lambda left, right: join(left=left, right=right), [str(one) for one in now.tokens], characters)


def _spell(growing: _Growing, learner: MergeLearner, merge: Merge) -> tuple[list[int], tuple[str, str] | None]:
    """Source ids that spell a learned token, a character's bytes among them, and the tokens that make it."""
    parts = [learner.tokens[part] for part in merge.parts if part >= 0]
    spelled = parts or [f"<0x{byte:02X}>" for byte in merge.token.encode()]
    pieces = [old for part in spelled for old in growing.spelled[part]]
    growing.spelled[merge.token] = tuple(pieces)
    return pieces, (parts[0], parts[1]) if parts else None


def _add_listed(growing: _Growing, now: SourceTokenizer, path: Path) -> None:
    entries = spelled_entries(now, path)
    before = len(growing.made)
    if growing.merges:
        _add_chains(growing, now, path, entries)
    else:
        for token, ids in entries.items():
            growing.add(token, [old for one in ids for old in growing.spelled[str(now.tokens[one])]])
    between = len(growing.made) - before - len(entries)
    steps = f", and {between:,} that lead to them" if between else ""
    growing.notes.append(f"{len(entries):,} new tokens of {path.name}{steps}")


def _add_chains(growing: _Growing, now: SourceTokenizer, path: Path, entries: Mapping[str, tuple[int, ...]]) -> None:
    """The tokens of a list, and those on the way to them: merges are learned on the list until each is one symbol."""
    characters: dict[int, tuple[str, int]] = {}
    symbols = Symbols(now, characters)
    learner = _learner(now, characters, words=False)
    learner.add((next(symbols.of(pieces, any_character=True)), 1) for pieces in entries.values())
    for merge in learner.learn(1):
        growing.add(merge.token, *_spell(growing, learner, merge))
    stuck = [token for token, word in zip(entries, learner.words, strict=True) if len(word) > 1]
    if stuck:
        raise PlanError(
            f"{path}: no merges lead to {stuck[0]!r}: any two neighbours in it spell a token that is there already",
            hint=f"leave out this and {len(stuck) - 1:,} others" if len(stuck) > 1 else "leave it out",
        )


def _add_learned(growing: _Growing, now: SourceTokenizer, request: ExtensionRequest, words: Words) -> None:
    size = len(growing.kept) + len(growing.made)
    wanted = request.more if request.more is not None else (request.size or 0) - size
    if wanted < 1:
        raise PlanError(
            f"--extend-to {request.asked}: the slice has {size:,} tokens already",
            hint="name a larger size, or how many to add: --extend-to +500",
        )
    learner = _learner(now, words.characters, words=True)
    learner.add(words.counts.items())
    merges, used = _learn(learner, wanted, every=growing.merges)
    if not used:
        raise PlanError(
            "--extend-corpus: no two neighbouring tokens of a word occur twice in this text",
            hint="give more text, or list tokens with --extend",
        )
    saved = 0
    for merge in merges:
        pieces, parts = _spell(growing, learner, merge)
        saved += merge.count * ((len(pieces) if parts is None else 2) - 1)
        if merge.made in used:
            growing.add(merge.token, pieces, parts, merge.count)
    few = f" ({wanted:,} were asked for, but nothing else occurs twice)" if len(used) < wanted else ""
    about = "" if growing.merges else "about "
    growing.notes.append(
        f"{len(used):,} new tokens{few}, learned from {words.units:,} lines: their {words.tokens:,} tokens become "
        f"{about}{words.tokens - saved:,} ({saved / max(words.tokens, 1):.1%} fewer)"
    )


def _learn(learner: MergeLearner, wanted: int, *, every: bool) -> tuple[list[Merge], set[int]]:
    """Merges, and the symbols of those that become tokens.

    every  all of them do; else only those that are used, and not those that only led to longer ones
    """
    source = learner.learn(_LEAST)
    merges = list(islice(source, wanted))
    used = {merge.made for merge in merges}
    while not every:
        used = {merge.made for merge in merges if learner.uses[merge.made] >= _LEAST}
        more = list(islice(source, wanted - len(used)))
        if not more:
            break
        merges += more
    return merges, used


def _add_lone_characters(growing: _Growing) -> None:
    """WordPiece: a piece for every character inside a word that has none; its row is that of the pieces that hold it."""
    lone = [token for token in lone_characters(growing.document, growing.kept) if token not in growing.spelled]
    prefix = growing.document.skeleton["model"].get("continuing_subword_prefix") or ""
    for token in lone:
        character = token.removeprefix(prefix)
        holding = (ids for piece, ids in growing.spelled.items() if character in piece.removeprefix(prefix))
        growing.add(token, growing.spelled.get(character) or next(holding))
    if lone:
        growing.notes.append(
            f"{len(lone):,} characters got a piece of their own inside words, so that none becomes unknown"
        )


def _weigh(growing: _Growing, now: SourceTokenizer, units: Iterable[str]) -> None:
    """Say of each new token without a row of its own which old ones it is like, where the text tells enough of it."""
    first, waiting = len(growing.kept), iter(units)
    places = [first + at for at, one in enumerate(growing.made) if one.origin is None]
    lines: list[list[int]] = []
    while batch := list(islice(waiting, _BATCH)):
        lines += now.encode(batch)
    found = similar_tokens(lines, range(first, first + len(growing.made)))
    for place in places:
        if place in found:
            alike = tuple((growing.kept[old], weight) for old, weight in found[place])
            growing.made[place - first] = replace(growing.made[place - first], alike=alike)
    told = sum(place in found for place in places)
    growing.notes.append(
        f"the rows of {told:,} of the new tokens are means of the rows of tokens that the text uses alike; "
        f"of {len(places) - told:,}, too rare in it, of their pieces'"
    )


def _check_reached(growing: _Growing, now: SourceTokenizer) -> None:
    """Refuse a new token that its own text is not encoded as."""
    first = len(growing.kept)
    for at, one in enumerate(growing.made, first):
        if pieces_of(now, one.token) != (at,):
            raise TokenizerError(
                f"the new token {one.token!r} would be encoded in pieces: {[now.tokens[old] for old in pieces_of(now, one.token)]}",
                hint="list it with --extend, or leave it out",
            )
