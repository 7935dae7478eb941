"""Read the configuration files that docs/deployment shows, so that the tests run those and no copies."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path

DEPLOYMENT = Path(__file__).parents[2] / "docs" / "deployment"
SCRIPTS = Path(sysconfig.get_path("scripts"))
"""Where pip installs the commands of packages."""


def code_block(page: str, language: str, nth: int = 0) -> str:
    """Return the `nth` block of code in `language` on a page of docs/deployment."""
    text = (DEPLOYMENT / page).read_text(encoding="utf-8")
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return blocks[nth]


def substitute(text: str, replacements: Mapping[str, object]) -> str:
    """Return the text with every path and port replaced; each of them must stand in it."""
    for old, new in replacements.items():
        assert old in text, f"{old!r} is not on the page"
        text = text.replace(old, str(new))
    return text
