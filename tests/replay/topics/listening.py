"""Where a server listens, what it says about that, and what stands in its way."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.replay.behaviours import command
from tests.replay.servers import Running
from tests.replay.topics.command_line import hello

RUNNING = "running on"


def line(running: Running) -> Any:
    """Return the line that says where it listens."""
    lines = running.errors.text.splitlines()
    return [re.sub("^INFO: +", "INFO: ", each) for each in lines if RUNNING in each]


def listening(
    name: str, *args: str, do: Callable[[Running], Any] = hello, see: Sequence[str] = ("result",),
    files: Mapping[str, str] | None = None, stop: str = "SIGINT",
) -> None:  # fmt: skip
    """Add a behaviour: serve with these flags and `do` something."""
    command(f"listening/{name}", "main:app", *args, do=do, see=see, files=files, stop=stop)


def port_is_that_of_the_log(running: Running) -> bool:
    """Return whether the port in the log is the one that is listened on."""
    return f":{running.port} " in running.errors.text


def mode(running: Running) -> str:
    """Return the permissions of the Unix socket."""
    return oct(stat.S_IMODE((running.directory / "s.sock").stat().st_mode))


def taken(running: Running) -> Any:
    """Return the exit code of a second server on the same port, and whether the first still serves."""
    args = ["-m", running.server, "main:app", "--port", str(running.port)]
    with Running(running.server, running.directory, args) as second:
        code = second.wait()
    return [code, running.request("/")[0]]


def twice(running: Running) -> Any:
    """Return what a second server on the same Unix socket does."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(running.directory / "s.sock"))
    return running.request("/")[0]


def removed(running: Running) -> None:
    """Stop it, and wait for its end."""
    running.signal("SIGINT")
    running.wait()


UDS = ("--uds", "DIR/s.sock")
PORT = ("--port", "0")
listening("the line of a TCP port", *PORT, do=line)
listening("the line of port 0 has the port", *PORT, do=port_is_that_of_the_log)
listening("the line of 0.0.0.0", *PORT, "--host", "0.0.0.0", do=line)
listening("the line of localhost", *PORT, "--host", "localhost", do=line)
listening("the line of ::1", *PORT, "--host", "::1", do=line)
listening("the line of a Unix socket", *UDS, do=line)
listening("the line of TLS", *PORT, "--ssl-certfile", "DIR/cert.pem", "--ssl-keyfile", "DIR/key.pem", do=line)
listening("the line with workers", *PORT, "--workers", "2", do=line)
listening("a Unix socket may be used by all", *UDS, do=mode)
listening("a Unix socket with workers", *UDS, "--workers", "2")
listening("a Unix socket's file is taken over", *UDS, do=twice)
listening("a port that is taken: the exit code", *PORT, do=taken)
listening(
    "a port is free again at once", *PORT, do=lambda running: running.request("/")[0], see=("exit", "result")
)
command(
    "listening/a Unix socket in a directory that is not there", "main:app", "--uds", "DIR/no/s.sock", see=("exit",)
)  # fmt: skip
command(
    "listening/a Unix socket is removed at the end", "main:app", *UDS, do=removed, stop=None, see=("exit",)
)  # fmt: skip
PARENT = """
import os, socket, subprocess, sys
sock = socket.create_server(("127.0.0.1", 0))
os.set_inheritable(sock.fileno(), True)
print("port", sock.getsockname()[1], flush=True)
os.execv(sys.executable, [sys.executable, "-m", "uvicorn", "served:app", "--fd", str(sock.fileno()), *sys.argv[1:]])
"""
UNIX_PARENT = PARENT.replace(
    'socket.create_server(("127.0.0.1", 0))',
    'socket.socket(socket.AF_UNIX); sock.bind("s.sock"); sock.listen()',
).replace("sock.getsockname()[1]", "0")


def over_fd(running: Running) -> Any:
    """Return the answer over a socket that the program has opened before, and the line about it."""
    match = running.out.wait_for(r"port (\d+)")
    port = int(match[1])

    def connect() -> socket.socket:
        if port:
            return socket.create_connection(("127.0.0.1", port), 10)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(running.directory / "s.sock"))
        return sock

    from tests.replay.http_client import request

    running.errors.wait_for("startup complete")
    running.errors.wait_for("running on")
    return [request(connect, "/")[2], line(running)]


from tests.replay.behaviours import HELLO, script  # noqa: E402

script(
    "listening/--fd",
    PARENT,
    files={"served.py": HELLO},
    do=over_fd,
    stop="SIGINT",
    see=("result", "exit"),
    ready=False,
)
script(
    "listening/--fd of a Unix socket",
    UNIX_PARENT,
    files={"served.py": HELLO},
    do=over_fd,
    stop="SIGINT",
    see=("result", "exit"),
    ready=False,
)
command("listening/--fd that is not open", "main:app", "--fd", "77", see=("exit",))
