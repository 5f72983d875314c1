"""The tokenizer of langslice-mini: byte-level BPE trained on the training side of the split.

All 256 byte symbols are in the vocabulary, so nothing can become unknown. There are two special tokens: `<|endoftext|>`
(id 0) begins a text, ends it, and separates the sentences of a demonstration; `<|pad|>` (id 1) only fills batches. Text
is encoded without any special token being added, so that a demonstration is exactly the string that is written.
"""

from __future__ import annotations

from collections.abc import Iterator

from sources import CODE, Document
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

END, PAD = "<|endoftext|>", "<|pad|>"
END_ID, PAD_ID = 0, 1
# Words with their marks (Hindi vowel signs are \p{M}) and at most one character before them; digits one by one;
# punctuation; line ends; spaces, where the last one goes with the word that follows.
PIECES = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Korean, French and Swahili have one large source where the others have two: their text counts twice.
TWICE = ("ko", "fr", "sw")
CODE_CHARACTERS = 1_200_000


def train_tokenizer(documents: list[Document], vocab_size: int) -> Tokenizer:
    """Train the tokenizer on the documents that are not held out.

    documents    as read_sources returns them
    vocab_size   number of tokens, special tokens and bytes included
    Raises       ValueError when the text does not hold that many tokens
    """
    tokenizer = Tokenizer(BPE())
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(documents), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"the text yields {tokenizer.get_vocab_size()} tokens, expected {vocab_size}")
    return tokenizer


def _texts(documents: list[Document]) -> Iterator[str]:
    """Yield the training text, weighed so that no language and no code crowds out the others."""
    code_left = CODE_CHARACTERS
    for document in documents:
        if document.heldout:
            continue
        for language, lines in document.lines.items():
            if language == CODE:
                yield lines[0][: max(0, code_left)]
                code_left -= len(lines[0])
                continue
            times = 2 if language in TWICE and document.source != "words" else 1
            for line in lines:
                for _ in range(times):
                    yield " " + line
