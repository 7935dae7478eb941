"""The states of a connection, as `repr` shows them."""

from __future__ import annotations

import threading

from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.conftest import Serve
from tests.worker.harness import Server, get, hello, opened, respond


def shown(server: Server) -> str:
    """The one connection of the server, as `repr` shows it."""
    shown: str = server.call(lambda: repr(next(iter(server.server_state.connections), None)))
    return shown


def test_a_connection_is_new_then_active_then_idle(serve: Serve) -> None:
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await opened(go.is_set)
        await respond(send)

    server = serve(app)
    client = server.connect()
    server.until(lambda: server.server_state.connections)
    assert shown(server).startswith("<Connection new from ")
    client.send(get("/slow"))
    server.until(lambda: server.server_state.requests)
    assert shown(server).startswith("<Connection active from ")
    assert "/slow" in shown(server)
    go.set()
    assert client.answer().status == 200
    server.until(lambda: not server.server_state.requests)
    assert shown(server).startswith("<Connection idle from ")


def test_a_refused_connection_is_closing_and_lingers(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.send(b"NONSENSE\r\n\r\n")
    assert client.answer().status == 400
    assert shown(server).startswith("<Connection closing/lingering from ")
    client.close()
    server.until(lambda: not server.server_state.connections)
