"""Help pages: options and commands under headings, examples, and no summary that is cut off."""

from __future__ import annotations

from typing import Any

import typer.core

from langslice.cli.commands.options import USED

# After all others, in this order.
_LAST = ("Source", "Verification", "Output", "Run")
# A command with as few options needs no headings.
_FEW = 8


class CommandHelp(typer.core.TyperCommand):
    """A command whose help shows its options under their headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then one section per heading."""
        arguments: list[tuple[str, str]] = []
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                panel = getattr(parameter, "rich_help_panel", None) or "Run"
                sections.setdefault(panel, []).append(record)
        _write({"Arguments": arguments}, formatter)
        _write(_ordered(sections), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example, as it is typed."""
        if self.epilog:
            with formatter.section("Example"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class ProgramHelp(typer.core.TyperGroup):
    """The program, whose help shows its commands under their headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section per heading; summaries stand there whole."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            sections.setdefault(command.rich_help_panel, []).append((name, summary(command)))
        # One column for all sections.
        widest = max(len(name) for rows in sections.values() for name, _ in rows)
        _write(
            {title: [(name.ljust(widest), text) for name, text in rows] for title, rows in sections.items()}, formatter
        )


def summary(command: Any) -> str:
    """The first sentence of a command's help."""
    return str(command.help).partition("\n\n")[0].replace("\n", " ")


def _ordered(sections: dict[str, list[tuple[str, str]]]) -> dict[str, list[tuple[str, str]]]:
    if sum(map(len, sections.values())) <= _FEW:
        return {"Options": [record for records in sections.values() for record in records]}
    names = [*(name for name in sections if name not in (USED, *_LAST)), *(name for name in _LAST if name in sections)]
    return {name: sections[name] for name in ([USED] if USED in sections else []) + names}


def _write(sections: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    for title, records in sections.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
