"""One demonstration, and files of them: jsonl, one object per line, without anything of a particular model.

    {"condition": "mt", "languages": ["fr", "en"], "parts": ["French: ...", "English: ...", ...], "separator": "{eos}"}
    {"condition": "code", "text": "def ..."}
    {"condition": "mt", "messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

`{eos}` in a separator becomes the tokenizer's end-of-sequence token (tokens.py); in texts it is text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import CorpusError
from langslice.files.atomic_output import staging_file

EOS = "{eos}"
FIELDS = ("condition", "languages", "parts", "separator", "text", "messages", "answer")


@dataclass(frozen=True)
class Demonstration:
    """A text in parts, or a conversation.

    condition   what it shows: "mt", "mono", "code", or any name
    parts       pieces of text, each followed by `separator`; a text as a whole is one part with an empty separator
    separator   `{eos}` in it stands for the end-of-sequence token
    languages   BCP 47 codes: source and target, or one
    messages    (role, content) of a conversation, instead of parts
    answer      whether the last part, or the last message, is what an encoder-decoder's decoder should write
    """

    condition: str
    parts: tuple[str, ...] = ()
    separator: str = ""
    languages: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    answer: bool = False

    def to_json(self) -> dict[str, Any]:
        """The record of a jsonl line."""
        record: dict[str, Any] = {"condition": self.condition}
        if self.languages:
            record["languages"] = list(self.languages)
        if self.messages:
            record["messages"] = [{"role": role, "content": content} for role, content in self.messages]
        elif len(self.parts) == 1 and not self.separator:
            record["text"] = self.parts[0]
        else:
            record |= {"parts": list(self.parts), "separator": self.separator}
        if self.answer:
            record["answer"] = True
        return record


def write_demonstrations(demonstrations: Iterable[Demonstration], path: Path) -> int:
    """Write demonstrations as jsonl and say how many.

    Raises  CorpusError when there are none
    """
    lines = [json.dumps(one.to_json(), ensure_ascii=False) for one in demonstrations]
    if not lines:
        raise CorpusError(f"no demonstrations to write to {path}", "give more sentences, or ask for fewer shots")
    with staging_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def read_demonstrations(path: str | Path) -> list[Demonstration]:
    """Read a jsonl file of demonstrations.

    Raises  CorpusError for a missing or empty file, and for a line that is no demonstration, naming it
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CorpusError(
            f"{path}: no such file of demonstrations", "make one with `langslice demonstrations`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read ({error})", "a jsonl file in UTF-8 is expected") from None
    found = [
        _parsed(line, f"{path}:{number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line and not line.isspace()
    ]
    if not found:
        raise CorpusError(f"{path}: holds no demonstrations", "make some with `langslice demonstrations`")
    return found


def _parsed(line: str, where: str) -> Demonstration:
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()  # an escape of half a surrogate pair is JSON, and no text
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: not JSON ({error})", "one JSON object a line") from None
    if not isinstance(record, dict):
        raise CorpusError(f"{where}: a JSON {type(record).__name__}, expected an object", "one JSON object a line")
    unknown = sorted(record.keys() - set(FIELDS))
    if unknown:
        raise CorpusError(f"{where}: unknown field {unknown[0]!r}", f"fields are {', '.join(FIELDS)}")
    if sum(name in record for name in ("parts", "text", "messages")) != 1:
        raise CorpusError(f"{where}: expected one of parts, text and messages", "see `langslice demonstrations`")
    parts = [record["text"]] if "text" in record else record.get("parts", [])
    languages = record.get("languages", [])
    for name, value in (("parts", parts), ("languages", languages)):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise CorpusError(f"{where}: {name} must be a list of strings")
    messages = tuple(_message(item, where) for item in record.get("messages", []))
    demonstration = Demonstration(
        str(record.get("condition", "text")),
        tuple(parts),
        str(record.get("separator", "")),
        tuple(languages),
        messages,
        bool(record.get("answer", False)),
    )
    if not any(part.strip() for part in parts) and not any(content.strip() for _, content in messages):
        raise CorpusError(f"{where}: an empty demonstration", "remove the line")
    return demonstration


def _message(item: object, where: str) -> tuple[str, str]:
    if isinstance(item, Mapping) and isinstance(item.get("role"), str) and isinstance(item.get("content"), str):
        return item["role"], item["content"]
    raise CorpusError(f"{where}: a message needs a role and a content, found {json.dumps(item)[:80]}")
