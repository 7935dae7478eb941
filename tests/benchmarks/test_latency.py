"""The clients of `benchmarks.latency` work with the servers' applications, and notice wrong answers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.latency import ROWS, Latency, Row
from benchmarks.latency_load import BURST, CLIENTS, LOADS, Failed
from benchmarks.processes import ROOT, free_port, serving


@contextmanager
def _served(app: str) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "ostler", app, "--port", str(port), "--no-access-log"]
    with serving(command, port, os.sched_getaffinity(0)):
        yield port


def test_every_row_has_its_client() -> None:
    assert {row.client for row in ROWS.values()} == set(CLIENTS)
    assert all(isinstance(row, Row) and row.ratio in Latency.__dataclass_fields__ for row in ROWS.values())


@pytest.mark.parametrize("name", sorted(set(CLIENTS) - set(LOADS)))
def test_a_client_measures_each_answer(name: str) -> None:
    with _served("benchmarks.apps:mixed") as port:
        found = list(CLIENTS[name](port, 0.3, 100.0))
    assert len(found) >= (BURST if name == "burst" else 1)
    assert min(found) > 0


@pytest.mark.parametrize("name", sorted(LOADS))
def test_a_load_goes_on_beside_its_client(name: str) -> None:
    with _served("benchmarks.apps:mixed") as port:
        command = [sys.executable, "-m", "benchmarks.latency_load", name, str(port), "0.3"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_an_answer_that_is_an_error_is_not_measured() -> None:
    with _served("tests.benchmarks.failing:app") as port, pytest.raises(Failed):
        list(CLIENTS["one-by-one"](port, 0.3, 0.0))
