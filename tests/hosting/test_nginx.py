"""ostler behind a real nginx, with the files that docs/deployment/nginx.md shows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.hosting.docs_examples import DEPLOYMENT
from tests.hosting.nginx import APP, FILES, PLACES, Nginx, nginx_directory
from tests.live.clients import received_close_code
from tests.live.harness import PATIENCE, Ostler
from tests.live.load import Load
from tests.worker.proxies.test_proxy_protocol import V4, ssl, v2

MEGABYTE = 1 << 20
CLIENT = "127.0.0.5"  # another address than the proxy's, and none that is trusted


@pytest.fixture
def here() -> Iterator[Path]:
    with nginx_directory() as directory:
        (directory / "main.py").write_text(APP)
        yield directory


@contextlib.contextmanager
def served(here: Path, over: str, *args: str, name: str = "ostler.conf", **replaced: str) -> Iterator[Any]:
    """Run ostler on TCP or a Unix socket, and nginx in front of it."""
    path = here / "app.sock"
    where = ["--port", "0"] if over == "tcp" else ["--uds", str(path), "--forwarded-allow-ips", "unix:"]
    with Ostler(here, "main:app", *where, *args) as ostler:
        ostler.log.wait_for("running on")
        if "--workers" in args:
            ostler.wait_ready(int(args[args.index("--workers") + 1]))
        upstream = f"127.0.0.1:{ostler.port}" if over == "tcp" else f"unix:{path}"
        with Nginx(here, name, upstream, **replaced) as nginx:
            yield ostler, nginx


def ask(nginx: Nginx, path: str = "/", headers: dict[str, str] | None = None, **options: Any) -> Any:
    """Send a request, and return what the application reports about it as JSON."""
    with contextlib.closing(nginx.client(CLIENT)) as client:
        client.request(options.pop("method", "GET"), path, headers=headers or {}, **options)
        answer = client.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())


over_both = pytest.mark.parametrize("over", ["tcp", "unix"])


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir()))
def test_a_page_shows_the_file_that_is_tested(name: str) -> None:
    page = DEPLOYMENT / ("tls.md" if "tls" in name else "nginx.md")

    assert f"```nginx\n{(FILES / name).read_text(encoding='utf-8')}```\n" in page.read_text(encoding="utf-8")
    assert name in PLACES


@over_both
def test_scope_and_access_log_have_the_real_client_also_with_spoofed_fields(here: Path, over: str) -> None:
    spoofed = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=6.6.6.6;proto=https",
    }
    with served(here, over) as (ostler, nginx):
        for headers in ({}, spoofed):
            reported = ask(nginx, headers=headers)
            assert (reported["client"], reported["scheme"]) == ([CLIENT, 0], "http")
            assert "forwarded" not in reported["headers"]
        ostler.out.wait_for(rf'{re.escape(CLIENT)}:0 - "GET / HTTP/1\.1" 200', count=2)
        assert "6.6.6.6" not in ostler.out.text
        assert not nginx.complaints()


def test_nginx_keeps_its_connections_to_ostler(here: Path) -> None:
    # Without proxy headers the client is nginx, with the port of its connection.
    with served(here, "tcp", "--no-proxy-headers") as (_, nginx):
        clients = {tuple(ask(nginx)["client"]) for _ in range(20)}

        assert len(clients) == 1
        assert not nginx.complaints()


@over_both
def test_the_first_piece_of_a_response_arrives_before_the_last_is_sent(here: Path, over: str) -> None:
    with served(here, over) as (_, nginx), contextlib.closing(nginx.client()) as client:
        client.request("GET", "/stream")
        answer = client.getresponse()

        assert answer.read(5) == b"first"
        with contextlib.closing(nginx.client()) as other:
            other.request("GET", "/go")
            other.getresponse().read()
        assert answer.read() == b"last"
        assert not nginx.complaints()


@over_both
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_an_upload_of_100_megabytes_arrives(here: Path, over: str, buffering: str) -> None:
    piece = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    for _ in range(100):
        digest.update(piece)
    with served(here, over, uploads=f"proxy_request_buffering {buffering};") as (_, nginx):
        body = (piece for _ in range(100))

        reported = ask(nginx, "/upload", {"Content-Length": str(100 * MEGABYTE)}, method="POST", body=body)

        assert reported == {"size": 100 * MEGABYTE, "sha256": digest.hexdigest()}
        # With buffering on, nginx logs that it keeps the body in a file.
        assert [line for line in nginx.complaints() if "buffered to a temporary file" not in line] == []


def test_an_upload_without_buffering_reaches_the_application_piece_by_piece(here: Path) -> None:
    with (
        served(here, "tcp", uploads="proxy_request_buffering off;") as (_, nginx),
        contextlib.closing(nginx.client()) as client,
        contextlib.closing(nginx.client()) as other,
    ):
        client.putrequest("POST", "/upload")
        client.putheader("Content-Length", "10")
        client.endheaders(b"first")
        other.request("GET", "/stream")  # ends once the application has the first piece of the upload

        assert other.getresponse().read() == b"firstlast"
        client.send(b"last.")
        assert json.loads(client.getresponse().read())["size"] == 10


@over_both
def test_a_download_of_100_megabytes_arrives(here: Path, over: str) -> None:
    piece = bytes(range(256)) * 256
    with served(here, over) as (_, nginx), contextlib.closing(nginx.client()) as client:
        client.request("GET", f"/download?{100 * MEGABYTE}")
        answer = client.getresponse()

        pieces = [answer.read(len(piece)) == piece for _ in range(1600)]

        assert all(pieces)
        assert answer.read() == b""
        assert not nginx.complaints()


@over_both
def test_rolling_and_scaling_under_load_lose_no_request_and_need_no_retry(here: Path, over: str) -> None:
    with served(here, over, "--workers", "2") as (ostler, nginx):
        old = set(ostler.workers())
        with Load(nginx.port) as load:
            ostler.send(signal.SIGHUP)
            ostler.wait_ready(4)
            ostler.wait_workers_gone(old)
            ostler.send(signal.SIGTTIN)
            ostler.wait_ready(5)
            load.wait_answers(100)
            for left in (2, 1):
                ostler.send(signal.SIGTTOU)
                ostler.wait_worker_count(left)
            load.wait_answers(100)
        assert not load.failures
        assert not nginx.complaints()
        # Each request has one upstream address and one status: none was tried twice.
        assert all(re.search(r" 200 \[[^, ]+\] \[200\]$", line) for line in nginx.requests)
        assert len(nginx.requests) >= load.answered > 300
    assert " 200" in ostler.out.text


def test_the_stream_module_passes_the_client_address_in_a_proxy_header_of_version_1(here: Path) -> None:
    with served(here, "tcp", "--proxy-protocol", name="ostler-stream.conf") as (ostler, nginx):
        with contextlib.closing(nginx.client(CLIENT)) as client:
            client.request("GET", "/", headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"})
            reported = json.loads(client.getresponse().read())
            host, port = client.sock.getsockname()

        assert (reported["client"], reported["scheme"]) == ([host, port], "http")
        ostler.out.wait_for(rf'{re.escape(host)}:{port} - "GET / HTTP/1\.1" 200')
        assert not nginx.complaints()


def read_events(nginx: Nginx, count: int) -> list[str]:
    """Request a stream of so many events, and return them in their order."""
    with contextlib.closing(nginx.client()) as client:
        client.request("GET", f"/events?{count}")
        answer = client.getresponse()
        assert answer.getheader("content-type") == "text/event-stream"
        return answer.read().decode().split("\n\n")[:-1]


@over_both
def test_websockets_and_server_sent_events_work_at_the_same_time(here: Path, over: str) -> None:
    with served(here, over) as (_, nginx), ThreadPoolExecutor() as pool:
        with connect(f"ws://127.0.0.1:{nginx.port}/chat") as socket:
            reported = json.loads(socket.recv(PATIENCE))
            assert reported == [["127.0.0.1", 0], "ws"]
            events = pool.submit(read_events, nginx, 50)
            number = 0
            while not events.done() or number < 50:
                socket.send(str(number))
                assert socket.recv(PATIENCE) == str(number)
                number += 1
            assert events.result() == [f"data: {number}" for number in range(50)]
            socket.send(b"x" * MEGABYTE)
            assert socket.recv(PATIENCE) == b"x" * MEGABYTE
        assert not nginx.complaints()


def test_a_roll_closes_websockets_with_1012_and_lets_event_streams_end(here: Path) -> None:
    with served(here, "tcp", "--workers", "2") as (ostler, nginx), ThreadPoolExecutor() as pool:
        old = set(ostler.workers())
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(connect(f"ws://127.0.0.1:{nginx.port}/")) for _ in range(8)]
            for socket in sockets:
                socket.recv(PATIENCE)
            streams = [pool.submit(read_events, nginx, 300) for _ in range(4)]
            ostler.out.wait_for(r"GET /events", count=4)
            ostler.send(signal.SIGHUP)
            for socket in sockets:
                assert received_close_code(socket) == 1012
            for stream in streams:
                assert len(stream.result()) == 300
        ostler.log.wait_for(r"Rolling restart to generation \d+ complete")
        ostler.wait_workers_gone(old)
        with connect(f"ws://127.0.0.1:{nginx.port}/") as socket:
            assert socket.recv(PATIENCE)
        assert not nginx.complaints()


def test_the_stream_module_passes_the_client_address_over_a_unix_socket(here: Path) -> None:
    with served(here, "unix", "--proxy-protocol", name="ostler-stream.conf") as (ostler, nginx):
        assert ask(nginx)["client"][0] == CLIENT
        ostler.out.wait_for(rf'{re.escape(CLIENT)}:\d+ - "GET / HTTP/1\.1" 200')


def test_a_proxy_header_of_version_2_gives_the_client_address_and_the_scheme(here: Path) -> None:
    with (
        Ostler(here, "main:app", "--port", "0", "--proxy-protocol") as ostler,
        socket.create_connection(("127.0.0.1", ostler.port), PATIENCE) as proxy,
    ):
        request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        proxy.sendall(v2(V4 + ssl(1), 0x11) + request)

        with proxy.makefile("rb") as answer:
            reported = json.loads(answer.read().partition(b"\r\n\r\n")[2])
        assert (reported["client"], reported["scheme"]) == (["203.0.113.9", 5678], "https")
        ostler.out.wait_for(r'203\.0\.113\.9:5678 - "GET / HTTP/1\.1" 200')


def test_a_roll_under_load_through_the_proxy_protocol_loses_no_request(here: Path) -> None:
    args = "--workers", "2", "--proxy-protocol"
    with served(here, "tcp", *args, name="ostler-stream.conf") as (ostler, nginx):
        old = set(ostler.workers())
        with Load(nginx.port) as load:
            ostler.send(signal.SIGHUP)
            ostler.wait_ready(4)
            ostler.wait_workers_gone(old)
            load.wait_answers(100)
        assert not load.failures
        assert not nginx.complaints()
    assert "closed" not in ostler.log.text
