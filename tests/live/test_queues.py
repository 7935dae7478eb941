"""One accept queue per worker: connections spread evenly, and none waits for a worker that hangs."""

from __future__ import annotations

import collections
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.live.clients import send_get
from tests.live.harness import Ostler, elapsed, serving
from tests.live.load import Load

LIMIT = 6.0
"""Seconds that a new connection may wait for its answer in these tests; 0.6 s are needed."""


class NewConnections(Load):
    """Constant requests on new connections, and the longest time that one of them took."""

    def __init__(self, port: int) -> None:
        super().__init__(port, kept=0, fresh=8)
        self.longest = 0.0
        """In seconds."""

    async def _connection(self, *, keep: bool) -> None:
        since = time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: setattr(self, "longest", max(self.longest, elapsed(since))))
            await super()._connection(keep=keep)


@pytest.fixture
def four(project: Path) -> Iterator[Ostler]:
    """A server with four workers that are ready."""
    with serving(project, "--workers", "4") as ostler:
        yield ostler


def ask(connection: socket.socket, *, path: str = "/", close: bool = False) -> str:
    """Send a request, and return the slot of the worker that answers."""
    send_get(connection, path, close=close)
    return read_slot(connection)


def read_slot(connection: socket.socket) -> str:
    head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
    while not body:
        more = connection.recv(65536)
        assert more, f"closed after {head!r}"
        head, _, body = (head + more).partition(b"\r\n\r\n")
    return body.split()[-1].decode()


@contextlib.contextmanager
def connections(port: int, count: int, host: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((host, port), 30)) for _ in range(count)]


def assert_even(slots: collections.Counter[str], workers: int = 4) -> None:
    mean = slots.total() / workers
    assert len(slots) == workers
    assert max(abs(count - mean) for count in slots.values()) <= mean / 5, slots


def test_sequential_connections_spread_evenly_over_the_workers(four: Ostler) -> None:
    slots: collections.Counter[str] = collections.Counter()
    for _ in range(3000):
        with socket.create_connection(("127.0.0.1", four.port), 30) as connection:
            slots[ask(connection, close=True)] += 1
    assert_even(slots)


def test_kept_connections_spread_evenly_over_the_workers(four: Ostler) -> None:
    batches = []
    for _ in range(3):
        with connections(four.port, 64) as opened:
            for connection in opened:
                send_get(connection)
            batches.append(collections.Counter(read_slot(connection) for connection in opened))
    # A busy machine may delay one worker, so only the best of three batches has to be within 20 %.
    best = min(batches, key=lambda slots: max(slots.values()) - min(slots.values()))
    assert_even(best)
    for slots in batches:
        assert max(slots.values()) <= 32, "twice the mean: nothing like the even spread"


def test_connections_in_the_queue_of_a_suspended_worker_are_served_by_the_others(four: Ostler) -> None:
    pid = next(pid for pid, slot in four.workers().items() if slot == 2)
    psutil.Process(pid).suspend()
    try:
        since = time.monotonic()
        with connections(four.port, 80) as opened:  # about 20 in each queue
            for connection in opened:
                send_get(connection)
            slots = collections.Counter(read_slot(connection) for connection in opened)
        assert elapsed(since) < LIMIT
        assert sorted(slots) == ["1", "3", "4"]
    finally:
        psutil.Process(pid).resume()


def test_connections_in_the_queue_of_a_killed_worker_are_all_served(four: Ostler) -> None:
    pid = next(pid for pid, slot in four.workers().items() if slot == 2)
    psutil.Process(pid).suspend()
    with connections(four.port, 80) as opened:
        for connection in opened:
            send_get(connection)
        psutil.Process(pid).kill()
        since = time.monotonic()
        assert sum(read_slot(connection) != "" for connection in opened) == 80
        assert elapsed(since) < LIMIT


def test_a_worker_with_a_blocked_loop_keeps_no_new_connection_waiting(four: Ostler) -> None:
    with connections(four.port, 1) as [blocked]:
        send_get(blocked, "/block?10")
        load = NewConnections(four.port)
        with load:
            load.wait_answers(500)
            assert load.longest < LIMIT
        blocked.settimeout(30)
        read_slot(blocked)
    assert not load.failures


def test_under_load_a_killed_worker_loses_only_the_connections_that_it_had_accepted(four: Ostler) -> None:
    pid = next(pid for pid, slot in four.workers().items() if slot == 3)
    load = NewConnections(four.port)
    with load:
        psutil.Process(pid).kill()
        four.wait_ready(5)
        load.wait_answers(200)
    assert load.longest < LIMIT
    assert load.failures.total() <= 8


def test_under_load_a_roll_keeps_no_new_connection_waiting(four: Ostler) -> None:
    old = set(four.workers())
    load = NewConnections(four.port)
    with load:
        four.send(signal.SIGHUP)
        four.wait_ready(8)
        four.wait_workers_gone(old)
        load.wait_answers(200)
    assert load.longest < LIMIT
    assert not load.failures


def test_under_load_scaling_keeps_no_new_connection_waiting(four: Ostler) -> None:
    load = NewConnections(four.port)
    with load:
        for left in (3, 2, 1):
            four.send(signal.SIGTTOU)
            four.wait_worker_count(left)
            load.wait_answers(100)
        four.send(signal.SIGTTIN)
        four.wait_ready(5)
        load.wait_answers(100)
    assert load.longest < LIMIT
    assert not load.failures


def test_workers_beyond_the_spare_queues_serve_too(project: Path) -> None:
    with serving(project, "--workers", "2", "--log-level", "debug") as ostler:
        for _ in range(6):
            ostler.send(signal.SIGTTIN)
            ostler.log.wait_for(r"Scaled from", count=ostler.log.text.count("Scaled from") + 1)
        ostler.wait_ready(8)
        seen: set[str] = set()
        deadline = time.monotonic() + 30
        while len(seen) < 8 and time.monotonic() < deadline:
            with socket.create_connection(("127.0.0.1", ostler.port), 30) as connection:
                seen.add(ask(connection, close=True))
        assert sorted(seen) == list("12345678")
        assert ostler.stop() == 0


def test_connections_that_the_kernel_accepted_before_a_stop_are_answered(four: Ostler) -> None:
    workers = [psutil.Process(pid) for pid in four.workers()]
    for worker in workers:
        worker.suspend()
    with connections(four.port, 80) as opened:
        for connection in opened:
            send_get(connection)
        four.send(signal.SIGTERM)
        four.log.wait_for(r"Stopping: 4 workers to drain")
        for worker in workers:
            worker.resume()
        assert sum(read_slot(connection) != "" for connection in opened) == 80
    assert four.wait() == 0


def test_a_second_ostler_on_the_port_is_refused(four: Ostler, project: Path) -> None:
    for mode in ("on", "off"):
        args = ("main:app", "--port", str(four.port), "--workers", "2", "--reuse-port", mode)
        with Ostler(project, *args) as second:
            assert second.wait() == 4
            assert "another process has it" in second.log.text


def test_a_foreign_socket_with_so_reuseport_on_the_port_gets_no_connection(four: Ostler) -> None:
    with socket.socket() as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        foreign.bind(("127.0.0.1", four.port))
        foreign.listen()
        foreign.setblocking(False)
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", four.port), 30) as connection:
                ask(connection, close=True)
        with pytest.raises(BlockingIOError):
            foreign.accept()


def test_every_address_has_one_queue_per_worker(project: Path) -> None:
    args = ("--host", "127.0.0.1", "--host", "::1", "--port", "0", "--workers", "2")
    with Ostler(project, "main:app", *args) as ostler:
        ostler.wait_ready(2)
        for host in ("127.0.0.1", "::1"):
            with connections(ostler.port, 64, host) as opened:
                slots = collections.Counter(ask(connection) for connection in opened)
            assert_even(slots, workers=2)
        assert ostler.stop() == 0


def test_a_unix_socket_has_one_queue_and_the_log_says_so_under_reuse_port_on(project: Path) -> None:
    path = project / "s"
    args = ("--uds", str(path), "--workers", "2", "--reuse-port", "on")
    with Ostler(project, "main:app", *args) as ostler:
        ostler.wait_ready(2)
        ostler.log.wait_for(r"--reuse-port: unix socket \S+ has one queue, which all workers share")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            assert ask(connection) in {"1", "2"}
        assert ostler.stop() == 0


def test_a_crowd_in_a_shared_queue_is_spread_over_the_workers(project: Path) -> None:
    with serving(project, "--workers", "4", "--reuse-port", "off") as ostler:
        workers = [psutil.Process(pid) for pid in ostler.workers()]
        batches = []
        for _ in range(5):
            for worker in workers:
                worker.suspend()
            with connections(ostler.port, 64) as opened:
                for connection in opened:
                    send_get(connection)
                for worker in workers:
                    worker.resume()
                batches.append(collections.Counter(read_slot(connection) for connection in opened))
        # A worker takes 16 at most in a turn. A busy machine may delay one, so only the best batch counts.
        assert min(max(slots.values()) for slots in batches) <= 32, batches


def test_with_reuse_port_off_all_workers_serve_from_one_queue(project: Path) -> None:
    args = ("--port", "0", "--workers", "2", "--reuse-port", "off")
    with Ostler(project, "main:app", *args) as ostler:
        ostler.wait_ready(2)
        with connections(ostler.port, 8) as opened:
            assert {ask(connection) for connection in opened} <= {"1", "2"}
        assert ostler.stop() == 0
