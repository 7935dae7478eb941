"""WebSockets over TLS: the upgrade takes over an open TLS transport, and closes it as TLS demands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.websocket.harness import (
    DEFLATE,
    PING,
    PONG,
    TEXT,
    Recorder,
    close,
    echo,
    frame,
    inflate,
    opened,
)


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Any]:
    authority = Authority(tmp_path)
    return {"trust": authority.client(), **authority.files}


def test_messages_go_both_ways_and_the_scope_says_wss(serve: Serve, tls: dict[str, Any]) -> None:
    app = Recorder()
    server = serve(app, **tls)
    peer = opened(server, behind=frame(TEXT, b"with the handshake"))
    peer.text("and after it")
    server.until(lambda: app.messages == ["with the handshake", "and after it"])
    assert app.scopes[0]["scheme"] == "wss"
    assert app.scopes[0]["extensions"]["tls"]["tls_version"] == 0x0304
    assert "websocket.http.response" in app.scopes[0]["extensions"]


def test_large_and_compressed_messages_are_echoed(serve: Serve, tls: dict[str, Any]) -> None:
    server = serve(echo, **tls)
    peer = opened(server, "/", DEFLATE)
    text = "x" * 300_000
    peer.text(text)
    assert inflate(peer.read().data).decode() == text
    peer.send(frame(PING, b"alive"))
    answer = peer.read()
    assert (answer.opcode, answer.data) == (PONG, b"alive")


def test_it_is_closed_although_the_client_sends_no_close_notify(serve: Serve, tls: dict[str, Any]) -> None:
    server = serve(echo, **tls)
    peer = opened(server)
    peer.send(close(1000, b"done"))
    assert peer.read_close() == (1000, "done")
    assert peer.ended()
    server.advance(1)
    server.until(lambda: not server.server_state.connections)


def test_a_client_that_is_still_sending_learns_why_it_is_refused(serve: Serve, tls: dict[str, Any]) -> None:
    app = Recorder()
    server = serve(app, ws_max_size=1000, **tls)
    peer = opened(server)
    peer.send(frame(TEXT, b"x" * 500_000) + frame(TEXT, b"more" * 10_000))
    assert peer.read_close()[0] == 1009
    server.until(lambda: app.left is not None)
    assert app.left is not None
    assert app.left["code"] == 1009


def test_a_client_that_vanishes_is_an_abnormal_end(serve: Serve, tls: dict[str, Any]) -> None:
    app = Recorder()
    server = serve(app, **tls)
    opened(server).client.close()
    server.until(lambda: app.left is not None and not server.server_state.connections)
    assert app.left == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
