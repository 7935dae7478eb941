"""The tests of WebSockets, over TLS: the behaviour must not depend on the transport."""

from __future__ import annotations

import inspect
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ostler.worker.asgi import Application
from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import Server, Way
from tests.worker.websocket import test_closing, test_flow, test_protocol, test_upgrade

NOT_OVER_TLS = {
    "test_the_scope_says_what_uvicorns_says",  # it expects ws
    # asyncio logs a warning at the fifth write to a lost peer, which it does not say is lost.
    "test_an_app_that_only_sends_is_told_that_the_client_is_gone",
}
if sys.version_info < (3, 11):
    # Its asyncio delivers one read in pieces, and logs a warning at the fifth write to a lost peer.
    NOT_OVER_TLS.add("test_a_flood_of_pings_from_a_client_that_reads_nothing_is_stopped")

for _module in (test_closing, test_flow, test_protocol, test_upgrade):
    for _name, _test in inspect.getmembers(_module):
        if (
            _name.startswith("test_")
            and inspect.isfunction(_test)
            and _name not in NOT_OVER_TLS
            # These clients do not answer close_notify: the connection stays until the clock ticks.
            and "not server.server_state.connections" not in inspect.getsource(_test)
            and "finish_sending" not in inspect.getsource(_test)
            and "Thread(" not in inspect.getsource(_test)  # two threads must not use one SSLSocket at once
        ):
            globals()[_name] = _test


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def trust(authority: Authority) -> ssl.SSLContext:
    return authority.client()


# Each loop has its own TLS; the parser makes no difference there.
@pytest.fixture(params=(Way("httptools", "uvloop"), Way("h11", "asyncio")), ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture
def serve(way: Way, library: str, authority: Authority, trust: ssl.SSLContext) -> Iterator[Serve]:
    """The fixture of all tests, with TLS."""
    servers: list[Server] = []

    def start(app: Application, **options: Any) -> Server:
        servers.append(Server(way, app, **{"trust": trust, "ws": library, **authority.files, **options}))
        return servers[-1]

    yield start
    for server in reversed(servers):
        server.close()
