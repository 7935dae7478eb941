"""The application that shared servers run: it passes each request to the behaviour that is replayed.

`/-/begin?NAME` says which. `/-/end?NAME` waits until its application has returned, writes a mark to both
outputs, and answers with the notes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import unquote

from tests.replay.behaviours import BEHAVIOURS, Exchange, Message, Receive, Scope, Send
from tests.replay.topics import load

PATIENCE = 8.0
"""Seconds until an application that does not return is noted as such."""

load()


class Replayed:
    """The behaviour that is replayed at present, and what its application has noted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[Any] = []
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = BEHAVIOURS[self.name].work
        assert isinstance(work, Exchange)
        self.running += 1
        self.idle.clear()
        try:
            await work.app(scope, receive, send, self.notes.append)
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()


class Application:
    """The ASGI application."""

    def __init__(self) -> None:
        self.current: Replayed | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif "/-/" in scope["path"]:
            await self._control(scope, send)
        elif scope["path"].endswith("/ping") or self.current is None:
            await _answer(send, b"pong")
        else:
            await self.current.run(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        scope["state"]["shared"] = ["from startup"]
        scope["state"]["number"] = 1
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _control(self, scope: Scope, send: Send) -> None:
        name = unquote(scope["query_string"].decode())
        if scope["path"].endswith("/begin"):
            self.current = Replayed(name)
            await _answer(send, b"")
            return
        assert self.current is not None
        try:
            await asyncio.wait_for(self.current.idle.wait(), PATIENCE)
        except asyncio.TimeoutError:
            self.current.notes.append("still running")
        notes = json.dumps(self.current.notes).encode()
        self.current = None
        for stream in (sys.stdout, sys.stderr):
            print(f"mark {name}", file=stream, flush=True)
        await _answer(send, notes)


async def _answer(send: Send, data: bytes) -> None:
    start: Message = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", str(len(data)).encode())],
    }
    await send(start)
    await send({"type": "http.response.body", "body": data})


app = Application()
