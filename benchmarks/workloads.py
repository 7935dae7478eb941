"""The workloads: for each its application, its load, and the ratio that ostler must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import load
from benchmarks.load import Result

MB = 1 << 20

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
    must: float | None = None
    """The lowest ratio to the best peer that is accepted."""
    aim: float | None = None
    """The ratio that is aimed at."""
    against: str = ""
    """The peer of the ratio; empty for the best one."""


def _get(path: str = "/") -> Load:
    def run(scheme: str, port: int, seconds: float, cores: set[int]) -> Result:
        return load.wrk(f"{scheme}://127.0.0.1:{port}{path}", seconds, cores)

    return run


def _post(scheme: str, port: int, seconds: float, cores: set[int]) -> Result:
    return load.wrk(f"{scheme}://127.0.0.1:{port}/", seconds, cores, body=_JSON)


def _client(kind: str, size: int, *, connections: int) -> Load:
    def run(scheme: str, port: int, seconds: float, cores: set[int]) -> Result:
        return load.client(kind, port, seconds, cores, connections=connections, size=size)

    return run


WORKLOADS: dict[str, Workload] = {
    "hello": Workload("hello, no access log", "benchmarks.apps:hello", _get(), "hello", must=0.9),
    "hello-log": Workload("hello, access log on", "benchmarks.apps:hello", _get(), log="on", must=1.0),
    "hello-bare": Workload(
        "hello, bare default command", "benchmarks.apps:hello", _get(), log="default", must=1.0
    ),
    "echo": Workload("JSON echo, POST 10 KB", "benchmarks.apps:echo", _post, "echo", must=1.0),
    "upload": Workload(
        "upload of 1 MB, 8 connections",
        "benchmarks.apps:upload",
        _client("upload", MB, connections=8),
        "upload",
        must=1.15,
        aim=1.25,
    ),
    "upload-chunked": Workload(
        "upload of 256 KB in 16 KB chunks, 16 connections",
        "benchmarks.apps:upload",
        _client("chunked", MB // 4, connections=16),
        "upload",
        must=1.0,
        against="uvicorn",
    ),
    "large": Workload("100 KB response", "benchmarks.apps:large", _get(), "large", must=1.0, aim=1.15),
    "streamed": Workload(
        "64 x 16 KB streamed, 32 connections",
        "benchmarks.apps:streamed",
        _client("streamed", MB, connections=32),
        "streamed",
        must=1.0,
        aim=1.15,
    ),
    "file": Workload(
        "file of 1 MB, Starlette's FileResponse, 8 connections",
        "benchmarks.starlette_bench:app",
        _client("file", MB, connections=8),
        must=1.0,
        against="granian",
    ),
    "websocket": Workload(
        "WebSocket echo, 64 B, 32 connections",
        "benchmarks.apps:echo",
        _client("websocket", 64, connections=32),
        "websocket",
        must=1.05,
        aim=1.15,
    ),
    "websocket-16k": Workload(
        "WebSocket echo, 16 KB, 16 connections",
        "benchmarks.apps:echo",
        _client("websocket", 16 * 1024, connections=16),
        "websocket-long",
        must=1.4,
        aim=1.6,
    ),
    "websocket-256k": Workload(
        "WebSocket echo, 256 KB, 8 connections",
        "benchmarks.apps:echo",
        _client("websocket", MB // 4, connections=8),
        "websocket-long",
        must=1.2,
        aim=1.4,
    ),
    "websocket-1m": Workload(
        "WebSocket echo, 1 MB, 4 connections",
        "benchmarks.apps:echo",
        _client("websocket", MB, connections=4),
        "websocket-long",
        must=1.4,
        aim=1.6,
    ),
    "fastapi": Workload("FastAPI JSON", "benchmarks.fastapi_bench:app", _get("/items/7?note=x"), must=1.04),
    "two-workers": Workload(
        "hello, 2 workers on 2 cores, load beside them", "benchmarks.apps:hello", _get(), workers=2, must=1.1
    ),
    "tls": Workload("hello over TLS", "benchmarks.apps:hello", _get(), tls=True),
}
