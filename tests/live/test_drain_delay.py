"""`--drain-delay`: before the drain, requests are still served, and health checks answer 503."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.live.clients import get, send_get, slow_request
from tests.live.harness import Ostler, both, elapsed, serving, wait_until
from tests.live.load import Load

LONG = "60"
"""A delay that no test waits for, in seconds."""


@contextmanager
def served(project: Path, mode: list[str], delay: str, *more: str) -> Iterator[Ostler]:
    options = ["--health-path", "/healthz", "--drain-delay", delay, *mode, *more]
    with serving(project, *options) as ostler:
        wait_until(lambda: health(ostler.port) == 200, "the server is ready")
        yield ostler


def health(port: int) -> int | None:
    """Return the status of a health check on a new connection; None when the connection is refused."""
    try:
        return get(port, "/healthz").status_code
    except httpx.ConnectError:
        return None


def begin_delay(ostler: Ostler, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to stop, and wait until the delay is logged and every worker answers probes with 503."""
    ostler.send(number)
    ostler.log.wait_for("Draining in .* health checks say 503 and requests are served")
    # Each probe reaches a random worker; twenty in a row reach all of them.
    probes = [
        wait_until(lambda: health(ostler.port) == 503, "a probe is answered with 503") for _ in range(20)
    ]
    assert all(probes)


@both
def test_during_the_delay_requests_are_served_and_probes_are_answered_with_503(
    project: Path, mode: list[str]
) -> None:
    with served(project, mode, "8") as ostler, Load(ostler.port) as load:
        port = ostler.port
        begun = time.monotonic()
        begin_delay(ostler)
        load.wait_answers(100)
        answer = get(port)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert load.failures == {}
        # The load is served until the delay is over; only then is it refused.
        ostler.log.wait_for("Stopping: 2 workers to drain" if mode else "Shutting down")
        assert elapsed(begun) > 7.8
        assert ostler.wait() == 0
        wait_until(lambda: health(port) is None, "new clients are refused")
        # Reset: a client that connected after the delay, between the last accept and the listener's close.
        assert set(load.failures) <= {"ConnectionRefusedError", "ConnectionResetError"}
        assert not ostler.family()


@both
def test_a_second_sigterm_ends_the_delay_and_what_is_in_flight_still_finishes(
    project: Path, mode: list[str]
) -> None:
    with served(project, mode, LONG) as ostler, slow_request(ostler.port, 1) as client:
        begin_delay(ostler)
        begun = time.monotonic()
        assert ostler.stop() == 0
        assert elapsed(begun) < 20
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")


@both
def test_the_third_sigint_ends_the_server_at_once(project: Path, mode: list[str]) -> None:
    with served(project, mode, LONG) as ostler, slow_request(ostler.port, 50):
        begin_delay(ostler, signal.SIGINT)
        ostler.send(signal.SIGINT)
        ostler.log.wait_for("Stopping: 2 workers to drain" if mode else "Shutting down")
        begun = time.monotonic()
        ostler.send(signal.SIGINT)
        assert ostler.wait() == 0
        assert elapsed(begun) < 10


@both
def test_sigquit_in_the_delay_ends_the_server_at_once(project: Path, mode: list[str]) -> None:
    with served(project, mode, LONG) as ostler, slow_request(ostler.port, 50):
        begin_delay(ostler)
        begun = time.monotonic()
        ostler.send(signal.SIGQUIT)
        assert ostler.wait() == 0
        assert elapsed(begun) < 10


def test_a_worker_that_dies_in_the_delay_is_replaced_by_one_that_answers_503_too(project: Path) -> None:
    with served(project, ["--workers", "2"], LONG) as ostler:
        begin_delay(ostler)
        for pid in ostler.workers():
            os.kill(pid, signal.SIGKILL)
        ostler.wait_ready(4)
        assert len(ostler.workers()) == 2
        assert [health(ostler.port) for _ in range(20)] == [503] * 20
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0


def test_a_rolling_restart_keeps_probes_at_200_and_one_in_the_delay_keeps_them_at_503(
    project: Path,
) -> None:
    with (
        served(project, ["--workers", "2"], LONG) as ostler,
        Load(ostler.port, path="/healthz") as load,
    ):
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        load.wait_answers(100)
        assert load.failures == {}
        begin_delay(ostler)
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 3 complete")
        assert [health(ostler.port) for _ in range(20)] == [503] * 20
        assert ostler.stop() == 0


def test_a_supervised_worker_that_gets_sigterm_drains_without_the_delay(project: Path) -> None:
    with served(project, ["--workers", "2"], LONG) as ostler:
        first = min(ostler.workers())
        os.kill(first, signal.SIGTERM)
        ostler.wait_ready(3)
        wait_until(lambda: first not in ostler.workers(), "the worker has drained")
        assert health(ostler.port) == 200
        begin_delay(ostler)
        assert ostler.stop() == 0


@both
def test_a_stop_before_the_application_has_started_has_no_delay(project: Path, mode: list[str]) -> None:
    (project / "slow.py").write_text(
        "import asyncio\n"
        "async def app(scope, receive, send):\n"
        "    print('starting up', flush=True)\n"
        "    await asyncio.sleep(60)  # in the app\n"
    )
    with Ostler(project, "slow:app", "--port", "0", "--drain-delay", LONG, *mode) as ostler:
        ostler.out.wait_for("starting up")
        begun = time.monotonic()
        assert ostler.stop() == 0
        assert elapsed(begun) < 20


@both
def test_without_a_delay_probes_on_kept_connections_are_answered_with_503_at_the_stop(
    project: Path, mode: list[str]
) -> None:
    with served(project, mode, "0") as ostler, ExitStack() as stack:
        address = ("127.0.0.1", ostler.port)
        clients = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(20)]
        assert {probe(client) for client in clients} == {b"200"}
        ostler.send(signal.SIGTERM)
        ostler.log.wait_for("Shutting down", count=2 if mode else 1)
        # A thread of the worker receives the stop from the arbiter, a moment before or after the SIGTERM.
        wait_until(lambda: probe(clients.pop()) == b"503", "a probe is answered with 503")
        for client in clients:
            client.close()
        assert ostler.wait() == 0


def probe(client: socket.socket) -> bytes:
    send_get(client, "/healthz")
    return client.recv(1000).split()[1]
