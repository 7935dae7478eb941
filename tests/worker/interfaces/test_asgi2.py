"""ASGI 2 applications, as ASGI 3."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ostler.worker.asgi import Message, Receive, Scope, Send
from ostler.worker.interfaces.asgi2 import from_asgi2


class OldStyle:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        message = await receive()
        await send({"type": "answer", "to": message["type"], "version": self.scope["asgi"]["version"]})


def old_function(scope: Scope) -> Callable[[Receive, Send], Awaitable[None]]:
    return OldStyle(scope)


@pytest.mark.parametrize("app", [OldStyle, old_function])
@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan"])
def test_classes_and_functions_get_every_kind_of_scope(app: Any, kind: str) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{kind}.something"}

    async def send(message: Message) -> None:
        sent.append(message)

    asgi = {"version": "3.0", "spec_version": "2.5"}
    scope: Scope = {"type": kind, "asgi": asgi}
    asyncio.run(from_asgi2(app)(scope, receive, send))  # type: ignore[arg-type]
    assert sent == [{"type": "answer", "to": f"{kind}.something", "version": "2.0"}]
    assert scope["asgi"] == {"version": "2.0", "spec_version": "2.5"}
    assert asgi["version"] == "3.0", "the server may share that part between scopes"
