"""What the commands' options have in common."""

from __future__ import annotations

from typing import Any

import typer


def option(*names: str, help: str, metavar: str | None = None) -> Any:
    """An option without a default in its help."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)
