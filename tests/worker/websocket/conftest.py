"""Every WebSocket test runs eight ways: two libraries, two parsers, two loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ostler.worker.asgi import Application
from tests.worker.conftest import Serve
from tests.worker.harness import WAYS, Server, Way


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture(params=["websockets", "wsproto"])
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def serve(way: Way, library: str) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(app: Application, **options: Any) -> Server:
        servers.append(Server(way, app, **{"ws": library, **options}))
        return servers[-1]

    yield start
    for server in reversed(servers):
        server.close()
