"""`--drain-delay`: load balancers that lag behind are served on, and told to look elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.live.harness import Ostler, wait_until
from tests.live.load import Load, elapsed
from tests.live.test_serving import get, slow_request

both = pytest.mark.parametrize("mode", [[], ["--workers", "2"]], ids=["plain", "supervised"])
LONG = "60"


@contextmanager
def served(project: Path, mode: list[str], delay: str, *more: str) -> Iterator[Ostler]:
    options = ["--port", "0", "--health-path", "/healthz", "--drain-delay", delay, *mode, *more]
    with Ostler(project, "main:app", *options) as ostler:
        if mode:
            ostler.wait_ready(2)
        wait_until(lambda: health(ostler.port) == 200, "it is ready")
        yield ostler


def health(port: int) -> int | None:
    """The status of a probe on a connection of its own; None when it is refused."""
    try:
        return get(port, "/healthz").status_code
    except httpx.ConnectError:
        return None


def withdraw(ostler: Ostler, number: signal.Signals = signal.SIGTERM) -> None:
    """Ask it to stop, and wait until it says that it has told everyone; every worker of it says 503."""
    ostler.send(number)
    ostler.log.wait_for("Draining in .* health checks say 503 and requests are served")
    # Which worker is asked is chance: so many in a row are all of them.
    probes = [wait_until(lambda: health(ostler.port) == 503, "a probe says 503") for _ in range(20)]
    assert all(probes)


@both
def test_in_the_delay_everyone_is_served_though_probes_say_503(project: Path, mode: list[str]) -> None:
    with served(project, mode, "8") as ostler, Load(ostler.port) as load:
        port = ostler.port
        begun = time.monotonic()
        withdraw(ostler)
        load.wait_answers(100)
        answer = get(port)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert load.failures == {}
        # Until the delay is over the load goes on; then it is refused, and only then.
        ostler.log.wait_for("Stopping: 2 workers to drain" if mode else "Shutting down")
        assert elapsed(begun) > 7.8
        assert ostler.wait() == 0
        wait_until(lambda: health(port) is None, "new clients are refused")
        # Reset: a client that came between the last look at the queue and its close, after the delay.
        assert set(load.failures) <= {"ConnectionRefusedError", "ConnectionResetError"}
        assert not ostler.family()


@both
def test_a_second_sigterm_ends_the_delay_and_what_is_in_flight_still_finishes(
    project: Path, mode: list[str]
) -> None:
    with served(project, mode, LONG) as ostler, slow_request(ostler.port, 1) as client:
        withdraw(ostler)
        begun = time.monotonic()
        assert ostler.stop() == 0
        assert elapsed(begun) < 20
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")


@both
def test_the_third_interrupt_ends_it_at_once(project: Path, mode: list[str]) -> None:
    with served(project, mode, LONG) as ostler, slow_request(ostler.port, 50):
        withdraw(ostler, signal.SIGINT)
        ostler.send(signal.SIGINT)
        ostler.log.wait_for("Stopping: 2 workers to drain" if mode else "Shutting down")
        begun = time.monotonic()
        ostler.send(signal.SIGINT)
        assert ostler.wait() == 0
        assert elapsed(begun) < 10


@both
def test_sigquit_ends_the_delay_and_everything_at_once(project: Path, mode: list[str]) -> None:
    with served(project, mode, LONG) as ostler, slow_request(ostler.port, 50):
        withdraw(ostler)
        begun = time.monotonic()
        ostler.send(signal.SIGQUIT)
        assert ostler.wait() == 0
        assert elapsed(begun) < 10


def test_a_worker_that_dies_in_the_delay_is_replaced_by_one_that_says_503_too(project: Path) -> None:
    with served(project, ["--workers", "2"], LONG) as ostler:
        withdraw(ostler)
        for pid in ostler.workers():
            os.kill(pid, signal.SIGKILL)
        ostler.wait_ready(4)
        assert len(ostler.workers()) == 2
        assert [health(ostler.port) for _ in range(20)] == [503] * 20
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0


def test_a_rolling_restart_withdraws_nothing_and_one_in_the_delay_does_not_bring_it_back(
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
        withdraw(ostler)
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 3 complete")
        assert [health(ostler.port) for _ in range(20)] == [503] * 20
        assert ostler.stop() == 0


def test_a_supervised_worker_that_is_told_to_drain_does_so_without_the_delay(project: Path) -> None:
    with served(project, ["--workers", "2"], LONG) as ostler:
        first = min(ostler.workers())
        os.kill(first, signal.SIGTERM)
        ostler.wait_ready(3)
        wait_until(lambda: first not in ostler.workers(), "the worker has drained")
        assert health(ostler.port) == 200
        withdraw(ostler)
        assert ostler.stop() == 0


@both
def test_before_anything_is_served_there_is_no_delay(project: Path, mode: list[str]) -> None:
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
def test_without_a_delay_kept_connections_learn_of_the_stop_from_their_probes(
    project: Path, mode: list[str]
) -> None:
    with served(project, mode, "0") as ostler, ExitStack() as stack:
        where = ("127.0.0.1", ostler.port)
        clients = [stack.enter_context(socket.create_connection(where, 30)) for _ in range(20)]
        assert {probe(client) for client in clients} == {b"200"}
        ostler.send(signal.SIGTERM)
        ostler.log.wait_for("Shutting down", count=2 if mode else 1)
        # A worker learns of it from its arbiter through a thread, a moment before or after the SIGTERM.
        wait_until(lambda: probe(clients.pop()) == b"503", "a probe says 503")
        for client in clients:
            client.close()
        assert ostler.wait() == 0


def probe(client: socket.socket) -> bytes:
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    return client.recv(1000).split()[1]
