"""Loads: wrk for small requests, `benchmarks.client` for the others. Each returns the number of responses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.processes import ROOT


@dataclass(frozen=True)
class Result:
    """The responses that a load has received."""

    requests: int
    seconds: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def wrk(
    url: str,
    seconds: float,
    cores: set[int],
    *,
    connections: int = 32,
    body: bytes | None = None,
    fresh: bool = False,
) -> Result:
    """Request `url` repeatedly on keep-alive connections; with `fresh`, each time on a new connection.

    Raises:
        RuntimeError: wrk is not installed, or could not run.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", url]
    if fresh:
        command += ["-H", "Connection: close"]
    if body is None:
        return _read(_run(command, cores))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\n"
            f"wrk.body = [==[{body.decode()}]==]\n"
        )
        script.flush()
        return _read(_run([*command, "-s", script.name], cores))


def _read(output: str) -> Result:
    counted = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", output)
    if counted is None:
        raise RuntimeError(f"wrk: {output}")
    seconds = float(counted[2]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[counted[3]]
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    errors = sum(map(int, socket_errors.groups())) if socket_errors else 0
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return Result(int(counted[1]), seconds, errors + (int(refused[1]) if refused else 0))


def client(kind: str, port: int, seconds: float, cores: set[int], *, connections: int, size: int) -> Result:
    """Run `benchmarks.client`: bodies or messages of `size` bytes, one after the other on each connection."""
    words = ["-m", "benchmarks.client", kind, *map(str, (port, seconds, connections, size))]
    requests, errors, _ = _run([sys.executable, *words], cores).split()
    return Result(int(requests), seconds, int(errors))


def _run(command: Sequence[str], cores: set[int]) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    except FileNotFoundError:
        raise RuntimeError(f"{command[0]} is not installed (Debian: apt install {command[0]})") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{command[0]} failed: {error.stderr or error.stdout}") from None
    return done.stdout
