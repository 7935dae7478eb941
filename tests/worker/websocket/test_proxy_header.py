"""A WebSocket behind a PROXY header, in clear and before a TLS handshake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ostler.worker.proxies.trusted import TrustedProxies
from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import Client, Server, TlsClient
from tests.worker.proxies.test_proxy_protocol import V4, V6, ssl, v2
from tests.worker.websocket.harness import Recorder, WebSocketClient, frame, request

V1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 5678 443\r\n"
HEADERS = pytest.mark.parametrize(
    ("header", "expected"),
    [
        (V1, ("203.0.113.9", 5678)),
        (v2(V4, 0x11), ("203.0.113.9", 5678)),
        (v2(V6, 0x21), ("2001:db8::7", 5678)),
    ],
    ids=["v1", "v2", "v2 over IPv6"],
)


def behind(serve: Serve, app: Any, **options: Any) -> Server:
    allowed = "127.0.0.1"
    return serve(
        app,
        proxy_protocol=True,
        forwarded_allow_ips=allowed,
        proxies=TrustedProxies(allowed),
        **options,
    )


def talk(client: Client, app: Recorder, server: Server, before: bytes = b"") -> None:
    """Open a WebSocket with a message right behind its handshake, send one more, and close."""
    client.send(before + request("/chat") + frame(1, b"early"))
    peer = WebSocketClient(client, client.answer())
    assert peer.answer.status == 101
    peer.text("late")
    server.until(lambda: app.messages == ["early", "late"])
    peer.send(frame(8, b"\x03\xe8"))
    assert peer.read_close() == (1000, "")
    assert not server.errors.tracebacks


@HEADERS
def test_the_client_of_a_websocket_is_the_one_in_the_proxy_header(
    serve: Serve, header: bytes, expected: tuple[str, int]
) -> None:
    app = Recorder()
    server = behind(serve, app)
    talk(server.connect(), app, server, header)

    assert (app.scopes[0]["client"], app.scopes[0]["scheme"]) == (expected, "ws")
    assert server.errors.lines == [f'{expected[0]}:{expected[1]} - "WebSocket /chat" [accepted]']


def test_a_header_that_tells_of_tls_makes_it_wss(serve: Serve) -> None:
    app = Recorder()
    server = behind(serve, app)
    talk(server.connect(), app, server, v2(V4 + ssl(1), 0x11))

    assert (app.scopes[0]["client"], app.scopes[0]["scheme"]) == (("203.0.113.9", 5678), "wss")


@HEADERS
def test_the_header_comes_before_the_handshake_of_tls(
    serve: Serve, tmp_path: Path, header: bytes, expected: object
) -> None:
    authority, app = Authority(tmp_path), Recorder()
    server = behind(serve, app, **authority.files)
    client = TlsClient(server.address, authority.client(), before=header)
    server.clients.append(client)
    talk(client, app, server)

    scope = app.scopes[0]
    assert (scope["client"], scope["scheme"]) == (expected, "wss")
    assert scope["extensions"]["tls"]["tls_version"] == 0x0304
    assert "websocket.http.response" in scope["extensions"]
