"""Draining without a loss, and stops that end: whatever is open, whenever they are asked for."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.live.harness import APP, PATIENCE, Ostler, wait_until
from tests.live.load import elapsed
from tests.live.test_serving import slow_request
from tests.live.test_websockets import close_code

INSTANTS = int(os.environ.get("OSTLER_INSTANTS", "0"))
"""How many instants to try, by hand; then the time that a stop takes is checked as the promise has it."""
GRACE = 1.0
OPTIONS = ["--port", "0", "--timeout-graceful-shutdown", str(GRACE)]
ALLOWED = GRACE + 3 if INSTANTS else PATIENCE


def request(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    return client


@pytest.mark.parametrize("workers", [1, 3])
def test_what_the_kernel_has_accepted_before_a_stop_is_answered(project: Path, workers: int) -> None:
    with (
        Ostler(project, "main:app", "--port", "0", "--workers", str(workers)) as ostler,
        contextlib.ExitStack() as opened,
    ):
        ostler.wait_ready(workers)
        port = ostler.port
        for pid in ostler.workers():
            os.kill(pid, signal.SIGSTOP)
        clients = [opened.enter_context(request(port)) for _ in range(300)]
        ostler.send(signal.SIGTERM)
        ostler.log.wait_for("Stopping: ")
        for pid in ostler.workers():
            os.kill(pid, signal.SIGCONT)
        answers = [client.recv(1000) for client in clients]
        assert ostler.wait() == 0
    assert [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200 OK")] == []


def test_what_waits_in_the_queue_of_a_plain_server_is_answered_at_its_stop(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0") as ostler, contextlib.ExitStack() as opened:
        port = ostler.port
        with request(port) as first:  # from its answer on it drains; while it starts it just ends
            assert first.recv(1000).startswith(b"HTTP/1.1 200 OK")
        ostler.send(signal.SIGSTOP)
        clients = [opened.enter_context(request(port)) for _ in range(100)]
        ostler.send(signal.SIGTERM)
        ostler.send(signal.SIGCONT)
        answers = [client.recv(1000) for client in clients]
        assert ostler.wait() == 0
    assert [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200 OK")] == []


STREAMING = (
    APP
    + """
serving = app


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif scope["path"] == "/events":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await send({"type": "http.response.body", "body": b"data: tick\\n\\n", "more_body": True})
            await asyncio.sleep(0.1)  # in the app
    else:
        await serving(scope, receive, send)
"""
)


def test_a_roll_with_events_and_websockets_open_ends_within_its_grace(project: Path) -> None:
    (project / "main.py").write_text(STREAMING)
    with (
        Ostler(project, "main:app", *OPTIONS, "--workers", "2") as ostler,
        contextlib.ExitStack() as opened,
    ):
        ostler.wait_ready(2)
        old = set(ostler.workers())
        url = f"ws://127.0.0.1:{ostler.port}/"
        sockets = [opened.enter_context(connect(url)) for _ in range(6)]
        streams = []
        for _ in range(6):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", ostler.port), PATIENCE))
            client.sendall(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
            streams.append(client)
        ostler.send(signal.SIGHUP)
        assert {close_code(client) for client in sockets} == {1012}
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        start = time.monotonic()
        wait_until(lambda: not old & set(ostler.workers()), "the old workers are gone", timeout=ALLOWED)
        assert elapsed(start) < ALLOWED
        for client in streams:
            while client.recv(65536):
                pass
        assert len(ostler.workers()) == 2
        assert ostler.stop() == 0
    assert "stacks follow" not in ostler.log.text


def test_scaling_down_finishes_every_request_in_flight(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "3") as ostler:
        ostler.wait_ready(3)
        clients = [slow_request(ostler.port, 3) for _ in range(10)]
        for left in (2, 1):
            ostler.send(signal.SIGTTOU)
            ostler.log.wait_for(rf"Scaled from {left + 1} workers to {left}")
        answers = []
        for client in clients:
            with client:
                answers.append(client.recv(1000)[:15])
        wait_until(lambda: len(ostler.workers()) == 1, "one worker is left")
    assert answers == [b"HTTP/1.1 200 OK"] * 10


def stop(ostler: Ostler, *, times: int = 1, pause: float = 0.0) -> None:
    """Send SIGTERM so many times; it ends with exit code 0, in time, and leaves no process."""
    ostler.family()
    start = time.monotonic()
    for _ in range(times):
        if ostler.poll() is None:
            ostler.send(signal.SIGTERM)
            go_on(ostler, pause)
    assert ostler.wait(ALLOWED) == 0
    wait_until(lambda: not ostler.family(), "no process is left")
    assert elapsed(start) < ALLOWED
    assert "Traceback" not in ostler.log.text


def go_on(ostler: Ostler, seconds: float) -> None:
    """Let it go on for a while: nothing is waited for that could come."""
    with contextlib.suppress(AssertionError):
        ostler.log.wait_for("no such line", timeout=seconds)


@pytest.mark.parametrize("part", range(4))
def test_a_stop_at_any_instant_of_a_roll_ends(project: Path, part: int) -> None:
    chance = random.Random(part)
    for instant in range((INSTANTS or 12) // 4):
        with Ostler(project, "main:app", *OPTIONS, "--workers", "2") as ostler:
            ostler.wait_ready(2)
            ostler.send(signal.SIGHUP)
            go_on(ostler, chance.uniform(0, 1.5))
            stop(ostler, times=1 + instant % 3, pause=chance.choice([0.0, 0.05]))


@pytest.mark.parametrize("part", range(4))
def test_a_stop_at_any_instant_of_a_boot_ends(project: Path, part: int) -> None:
    chance = random.Random(part)
    for instant in range((INSTANTS or 12) // 4):
        with Ostler(project, "main:app", *OPTIONS, "--workers", "2") as ostler:
            ostler.log.wait_for("Started arbiter process")
            go_on(ostler, chance.uniform(0, 0.8))
            stop(ostler, times=1 + instant % 3, pause=chance.choice([0.0, 0.05]))


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("rolling", [False, True])
def test_a_stop_ends_with_every_worker_stopped(project: Path, times: int, rolling: bool) -> None:
    with Ostler(project, "main:app", *OPTIONS, "--workers", "3") as ostler:
        ostler.wait_ready(3)
        if rolling:
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for("Rolling restart to generation 2 begins")
        for pid in ostler.workers():
            os.kill(pid, signal.SIGSTOP)
        stop(ostler, times=times, pause=0.05)
    assert ostler.log.text.count("was killed by SIGKILL (sent by ostler)") >= 3
