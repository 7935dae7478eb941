"""Measures without load: memory of connections and processes, start time, CPU time of an idle fleet."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.peers import SERVERS, ServerOptions
from benchmarks.processes import Server, cpu, free_port, memory, serving, switches

_APP = "benchmarks.apps:hello"
_IDLE = 10.0
_CONNECTIONS = 1000
_WORKERS = 4


@dataclass(frozen=True)
class Figure:
    """A median with its unit."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.value:.3g} {self.unit}"


Measure = Callable[[str, int], Figure]


def connection_memory(server: str, rounds: int) -> Figure:
    """Return the resident memory of one idle keep-alive connection that has had one response."""
    grown = []
    for _ in range(min(rounds, 3)):
        with _fleet(server, workers=None) as running:
            _ask(running.port, 50)  # the first requests allocate memory once
            before = sum(memory(pid, "Rss") for pid in running.pids())
            with _held(running.port, _CONNECTIONS):
                after = sum(memory(pid, "Rss") for pid in running.pids())
        grown.append((after - before) / _CONNECTIONS / 1024)
    return Figure(statistics.median(grown), "KB")


def arbiter_memory(server: str, rounds: int) -> Figure:
    """Return the proportional resident memory of the supervisor of four workers."""
    with _fleet(server) as running:
        return Figure(memory(running.process.pid) / 2**20, "MB")


def worker_memory(server: str, rounds: int) -> Figure:
    """Return the proportional resident memory of a worker, the mean of four."""
    with _fleet(server) as running:
        workers = _workers(running)
        return Figure(statistics.mean(memory(pid) for pid in workers) / 2**20, "MB")


def start_time(server: str, rounds: int) -> Figure:
    """Return the time from the command until four workers have run their lifespan start-up."""
    return Figure(statistics.median(_start(server) for _ in range(rounds)), "s")


def arbiter_idle(server: str, rounds: int) -> Figure:
    """Return the CPU time that the supervisor of four idle workers uses per second."""
    with _fleet(server) as running:
        before = cpu(running.process.pid)
        time.sleep(_IDLE)
        return Figure((cpu(running.process.pid) - before) / _IDLE * 1e3, "ms/s")


def worker_wakes(server: str, rounds: int) -> Figure:
    """Return how often one of four idle workers wakes up per second."""
    with _fleet(server) as running:
        workers = _workers(running)
        before = sum(switches(pid) for pid in workers)
        time.sleep(_IDLE)
        return Figure((sum(switches(pid) for pid in workers) - before) / len(workers) / _IDLE, "/s")


FLEETS: dict[str, Measure] = {
    "memory per idle keep-alive connection": connection_memory,
    "resident memory (PSS), arbiter, 4 workers": arbiter_memory,
    "resident memory (PSS), worker, 4 workers": worker_memory,
    "start of 4 workers to all ready": start_time,
    "arbiter's CPU, idle, 4 workers": arbiter_idle,
    "wake-ups a second of an idle worker": worker_wakes,
}


@contextlib.contextmanager
def _fleet(server: str, workers: int | None = _WORKERS) -> Iterator[Server]:
    """Run a fleet, and yield it when all its workers have started."""
    port = free_port()
    with _readiness() as (path, ready):
        command = SERVERS[server](ServerOptions(_APP, port, workers=workers))
        with serving(command, port, os.sched_getaffinity(0), BENCH_READY=path) as running:
            ready(workers or 1)
            yield running


def _start(server: str) -> float:
    port = free_port()
    with _readiness() as (path, ready):
        command = SERVERS[server](ServerOptions(_APP, port, workers=_WORKERS))
        began = time.monotonic()
        with serving(command, port, os.sched_getaffinity(0), BENCH_READY=path):
            return ready(_WORKERS) - began


@contextlib.contextmanager
def _readiness() -> Iterator[tuple[str, Callable[[int], float]]]:
    """Yield a named pipe to which the application writes the time of its start-up, and a function to wait."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/ready"
        os.mkfifo(path)
        # Opened for reading and writing, so that it never has an end of file (fifo(7)).
        pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)

        def ready(count: int) -> float:
            """Wait for `count` start-ups; return the monotonic time of the one that arrives last."""
            seen = 0
            while seen < count:
                if not select.select([pipe], [], [], 30.0)[0]:
                    raise RuntimeError(f"{seen} of {count} workers have started up")
                seen += len(stamps := os.read(pipe, 8 * count)) // 8
                last = int.from_bytes(stamps[-8:], "big") / 1e9
            return last

        try:
            yield path, ready
        finally:
            os.close(pipe)


def _workers(running: Server) -> list[int]:
    """Return the workers: the largest child processes, because they have loaded the application."""
    rest = [pid for pid in running.pids() if pid != running.process.pid]
    largest = sorted(rest, key=lambda pid: memory(pid, "Rss"), reverse=True)
    return largest[:_WORKERS]


@contextlib.contextmanager
def _held(port: int, count: int) -> Iterator[None]:
    sockets = []
    try:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port))
            sockets.append(sock)
            _request(sock)
        yield
    finally:
        for sock in sockets:
            sock.close()


def _ask(port: int, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            _request(sock)


def _request(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
    answer = b""
    while b"Hello, world!" not in answer:
        piece = sock.recv(4096)
        if not piece:
            raise RuntimeError("the connection was closed")
        answer += piece
