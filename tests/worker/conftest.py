"""Every HTTP test runs four ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from ostler.worker.asgi import Application
from tests.worker.harness import WAYS, Server, Way


class Serve(Protocol):
    def __call__(self, app: Application, **options: Any) -> Server:
        """Serve an app until the end of the test; `options` are settings, or the server's own."""


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture
def serve(way: Way) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(app: Application, **options: Any) -> Server:
        servers.append(Server(way, app, **options))
        return servers[-1]

    yield start
    for server in reversed(servers):
        server.close()
