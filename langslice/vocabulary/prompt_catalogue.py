"""Prefixes that known models are always called with, where no file of theirs says so but the prose of their card.

Each row: names that it speaks of, as a regular expression over the last part of a hub id, and the prefixes. A prefix is also
taken where a model's card quotes it, so that what others trained from such a model is known by its card.

Source: the cards of the models named.
"""

from __future__ import annotations

import re
from typing import Final

PREFIXES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (r"(?:multilingual-)?e5-(?:small|base|large)(?:-v2|-unsupervised)?\b(?!-instruct)", ("query: ", "passage: ")),
    (r"(?:multilingual-)?e5-.*instruct", ("Instruct: ", "\nQuery: ")),
    (r"(?:gte-)?qwen\d*-.*(?:instruct|embedding)|qwen3-embedding", ("Instruct: ", "\nQuery:", "\nQuery: ")),
    (r"bge-(?:small|base|large)-en|mxbai-embed-large|uae-large|snowflake-arctic-embed-(?:xs|s|m|l)$",
     ("Represent this sentence for searching relevant passages: ",)),
    (r"bge-(?:small|base|large)-zh", ("为这个句子生成表示以用于检索相关文章：",)),
    (r"bge-multilingual-gemma2", ("<instruct>", "\n<query>")),
    (r"snowflake-arctic-embed-.*-v2", ("query: ",)),
    (r"nomic-embed-text|modernbert-embed", ("search_query: ", "search_document: ", "clustering: ", "classification: ")),
    (r"embeddinggemma",
     ("task: search result | query: ", "title: none | text: ", "task: question answering | query: ",
      "task: fact checking | query: ", "task: classification | query: ", "task: clustering | query: ",
      "task: sentence similarity | query: ", "task: code retrieval | query: ")),
    (r"ruri-(?!v3)", ("クエリ: ", "文章: ")),
    (r"ruri-v3", ("検索クエリ: ", "検索文書: ", "トピック: ")),
    (r"glucose-base-ja-v2", ("query: ", "passage: ")),
    (r"frida$|ru-en-rosberta",
     ("search_query: ", "search_document: ", "paraphrase: ", "categorize: ", "categorize_sentiment: ", "categorize_topic: ",
      "categorize_entailment: ", "classification: ", "clustering: ")),
    (r"jina-embeddings-v3",
     ("Represent the query for retrieving evidence documents: ", "Represent the document for retrieval: ")),
    (r"(?:google-t5-)?t5-(?:small|base|large|3b|11b)$",
     ("translate English to German: ", "translate English to French: ", "translate English to Romanian: ", "summarize: ")),
    (r"mono-?t5|mt5-.*msmarco", ("Query: ", " Document: ", " Relevant:")),
    (r"flan-ul2|\bul2$", ("[NLU] ", "[NLG] ", "[S2S] ")),
)  # fmt: skip


def known_prefixes(names: tuple[str, ...], card: str) -> tuple[str, ...]:
    """Prefixes of the models of these names, and those that a card quotes; each once.

    Example  known_prefixes(("intfloat/multilingual-e5-small",), "") gives "query: " and "passage: "
    """
    found: dict[str, None] = {}
    for pattern, prefixes in PREFIXES:
        named = any(re.search(rf"(?<![a-z0-9])(?:{pattern})", name.rpartition("/")[2].lower()) for name in names)
        found |= {prefix: None for prefix in prefixes if named or _quotes(card, prefix)}
    return tuple(found)


def _quotes(card: str, prefix: str) -> bool:
    """Whether something in quotes begins with the prefix."""
    return re.search("[\"'`“]" + re.escape(prefix), card) is not None
