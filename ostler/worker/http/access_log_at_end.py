"""The access log that is written at the end of each response, for lines with its duration or length.

The classes here replace `Connection` and `Cycle` where the settings ask for such lines: otherwise no request
pays for them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from ostler.settings.declarations import Settings
from ostler.worker.access_log import MESSAGE, arguments, log_handshake
from ostler.worker.http.access_format import LogEntry, compile_format
from ostler.worker.http.connection import Connection
from ostler.worker.http.cycle import Cycle, Stream
from ostler.worker.http.finished_message import message_with_arguments
from ostler.worker.http.request import RequestHead

CLIENT_CLOSED_REQUEST = 499
"""What nginx logs for a client that left before its response began. This status is never sent."""


class CompletedCycle(Cycle):
    """A cycle that measures the duration and length of its response, and logs it at its end."""

    __slots__ = ("began", "fields", "sent", "status")

    stream: CompletedConnection

    def __init__(self, stream: Stream, head: RequestHead) -> None:
        super().__init__(stream, head)
        self.began = time.perf_counter()
        self.status = CLIENT_CLOSED_REQUEST
        self.fields: Iterable[tuple[bytes, bytes]] = ()
        self.sent = 0
        """Bytes of the body that were sent, without framing."""

    def _finish(self) -> None:
        super()._finish()
        if self.scope:
            self.stream.log_completed(self)


class CompletedConnection(Connection):
    """A connection whose responses are logged at their end."""

    __slots__ = ("log_completed",)

    make_cycle: ClassVar[type[Cycle]] = CompletedCycle

    def __init__(self, *args: Any, log_completed: Callable[[CompletedCycle], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self.log_completed = log_completed

    def start(self, cycle: Cycle, status: int, fields: Iterable[tuple[bytes, bytes]]) -> int:
        fields = tuple(fields)  # an app may give an iterator, which can be read once
        length = super().start(cycle, status, fields)
        if isinstance(cycle, CompletedCycle):
            cycle.status = status
            cycle.fields = fields
        return length

    def body(self, cycle: Cycle, data: bytes, more: bool) -> None:
        if isinstance(cycle, CompletedCycle):
            cycle.sent += len(data)
        elif self._pending_head and self.server_state.log_handshakes:
            log_handshake(self.server_state.log, cycle.scope, self._status)
        super().body(cycle, data, more)

    def file_sent(self, cycle: Cycle, size: int) -> None:
        assert isinstance(cycle, CompletedCycle)  # a WebSocket's denial sends no file
        cycle.sent += size


def logger_of_completed(settings: Settings) -> Callable[[CompletedCycle], None]:
    """Return the function that logs a cycle at its end, as the settings ask for."""
    logger = logging.getLogger("ostler.access")
    fill = None if settings.access_log_format is None else compile_format(settings.access_log_format)
    with_arguments = message_with_arguments(logger)

    def log(cycle: CompletedCycle) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        seconds = time.perf_counter() - cycle.began
        args = arguments(cycle.scope, cycle.status)
        message = MESSAGE
        if fill is not None:
            entry = LogEntry(cycle.head, cycle.scope, cycle.status, cycle.fields, cycle.sent, seconds)
            message, args = with_arguments(fill(entry), args)
        record = logger.makeRecord(
            logger.name, logging.INFO, __file__, 0, message, args, None, "log_completed"
        )
        # Not as `extra`: for each of its keys, logging first searches the record.
        record.request_time = round(seconds, 6)
        record.response_length = cycle.sent
        record.user_agent = _user_agent(cycle.head.headers)
        logger.handle(record)

    return log


def _user_agent(headers: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"user-agent":
            return value.decode("utf-8", "backslashreplace")
    return None
