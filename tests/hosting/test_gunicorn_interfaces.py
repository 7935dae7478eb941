"""ostler's gunicorn worker class with WebSockets, and with WSGI applications."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.certificates import Authority
from tests.hosting.gunicorn import Gunicorn
from tests.live.clients import received_close_code
from tests.live.harness import PATIENCE

ECHO = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"plain"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": scope["scheme"] + " " + message["text"]})
    print("left with", message["code"], flush=True)
"""

WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['wsgi.multiprocess']} {environ['wsgi.url_scheme']}".encode()]
"""


def test_hup_closes_websockets_over_tls_with_1012_and_new_ones_are_served(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(ECHO)
    authority = Authority(tmp_path)
    options = ["--certfile", "cert.pem", "--keyfile", "key.pem"]
    with Gunicorn(tmp_path, "-w", "2", *options) as gunicorn:
        gunicorn.wait_started(2)
        url = f"wss://127.0.0.1:{gunicorn.port}/"
        with connect(url, ssl=authority.client()) as socket:
            socket.send("one")
            assert socket.recv(PATIENCE) == "wss one"
            gunicorn.reload(2)
            assert received_close_code(socket) == 1012
        gunicorn.out.wait_for("left with 1012")
        with connect(url, ssl=authority.client()) as socket:
            socket.send("two")
            assert socket.recv(PATIENCE) == "wss two"
    assert "Traceback" not in gunicorn.log.text


def test_ostler_ws_none_turns_websockets_off(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(ECHO)
    with Gunicorn(tmp_path, env={"OSTLER_WS": "none"}) as gunicorn:
        gunicorn.wait_started(1)
        with pytest.raises(InvalidStatus, match="200"):
            connect(f"ws://127.0.0.1:{gunicorn.port}/")


def test_wsgi_multiprocess_is_true_with_two_workers(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(WSGI)
    with Gunicorn(tmp_path, "-w", "2") as gunicorn:
        gunicorn.log.wait_for("is a WSGI application", count=2)
        assert httpx.get(f"http://127.0.0.1:{gunicorn.port}/").text == "True http"
