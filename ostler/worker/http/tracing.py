"""With `--log-level trace`: logs when a connection is made and when it is lost, in uvicorn's words."""

from __future__ import annotations

import asyncio
import logging

from ostler.logging.formatters import TRACE
from ostler.worker.http.connection import Connection

_logger = logging.getLogger("ostler.error.worker")


def with_trace_log(base: type[Connection]) -> type[Connection]:
    """Return a subclass of `base` that logs these lines."""

    class TracedConnection(base):  # type: ignore[misc, valid-type]  # a class is what is passed
        __slots__ = ()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._trace("made")

        def connection_lost(self, exc: Exception | None) -> None:
            self._trace("lost")
            super().connection_lost(exc)

        def hand_over(self, successor: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
            self._trace("handed over")
            return super().hand_over(successor)  # type: ignore[no-any-return]

        def _trace(self, what: str) -> None:
            prefix = f"{self.client[0]}:{self.client[1]} - " if self.client else ""
            _logger.log(TRACE, "%sHTTP connection %s", prefix, what)

    return TracedConnection
