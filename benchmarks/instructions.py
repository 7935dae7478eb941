"""Count the instructions that the server executes for one hello: `python -m benchmarks.instructions`.

An `ostler.Server` runs under `valgrind --tool=callgrind`; this process, outside of valgrind, is its client on
one keep-alive connection. The server is started twice and answers more requests the second time, so that
start-up and shutdown drop out of the difference. Unlike CPU time, the result hardly depends on how busy the
machine is.

With `--python`, another interpreter runs the server, with the ostler that is installed there: this compares
two versions.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_WARM_UP = 200
"""Requests of the first run: caches are full after them."""
_TIMEOUT = 300.0
"""Seconds that a server may take to start under valgrind, which slows it down fifty times, or to stop."""
_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_BODY = b"Hello, world!"
_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
_START = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
_END = {"type": "http.response.body", "body": _BODY}
_SERVE = "--serve"
"""The option with which this file is the server."""


def main() -> None:
    """Print the instructions of one request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the server")
    parser.add_argument("--requests", type=int, default=1000, help="requests that are counted (1000)")
    options = parser.parse_args()
    if options.requests < 1:
        parser.error("--requests must be at least 1")
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise SystemExit("benchmarks: valgrind is not installed (Debian: apt install valgrind)")
    command = [
        valgrind,
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        options.python,
        __file__,
        _SERVE,
    ]
    few, _ = _run(command, _WARM_UP)
    many, server = _run(command, _WARM_UP + options.requests)
    print(f"{(many - few) / options.requests:,.0f} instructions a request ({server})")


def _run(command: list[str], requests: int) -> tuple[int, str]:
    """Return the instructions of a server that answers so many requests, and what the server is."""
    with tempfile.TemporaryFile("w+") as report:
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=report,
            text=True,
            cwd="/",  # nothing to import there: ostler is the installed one
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        try:
            assert server.stdout is not None
            port, _, description = server.stdout.readline().partition(" ")
            if port:
                _ask(int(port), requests)
                server.send_signal(signal.SIGTERM)
            server.wait(_TIMEOUT)
        finally:
            server.kill()
            server.wait()
        report.seek(0)
        lines = report.read()
    counted = re.search(r"Collected : (\d+)", lines)
    if not port or counted is None:
        raise SystemExit(f"benchmarks: the server failed under valgrind:\n{lines}")
    return int(counted[1]), description.strip()


def _ask(port: int, requests: int) -> None:
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as sock:
        for _ in range(requests):
            sock.sendall(_REQUEST)
            received = b""
            while not received.endswith(_BODY):
                data = sock.recv(65536)
                if not data:
                    raise SystemExit(f"benchmarks: the server closed the connection after {received!r}")
                received += data


# --- the server, in the interpreter that is measured ---


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await send(_START)
    await send(_END)


def _serve() -> None:
    import ostler
    from ostler import Config, Server

    listener = socket.create_server(("127.0.0.1", 0))
    config = Config(_hello, lifespan="off", access_log=False, log_level="error")
    versions = f"ostler in {Path(ostler.__file__).parent}, Python {sys.version.split()[0]}"
    # Clients wait in the backlog until the server accepts them.
    print(listener.getsockname()[1], versions, flush=True)
    Server(config).run(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1:] == [_SERVE]:
        _serve()
    else:
        main()
