"""The configuration files that docs/deployment shows: tests run these, and no copies of them."""

from __future__ import annotations

import re
import socket
import sysconfig
from collections.abc import Mapping
from pathlib import Path

DEPLOYMENT = Path(__file__).parents[2] / "docs" / "deployment"
SCRIPTS = Path(sysconfig.get_path("scripts"))


def shown(page: str, language: str, nth: int = 0) -> str:
    """The `nth` block of code in `language` on a page."""
    text = (DEPLOYMENT / page).read_text(encoding="utf-8")
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return blocks[nth]


def put(text: str, places: Mapping[str, object]) -> str:
    """The text with every path and port replaced; each of them has to be there."""
    for old, new in places.items():
        assert old in text, f"{old!r} is not on the page"
        text = text.replace(old, str(new))
    return text


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at present."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
