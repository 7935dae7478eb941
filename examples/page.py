"""A page to open in a browser, without any framework: `ostler page:app --app-dir examples --workers 4`.

It shows which worker answers, sends messages over a WebSocket, receives a stream of events and uploads files.
Send the arbiter SIGHUP while the page is open.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import count
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGE = Path(__file__).with_name("page.html")

# A stream that ended only with its client would delay each drain until --timeout-graceful-shutdown.
EVENTS_IN_A_STREAM = 10
SECONDS_BETWEEN_EVENTS = 0.5


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Call the function for the type and path of the scope."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["path"] == "/":
        await index(scope, send)
    elif scope["path"] == "/worker":
        await respond(send, "application/json", json.dumps(worker()).encode())
    elif scope["path"] == "/events":
        await events(scope, send)
    elif scope["path"] == "/upload" and scope["method"] == "POST":
        await upload(receive, send)
    else:
        await respond(send, "text/plain", b"Not here.\n", status=404)


def worker() -> dict[str, str | int | None]:
    """Return which process answers; a server without an arbiter has neither slot nor generation."""
    slot, generation = os.environ.get("OSTLER_SLOT"), os.environ.get("OSTLER_GENERATION")
    return {"slot": slot, "generation": generation, "pid": os.getpid()}


async def index(scope: Message, send: Send) -> None:
    """Send the page to browsers, and a line of text to other clients."""
    if b"text/html" in dict(scope["headers"]).get(b"accept", b""):
        await respond(send, "text/html; charset=utf-8", PAGE.read_bytes())
    else:
        line = "Hello from slot {slot}, generation {generation}, pid {pid}\n".format(**worker())
        await respond(send, "text/plain", line.encode())


async def echo(receive: Receive, send: Send) -> None:
    """Send a WebSocket client the worker that it is connected to, then send back its messages."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps(worker())})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def events(scope: Message, send: Send) -> None:
    """Send server-sent events, numbered from the last one that the browser has received."""
    last = dict(scope["headers"]).get(b"last-event-id", b"0")
    numbers = count(int(last) + 1 if last.isdigit() else 1)
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = b"retry: 100\n\n"  # milliseconds after which the browser reconnects
    for _ in range(EVENTS_IN_A_STREAM):
        body += f"id: {next(numbers)}\ndata: {json.dumps(worker())}\n\n".encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(SECONDS_BETWEEN_EVENTS)
        body = b""
    await send({"type": "http.response.body", "body": b""})


async def upload(receive: Receive, send: Send) -> None:
    """Receive a body of any size, one piece at a time."""
    digest, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        piece = message.get("body", b"")
        digest.update(piece)
        size, more = size + len(piece), message.get("more_body", False)
    answer = {"size": size, "sha256": digest.hexdigest(), **worker()}
    await respond(send, "application/json", json.dumps(answer).encode())


async def respond(send: Send, kind: str, body: bytes, status: int = 200) -> None:
    """Send a whole response."""
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Receive, send: Send) -> None:
    """Answer start-up and shutdown."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
