"""A server in a loop that goes on after it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from ostler.settings.declarations import Settings
from ostler.worker.server import Server
from ostler.worker.server_state import ServerState
from tests.certificates import Authority
from tests.worker.harness import PATIENCE, Way, hello


class Watcher:
    """Tells a test when the server accepts connections."""

    def __init__(self) -> None:
        self.is_ready = asyncio.Event()

    def ready(self, server_state: ServerState) -> None:
        self.is_ready.set()

    def ticked(self, lag: float) -> None: ...
    def stopping(self) -> None: ...
    def retire(self, reason: str) -> None: ...


@pytest.mark.parametrize("first", ["TLS", "PROXY"])
def test_a_connection_that_has_sent_nothing_does_not_outlive_its_server(
    way: Way, tmp_path: Path, first: str
) -> None:
    options: dict[str, Any] = {"proxy_protocol": True} if first == "PROXY" else Authority(tmp_path).files

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        watcher = Watcher()
        server = Server(Settings(http=way.http, **options), hello, [listener], watcher)  # type: ignore[arg-type]
        serving = loop.create_task(server.serve())
        await asyncio.wait_for(watcher.is_ready.wait(), PATIENCE)
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            server.stop_now()  # takes what waits in the queue
            await asyncio.wait_for(serving, PATIENCE)
            await server.clear()

            assert asyncio.all_tasks() == {asyncio.current_task()}
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(loop.sock_recv(client, 1), PATIENCE) == b""

    with contextlib.closing(way.new_loop()) as loop:
        loop.run_until_complete(main())


@pytest.mark.parametrize(
    ("workers", "own_queue", "owns_sockets", "processes"),
    [
        (None, False, True, 1),  # a plain server
        (4, False, False, 4),  # an arbiter's, which accept from one queue
        (4, True, False, 1),  # a queue for each worker
        ("auto", False, False, 8),  # not known here
        (None, False, False, 8),  # an inherited socket, which another process may have as well
    ],
)
def test_how_many_processes_share_a_queue(
    way: Way, workers: Any, own_queue: bool, owns_sockets: bool, processes: int
) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), reuse_port=own_queue) as listener:
            queues: Any = object() if own_queue else None
            server = Server(
                Settings(workers=workers),
                hello,
                [listener],
                Watcher(),
                shared_queues=queues,
                owns_sockets=owns_sockets,
            )
            assert server._sharing(listener) == processes

    with contextlib.closing(way.new_loop()) as loop:
        loop.run_until_complete(main())
