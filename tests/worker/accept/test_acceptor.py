"""The end of accepting: no client is reset that connects between the last accept and the close."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from pathlib import Path

import pytest

from ostler.settings.declarations import Settings
from ostler.worker.server import Server
from tests.worker.harness import PATIENCE, Way, get, hello
from tests.worker.test_server import Watcher


class Racing(socket.socket):
    """A listening socket to which a client connects whenever its queue has just been found empty."""

    racing = False
    clients: list[socket.socket]

    def accept(self) -> tuple[socket.socket, object]:
        try:
            return super().accept()
        except BlockingIOError:
            if self.racing:
                client = socket.socket(self.family)
                client.setblocking(False)
                self.clients.append(client)
                self.connect_result(client)
            raise

    def connect_result(self, client: socket.socket) -> None:
        if client.connect_ex(self.getsockname()) in (0, errno.EINPROGRESS):
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionRefusedError):
                client.sendall(get())


def racing(place: str, directory: Path) -> Racing:
    if place == "tcp":
        return Racing(fileno=socket.create_server(("127.0.0.1", 0)).detach())
    sock = Racing(socket.AF_UNIX)
    sock.bind(str(directory / "s"))
    sock.listen()
    return sock


async def outcome(client: socket.socket) -> str:
    """Return whether a client, which has begun to connect, is answered or refused; or what else happens."""
    loop = asyncio.get_running_loop()
    with client:
        try:
            writable = asyncio.Event()
            loop.add_writer(client.fileno(), writable.set)
            await asyncio.wait_for(writable.wait(), PATIENCE)
            loop.remove_writer(client.fileno())
            if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
                return "refused"
            answer = await asyncio.wait_for(loop.sock_recv(client, 1000), PATIENCE)
        except OSError as error:
            unconnected = error.errno in (errno.ENOTCONN, errno.EINVAL)
            return "refused" if unconnected else repr(error)
        return "answered" if answer.startswith(b"HTTP/1.1 200 ") else repr(answer)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told to ignore SYNs")
@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_a_client_that_connects_after_the_last_accept_is_answered_or_refused(
    way: Way, tmp_path: Path, place: str
) -> None:
    async def main() -> None:
        listener = racing(place, tmp_path)
        listener.clients = []
        watcher = Watcher()
        server = Server(Settings(http=way.http), hello, [listener], watcher, owns_sockets=True)  # type: ignore[arg-type]
        serving = asyncio.get_running_loop().create_task(server.serve())
        await asyncio.wait_for(watcher.is_ready.wait(), PATIENCE)
        listener.racing = True
        server.withdraw()
        server.stop()
        await asyncio.wait_for(serving, PATIENCE)
        await server.clear()
        assert listener.clients
        outcomes = {await outcome(client) for client in listener.clients}
        assert outcomes <= {"answered", "refused"}

    with contextlib.closing(way.new_loop()) as loop:
        loop.run_until_complete(main())
