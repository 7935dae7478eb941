"""The application and the settings for fault injection.

The application echoes the id of each request, and can be written with several kinds of broken code.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos_plan import ForcedEnd

HEALTHCHECK = 8
"""In seconds: longer than the bounded blocks and the suspension that may coincide in one worker."""
SETTINGS = """\
workers = {workers}
access_log = false
timeout_worker_healthcheck = {healthcheck}
timeout_worker_startup = 12
timeout_graceful_shutdown = 10
timeout_keep_alive = 2
"""

_HEAD = """
import asyncio
import os
import socket
import time

VERSION = "{version}"
TOKEN = os.environ.get("CHAOS_TOKEN", "0")


def note_forced_end(cause):
    # This runs on the event loop, so no connection is accepted meanwhile. One write, because other workers
    # append to the file, too.
    ports = []
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as sock:
                ports.append(str(sock.getpeername()[1]))
        except (OSError, IndexError):
            pass
    with open("forced_ends", "a") as file:
        file.write(" ".join([str(time.monotonic()), cause, *ports]) + "\\n")


async def body(receive):
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("gone")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def lifespan(receive, send):
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await on_startup()
        await send({{"type": message["type"] + ".complete"}})
        if message["type"] == "lifespan.shutdown":
            return


async def websocket(receive, send):
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({{"type": "websocket.accept"}})
        elif message["type"] == "websocket.disconnect":
            return
        else:
            await send({{"type": "websocket.send", "text": message["text"]}})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        return await websocket(receive, send)
    path, query = scope["path"], scope["query_string"].decode()
    sent = await body(receive)
    if path == "/block":
        # A bounded block is shorter than the time-out of the healthcheck.
        if float(query) > 60:
            note_forced_end("blocked-for-good")
        time.sleep(float(query))  # in the app
    elif path == "/slow":
        await asyncio.sleep(0.3)  # in the app
    text = f"{{query}} {{TOKEN}} {{VERSION}} {{os.getpid()}} {{len(sent)}}\\n".encode()
    headers = [] if path == "/stream" else [(b"content-length", str(len(text)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    if path == "/stream":
        for at in range(0, len(text), 8):
            await send({{"type": "http.response.body", "body": text[at : at + 8], "more_body": True}})
            await asyncio.sleep(0.02)  # in the app
        text = b""
    await send({{"type": "http.response.body", "body": text}})


async def on_startup():
    pass
"""

CODE_VARIANTS = {  # what each kind of code adds to the application
    "good": "",
    "syntax": "\ndef half(:\n",
    "raises": "\nraise ImportError('half deployed')\n",
    "lifespan": "\nasync def on_startup():\n    raise RuntimeError('no database')\n",
    "hangs": "\ntime.sleep(600)  # in the app\n",
    "crashes": """

async def on_startup():
    asyncio.get_running_loop().call_later(0.4, crash)


def crash():
    note_forced_end("crashed-after-ready")
    os._exit(7)
""",
}


class Project:
    """The directory of the application: its code, its settings, and its workers' notes of forced ends."""

    def __init__(self, directory: Path, workers: int) -> None:
        self.directory = directory
        self.token = 0
        self.deploy("good")
        self.configure(workers)
        self.next_token()

    def deploy(self, code: str) -> None:
        """Write this kind of code in one step.

        Each time the file has another length, by which Python sees that cached bytecode is stale (PEP 552).
        """
        self.token += 1
        text = _HEAD.format(version=f"{code}-{self.token}") + CODE_VARIANTS[code] + "#" * self.token + "\n"
        self._replace("main.py", text)

    def configure(self, workers: int) -> None:
        """Write the settings with so many workers."""
        self._replace("ostler.toml", SETTINGS.format(workers=workers, healthcheck=HEALTHCHECK))

    def next_token(self) -> int:
        """Write a new token for the next generation of workers into its environment, and return it."""
        self.token += 1
        self._replace("chaos.env", f"CHAOS_TOKEN={self.token}\n")
        return self.token

    def forced_ends(self) -> list[ForcedEnd]:
        """Return the forced ends that workers have noted before they crashed or blocked for good."""
        path = self.directory / "forced_ends"
        found = []
        for line in path.read_text().splitlines() if path.exists() else ():
            at, cause, *ports = line.split()
            found.append(ForcedEnd(float(at), cause, frozenset(map(int, ports))))
        return found

    def _replace(self, name: str, text: str) -> None:
        (self.directory / (name + ".new")).write_text(text)
        os.replace(self.directory / (name + ".new"), self.directory / name)


def client_ports(pid: int) -> frozenset[int]:
    """Return the remote ports of the IPv4 TCP connections that a process holds (proc(5), /proc/net/tcp)."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes:
            ports.add(int(fields[2].partition(":")[2], 16))
    return frozenset(ports - {0})
