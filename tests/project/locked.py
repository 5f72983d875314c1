"""What the lock says, and where an installation differs from it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCK = Path(__file__).parents[2] / "constraints/lock.txt"
# The project itself, and what every new environment brings along.
OURS = {"langslice", "pip", "setuptools", "wheel"}


@dataclass(frozen=True)
class Difference:
    """A package that is installed in another version than the lock's, or that the lock does not name."""

    name: str
    installed: str
    locked: str | None

    @property
    def newer(self) -> bool:
        return self.locked is None or Version(self.installed) > Version(self.locked)

    def __str__(self) -> str:
        return f"{self.name} {self.installed} ({'not in the lock' if self.locked is None else f'lock: {self.locked}'})"


def locked_versions(text: str, python: str | None = None) -> dict[str, str]:
    """Version by package, for this Python or another one such as "3.10.0"."""
    environment = (
        None if python is None else {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    )
    found: dict[str, str] = {}
    for line in text.splitlines():
        stated = line.partition("#")[0].strip()
        if not stated:
            continue
        requirement = Requirement(stated)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            if pin.operator != "==" or canonicalize_name(requirement.name) in found:
                raise ValueError(f"{line}: expected one exact version")
            found[canonicalize_name(requirement.name)] = pin.version
    return found


def installed_versions() -> dict[str, str]:
    """Version by package in this environment; a build's own mark ("+cpu") is left out."""
    return {canonicalize_name(one.metadata["Name"]): Version(one.version).public for one in distributions()}


def differences(installed: dict[str, str], locked: dict[str, str]) -> list[Difference]:
    """Packages of other versions than the lock's, by name."""
    return [
        Difference(name, version, locked.get(name))
        for name, version in sorted(installed.items())
        if name not in OURS and version != locked.get(name)
    ]
