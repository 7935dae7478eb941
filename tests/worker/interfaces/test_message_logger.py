"""--log-level trace: the messages between server and application in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from ostler.logging import TRACE
from ostler.worker.asgi import Message, Receive, Scope, Send
from ostler.worker.interfaces.message_logger import MessageLogger


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    caplog.set_level(TRACE, "ostler.asgi")
    kept: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    handler = Keep()
    logger = logging.getLogger("ostler.asgi")
    logger.addHandler(handler)
    yield kept
    logger.removeHandler(handler)


def run(app: Any, scope: dict[str, Any], *received: Message) -> list[Message]:
    sent: list[Message] = []
    pending = list(received)

    async def receive() -> Message:
        return pending.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


async def once(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_an_exchange_is_shown_without_bodies_and_fields(lines: list[str]) -> None:
    app = MessageLogger(once)
    scope = {"type": "http", "client": ("127.0.0.1", 5000), "headers": [(b"cookie", b"secret")]}

    sent = run(app, scope, {"type": "http.request", "body": b"body", "more_body": False})

    prefix = "127.0.0.1:5000 - ASGI [1]"
    shown = {**scope, "headers": "<...>"}
    assert lines == [
        f"{prefix} Started scope={shown}",
        f"{prefix} Receive {{'type': 'http.request', 'body': '<4 bytes>', 'more_body': False}}",
        f"{prefix} Send {{'type': 'http.response.start', 'status': 200, 'headers': '<...>'}}",
        f"{prefix} Send {{'type': 'http.response.body', 'body': '<5 bytes>'}}",
        f"{prefix} Completed",
    ]
    assert sent[1]["body"] == b"hello"


def test_websockets_and_lifespan_are_shown_as_well(lines: list[str]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.send", "text": "caf\xe9", "bytes": None})

    logged = MessageLogger(app)
    run(logged, {"type": "websocket", "client": None}, {"type": "websocket.receive", "bytes": b"abc"})
    run(logged, {"type": "lifespan"}, {"type": "lifespan.startup"})

    assert lines[1:3] == [
        "ASGI [1] Receive {'type': 'websocket.receive', 'bytes': '<3 bytes>'}",
        "ASGI [1] Send {'type': 'websocket.send', 'text': '<4 chars>', 'bytes': None}",
    ]
    assert lines[4:6] == [
        "ASGI [2] Started scope={'type': 'lifespan'}",
        "ASGI [2] Receive {'type': 'lifespan.startup'}",
    ]


def test_what_the_application_raises_is_shown_and_passed_on(lines: list[str]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(MessageLogger(app), {"type": "lifespan"})

    assert lines[1:] == ["ASGI [1] Raised exception"]
