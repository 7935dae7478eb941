"""Signals, stops and exit codes, without workers and with them."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Sequence
from os import kill
from typing import Any

from tests.live.harness import wait_until
from tests.replay.behaviours import command, get
from tests.replay.http_client import read_response
from tests.replay.servers import Running

SLOW = """
import asyncio, os, signal, sys

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive(); await send({"type": "lifespan.startup.complete"})
        await receive(); print("shutdown", flush=True); await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive(); await send({"type": "websocket.accept"})
        message = {}
        while message.get("type") != "websocket.disconnect":
            message = await receive()
        print(message["type"], int(message["code"]), flush=True)
        return
    body = str(os.getpid()).encode()
    if scope["path"] == "/slow":
        print("begun", flush=True)
        await asyncio.sleep(1)
        body = b"slow"
    if scope["path"] == "/long":
        print("begun", flush=True)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
    if scope["path"] == "/signal":
        os.kill(os.getpid(), signal.SIGTERM)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
"""
FILES = {"main.py": SLOW}
WORKERS = ("--workers", "2")


def signals(
    name: str, *args: str, do: Callable[[Running], Any] = lambda running: None, stop: str | None = "SIGTERM",
    see: Sequence[str] = ("exit", "result"), ready: bool = True, source: str = SLOW,
) -> None:  # fmt: skip
    """Add a behaviour: serve, `do` something, and `stop`."""
    command(
        f"signals/{name}", "main:app", "--port", "0", *args,
        files={"main.py": source}, do=do, stop=stop, see=see, ready=ready,
    )  # fmt: skip


def in_flight(path: str, *names: str) -> Callable[[Running], Any]:
    """Return what sends a request, then these signals while it runs, and returns its answer."""

    def do(running: Running) -> Any:
        with contextlib.closing(running.connect()) as sock, sock.makefile("rb") as stream:
            sock.sendall(get(path))
            running.out.wait_for("begun")
            for number, name in enumerate(names):
                if number:
                    running.errors.wait_for("Waiting for connections to close|Shutting down")
                running.signal(name)
            answer = read_response(stream, "GET")
            return [answer["status"], answer.get("body")] if isinstance(answer, dict) else answer

    return do


def refused_meanwhile(running: Running) -> Any:
    """Return whether a new client is refused while a request is in flight."""
    with contextlib.closing(running.connect()) as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/slow"))
        running.out.wait_for("begun")
        port = running.port
        running.signal("SIGTERM")
        running.errors.wait_for("Waiting for connections to close")
        try:
            running.request("/")
            late = "served"
        except OSError:
            late = "refused"
        answer = read_response(stream, "GET")
        assert port
        return [late, answer["status"] if isinstance(answer, dict) else answer]


def idle_connection(running: Running) -> Any:
    """Return what a kept connection gets that is idle as the server stops."""
    with contextlib.closing(running.connect()) as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/"))
        read_response(stream, "GET")
        begun = time.monotonic()
        running.signal("SIGTERM")
        rest = stream.read()
        return [rest.decode(), "within 3 s" if time.monotonic() - begun < 3 else "later"]


def hung_up(running: Running) -> Any:
    """Return whether it still serves after SIGHUP."""
    running.signal("SIGHUP")
    try:
        return [running.request("/")[0] for _ in range(20)][-1] == 200
    except OSError:
        return False


def open_websocket(running: Running) -> Any:
    """Return the frames that a WebSocket gets as the server stops."""
    from tests.replay.behaviours import upgrade
    from tests.replay.websocket_client import _read_frame, close

    with contextlib.closing(running.connect()) as sock, sock.makefile("rb") as stream:
        sock.sendall(upgrade())
        read_response(stream, "GET")
        running.signal("SIGTERM")
        frame = _read_frame(stream)
        if frame:
            sock.sendall(close(frame[1]))
        return frame


signals("SIGTERM ends a plain server: exit", see=("exit",))
signals("SIGINT ends a plain server: exit", stop="SIGINT", see=("exit",))
signals("lines of a stop", stop="SIGINT", see=("stop",))
signals("lines of a whole run", stop="SIGINT", see=("errors",))
signals("shutdown of the lifespan runs", see=("prints",))
signals("SIGTERM waits for a request", do=in_flight("/slow", "SIGTERM"), stop=None, see=("result", "prints"))
signals("SIGINT waits for a request", do=in_flight("/slow", "SIGINT"), stop=None)
signals(
    "a second SIGINT does not wait",
    do=in_flight("/long", "SIGINT", "SIGINT"),
    stop=None,
    see=("exit", "prints"),
)
signals(
    "a second SIGINT skips the lifespan's shutdown",
    do=in_flight("/long", "SIGINT", "SIGINT"),
    stop=None,
    see=("prints",),
)
signals("new clients are refused while it stops", do=refused_meanwhile, stop=None, see=("result",))
signals("an idle connection as it stops", do=idle_connection, stop=None, see=("result",))
signals("a WebSocket as it stops", do=open_websocket, stop=None, see=("result", "prints"))
signals(
    "--timeout-graceful-shutdown: what the client gets",
    "--timeout-graceful-shutdown",
    "1",
    do=in_flight("/long", "SIGTERM"),
    stop=None,
    see=("result", "prints"),
)
signals(
    "--timeout-graceful-shutdown: what is logged",
    "--timeout-graceful-shutdown",
    "1",
    do=in_flight("/long", "SIGTERM"),
    stop=None,
    see=("warnings",),
)
signals("SIGQUIT", stop="SIGQUIT", see=("exit",))
signals("SIGKILL", stop="SIGKILL", see=("exit",))
signals("SIGHUP to a plain server", do=hung_up, see=("exit", "result"))
signals(
    "a SIGTERM that the application sends to itself",
    do=lambda running: running.request("/signal")[0],
    stop=None,
    see=("result", "prints"),
)
signals(
    "a handler of the application is replaced while it serves",
    source="import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n" + SLOW,
    see=("prints",),
)
signals(
    "atexit runs after SIGINT",
    source="import atexit\natexit.register(lambda: print('atexit', flush=True))\n" + SLOW,
    stop="SIGINT",
    see=("out", "exit"),
)


def pids(running: Running, count: int) -> set[str]:
    """Return the pids of the workers that answer, once there are `count`."""
    found: set[str] = set()

    def enough() -> bool:
        with contextlib.suppress(OSError):
            found.add(running.request("/")[2])
        return len(found) >= count

    wait_until(enough, f"{count} workers answer")
    return found


def counts(running: Running) -> set[int]:
    """Return the pids of the children once two are there."""
    pids(running, 2)
    return running.workers()


def after(*steps: tuple[str, int]) -> Callable[[Running], Any]:
    """Return what sends signals to the parent, and waits for so many workers after each."""

    def do(running: Running) -> Any:
        pids(running, 2)
        for name, count in steps:
            running.signal(name)
            wait_until(lambda count=count: len(running.workers()) == count, f"{count} workers")  # type: ignore[misc]
        return [name for name, _ in steps]

    return do


def rolled(running: Running) -> Any:
    """Return whether SIGHUP replaces both workers."""
    before = pids(running, 2)
    running.signal("SIGHUP")
    wait_until(lambda: not before & {str(pid) for pid in running.workers()}, "the old workers are gone")
    return not before & pids(running, 2)


def killed(name: str) -> Callable[[Running], Any]:
    """Return what kills a worker, and says whether another takes its place."""

    def do(running: Running) -> Any:
        victim = pids(running, 2).pop()
        kill(int(victim), signal.Signals[name])
        wait_until(
            lambda: int(victim) not in running.workers() and len(running.workers()) == 2, "another one"
        )
        return victim not in pids(running, 2)

    return do


signals("workers: SIGTERM: exit", *WORKERS, do=lambda running: len(pids(running, 2)))
signals("workers: SIGINT: exit", *WORKERS, do=lambda running: len(pids(running, 2)), stop="SIGINT")
signals("workers: no process is left", *WORKERS, do=lambda running: len(counts(running)))
signals("workers: lifespan runs in each", *WORKERS, do=lambda running: len(pids(running, 2)), see=("prints",))
signals("workers: SIGTTIN adds one", *WORKERS, do=after(("SIGTTIN", 3)))
signals("workers: SIGTTOU takes one", *WORKERS, do=after(("SIGTTOU", 1)))
signals("workers: SIGTTIN and SIGTTOU", *WORKERS, do=after(("SIGTTIN", 3), ("SIGTTOU", 2)))
signals("workers: SIGHUP replaces all", *WORKERS, do=rolled)
signals("workers: a killed one is replaced", *WORKERS, do=killed("SIGKILL"))
signals("workers: a SIGTERM to one replaces it", *WORKERS, do=killed("SIGTERM"))
signals("workers: SIGTERM waits for a request", *WORKERS, do=in_flight("/slow", "SIGTERM"), stop=None)
signals("workers: SIGINT waits for a request", *WORKERS, do=in_flight("/slow", "SIGINT"), stop=None)


def parent_lines(running: Running) -> Any:
    """Return the lines of the start that are the parent's."""
    pids(running, 2)
    wait_until(lambda: running.errors.text.count("Application startup complete.") == 2, "both have started")
    return [re.sub(r"^(\w+): +", r"\1: ", line) for line in running.errors.text.splitlines()][:2]


signals("workers: first lines of the start", *WORKERS, do=parent_lines, see=("result",))
signals(
    "workers: a broken application: exit",
    *WORKERS,
    source="raise ValueError('broken')\n",
    do=lambda running: running.wait(8.0),
    ready=False,
    stop=None,
    see=("result",),
)
signals(
    "workers: a failed startup: exit",
    *WORKERS,
    source="async def app(scope, receive, send):\n    await receive(); await send({'type': 'lifespan.startup.failed'})\n",
    do=lambda running: running.wait(8.0),
    ready=False,
    stop=None,
    see=("result",),
)
