"""Which parser the settings choose."""

from __future__ import annotations

import asyncio
import sys

import pytest

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings
from ostler.worker.protocols import http_protocol
from ostler.worker.server_state import ServerState
from tests.worker.harness import hello


def parser_of(http: str) -> str:
    settings = Settings(http=http)  # type: ignore[arg-type]
    loop = asyncio.new_event_loop()
    try:
        server_state = ServerState(settings, hello, state={}, loop=loop)
        connection = http_protocol(settings)(server_state)
        return type(connection._parser).__name__
    finally:
        loop.close()


@pytest.fixture
def no_httptools(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if httptools were not installed: None in sys.modules makes its import fail."""
    monkeypatch.setitem(sys.modules, "httptools", None)
    monkeypatch.delitem(sys.modules, "ostler.worker.http.httptools_parser", raising=False)


@pytest.mark.c_libraries
def test_auto_takes_httptools_where_it_is_installed() -> None:
    assert parser_of("auto") == parser_of("httptools") == "HttptoolsParser"


@pytest.mark.usefixtures("no_httptools")
def test_auto_takes_h11_elsewhere() -> None:
    assert parser_of("auto") == parser_of("h11") == "H11Parser"


@pytest.mark.usefixtures("no_httptools")
def test_httptools_asked_for_and_missing_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="httptools is not installed") as raised:
        http_protocol(Settings(http="httptools"))
    assert "\n" not in str(raised.value)
