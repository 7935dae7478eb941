"""What a behaviour is, and the list of all: each topic's module adds its own by calling these functions.

Three kinds, by what they need:

- `http` and `websocket` send bytes to a server that behaviours with the same flags share. The behaviour's own
  application, an argument, answers. It leaves notes of what it sees with `note`.
- `command` starts the server's command of its own, with files, variables and flags, and may talk to it.
- `script` runs a Python program that uses the server from code.

Files, variables, flags and programs are written for uvicorn. For ostler the word is replaced, as users do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from tests.replay.servers import Running

Scope: TypeAlias = dict[str, Any]
Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Note: TypeAlias = Callable[[Any], None]
Case: TypeAlias = Callable[[Scope, Receive, Send, Note], Awaitable[None]]
"""The application of one behaviour."""
Observation: TypeAlias = Any
"""What was seen: JSON, after `normalisation.normal`."""

HELLO = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""
"""The main.py of a behaviour that gives none."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Bytes sent to a shared server, as one piece or several, and the answers to them."""

    app: Case
    pieces: tuple[bytes, ...]
    flags: tuple[str, ...]
    see: tuple[str, ...]
    talk: Literal["http", "websocket"]
    answers: int
    """How many responses to wait for; of a WebSocket, how many frames before the last piece is sent."""
    hang_up: bool
    """Whether the client closes its connection instead of reading."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A process: the server's command with these flags, or a Python program."""

    args: tuple[str, ...]
    files: Mapping[str, str]
    env: Mapping[str, str]
    program: bool
    """Whether main.py is run itself, instead of being served by the command."""
    do: Callable[[Running], Any] | None
    """What to do once it serves; without it, wait until it exits by itself."""
    ready: bool
    """Whether to wait for an answer before `do`."""
    stop: str | None
    """The signal that ends it after `do`; None if it ends by itself."""
    see: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """One behaviour: its name, `topic/what`, and what to do."""

    name: str
    work: Exchange | Command


BEHAVIOURS: dict[str, Behaviour] = {}
"""All behaviours by name, filled as the topics are imported."""


def _add(name: str, work: Exchange | Command) -> None:
    if name in BEHAVIOURS:
        raise ValueError(f"two behaviours are called {name}")
    BEHAVIOURS[name] = Behaviour(name, work)


def http(
    name: str,
    app: Case,
    *pieces: bytes,
    flags: Sequence[str] = (),
    see: Sequence[str] = ("responses", "then", "app", "errors"),
    answers: int = 1,
    hang_up: bool = False,
) -> None:
    """Add a behaviour: send `pieces` to `app`, by default one GET.

    `see` names what counts: responses, status (the numbers of all responses), then (whether the connection
    is kept), app (the notes), errors (lines on stderr), access (lines on stdout).
    """
    sent = pieces or (get(),)
    _add(name, Exchange(app, sent, tuple(flags), tuple(see), "http", answers, hang_up))


def websocket(
    name: str,
    app: Case,
    *frames: bytes,
    head: bytes | None = None,
    flags: Sequence[str] = (),
    see: Sequence[str] = ("handshake", "frames", "end", "app", "errors"),
    answers: int = 0,
    hang_up: bool = False,
) -> None:
    """Add a behaviour: open a WebSocket and send `frames`, the last one after so many `answers`."""
    pieces = (head or upgrade(), *frames)
    _add(name, Exchange(app, pieces, tuple(flags), tuple(see), "websocket", answers, hang_up))


def command(
    name: str,
    *args: str,
    files: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    do: Callable[[Running], Any] | None = None,
    ready: bool = True,
    stop: str | None = "SIGTERM",
    see: Sequence[str] = ("exit", "out", "errors", "result"),
) -> None:
    """Add a behaviour: run `uvicorn ARGS` in a directory with `files`, and `do` something once it serves.

    `see` names what counts: exit (the code, or the signal that ended it), out and errors (lines), access and
    prints (lines of out), warnings, lifespan and stop (lines of errors), result (of `do`).
    """
    _add(
        name,
        Command(
            args,
            {"main.py": HELLO, **(files or {})},
            env or {},
            False,
            do,
            ready,
            stop if do else None,
            tuple(see),
        ),
    )


def script(
    name: str,
    source: str,
    *,
    files: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    do: Callable[[Running], Any] | None = None,
    ready: bool = True,
    stop: str | None = None,
    see: Sequence[str] = ("exit", "out", "errors", "result"),
) -> None:
    """Add a behaviour: run `source` as main.py, a program that imports uvicorn."""
    _add(
        name,
        Command(
            ("main.py",), {"main.py": source, **(files or {})}, env or {}, True, do, ready, stop, tuple(see)
        ),
    )


def get(
    path: str = "/", *headers: str, method: str = "GET", version: str = "1.1", body: bytes = b""
) -> bytes:
    """Return a request; a Host header is added, and for a body its length."""
    lines = [f"{method} {path} HTTP/{version}", "Host: replay.example", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def upgrade(path: str = "/", *headers: str, key: str = "dGhlIHNhbXBsZSBub25jZQ==") -> bytes:
    """Return the request of a WebSocket handshake (RFC 6455, 4.1)."""
    return get(
        path, "Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13", *headers,
    )  # fmt: skip
