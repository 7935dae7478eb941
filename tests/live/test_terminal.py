"""At a terminal: Ctrl+C does not wait for streams, and ostler ends with the terminal that it began at."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.live.clients import get, open_get, read_to_end, slow_request
from tests.live.harness import APP, PLAIN, SUPERVISED, Ostler, elapsed, wait_until
from tests.live.terminal import Terminal

STREAMS = (
    APP
    + """
plain = app


async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/stream":
        await asyncio.sleep(float(scope["query_string"].decode() or 0))  # in the app
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"more ", "more_body": True})
            await asyncio.sleep(0.05)  # in the app
    await plain(scope, receive, send)
"""
)
MODES = {"plain": PLAIN, "supervised": SUPERVISED, "reload": ["--reload"]}
LONG = ("--timeout-graceful-shutdown", "600")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(STREAMS)
    return tmp_path


def at_terminal(project: Path, *args: str, nohup: bool = False) -> Terminal:
    return Terminal(project, "main:app", "--port", "0", *args, nohup=nohup)


def answers(terminal: Terminal) -> bool:
    return get(terminal.port).status_code == 200


@pytest.mark.parametrize("mode", ["plain", "reload"])
@pytest.mark.parametrize("begins_after", ["0", "2"])
def test_ctrl_c_does_not_wait_for_a_stream(project: Path, mode: str, begins_after: str) -> None:
    with at_terminal(project, *MODES[mode], *LONG) as terminal:
        terminal.wait_for("startup complete")
        with open_get(terminal.port, f"/stream?{begins_after}") as client:
            if begins_after == "0":
                assert client.recv(10)
            pressed = time.monotonic()
            assert terminal.interrupt() == 0
            assert elapsed(pressed) < 25
        assert "Traceback" not in terminal.text


def test_ctrl_c_lets_another_request_finish(project: Path) -> None:
    with at_terminal(project, *LONG) as terminal, slow_request(terminal.port, 3) as client:
        assert terminal.interrupt() == 0
        assert read_to_end(client).startswith(b"HTTP/1.1 200 OK")


def test_sigterm_gives_streams_the_whole_grace_at_a_terminal_too(project: Path) -> None:
    with (
        at_terminal(project, *LONG) as terminal,
        open_get(terminal.port, "/stream") as client,
    ):
        assert client.recv(10)
        asked = time.monotonic()
        os.kill(terminal.pid, signal.SIGTERM)
        terminal.wait_for("Waiting for connections to close")
        wait_until(lambda: client.recv(100) and elapsed(asked) > 2.5, "twice a stream's time at Ctrl+C")
        assert terminal.interrupt() == 0  # after SIGTERM, this one ends it at once


def test_sigint_from_elsewhere_gives_streams_the_whole_grace(project: Path) -> None:
    with (
        Ostler(project, "main:app", "--port", "0", *LONG, start_new_session=True) as ostler,
        open_get(ostler.port, "/stream") as client,
    ):
        assert client.recv(10)
        asked = time.monotonic()
        ostler.send(signal.SIGINT)
        ostler.log.wait_for("Waiting for connections to close")
        wait_until(lambda: client.recv(100) and elapsed(asked) > 2.5, "twice a stream's time at Ctrl+C")
        ostler.send(signal.SIGINT)
        assert ostler.wait() == 0


@pytest.mark.parametrize("mode", MODES)
def test_ostler_stops_when_its_terminal_is_closed(project: Path, mode: str) -> None:
    with at_terminal(project, *MODES[mode]) as terminal:
        terminal.wait_for("startup complete", 2 if mode == "supervised" else 1)
        assert answers(terminal)
        with open_get(terminal.port, "/stream") as client:
            assert client.recv(10)
            if mode == "supervised":
                client.close()  # with workers a stream has the whole grace
            terminal.hang_up()
            assert terminal.wait() == 0


@pytest.mark.parametrize("mode", MODES)
def test_under_nohup_ostler_serves_on_without_its_terminal(project: Path, mode: str) -> None:
    with at_terminal(project, *MODES[mode], nohup=True) as terminal:
        terminal.wait_for("startup complete", 2 if mode == "supervised" else 1)
        port = terminal.port
        terminal.hang_up()
        os.kill(terminal.pid, signal.SIGHUP)  # a shell would send one as well
        processes = terminal.family()
        used = sum(sum(p.cpu_times()[:2]) for p in processes if p.is_running())
        begun = time.monotonic()
        wait_until(lambda: get(port).status_code == 200 and elapsed(begun) > 3, "it answers after 3 s")
        # To fail to write to the terminal costs no time.
        now = sum(sum(p.cpu_times()[:2]) for p in processes if alive(p))
        assert now - used < 2.5
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 0


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
