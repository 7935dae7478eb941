"""The types of ASGI 3 (https://asgi.readthedocs.io, "Applications"), and the error of its `send`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientDisconnected(OSError):
    """Raised to the app by `send` when the client is gone (ASGI HTTP, since version 2.4)."""


PATHSEND = "http.response.pathsend"
ZEROCOPYSEND = "http.response.zerocopysend"
"""Types of messages, and names of extensions, by which an app has the server send a file."""
