"""What must be equal between two slices made alike, whatever folder they are in and however they were asked for."""

from __future__ import annotations

import json
from pathlib import Path


def lasting(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, without the card, which names the folder, and the record's command and list of files."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "README.md"}
    record = json.loads(found["slice.json"])
    for entry in ("command", "files"):
        record.pop(entry, None)
    found["slice.json"] = json.dumps(record, sort_keys=True).encode()
    return found
