"""The benchmarks' client, applications and lower limit fit together, and wrong answers are not counted."""

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.client import Traffic, payload, run, traffic
from benchmarks.peers import SERVERS, ServerOptions
from benchmarks.processes import free_port, serving

_SIZE = 100_000
_WORKLOADS = [
    ("upload", "benchmarks.apps:upload", _SIZE),
    ("chunked", "benchmarks.apps:upload", _SIZE),
    ("streamed", "benchmarks.apps:streamed", 1 << 20),
    ("file", "benchmarks.starlette_bench:app", _SIZE),
    ("websocket", "benchmarks.apps:echo", 64),
    ("websocket", "benchmarks.apps:echo", 16 * 1024),
    ("websocket", "benchmarks.apps:echo", _SIZE),
]
_LIMITS = [
    ("upload", "upload", _SIZE),
    ("chunked", "upload", _SIZE),
    ("streamed", "streamed", 1 << 20),
    ("websocket", "websocket", 64),
    ("websocket", "websocket-long", 16 * 1024),
    ("websocket", "websocket-long", _SIZE),
]


@contextmanager
def _served(app: str, **environ: str) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "ostler", app, "--port", str(port), "--no-access-log"]
    with serving(command, port, os.sched_getaffinity(0), **environ):
        yield port


def _run(port: int, connections: int, expected: Traffic) -> tuple[int, int]:
    """Run the client until it has had an answer: on a busy machine that takes longer than elsewhere."""
    for seconds in (0.2, 1.0, 5.0, 20.0):
        answers, errors = run(port, seconds, connections, expected)
        if answers or errors:
            break
    return answers, errors


@pytest.mark.parametrize(("kind", "app", "size"), _WORKLOADS)
def test_ostler_answers_each_kind_of_traffic_rightly(kind: str, app: str, size: int, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(payload(size))
    with _served(app, BENCH_FILE=str(body)) as port:
        answers, errors = _run(port, 2, traffic(kind, size))
    assert answers > 0
    assert errors == 0


@pytest.mark.c_libraries
@pytest.mark.parametrize(("kind", "limit", "size"), _LIMITS)
def test_the_lower_limit_answers_rightly(kind: str, limit: str, size: int) -> None:
    port = free_port()
    command = SERVERS["limit"](ServerOptions("", port, kind=limit))
    with serving(command, port, os.sched_getaffinity(0)):
        answers, errors = _run(port, 2, traffic(kind, size))
    assert answers > 0
    assert errors == 0


def test_a_wrong_echo_is_an_error() -> None:
    right = traffic("websocket", 1000)
    wrong = dataclasses.replace(right, echo=right.echo[:500] + b"?" + right.echo[501:])
    with _served("benchmarks.apps:echo") as port:
        answers, errors = _run(port, 1, wrong)
    assert answers == 0
    assert errors > 0


def test_a_wrong_count_is_no_answer() -> None:
    wrong = dataclasses.replace(traffic("upload", 1000), end=b"\r\n\r\n1001")
    with _served("benchmarks.apps:upload") as port:
        answers, _ = run(port, 0.3, 1, wrong)
    assert answers == 0
