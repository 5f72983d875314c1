"""Chats as a model's chat template writes them, so that what every chat holds stays whole.

A template's literal text is not all that it writes: the names of roles come out of variables. So it is rendered, with every
role, flag and value that it compares something with, over contents that are one digit, whose token always stays.

Source: the variables and functions that transformers 4.50 to 5 gives a template (chat_template_utils).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from langslice.errors import TokenizerError

CONTENT: Final = "0"
_ROLES: Final = ("system", "developer", "user", "assistant", "model", "tool", "function", "ipython")
_ARGUMENTS: Final = {"0": CONTENT}
_SCHEMA: Final = {"type": "object", "properties": {"0": {"type": "string", "description": CONTENT}}, "required": ["0"]}
_TOOLS: Final = [{"type": "function", "function": {"name": "0", "description": CONTENT, "parameters": _SCHEMA}}]
_GIVEN: Final = frozenset({"messages", "tools", "add_generation_prompt", "strftime_now", "raise_exception"})
# One day of every month, and of every weekday.
_DAYS: Final = tuple(datetime(2026, month, 1 + month % 9, 10) for month in range(1, 13))

Message = dict[str, Any]


class _Refusal(Exception):  # not an error: a template says that it does not take such a chat
    """What `raise_exception` of a template raises."""


class _Generation(Extension):
    """The tag by which templates mark what the model wrote; its content is written as it is."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the tag and its end."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def read_templates(folder: Path) -> dict[str, str]:
    """Name -> Jinja source of every chat template next to a model: files of their own, or in tokenizer_config.json."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*chat_template*.jinja"))}
    found |= {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    }
    for name in ("chat_template.json", "tokenizer_config.json", "processor_config.json"):
        if not (folder / name).is_file():
            continue
        document = json.loads((folder / name).read_text(encoding="utf-8"))
        template = document.get("chat_template") if isinstance(document, dict) else None
        if isinstance(template, list):
            found |= {str(one.get("name")): str(one.get("template", "")) for one in template if isinstance(one, dict)}
        elif isinstance(template, dict):
            found |= {str(key): str(value) for key, value in template.items()}
        elif isinstance(template, str) and template:
            found.setdefault("chat_template", template)
    return found


def rendered_chats(source: str, named: Mapping[str, str]) -> tuple[str, ...]:
    """Every different text that a template makes of chats of one digit: all roles, tools, flags and dates.

    named    special tokens by the names that templates use: bos_token, eos_token
    Returns  texts, without doubles; a chat that the template refuses or cannot take is none
    Raises   TokenizerError where the template is no Jinja
    """
    environment = _environment()
    try:
        tree = environment.parse(source)
        template = environment.from_string(source)
    except TemplateError as error:
        raise TokenizerError(
            f"the chat template cannot be read: {error}", hint="transformers cannot render it either"
        ) from error
    variables = find_undeclared_variables(tree)
    days = _DAYS if "strftime_now" in variables or "strftime_now" in source else _DAYS[:1]
    texts: dict[str, None] = {}
    for day in days:
        for given in _inputs(tree, variables - _GIVEN - set(named), whole=day is days[0]):
            try:
                texts[template.render(**named, **given, strftime_now=day.strftime, raise_exception=_refuse)] = None
            except Exception:  # noqa: BLE001 - a template raises whatever Python does for a chat that it cannot take
                continue
    return tuple(text for text in texts if text.strip())


def plain_chats(source: str, named: Mapping[str, str], chats: Sequence[Sequence[Message]]) -> tuple[str, ...]:
    """What a template makes of chats, each with and without the answer's beginning; those that it refuses are left out.

    named    as for `rendered_chats`
    Raises   TokenizerError where the template is no Jinja
    """
    try:
        template = _environment().from_string(source)
    except TemplateError as error:
        raise TokenizerError(f"the chat template cannot be read: {error}") from error
    texts: dict[str, None] = {}
    for messages, prompted in product(chats, (False, True)):
        given = {**named, "messages": messages, "add_generation_prompt": prompted, "raise_exception": _refuse}
        try:
            texts[template.render(**given, strftime_now=datetime.now().strftime)] = None
        except Exception:  # noqa: BLE001 - as above
            continue
    return tuple(texts)


def _environment() -> Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> None:
    raise _Refusal(message)


def _inputs(tree: nodes.Template, flags: set[str], *, whole: bool) -> Iterator[dict[str, Any]]:
    """What a template is rendered with; only the plainest chats where not the whole is asked for."""
    values = _settings(tree, flags)
    chats = list(_chats((*_ROLES, *_compared(tree, "role")))) if whole else [_plain_chat(), _plain_chat()[1:]]
    for chat, tools, prompt, setting in product(chats, (None, _TOOLS), (False, True), values):
        shared = {"add_generation_prompt": prompt, **({"tools": tools} if tools else {}), **setting}
        yield {"messages": chat, **shared}
        for kind in ("", "image", "audio", "video") if whole else ():
            yield {"messages": [_in_parts(message, kind) for message in chat], **shared}


def _settings(tree: nodes.Template, flags: set[str]) -> list[dict[str, Any]]:
    """Nothing set; then every flag on, off, and at each text that the template compares it with, one flag at a time."""
    found: list[dict[str, Any]] = [{}]
    for flag in sorted(flags):
        documents = [[{"title": CONTENT, "text": CONTENT}]] if "document" in flag else []
        found += [{flag: value} for value in (True, False, *_compared(tree, flag), *documents)]
    return found


def _compared(tree: nodes.Template, name: str) -> tuple[str, ...]:
    """Texts that a template compares a variable, or an attribute of something, with."""
    found: dict[str, None] = {}
    for compare in tree.find_all(nodes.Compare):
        sides = (compare.expr, *(operand.expr for operand in compare.ops))
        if any(_is_called(side, name) for side in sides):
            constants = [constant for side in sides for constant in (side, *side.find_all(nodes.Const))]
            found |= {
                one.value: None for one in constants if isinstance(one, nodes.Const) and isinstance(one.value, str)
            }
    found.pop(name, None)
    return tuple(found)


def _is_called(node: nodes.Node, name: str) -> bool:
    if isinstance(node, nodes.Name):
        return node.name == name
    if isinstance(node, nodes.Getattr):
        return node.attr == name
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == name


def _chats(roles: Sequence[str]) -> Iterator[list[Message]]:
    """Chats in which every role speaks, with and without a system prompt, thinking, and a call of a tool."""
    plain = _plain_chat()
    yield plain
    yield plain[1:]
    yield plain[1:2]
    question, answer = plain[1], plain[2]
    thinking = {**answer, "reasoning_content": CONTENT, "thinking": CONTENT}
    yield [question, thinking]
    yield [question, thinking, question]
    call = {"id": CONTENT * 9, "type": "function", "function": {"name": "0", "arguments": _ARGUMENTS}}
    for calls in ([call], [call, call]):
        calling = {"role": "assistant", "content": CONTENT, "tool_calls": calls}
        yield [question, calling]
        for role in ("tool", "ipython", "function"):
            result = {"role": role, "name": "0", "tool_call_id": CONTENT * 9, "content": CONTENT}
            for first in (calling, {**calling, "content": ""}, {**calling, "content": None}):
                yield [question, first, *[result] * len(calls), answer]
                yield [question, first, *[result] * len(calls)]
    for role in dict.fromkeys(roles):
        spoken = {"role": role, "content": CONTENT}
        yield [spoken]
        yield [spoken, question]
        yield [question, spoken]
        yield [question, spoken, question]


def _plain_chat() -> list[Message]:
    return [{"role": role, "content": CONTENT} for role in ("system", "user", "assistant", "user")]


def _in_parts(message: Message, kind: str) -> Message:
    """A message whose content is a list of parts, as models that also see or hear take it; users send one of `kind`, if any."""
    if not message["content"]:
        return message
    sent = [{"type": kind}] if kind and message["role"] == "user" else []
    return {**message, "content": [*sent, {"type": "text", "text": message["content"]}]}
