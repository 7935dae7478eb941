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
