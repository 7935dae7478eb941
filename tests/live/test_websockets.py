"""WebSockets of a FastAPI application, with the client of the websockets library."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.certificates import Authority
from tests.live.clients import received_close_code
from tests.live.harness import PATIENCE, Ostler, both, serving

FASTAPI = """
import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.responses import PlainTextResponse

app = FastAPI()


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept(subprotocol="chat" if "chat" in socket.scope["subprotocols"] else None)
    await socket.send_text(str(os.getpid()))
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect as left:
        print("left with", left.code, flush=True)


@app.websocket("/denied")
async def denied(socket: WebSocket):
    await socket.send_denial_response(PlainTextResponse("not you", status_code=401))


@app.websocket("/stays")
async def stays(socket: WebSocket):
    await socket.accept()
    await asyncio.Event().wait()


@app.websocket("/uncaught")
async def uncaught(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text("x" * 1000)
        await asyncio.sleep(0)  # in the app
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(FASTAPI)
    return tmp_path


@contextlib.contextmanager
def open_websockets(port: int, count: int) -> Iterator[dict[ClientConnection, int]]:
    """Open so many WebSockets, and yield each with the pid of its worker."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(f"ws://127.0.0.1:{port}/echo")) for _ in range(count)]
        yield {each: int(each.recv(PATIENCE)) for each in opened}


@pytest.mark.parametrize("library", ["websockets", "wsproto"])
def test_messages_subprotocols_and_denials_reach_a_real_client(project: Path, library: str) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "2", "--ws", library) as ostler:
        url = f"ws://127.0.0.1:{ostler.port}"
        with connect(f"{url}/echo", subprotocols=["chat"]) as client:  # type: ignore[list-item]
            assert client.subprotocol == "chat"
            client.recv(PATIENCE)
            for text in ("", "grüße", "x" * 1_000_000):
                client.send(text)
                assert client.recv(PATIENCE) == text
        ostler.out.wait_for(r"left with 1000")
        with pytest.raises(InvalidStatus) as denied, connect(f"{url}/denied"):
            pass
        assert (denied.value.response.status_code, denied.value.response.body) == (401, b"not you")
        ostler.log.wait_for(r'"WebSocket /echo" \[accepted\]')
        ostler.log.wait_for(r'"WebSocket /denied" 401')
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


@both
@pytest.mark.parametrize(
    "header", [b"", b"PROXY TCP4 203.0.113.9 10.0.0.1 5678 443\r\n"], ids=["direct", "PROXY"]
)
@pytest.mark.parametrize("library", ["websockets", "wsproto"])
def test_messages_pass_over_tls_with_and_without_a_proxy_header(
    project: Path, mode: list[str], header: bytes, library: str
) -> None:
    authority = Authority(project)
    flags = ["--port", "0", "--ws", library, *authority.flags, *(["--proxy-protocol"] if header else [])]
    with Ostler(project, "main:app", *mode, *flags) as ostler:
        plain = socket.create_connection(("127.0.0.1", ostler.port), PATIENCE)
        plain.sendall(header)
        with connect("wss://localhost/echo", sock=plain, ssl=authority.client()) as client:
            client.recv(PATIENCE)
            for text in ("", "grüße", "x" * 1_000_000):
                client.send(text)
                assert client.recv(PATIENCE) == text
        ostler.out.wait_for(r"left with 1000")
        address = r"203\.0\.113\.9:5678" if header else r"127\.0\.0\.1:\d+"
        ostler.log.wait_for(rf'{address} - "WebSocket /echo" \[accepted\]')
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


def test_a_roll_closes_every_websocket_with_1012(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        old = set(ostler.workers())
        with open_websockets(ostler.port, 20) as clients:
            assert set(clients.values()) <= old
            ostler.send(signal.SIGHUP)
            assert {received_close_code(client) for client in clients} == {1012}
            with open_websockets(ostler.port, 4) as back:
                for client in back:
                    client.send("x")
            ostler.wait_workers_gone(old)
            ostler.log.wait_for(r"Rolling restart to generation \d+ complete")
        ostler.out.wait_for(r"left with 1012", count=20)
        assert ostler.stop() == 0
    assert "Cancel" not in ostler.log.text
    assert "Traceback" not in ostler.log.text


def test_an_app_that_ignores_the_disconnect_is_cancelled_after_the_graceful_timeout(project: Path) -> None:
    args = ("--port", "0", "--workers", "1", "--timeout-graceful-shutdown", "1")
    with Ostler(project, "main:app", *args) as ostler:
        ostler.wait_ready(1)
        with connect(f"ws://127.0.0.1:{ostler.port}/stays") as client:
            ostler.send(signal.SIGTERM)
            assert received_close_code(client) == 1012
            assert ostler.wait() == 0
    assert "Cancel 1 running request(s), timeout graceful shutdown exceeded" in ostler.log.text
    assert "Traceback" not in ostler.log.text


def test_a_client_that_disconnects_while_messages_are_sent_is_no_error(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0") as ostler:
        with connect(f"ws://127.0.0.1:{ostler.port}/uncaught") as client:
            client.recv(PATIENCE)
            client.socket.shutdown(2)
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


LOADED = """
import sys
async def app(scope, receive, send):
    assert scope["type"] != "lifespan"
    loaded = str("websockets" in sys.modules or "wsproto" in sys.modules)
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": loaded.encode()})
    else:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": loaded})
"""


@pytest.mark.parametrize("library", ["auto", "websockets", "wsproto"])
def test_a_websocket_library_is_loaded_at_the_first_websocket_or_when_it_is_named(
    tmp_path: Path, library: str
) -> None:
    (tmp_path / "main.py").write_text(LOADED)
    with serving(tmp_path, "--workers", "1", "--ws", library) as ostler:
        upgrade = {"Connection": "upgrade", "Upgrade": "h2c"}
        plain = httpx.get(f"http://127.0.0.1:{ostler.port}/", headers=upgrade).text
        assert plain == str(library != "auto")
        with connect(f"ws://127.0.0.1:{ostler.port}/") as socket:
            assert socket.recv(PATIENCE) == "True"


def test_a_reload_closes_websockets_over_tls_and_new_ones_reach_the_new_code(project: Path) -> None:
    authority = Authority(project)
    with Ostler(project, "main:app", "--port", "0", "--reload", *authority.flags) as ostler:
        ostler.wait_ready(1)
        url = f"wss://127.0.0.1:{ostler.port}/echo"
        with connect(url, ssl=authority.client()) as first:
            old = first.recv(PATIENCE)
            (project / "main.py").write_text(FASTAPI + "\n# changed\n")
            assert received_close_code(first) == 1012
        with connect(url, ssl=authority.client()) as second:
            assert second.recv(PATIENCE) != old
