"""How each server is started for a workload: its command line, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    """What a server is asked to serve."""

    app: str
    port: int
    log: str = "off"
    """The access log: `off`, `on`, or `default` for whatever the server's bare command does."""
    workers: int | None = None
    """Worker processes; None for the server's plainest way to run one."""
    tls: tuple[str, str] | None = None
    """Certificate file and key file."""
    kind: str = ""
    """The workload's name for the limit, which has no application."""


Command = Callable[[Order], list[str]]


def _as_uvicorn(name: str) -> Command:
    """ostler takes uvicorn's flags."""

    def command(order: Order) -> list[str]:
        words = [_script(name), order.app, "--port", str(order.port)]
        if order.log == "off":
            words.append("--no-access-log")
        if order.workers:
            words += ["--workers", str(order.workers)]
        if order.tls:
            words += ["--ssl-certfile", order.tls[0], "--ssl-keyfile", order.tls[1]]
        return words

    return command


def _gunicorn(order: Order) -> list[str]:
    command = [_script("gunicorn"), "-k", "asgi", order.app, "-b", f"127.0.0.1:{order.port}"]
    command += ["--workers", str(order.workers or 1)]
    if order.log == "on":
        command += ["--access-logfile", "-"]
    if order.tls:
        command += ["--certfile", order.tls[0], "--keyfile", order.tls[1]]
    return command


def _granian(order: Order) -> list[str]:
    command = [_script("granian"), "--interface", "asgi", order.app, "--port", str(order.port)]
    command += ["--workers", str(order.workers or 1)]
    if order.log == "on":
        command.append("--access-log")
    if order.tls:
        command += ["--ssl-certificate", order.tls[0], "--ssl-keyfile", order.tls[1]]
    return command


def _hypercorn(order: Order) -> list[str]:
    command = [_script("hypercorn"), order.app, "-b", f"127.0.0.1:{order.port}"]
    if order.log != "default":
        command += ["-k", "uvloop"]
    if order.workers:
        command += ["-w", str(order.workers)]
    if order.log == "on":
        command += ["--access-logfile", "-"]
    if order.tls:
        command += ["--certfile", order.tls[0], "--keyfile", order.tls[1]]
    return command


def _limit(order: Order) -> list[str]:
    return [sys.executable, "-m", "benchmarks.limit", str(order.port), order.kind]


SERVERS: dict[str, Command] = {
    "ostler": _as_uvicorn("ostler"),
    "uvicorn": _as_uvicorn("uvicorn"),
    "gunicorn": _gunicorn,
    "granian": _granian,
    "hypercorn": _hypercorn,
    "limit": _limit,
}


def verdict(micros: dict[str, float]) -> str:
    """How many times ostler's CPU time the best of its peers needs, and who that is; empty without either."""
    peers = {server: value for server, value in micros.items() if server not in ("ostler", "limit")}
    if not peers or "ostler" not in micros:
        return ""
    best = min(peers, key=lambda server: peers[server])
    return f"{peers[best] / micros['ostler']:.2f} x {best}"


def _script(name: str) -> str:
    """The command that pip installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))
