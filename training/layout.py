"""Training windows: how documents are laid out as runs of tokens.

Six layouts share the training (MIX): running text, translation demonstrations of sentences, the same of names and short
phrases, monolingual demonstrations, word lists, and Python code. Demonstrations are, repeated until the window is full,

    {SourceName}: {source}<|endoftext|>{TargetName}: {target}<|endoftext|>

A window is a function of (seed, its number) alone, so the order of the data is the same in every run and a resumed run
continues exactly where it stopped. Half of the windows begin with `<|endoftext|>`, so that a model asked without it
copes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from bpe import END_ID
from sources import CODE, LANGUAGES, Document, join_sentences
from tokenizers import Tokenizer

Ids = np.ndarray  # int32, one dimension

MIX = {"running": 0.30, "sentences": 0.34, "names": 0.17, "monolingual": 0.05, "words": 0.02, "code": 0.12}
SENTENCE_SOURCES = {"ntrex": 0.70, "xquad-questions": 0.20, "xquad": 0.05, "udhr": 0.05}
NAME_SOURCES = {
    "cldr-territories": 0.18, "cldr-languages": 0.10, "cldr-currencies": 0.06, "cldr-cities": 0.05, "cldr-zones": 0.05,
    "cldr-months": 0.06, "cldr-days": 0.05, "cldr-units": 0.06, "cldr-dates": 0.15, "cldr-quantities": 0.10,
    "xquad-answers": 0.14,
}  # fmt: skip
RUNNING_SOURCES = ("ntrex", "xquad", "xquad-questions", "udhr")
ROWS_ENOUGH = 513  # tokens in a language, when rows are gathered for demonstrations
ENGLISH_SHARE = 0.7  # of the translation windows have English on one side


@dataclass
class EncodedText:
    """The documents of one side of the split as token ids.

    running    language to list of documents as running text, sentence after sentence, `<|endoftext|>` at the end
    pairs      source to list of documents; a document is a list of rows; a row maps a language to the ids of
               `{Name}: {line}<|endoftext|>`
    words      language to ids of ` word`, most frequent first
    code       files, each ending in `<|endoftext|>`
    """

    running: dict[str, list[Ids]] = field(default_factory=dict)
    pairs: dict[str, list[list[dict[str, Ids]]]] = field(default_factory=dict)
    words: dict[str, list[Ids]] = field(default_factory=dict)
    code: list[Ids] = field(default_factory=list)


def encode_documents(documents: list[Document], tokenizer: Tokenizer, heldout: bool) -> EncodedText:
    """Encode one side of the split.

    heldout    True for the held-out side, False for the training side
    """
    encoded = EncodedText()
    for document in documents:
        if document.heldout != heldout:
            continue
        if document.source == "python":
            encoded.code.append(_encode(tokenizer, document.lines[CODE])[0])
        elif document.source == "words":
            for language, lines in document.lines.items():
                encoded.words.setdefault(language, []).append(_encode(tokenizer, [" " + lines[0]], end=False)[0])
        else:
            _add_parallel(encoded, document, tokenizer)
    return encoded


def _add_parallel(encoded: EncodedText, document: Document, tokenizer: Tokenizer) -> None:
    """Encode a document of parallel lines as demonstration rows and, where it is prose, as running text."""
    columns = {}
    for language, lines in document.lines.items():
        columns[language] = _encode(tokenizer, [f"{LANGUAGES[language]}: {line}" for line in lines])
        if document.source in RUNNING_SOURCES:
            # Both ways to set sentences in a row: on one line, and one on each line.
            texts = [join_sentences(language, lines), "\n".join(lines)]
            encoded.running.setdefault(language, []).extend(_encode(tokenizer, texts if len(lines) > 1 else texts[:1]))
    size = len(next(iter(columns.values())))
    rows = [{language: column[place] for language, column in columns.items()} for place in range(size)]
    encoded.pairs.setdefault(document.source, []).append(rows)


def _encode(tokenizer: Tokenizer, texts: list[str] | tuple[str, ...], end: bool = True) -> list[Ids]:
    """Encode texts, with `<|endoftext|>` after each unless `end` is False."""
    tail = [END_ID] if end else []
    return [np.array(one.ids + tail, dtype=np.int32) for one in tokenizer.encode_batch_fast(list(texts))]


class Windows:
    """Builds training windows out of encoded text.

    text    the training side
    seed    chooses the order
    """

    def __init__(self, text: EncodedText, seed: int) -> None:
        self.text, self.seed = text, seed
        self.layouts: dict[str, Callable[[np.random.Generator], list[Ids]]] = {
            "running": self._running,
            "sentences": lambda rng: self._translation(rng, SENTENCE_SOURCES),
            "names": lambda rng: self._translation(rng, NAME_SOURCES),
            "monolingual": self._monolingual,
            "words": self._words,
            "code": self._code,
        }
        self.mix = {name: share for name, share in MIX.items() if self._has(name)}
        self.languages = {
            source: sorted({language for document in documents for row in document for language in row})
            for source, documents in text.pairs.items()
        }
        self.running_weights = {lang: sum(map(len, texts)) ** 0.5 for lang, texts in text.running.items()}

    def _has(self, layout: str) -> bool:
        """Tell whether there is text for a layout (a run without CLDR has none for names)."""
        return layout != "names" or any(source in self.text.pairs for source in NAME_SOURCES if source[:4] == "cldr")

    def window(self, number: int, length: int) -> tuple[Ids, str]:
        """Build window `number`: (length,) token ids, the last target included, and the name of its layout."""
        rng = np.random.default_rng([self.seed, number])
        layout = _draw(rng, self.mix)
        parts = [np.array([END_ID], dtype=np.int32)] if rng.random() < 0.5 else []
        size = sum(map(len, parts))
        while size < length:
            more = self.layouts[layout](rng)
            parts += more
            size += sum(map(len, more))
        return np.concatenate(parts)[:length], layout

    def batch(self, step: int, size: int, length: int) -> Ids:
        """Stack the windows of one optimiser step: (size, length)."""
        return np.stack([self.window(step * size + place, length)[0] for place in range(size)])

    def _running(self, rng: np.random.Generator) -> list[Ids]:
        """Take documents of one language from a random place on."""
        texts = self.text.running[_draw(rng, self.running_weights)]
        sizes = np.array([len(text) for text in texts], dtype=float)
        order = rng.choice(len(texts), size=3, p=sizes / sizes.sum())
        start = 0 if rng.random() < 0.4 else int(rng.integers(len(texts[order[0]])))
        return [texts[order[0]][start:], *(texts[place] for place in order[1:])]

    def _translation(self, rng: np.random.Generator, sources: dict[str, float]) -> list[Ids]:
        """Take demonstrations of one direction from one source: in their order from a random place on, or mixed."""
        source = _draw(rng, {name: part for name, part in sources.items() if name in self.text.pairs})
        documents = self.text.pairs[source]
        in_order = len(documents[0]) > 1 and rng.random() < 0.6
        wanted = _direction(rng, self.languages[source])
        rows: list[dict[str, Ids]] = []
        for place in rng.permutation(len(documents))[:40]:
            document = documents[place]
            first = int(rng.integers(len(document)))
            rows += document[first:] if in_order else [document[first]]
            if sum(len(ids) for row in rows for ids in row.values()) > ROWS_ENOUGH * len(LANGUAGES):
                break
        if sources is NAME_SOURCES and rng.random() < 0.5:
            rows = rows[:4]  # a new direction after four short pairs, as in separate prompts
        return _pairs(rows, wanted)

    def _monolingual(self, rng: np.random.Generator) -> list[Ids]:
        """Take labelled sentences of one language from anywhere in the news."""
        language, documents = str(rng.choice(list(LANGUAGES))), self.text.pairs["ntrex"]
        chosen = [documents[place] for place in rng.integers(len(documents), size=12)]
        return [document[int(rng.integers(len(document)))][language] for document in chosen]

    def _words(self, rng: np.random.Generator) -> list[Ids]:
        """Take words of one language, frequent ones more often."""
        words = self.text.words[str(rng.choice(list(self.text.words)))]
        places = np.exp(rng.random(100) * np.log(len(words))).astype(int) - 1
        return [*(words[place] for place in places), np.array([END_ID], dtype=np.int32)]

    def _code(self, rng: np.random.Generator) -> list[Ids]:
        """Take a file, from its beginning or from a random place on."""
        text = self.text.code[int(rng.integers(len(self.text.code)))]
        start = 0 if rng.random() < 0.4 else int(rng.integers(len(text)))
        return [text[start:]]


def _direction(rng: np.random.Generator, languages: list[str]) -> tuple[str, str]:
    """Draw source and target language from those given, English among them."""
    if rng.random() < ENGLISH_SHARE:
        other = str(rng.choice([language for language in languages if language != "en"]))
        return ("en", other) if rng.random() < 0.5 else (other, "en")
    first, second = rng.choice(languages, size=2, replace=False)
    return str(first), str(second)


def _pairs(rows: list[dict[str, Ids]], direction: tuple[str, str]) -> list[Ids]:
    """Lay rows out as demonstrations; rows that lack one of the two languages are passed over."""
    source, target = direction
    return [ids for row in rows if source in row and target in row for ids in (row[source], row[target])]


def _draw(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """Draw a key by weight."""
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]
