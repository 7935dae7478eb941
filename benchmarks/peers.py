"""The command line with which each server is started for a workload."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerOptions:
    """What a server has to serve."""

    app: str
    port: int
    log: str = "off"
    """The access log: `off`, `on`, or `default` for the server's own default."""
    workers: int | None = None
    """Worker processes; None for the server's simplest way to run one."""
    tls: tuple[str, str] | None = None
    """Certificate file and key file."""
    kind: str = ""
    """The KIND of `benchmarks.limit`, which serves no application."""


Command = Callable[[ServerOptions], list[str]]


def _as_uvicorn(name: str) -> Command:
    """Return the command of uvicorn or ostler, which have the same flags."""

    def command(options: ServerOptions) -> list[str]:
        words = [_script(name), options.app, "--port", str(options.port)]
        if options.log == "off":
            words.append("--no-access-log")
        if options.workers:
            words += ["--workers", str(options.workers)]
        if options.tls:
            words += ["--ssl-certfile", options.tls[0], "--ssl-keyfile", options.tls[1]]
        return words

    return command


def _gunicorn(options: ServerOptions) -> list[str]:
    command = [_script("gunicorn"), "-k", "asgi", options.app, "-b", f"127.0.0.1:{options.port}"]
    command += ["--workers", str(options.workers or 1)]
    if options.log == "on":
        command += ["--access-logfile", "-"]
    if options.tls:
        command += ["--certfile", options.tls[0], "--keyfile", options.tls[1]]
    return command


def _granian(options: ServerOptions) -> list[str]:
    command = [_script("granian"), "--interface", "asgi", options.app, "--port", str(options.port)]
    command += ["--workers", str(options.workers or 1)]
    if options.log == "on":
        command.append("--access-log")
    if options.tls:
        command += ["--ssl-certificate", options.tls[0], "--ssl-keyfile", options.tls[1]]
    return command


def _h2corn(options: ServerOptions) -> list[str]:
    command = [_script("h2corn"), options.app, "--port", str(options.port)]
    if options.log == "off":
        command.append("--no-access-log")
    if options.workers:
        command += ["--workers", str(options.workers)]
    if options.tls:
        command += ["--certfile", options.tls[0], "--keyfile", options.tls[1]]
    return command


def _hypercorn(options: ServerOptions) -> list[str]:
    command = [_script("hypercorn"), options.app, "-b", f"127.0.0.1:{options.port}"]
    if options.log != "default":
        command += ["-k", "uvloop"]
    if options.workers:
        command += ["-w", str(options.workers)]
    if options.log == "on":
        command += ["--access-logfile", "-"]
    if options.tls:
        command += ["--certfile", options.tls[0], "--keyfile", options.tls[1]]
    return command


def _limit(options: ServerOptions) -> list[str]:
    return [sys.executable, "-m", "benchmarks.limit", str(options.port), options.kind]


SERVERS: dict[str, Command] = {
    "ostler": _as_uvicorn("ostler"),
    "uvicorn": _as_uvicorn("uvicorn"),
    "gunicorn": _gunicorn,
    "granian": _granian,
    "h2corn": _h2corn,
    "hypercorn": _hypercorn,
    "limit": _limit,
}


def verdict(micros: Mapping[str, Sequence[float]], against: str = "") -> str:
    """Return the ratio of the best peer's CPU time to ostler's, with that peer's name.

    The ratio is the median of the rounds' ratios: what slows the machine in a round slows both servers.

    Args:
        micros: for each server its CPU time per request in each round.
        against: the peer to compare with instead of the best one.

    Returns:
        For example `1.23 x granian`; empty without ostler or without a peer.
    """
    peers = [server for server in micros if server not in ("ostler", "limit")]
    if against:
        peers = [server for server in peers if server == against]
    if not peers or "ostler" not in micros:
        return ""
    ratios = {
        peer: statistics.median(
            theirs / own for theirs, own in zip(micros[peer], micros["ostler"], strict=True)
        )
        for peer in peers
    }
    best = min(peers, key=lambda peer: ratios[peer])
    return f"{ratios[best]:.2f} x {best}"


def _script(name: str) -> str:
    """Return the command that pip has installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))
