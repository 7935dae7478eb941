"""The applications, the same for every server."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

HELLO = b"Hello, world!"
LARGE = b"x" * (100 * 1024)
PIECE = b"x" * (16 * 1024)
PIECES = 64


def _head(length: int, kind: bytes = b"text/plain") -> dict[str, Any]:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


HELLO_HEAD = _head(len(HELLO))
HELLO_BODY = {"type": "http.response.body", "body": HELLO}
LARGE_HEAD = _head(len(LARGE))
LARGE_BODY = {"type": "http.response.body", "body": LARGE}


def _say_ready(path: str) -> None:
    # A pipe takes eight bytes in one piece or not at all (pipe(7)).
    with open(path, "wb", buffering=0) as pipe:
        pipe.write(time.monotonic_ns().to_bytes(8, "big"))


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup" and (ready := os.environ.get("BENCH_READY")):
            _say_ready(ready)
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with 13 bytes."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    await send(HELLO_HEAD)
    await send(HELLO_BODY)
    return None


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with 100 KiB in one piece."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    await send(LARGE_HEAD)
    await send(LARGE_BODY)
    return None


async def streamed(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with 64 pieces of 16 KiB, without a Content-Length."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
    return None


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back the body of a request, or each message of a WebSocket."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    if scope["type"] == "websocket":
        return await _echo_messages(receive, send)
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = b"".join(pieces)
    await send(_head(len(body), b"application/json"))
    await send({"type": "http.response.body", "body": body})
    return None


async def upload(scope: Any, receive: Any, send: Any) -> None:
    """Receive the whole body, and answer with its number of bytes."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = b"%d" % size
    await send(_head(len(body)))
    await send({"type": "http.response.body", "body": body})
    return None


async def mixed(scope: Any, receive: Any, send: Any) -> None:
    """Answer like `hello`, but `/sleep` after 50 ms, and `/compute` after 20 ms of CPU time.

    A POST is answered like `upload`, and a WebSocket like `echo`.
    """
    if scope["type"] != "http":
        return await echo(scope, receive, send)
    if scope["method"] == "POST":
        return await upload(scope, receive, send)
    if scope["path"] == "/sleep":
        await asyncio.sleep(0.05)
    elif scope["path"] == "/compute":
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
    await send(HELLO_HEAD)
    await send(HELLO_BODY)
    return None


async def _echo_messages(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})


def file_app() -> Any:
    """Return an application that answers with the file $BENCH_FILE; called by `starlette_bench` only."""
    from starlette.responses import FileResponse

    path = os.environ["BENCH_FILE"]

    async def file(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        await FileResponse(path)(scope, receive, send)
        return None

    return file


def fastapi_app() -> Any:
    """Return a FastAPI application with one JSON endpoint; called by `fastapi_bench` only."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int, note: str = "none") -> dict[str, Any]:
        return {"number": number, "note": note, "tags": ["a", "b", "c"]}

    return app
