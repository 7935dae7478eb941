"""The workloads: for each its application, its load, and the servers that are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import load
from benchmarks.load import Result

ALL_SERVERS = ("ostler", "uvicorn", "gunicorn", "granian", "hypercorn")

Load = Callable[[str, int, float, set[int]], Result]
"""Scheme, port, seconds, cores of the load."""

_JSON = b'{"items": [' + b", ".join(b'{"number": %d, "name": "thing"}' % i for i in range(285)) + b"]}"


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    title: str
    app: str
    load: Load
    limit: str = ""
    """The KIND of `benchmarks.limit` that this workload is compared with; empty without one."""
    log: str = "off"
    workers: int | None = None
    tls: bool = False
    servers: tuple[str, ...] = ALL_SERVERS
    must: float | None = None
    """The lowest ratio to the best peer that is accepted."""


def _get(path: str = "/") -> Load:
    def run(scheme: str, port: int, seconds: float, cores: set[int]) -> Result:
        return load.wrk(f"{scheme}://127.0.0.1:{port}{path}", seconds, cores)

    return run


def _post(scheme: str, port: int, seconds: float, cores: set[int]) -> Result:
    return load.wrk(f"{scheme}://127.0.0.1:{port}/", seconds, cores, body=_JSON)


def _websocket(scheme: str, port: int, seconds: float, cores: set[int]) -> Result:
    return load.websocket(port, seconds, cores)


WORKLOADS: dict[str, Workload] = {
    "hello": Workload("hello, no access log", "benchmarks.apps:hello", _get(), "hello", must=1.35),
    "hello-log": Workload("hello, access log on", "benchmarks.apps:hello", _get(), log="on", must=1.6),
    "hello-bare": Workload(
        "hello, bare default command", "benchmarks.apps:hello", _get(), log="default", must=1.15
    ),
    "echo": Workload("JSON echo, POST 10 KB", "benchmarks.apps:echo", _post, "echo", must=1.2),
    "large": Workload("100 KB response", "benchmarks.apps:large", _get(), "large", must=1.1),
    "streamed": Workload("64 x 16 KB streamed", "benchmarks.apps:streamed", _get(), "streamed", must=1.0),
    "websocket": Workload(
        "WebSocket echo, 64 B, 32 connections", "benchmarks.apps:echo", _websocket, "websocket", must=1.1
    ),
    "fastapi": Workload("FastAPI JSON", "benchmarks.fastapi_bench:app", _get("/items/7?note=x"), must=1.04),
    "two-workers": Workload(
        "hello, 2 workers on 2 cores, load beside them", "benchmarks.apps:hello", _get(), workers=2, must=1.1
    ),
    "tls": Workload("hello over TLS", "benchmarks.apps:hello", _get(), tls=True),
}
