"""Limits: concurrency, requests, idle time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.live.harness import wait_until
from tests.replay.behaviours import command, get
from tests.replay.http_client import read_response
from tests.replay.servers import Running
from tests.replay.topics.signals import SLOW, pids


def limit(
    name: str, *args: str, do: Callable[[Running], Any], stop: str | None = "SIGINT",
    see: Sequence[str] = ("result",), ready: bool = True,
) -> None:  # fmt: skip
    """Add a behaviour: serve with these flags and `do` something."""
    command(
        f"limits/{name}", "main:app", "--port", "0", *args,
        files={"main.py": SLOW}, do=do, stop=stop, see=see, ready=ready,
    )  # fmt: skip


def too_many(running: Running) -> Any:
    """Return the answer to a request while another one runs."""
    with contextlib.closing(running.connect()) as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/slow"))
        running.out.wait_for("begun")
        with contextlib.closing(running.connect()) as late, late.makefile("rb") as answers:
            late.sendall(get("/"))
            refused = read_response(answers, "GET")
        first = read_response(stream, "GET")
        return [each["status"] if isinstance(each, dict) else each for each in (refused, first)]


def idle_ones(running: Running) -> Any:
    """Return the status for a request while connections are open that do nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(contextlib.closing(running.connect()))
            stream = stack.enter_context(sock.makefile("rb"))
            sock.sendall(get("/"))
            first = read_response(stream, "GET")
        assert isinstance(first, dict)
        return running.request("/")[0]


def until_it_ends(running: Running) -> Any:
    """Ask until it ends, and return how many answers came, with the first."""
    answered = 1
    for _ in range(10):
        with contextlib.suppress(OSError):
            running.request("/")
            answered += 1
        if answered == 3:
            break
    code = running.wait(10)
    return [answered, code]


def closed_when_idle(sent: bytes) -> Callable[[Running], Any]:
    """Return what says whether a connection that has sent these bytes is closed after about a second."""

    def do(running: Running) -> Any:
        with contextlib.closing(running.connect()) as sock, sock.makefile("rb") as stream:
            if sent:
                sock.sendall(sent)
                read_response(stream, "GET")
            begun = time.monotonic()
            sock.settimeout(4)
            try:
                rest = stream.read()
            except TimeoutError:
                return "open after 4 s"
            waited = time.monotonic() - begun
            return [rest.decode(), "at once" if waited < 0.5 else "after about a second"]

    return do


def kept_by_requests(running: Running) -> Any:
    """Return how many of ten requests on one connection are answered."""
    with contextlib.closing(running.connect()) as sock, sock.makefile("rb") as stream:
        answered = 0
        for _ in range(10):
            sock.sendall(get("/"))
            answered += isinstance(read_response(stream, "GET"), dict)
        return answered


def recycled(running: Running) -> Any:
    """Return whether a worker is replaced after its requests, while all requests are answered."""
    first = pids(running, 2)
    seen: set[str] = set(first)

    def replaced() -> bool:
        seen.add(running.request("/")[2])
        return len(seen) > 2

    wait_until(replaced, "a new worker")
    return "a new worker"


limit("--limit-concurrency: the answer", "--limit-concurrency", "2", do=too_many, see=("result", "warnings"))
limit("--limit-concurrency: the access line", "--limit-concurrency", "2", do=too_many, see=("out",))
limit("--limit-concurrency and idle connections", "--limit-concurrency", "3", do=idle_ones)
limit("--limit-max-requests: it exits", "--limit-max-requests", "3", do=until_it_ends, stop=None)
limit(
    "--limit-max-requests: what is logged",
    "--limit-max-requests",
    "3",
    do=until_it_ends,
    stop=None,
    see=("warnings", "stop"),
)
limit("--limit-max-requests with workers", "--limit-max-requests", "5", "--workers", "2", do=recycled)
limit("--timeout-keep-alive after a response", "--timeout-keep-alive", "1", do=closed_when_idle(get()))
limit("--timeout-keep-alive before the first request", "--timeout-keep-alive", "1", do=closed_when_idle(b""))
limit("--timeout-keep-alive 0", "--timeout-keep-alive", "0", do=closed_when_idle(get()))
limit("ten requests on one connection", do=kept_by_requests)
