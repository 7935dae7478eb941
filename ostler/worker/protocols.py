"""Composes the protocol of accepted connections: parser, upgrades and logging, as the settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from ostler.logging import setup as log_setup
from ostler.settings import libraries
from ostler.settings.declarations import Settings
from ostler.worker.http.connection import Connection, MakeParser, TakeUpgrade
from ostler.worker.http.cycle import Cycle
from ostler.worker.http.request import RequestHead
from ostler.worker.server_state import ServerState


def http_protocol(settings: Settings) -> Callable[[ServerState], Connection]:
    """Return the factory of HTTP connections, for the time after a PROXY header and a TLS handshake.

    Raises:
        SettingsError: one of the libraries that the settings name is not installed.
    """
    return partial(_connection(settings), make_parser=_parser(settings), take_upgrade=_upgrades(settings))


def _connection(settings: Settings) -> Callable[..., Connection]:
    """Return the class of connections: one that logs more, if the settings ask for that."""
    kind: type[Connection] = Connection
    options: dict[str, Any] = {}
    if log_setup.at_completion(settings):
        from ostler.worker.http.access_log_at_end import CompletedConnection, logger_of_completed

        kind = CompletedConnection
        options["log_completed"] = logger_of_completed(settings)
    if logging.getLogger("ostler.error.worker").isEnabledFor(log_setup.TRACE):
        from ostler.worker.http.tracing import with_trace_log

        kind = with_trace_log(kind)
    return partial(kind, **options)


def _parser(settings: Settings) -> MakeParser:
    # Imported here: either library may not be installed, and one that is not used should cost no memory.
    if libraries.http_parser(settings) == "httptools":
        from ostler.worker.http.httptools_parser import HttptoolsParser

        return HttptoolsParser
    from ostler.worker.http.h11_parser import H11Parser

    return H11Parser


def _upgrades(settings: Settings) -> TakeUpgrade | None:
    if libraries.websocket(settings) == "none":
        return None
    if settings.ws == "auto":
        return _upgrades_once_asked(settings)
    from ostler.worker.websocket.libraries import upgrades

    return upgrades(settings)


def _upgrades_once_asked(settings: Settings) -> TakeUpgrade:
    """Return a TakeUpgrade that loads the WebSocket library at the first handshake: most workers get none."""
    loaded: list[TakeUpgrade | None] = []

    def take(stream: Connection, head: RequestHead) -> Cycle | None:
        if not loaded:
            if b"websocket" not in head.upgrade:
                return None
            from ostler.worker.websocket.libraries import upgrades

            loaded.append(upgrades(settings))
        return None if loaded[0] is None else loaded[0](stream, head)

    return take
