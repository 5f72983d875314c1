"""Which tokens to keep, and why.

Evidence says what text in the wanted languages needs, what must stay in any case is added, and the tokenizer's closure
adds what the chosen tokens are made of. How criteria are weighed is in selection_criteria.py and lexicon.py, what always stays
in always_kept.py, closing in langslice.tokenizer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langslice.counting import TokenCounts
from langslice.errors import FewerRowsError, LanguageError, PlanError
from langslice.options import flag
from langslice.tokenizer import Closure, SourceTokenizer, close
from langslice.vocabulary.always_kept import NO_TEXTS, always_kept, characters_of, listed_tokens, marked, symbols_of
from langslice.vocabulary.code import weigh_code
from langslice.vocabulary.control_pieces import control_notes, control_pieces, kept_codes
from langslice.vocabulary.languages import Language, parse_languages
from langslice.vocabulary.lexicon import forms_for, read_lexicon, weigh_words
from langslice.vocabulary.scripts import TokenScripts, resolve_scripts, token_scripts
from langslice.vocabulary.selection_criteria import (
    SelectionCriterion,
    by_value,
    has_criterion,
    language_criterion,
    select,
    value_of,
)
from langslice.vocabulary.unreached import unreached_note

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class VocabularyRequest:
    """What the user asked for; every field combines with the others.

    languages     BCP-47 codes
    lexicons      files of words, one per line, optionally `word<TAB>weight`
    scripts       ISO 15924 codes whose tokens are kept
    drop_scripts  ISO 15924 codes whose tokens are dropped, whatever the criteria
    coverage      share of the weighted token occurrences to cover, 0 < coverage <= 1, of each criterion
    min_count     least corpus count of a token kept for the corpus
    max_vocab     most tokens in the result, closure included
    top_k         most tokens taken from each criterion
    keep_tokens   files of tokens, one per line
    keep_code     keep indentation, operators and identifiers
    only_tokens   files of tokens, one per line: these, what they and the configuration demand, and nothing else
    keep_all_language_codes  keep the codes of all languages that steer the model, not those of `languages` alone
    limited_by    what `max_vocab` comes from, as the user wrote it
    """

    languages: tuple[str, ...] = ()
    lexicons: tuple[Path, ...] = ()
    scripts: tuple[str, ...] = ()
    drop_scripts: tuple[str, ...] = ()
    coverage: float | None = None
    min_count: int | None = None
    max_vocab: int | None = None
    top_k: int | None = None
    keep_tokens: tuple[Path, ...] = ()
    keep_code: bool = False
    only_tokens: tuple[Path, ...] = ()
    keep_all_language_codes: bool = False
    limited_by: str = "--max-vocab"


@dataclass(frozen=True)
class VocabularyChoice:
    """The tokens to keep, closed, each with its reasons.

    reasons          kept id -> reasons, ids ascending ("special", "byte", "language:ko", "corpus", "closure of ▁hello")
    corpus_coverage  share of the corpus's token occurrences that are kept, None without a corpus
    notes            what the user should know about how the request was met
    pieces           each criterion, and what was taken of it before closing
    """

    reasons: Mapping[int, tuple[str, ...]]
    corpus_coverage: float | None
    notes: tuple[str, ...] = ()
    pieces: tuple[tuple[SelectionCriterion, Mask], ...] = ()


def choose_vocabulary(
    tokenizer: SourceTokenizer,
    request: VocabularyRequest,
    *,
    counts: TokenCounts | None = None,
    protected: Sequence[int] = (),
    texts: Mapping[str, Sequence[str]] = NO_TEXTS,
    released: Collection[int] = (),
    costs: np.ndarray | None = None,
) -> VocabularyChoice:
    """Choose and close the vocabulary.

    protected  ids from the model's configuration, which always stay
    texts      reason -> what the model is always called with, and which stays whole
    released   special tokens that need not stay
    costs      (size,) what it costs to lose an occurrence of each token; under a limit, tokens go by frequency times this
    Raises  PlanError for a request that asks for nothing, contradicts itself, or cannot be met; LanguageError for an
            unknown language or script, or a language without a criterion; CorpusError for a file that cannot be read
    """
    _check(request, counts, tokenizer)
    if request.only_tokens:
        return _only_listed(tokenizer, request.only_tokens, protected)
    languages = parse_languages(request.languages)
    dropped = resolve_scripts(request.drop_scripts)
    asked = resolve_scripts(request.scripts)
    _check_scripts(languages, asked, dropped, has_corpus=counts is not None)
    classes = token_scripts(tokenizer)
    always = always_kept(tokenizer, classes, protected=protected, texts=texts, released=released)
    steering = control_pieces(tokenizer)
    codes = kept_codes(steering, (language.tag for language in languages), every=request.keep_all_language_codes)
    always["control piece"] = marked(len(tokenizer.tokens), steering.others)
    always["language code"] = marked(len(tokenizer.tokens), codes)
    for path in request.keep_tokens:
        always[f"listed in {path.name}"] = marked(len(tokenizer.tokens), listed_tokens(tokenizer, path))
    always |= _characters(tokenizer, classes, languages, asked, dropped)
    pieces = _cut_all(_gather(tokenizer, classes, request, languages, asked, counts), request)
    refused = classes.touching(dropped)
    pieces = [(criterion, mask & ~refused) for criterion, mask in pieces]
    closure = _fit(tokenizer, always, pieces, request, costs)
    return VocabularyChoice(
        reasons=_reasons(always, pieces, closure),
        corpus_coverage=_corpus_coverage(counts, closure),
        notes=(
            *_notes(request, languages, pieces, closure, counts),
            *control_notes(tokenizer, steering, codes),
            *unreached_note(tokenizer, classes, closure),
        ),
        pieces=tuple(pieces),
    )


def _only_listed(tokenizer: SourceTokenizer, paths: Sequence[Path], protected: Sequence[int]) -> VocabularyChoice:
    """The listed tokens, closed, without the piece whose score would only keep unknown characters at theirs."""
    size = len(tokenizer.tokens)
    always = {f"listed in {path.name}": marked(size, listed_tokens(tokenizer, path)) for path in paths}
    always["protected"] = marked(size, protected)
    closure = close(tokenizer, np.flatnonzero(np.logical_or.reduce(list(always.values()))).tolist(), lowest=False)
    lacking = close(tokenizer, closure.kept).added
    notes = [
        f"{tokenizer.tokens[old]!r} is not listed and goes; its score, the lowest, is what unknown characters are scored by"
        for old in lacking
    ]
    return VocabularyChoice(_reasons(always, (), closure), corpus_coverage=None, notes=tuple(notes))


def _check(request: VocabularyRequest, counts: TokenCounts | None, tokenizer: SourceTokenizer) -> None:
    """Refuse a request that asks for nothing or that cannot mean anything."""
    asks = request.languages or request.lexicons or request.scripts or request.keep_tokens or request.keep_code
    if request.only_tokens:
        _check_alone(request, counts)
    elif not asks and counts is None:
        raise PlanError(
            "nothing says which tokens to keep",
            hint="name languages (--languages ko,en), text (--corpus FILE), words (--lexicon FILE) or scripts "
            "(--scripts Hang,Latn)",
        )
    if request.coverage is not None and not 0 < request.coverage <= 1:
        raise PlanError(
            f"coverage must be a share above 0 and at most 1, not {request.coverage:g}", hint="write 0.9999 for 99.99%"
        )
    for name, value in (("min-count", request.min_count), ("max-vocab", request.max_vocab), ("top-k", request.top_k)):
        if value is not None and value < 1:
            raise PlanError(f"--{name} must be at least 1, not {value}")
    if request.min_count is not None and counts is None:
        raise PlanError("--min-count counts tokens of a corpus, and there is none", hint="add --corpus, or --top-k")
    if counts is not None and len(counts.counts) != len(tokenizer.tokens):
        raise PlanError(
            f"the counts are of {len(counts.counts):,} tokens, the tokenizer has {len(tokenizer.tokens):,}",
            hint="count the corpus with this model's tokenizer",
        )


def _check_alone(request: VocabularyRequest, counts: TokenCounts | None) -> None:
    """Refuse anything together with --only-tokens that would add tokens or drop them."""
    names = {"lexicons": "lexicon", "max_vocab": request.limited_by.split()[0].removeprefix("--").replace("-", "_")}
    beside = [names.get(name, name) for name, value in vars(request).items() if value]
    beside = [name for name in beside if name not in ("only_tokens", "limited_by")]
    refuse_beside_only_tokens(beside if counts is None else [*beside, "corpus"])


def refuse_beside_only_tokens(beside: Sequence[str]) -> None:
    """Refuse entries of a choice that --only-tokens would leave without effect."""
    if beside:
        raise PlanError(
            f"--only-tokens keeps exactly what its file lists, so {flag(beside[0])} together with it has no effect",
            hint="write all tokens into the file, or use --keep-tokens, which adds to a choice",
        )


def _check_scripts(
    languages: Sequence[Language], asked: Sequence[str], dropped: Sequence[str], *, has_corpus: bool
) -> None:
    """Refuse scripts that are both kept and dropped, and languages that nothing speaks for."""
    both = sorted(set(asked) & set(dropped))
    if both:
        raise PlanError(f"script {both[0]} is both kept and dropped", hint="take it out of --scripts or --drop-scripts")
    for language in languages:
        if dropped and set(language.scripts) <= set(dropped):
            raise PlanError(
                f"all scripts of {language.name} ({language.tag}) are dropped: {', '.join(language.scripts)}",
                hint="take one of them out of --drop-scripts, or the language out of --languages",
            )
        covered = set(language.scripts) <= set(asked)
        if not has_corpus and not covered and not has_criterion(language):
            raise LanguageError(
                f"there is no lexicon for {language.name} ({language.tag}), and no corpus was given",
                hint=f"add text with --corpus, words with --lexicon, or all tokens of its script with --scripts "
                f"{','.join(language.scripts)}",
            )


def _characters(
    tokenizer: SourceTokenizer,
    classes: TokenScripts,
    languages: Sequence[Language],
    asked: Sequence[str],
    dropped: Sequence[str],
) -> dict[str, Mask]:
    """Single characters of the kept scripts, and punctuation and symbols beyond ASCII.

    Chinese and Japanese keep the Han characters of their national character set. Korean writes a few in Hangul text:
    they stay only where a character outside the vocabulary would become unknown.
    """
    characters = np.zeros(len(tokenizer.tokens), dtype=bool)
    for language in languages:
        scripts = set(language.scripts) - set(dropped)
        if "Hang" in scripts and tokenizer.byte_ids:
            scripts.discard("Hani")
        own = characters_of(classes, scripts)
        characters |= own & classes.han_in(language.han) if language.han else own
    characters |= characters_of(classes, asked)
    kept = {script for language in languages for script in language.scripts} | set(asked)
    everyone = symbols_of(classes, kept - set(dropped))
    return {"character": characters, "symbol": everyone & ~classes.ascii_only}


def _gather(
    tokenizer: SourceTokenizer,
    classes: TokenScripts,
    request: VocabularyRequest,
    languages: Sequence[Language],
    asked: Sequence[str],
    counts: TokenCounts | None,
) -> list[SelectionCriterion]:
    """Every criterion that the request names, uncut."""
    size = len(tokenizer.tokens)
    nothing = np.zeros(size, dtype=bool)
    cuts = request.coverage is not None or request.min_count is not None or request.top_k is not None
    use_whole = counts is None or not cuts
    criteria = [
        language_criterion(tokenizer, classes, language, use_whole=use_whole, running=request.coverage is not None)
        for language in languages
    ]
    for path in request.lexicons:
        groups = read_lexicon(path)
        weights = weigh_words(tokenizer, groups, forms_for(tokenizer))
        weights[classes.neutral & classes.ascii_only] = 0.0
        criteria.append(SelectionCriterion(f"lexicon:{path.name}", weights, nothing))
    if counts is not None:
        criteria.append(SelectionCriterion("corpus", np.asarray(counts.counts, dtype=np.float64), nothing))
    if request.keep_code:
        criteria.append(
            SelectionCriterion("code", weigh_code(tokenizer), nothing | (classes.ascii_only & classes.neutral))
        )
    none = np.zeros(size, dtype=np.float64)
    for script in asked:
        mask = classes.touching({script}) & classes.within(asked)
        criteria.append(SelectionCriterion(f"script:{script}", none, mask))
    return criteria


def _cut_all(
    criteria: Sequence[SelectionCriterion], request: VocabularyRequest
) -> list[tuple[SelectionCriterion, Mask]]:
    least = float(request.min_count or 1)
    return [
        (piece, select(piece, coverage=request.coverage, top_k=request.top_k, min_weight=least))
        if piece.reason == "corpus"
        else (piece, select(piece, coverage=request.coverage, top_k=request.top_k))
        for piece in criteria
    ]


def _fit(
    tokenizer: SourceTokenizer,
    always: Mapping[str, Mask],
    pieces: Sequence[tuple[SelectionCriterion, Mask]],
    request: VocabularyRequest,
    costs: np.ndarray | None,
) -> Closure:
    """Close the choice; under a limit, the most valuable tokens whose closure fits it.

    The closure never shrinks when tokens are added, so the longest prefix of the tokens by value that fits is searched
    for between one that fits and one that does not.
    """
    size, max_vocab = len(tokenizer.tokens), request.max_vocab
    must = np.zeros(size, dtype=bool)
    for mask in always.values():
        must |= mask
    chosen = must.copy()
    for _, mask in pieces:
        chosen |= mask
    full = close(tokenizer, np.flatnonzero(chosen).tolist())
    if max_vocab is None or len(full.kept) <= max_vocab:
        return full
    smallest = close(tokenizer, np.flatnonzero(must).tolist())
    if len(smallest.kept) > max_vocab:
        raise FewerRowsError(
            f"the vocabulary cannot be sliced to {max_vocab:,} tokens: {len(smallest.kept):,} always stay ({request.limited_by})",
            hint=f"set --max-vocab to at least {len(smallest.kept):,}, or --max-size so that as many fit; special tokens, "
            "bytes, punctuation and the single characters of the kept scripts are never dropped",
            least=len(smallest.kept),
        )
    values = value_of(list(pieces))
    order = by_value(values if costs is None else values * costs)
    order = order[(chosen & ~must)[order]]
    return _longest_fitting(tokenizer, np.flatnonzero(must).tolist(), order.tolist(), smallest, full, max_vocab)


def _longest_fitting(
    tokenizer: SourceTokenizer, must: list[int], order: list[int], smallest: Closure, full: Closure, limit: int
) -> Closure:
    """Closure of `must` and as many of `order`, from its start, as fit; by interpolation on the closure's size.

    smallest, full  closures of none and of all of `order`; the first fits, the second does not
    """
    low, high = 0, len(order)
    best, above, below_estimate = smallest, len(full.kept), True
    while high - low > 1 and len(best.kept) < limit:
        width = high - low
        estimate = low + width * (limit - len(best.kept)) / (above - len(best.kept))
        margin = width**0.5 / 2
        middle = round(estimate - margin if below_estimate else estimate + margin)
        middle = min(max(middle, low + 1), high - 1)
        below_estimate = not below_estimate
        closure = close(tokenizer, must + order[:middle])
        if len(closure.kept) <= limit:
            low, best = middle, closure
        else:
            high, above = middle, len(closure.kept)
    return best


def _reasons(
    always: Mapping[str, Mask], pieces: Sequence[tuple[SelectionCriterion, Mask]], closure: Closure
) -> dict[int, tuple[str, ...]]:
    """Reasons of every kept token, ids ascending; tokens with the same reasons share one tuple."""
    kept = np.asarray(closure.kept, dtype=np.int64)
    codes = np.zeros(len(kept), dtype=np.int64)  # which of `tuples` a token has
    tuples: list[tuple[str, ...]] = [()]
    for reason, mask in (*always.items(), *((criterion.reason, mask) for criterion, mask in pieces)):
        unique, codes = np.unique(2 * codes + mask[kept], return_inverse=True)
        tuples = [(*tuples[code // 2], reason) if code % 2 else tuples[code // 2] for code in unique.tolist()]
    found = dict(zip(closure.kept, map(tuples.__getitem__, codes.tolist()), strict=True))
    for index, reason in closure.added.items():
        found[index] = (*found[index], reason)
    return found


def _corpus_coverage(counts: TokenCounts | None, closure: Closure) -> float | None:
    if counts is None:
        return None
    total = int(counts.counts.sum())
    return float(counts.counts[list(closure.kept)].sum() / total) if total else None


def _notes(
    request: VocabularyRequest,
    languages: Sequence[Language],
    pieces: Sequence[tuple[SelectionCriterion, Mask]],
    closure: Closure,
    counts: TokenCounts | None,
) -> tuple[str, ...]:
    notes = []
    for language in languages:
        if not language.lexicon and counts is not None:
            notes.append(f"no lexicon for {language.name}: its words come from the corpus alone")
    if request.coverage is not None or request.top_k is not None:
        uncut = [criterion.reason for criterion, _ in pieces if criterion.whole.any()]
        if uncut:
            notes.append(
                f"tokens kept by script have no counts, so coverage, counts and limits do not apply to them: {', '.join(uncut)}"
            )
    chosen = np.zeros(0, dtype=bool)
    for _, mask in pieces:
        chosen = mask if not len(chosen) else chosen | mask
    if request.max_vocab is not None and len(chosen):
        lost = int(chosen.sum() - chosen[list(closure.kept)].sum())
        if lost:
            notes.append(f"{lost:,} of {int(chosen.sum()):,} chosen tokens were dropped to fit {request.max_vocab:,}")
    return tuple(notes)
