"""The two committed files, a line for each behaviour: what uvicorn did, and where ostler differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
UVICORN = HERE / "uvicorn.json"
DIFFERENCES = HERE / "differences.json"
PAGE = HERE.parent.parent / "docs" / "coming-from-uvicorn.md"


def read(path: Path) -> dict[str, Any]:
    """Return a file's entries by the behaviour's name."""
    entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return entries


def write(path: Path, entries: Mapping[str, Any]) -> None:
    """Write entries, sorted by name, each on a line."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(entries[name], ensure_ascii=False)}" for name in sorted(entries)
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def rows() -> set[str]:
    """Return the first cell of every row of the page of differences."""
    text = PAGE.read_text(encoding="utf-8")
    return {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
