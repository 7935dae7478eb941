"""Draining loses no request, and a stop at any instant ends in time, whatever connections are open."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.live.clients import open_get, read_to_end, received_close_code, slow_request
from tests.live.harness import APP, PATIENCE, Ostler, elapsed, serving, wait_until

INSTANTS = int(os.environ.get("OSTLER_INSTANTS", "0"))
"""Set by hand to try so many instants; then the promised duration of a stop is checked, too."""
GRACE = 1.0
OPTIONS = ["--port", "0", "--timeout-graceful-shutdown", str(GRACE)]
ALLOWED = GRACE + 3 if INSTANTS else PATIENCE


@pytest.mark.parametrize("workers", [1, 3])
def test_connections_that_the_kernel_accepted_before_a_stop_are_answered(project: Path, workers: int) -> None:
    with (
        Ostler(project, "main:app", "--port", "0", "--workers", str(workers)) as ostler,
        contextlib.ExitStack() as opened,
    ):
        ostler.wait_ready(workers)
        port = ostler.port
        for pid in ostler.workers():
            os.kill(pid, signal.SIGSTOP)
        clients = [opened.enter_context(open_get(port, close=True)) for _ in range(300)]
        ostler.send(signal.SIGTERM)
        ostler.log.wait_for("Stopping: ")
        for pid in ostler.workers():
            os.kill(pid, signal.SIGCONT)
        answers = [client.recv(1000) for client in clients]
        assert ostler.wait() == 0
    assert [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200 OK")] == []


def test_connections_in_the_accept_queue_of_a_plain_server_are_answered_at_its_stop(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0") as ostler, contextlib.ExitStack() as opened:
        port = ostler.port
        # After a first answer a stop drains; during startup it would just end the server.
        with open_get(port, close=True) as first:
            assert first.recv(1000).startswith(b"HTTP/1.1 200 OK")
        ostler.send(signal.SIGSTOP)
        clients = [opened.enter_context(open_get(port, close=True)) for _ in range(100)]
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


def test_a_roll_with_event_streams_and_websockets_open_ends_within_the_graceful_timeout(
    project: Path,
) -> None:
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
            client = opened.enter_context(open_get(ostler.port, "/events"))
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
            streams.append(client)
        ostler.send(signal.SIGHUP)
        assert {received_close_code(client) for client in sockets} == {1012}
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        start = time.monotonic()
        wait_until(lambda: not old & set(ostler.workers()), "the old workers are gone", timeout=ALLOWED)
        assert elapsed(start) < ALLOWED
        for client in streams:
            read_to_end(client)
        assert len(ostler.workers()) == 2
        assert ostler.stop() == 0
    assert "stacks follow" not in ostler.log.text


def test_scaling_down_finishes_every_request_in_flight(project: Path) -> None:
    with serving(project, "--workers", "3") as ostler:
        clients = [slow_request(ostler.port, 3) for _ in range(10)]
        for left in (2, 1):
            ostler.send(signal.SIGTTOU)
            ostler.log.wait_for(rf"Scaled from {left + 1} workers to {left}")
        answers = []
        for client in clients:
            with client:
                answers.append(client.recv(1000)[:15])
        ostler.wait_worker_count(1)
    assert answers == [b"HTTP/1.1 200 OK"] * 10


def stop(ostler: Ostler, *, times: int = 1, pause: float = 0.0) -> None:
    """Send SIGTERM so many times; check that it ends in time, with exit code 0, and leaves no process."""
    ostler.family()
    start = time.monotonic()
    for _ in range(times):
        if ostler.poll() is None:
            ostler.send(signal.SIGTERM)
            ostler.run_for(pause)
    assert ostler.wait(ALLOWED) == 0
    ostler.wait_gone()
    assert elapsed(start) < ALLOWED
    assert "Traceback" not in ostler.log.text


@pytest.mark.parametrize("part", range(4))
def test_a_stop_at_any_instant_of_a_roll_ends(project: Path, part: int) -> None:
    chance = random.Random(part)
    for instant in range((INSTANTS or 12) // 4):
        with Ostler(project, "main:app", *OPTIONS, "--workers", "2") as ostler:
            ostler.wait_ready(2)
            ostler.send(signal.SIGHUP)
            ostler.run_for(chance.uniform(0, 1.5))
            stop(ostler, times=1 + instant % 3, pause=chance.choice([0.0, 0.05]))


@pytest.mark.parametrize("part", range(4))
def test_a_stop_at_any_instant_of_a_boot_ends(project: Path, part: int) -> None:
    chance = random.Random(part)
    for instant in range((INSTANTS or 12) // 4):
        with Ostler(project, "main:app", *OPTIONS, "--workers", "2") as ostler:
            ostler.log.wait_for("Started arbiter process")
            ostler.run_for(chance.uniform(0, 0.8))
            stop(ostler, times=1 + instant % 3, pause=chance.choice([0.0, 0.05]))


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("rolling", [False, True])
def test_a_stop_ends_though_every_worker_is_suspended_by_sigstop(
    project: Path, times: int, rolling: bool
) -> None:
    with Ostler(project, "main:app", *OPTIONS, "--workers", "3") as ostler:
        ostler.wait_ready(3)
        if rolling:
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for("Rolling restart to generation 2 begins")
        for pid in ostler.workers():
            os.kill(pid, signal.SIGSTOP)
        stop(ostler, times=times, pause=0.05)
    assert ostler.log.text.count("was killed by SIGKILL (sent by ostler)") >= 3
