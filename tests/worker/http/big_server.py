"""A server in a process of its own: tests measure its memory."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from ostler.settings.declarations import Settings
from ostler.worker.asgi import Application, Receive, Scope, Send
from ostler.worker.interfaces.wsgi import WsgiAdapter
from ostler.worker.protocols import http_protocol
from ostler.worker.server_state import ServerState
from tests.worker.harness import Way, part, respond, start


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/up` reads slowly and answers with the size, `/down?N` sends N bytes as fast as it can."""
    if scope["path"] == "/up":
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
            await asyncio.sleep(0.0005)  # in the app
        await respond(send, b"%d" % size)
    else:
        left = int(scope["query_string"] or b"0")
        await send(start(200, (b"content-length", b"%d" % left)))
        while left > 0:
            piece = b"x" * min(left, 64 * 1024)
            left -= len(piece)
            await send(part(piece, more=True))
        await send(part())


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The same as a WSGI application."""
    if environ["PATH_INFO"] == "/up":
        size = 0
        while piece := environ["wsgi.input"].read(100_000):
            size += len(piece)
            time.sleep(0.0005)  # in the app
        start_response("200 OK", [])
        return [b"%d" % size]
    left = int(environ["QUERY_STRING"] or "0")
    start_response("200 OK", [("Content-Length", str(left))])
    return (b"x" * min(64 * 1024, left - at) for at in range(0, left, 64 * 1024))


async def main(way: Way, interface: str) -> None:
    loop = asyncio.get_running_loop()
    settings = Settings(http=way.http, access_log=False)  # type: ignore[arg-type]
    served: Application = app
    if interface == "wsgi":
        served = WsgiAdapter(wsgi_app, threads=4, multiprocess=False)
    server_state = ServerState(settings, served, state={}, loop=loop)
    factory = http_protocol(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    await loop.create_server(lambda: factory(server_state), sock=listener)
    print(listener.getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(1)  # the tick
        server_state.tick(time.monotonic())


if __name__ == "__main__":
    _, http, loop_name, the_interface = sys.argv
    the_way = Way(http, loop_name)
    the_way.new_loop().run_until_complete(main(the_way, the_interface))
