"""Ollama's Modelfile: which file, how a chat is laid out, where an answer ends.

Ollama's templates are Go's. What a model's Jinja template does is found by asking it for chats: the text before and behind what
each role says. It is written only where the chats put together in this way are exactly those of the Jinja template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MARKS = {"system": "S0", "user": "U0", "assistant": "A0"}
_TRIED = (
    ("user",), ("user", "assistant", "user"), ("system", "user"), ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
)  # fmt: skip


@dataclass(frozen=True)
class ChatLayout:
    """What is around each role's words.

    first   before everything
    alone   before everything where no system message is given
    around  role -> text before, text behind
    answer  what the answer begins behind
    """

    first: str
    alone: str
    around: dict[str, tuple[str, str]]
    answer: str

    def render(self, roles: Sequence[str], said: Sequence[str]) -> str:
        """A chat of these roles."""
        text = self.first + ("" if "system" in roles else self.alone)
        for role, words in zip(roles, said, strict=True):
            before, behind = self.around[role]
            text += before + words + behind
        return text + self.answer


def modelfile(name: str, auto: Any, ends: Sequence[int], settings: dict[str, Any]) -> tuple[str, str]:
    """The Modelfile, and what a user should know of it.

    name      of the GGUF file next to it
    auto      transformers' tokenizer
    ends      ids that end an answer
    settings  generation_config.json
    """
    lines = [f"FROM ./{name}"]
    layout = find_layout(auto)
    note = ""
    if layout is not None:
        lines.append(f'TEMPLATE """{_go(layout)}"""')
    elif getattr(auto, "chat_template", None):
        note = (
            "the chat template does more than a Modelfile can say; Ollama uses that of the GGUF file where it knows it"
        )
    for token_id in ends:
        token = auto.convert_ids_to_tokens(int(token_id))
        if token:
            lines.append(f'PARAMETER stop "{token}"')
    for theirs, ours in (("temperature", "temperature"), ("top_k", "top_k"), ("top_p", "top_p")):
        if settings.get(theirs) is not None and settings.get("do_sample"):
            lines.append(f"PARAMETER {ours} {settings[theirs]}")
    return "\n".join(lines) + "\n", note


def find_layout(auto: Any) -> ChatLayout | None:
    """How chats are put together; None without a template, and for one that does more."""
    if not getattr(auto, "chat_template", None):
        return None
    user = _rendered(auto, ("user",), prompted=True)
    turns = _rendered(auto, ("user", "assistant", "user"), prompted=True)
    bare = _rendered(auto, ("user",), prompted=False)
    if user is None or turns is None or bare is None or not user.startswith(bare) or "U0" not in bare:
        return None
    answer = user[len(bare) :]
    before, behind = bare.split("U0", 1)
    parts = turns.removesuffix(answer).split("U0")
    if len(parts) != 3 or "A0" not in parts[1]:
        return None
    between, after_assistant = parts[1].removeprefix(behind).split("A0", 1)
    # What is before every user's words, and what is before the first alone.
    common = _common_end(before, after_assistant)
    assistant = (between, after_assistant[: len(after_assistant) - len(common)])
    layout = _with_system(
        auto, before[: len(before) - len(common)], {"user": (common, behind), "assistant": assistant}, answer
    )
    return layout if layout is not None and _agrees(layout, auto) else None


def _with_system(auto: Any, start: str, around: dict[str, tuple[str, str]], answer: str) -> ChatLayout | None:
    """What a system message is put between; a template that has none, or puts it into the user's words, leaves it out."""
    bos = auto.bos_token or ""
    first = bos if bos and start.startswith(bos) else ""
    alone = start[len(first) :]
    system = _rendered(auto, ("system", "user"), prompted=True)
    if system is not None and "S0" in system and system.startswith(first):
        before, rest = system[len(first) :].split("S0", 1)
        tail = around["user"][0] + "U0" + around["user"][1] + answer
        if not rest.endswith(tail):
            return None
        around = {"system": (before, rest[: len(rest) - len(tail)]), **around}
    return ChatLayout(first, alone, around, answer)


def _agrees(layout: ChatLayout, auto: Any) -> bool:
    for roles in _TRIED:
        expected = _rendered(auto, roles, prompted=True)
        if expected is None or set(roles) - set(layout.around):
            continue
        if layout.render(roles, [_MARKS[role] for role in roles]) != expected:
            return False
    return True


def _rendered(auto: Any, roles: Sequence[str], *, prompted: bool) -> str | None:
    """A chat in which each role says its mark; None where the template refuses it."""
    messages = [{"role": role, "content": _MARKS[role]} for role in roles]
    try:
        return str(auto.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompted))
    except Exception:  # noqa: BLE001 - a template raises what it likes for roles that it does not have
        return None


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return one[len(one) - length :]


def _go(layout: ChatLayout) -> str:
    """The layout as Go's template language has it; BOS is put there by Ollama itself."""
    turns = "".join(
        f'{{{{- {"if" if at == 0 else "else if"} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{behind}'
        for at, (role, (before, behind)) in enumerate(layout.around.items())
    )
    start = f"{{{{- if not .System }}}}{layout.alone}{{{{- end }}}}" if layout.alone else ""
    return f"{start}{{{{- range .Messages }}}}{turns}{{{{- end }}}}{{{{- end }}}}{layout.answer}"
