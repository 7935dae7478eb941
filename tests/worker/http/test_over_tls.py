"""The tests of HTTP, over TLS: the behaviour must not depend on the transport.

Those are left out that look at the plain transport.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from ostler.worker.asgi import Application
from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import Server, Way
from tests.worker.http import (
    test_bodies,
    test_health,
    test_hostile,
    test_keep_alive,
    test_refusals,
    test_requests,
    test_responses,
)

NOT_OVER_TLS = {
    "test_httpx_is_content",  # it expects http; test_tls.py has it with https
    "test_the_scope_is_that_of_the_asgi_specification",  # likewise
    "test_the_fields_of_an_untrusted_proxy_are_ignored",  # likewise
    # asyncio logs a warning at the fifth write to a lost peer, which it does not say is lost.
    "test_an_app_that_only_sends_is_told_that_the_client_is_gone",
    "test_mutated_requests_and_noise_leave_no_trace",  # half-closes, in a helper
    "test_where_the_bytes_are_split_makes_no_difference",  # likewise
    # Python's client loses an answer that comes while it sends close_notify.
    "test_a_probe_whose_client_is_gone_does_no_harm",
    # The connection stays until its client sends close_notify, or the clock ticks.
    "test_draining_answers_in_flight_and_idle_connections_and_closes_them",
    "test_past_the_grace_what_is_in_flight_is_cancelled_and_counted",
    "test_too_many_connections_are_answered_with_503",
    "test_work_that_outlives_its_response_counts_for_the_limit",
    # They depend on the kernel's clock, by which an answer is acknowledged and which a test cannot move.
    "test_a_refused_client_that_does_not_leave_is_closed",
    # For these clients a cut connection is an SSLEOFError.
    "test_abort_cuts_everything_at_once",
    "test_a_refused_client_that_never_stops_sending_is_closed",
    # A hundred times the same close_notify; test_tls.py has a few of them.
    "test_invalid_requests_are_refused",
}

for _module in (
    test_bodies,
    test_health,
    test_hostile,
    test_keep_alive,
    test_refusals,
    test_requests,
    test_responses,
):
    for _name, _test in inspect.getmembers(_module):
        if (
            _name.startswith("test_")
            and inspect.isfunction(_test)
            and _name not in NOT_OVER_TLS
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
def serve(way: Way, authority: Authority, trust: ssl.SSLContext) -> Iterator[Serve]:
    """The fixture of all tests, with TLS."""
    servers: list[Server] = []

    def start(app: Application, **options: Any) -> Server:
        servers.append(Server(way, app, trust=trust, **authority.files, **options))
        return servers[-1]

    yield start
    for server in reversed(servers):
        server.close()
