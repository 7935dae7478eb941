"""The access log: one line for each response, in uvicorn's format.

Where logging is as we have set it up, a line costs no record: it is put together from its parts and waits in
the handler until the loop's next round, which writes all that wait at once. What an application does to the
logger meanwhile (a handler, a filter, a level, a factory of records) is seen by the first line of each round,
and brings the records back.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any
from urllib.parse import quote

from ostler.logging.formatters import ACCESS_LOGGER, AccessFormatter
from ostler.logging.line_handler import LineHandler
from ostler.worker.patched_logging import is_original

MESSAGE = '%s - "%s %s HTTP/%s" %d'

Arguments = tuple[str, str, str, str, int]

# What quote() leaves as it is; most paths are made of nothing else, and this tells four times as fast.
_plain = re.compile(r"[A-Za-z0-9_.\-~/]*").fullmatch


def arguments(scope: dict[str, Any], status: int) -> Arguments:
    """Return what formatters may rely on: client, method, path with query, HTTP version, status."""
    return _client(scope), scope["method"], _target(scope), scope["http_version"], status


class AccessLog:
    """Takes the line of each response as it starts."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._logger = logging.getLogger(ACCESS_LOGGER)
        self._handler: LineHandler | None = None
        self._formatter: AccessFormatter | None = None
        self._waiting: list[str] = []
        """The handler's."""
        self._in_round = False
        """This round has been found to be as usual; at its end it writes what waits."""
        self._level_name = ""
        # What most lines are put together from; each is emptied when it has grown large.
        self._prefix = ""
        self._beginnings: dict[Any, str] = {}
        """For each client, the line up to its end."""
        self._ends: dict[Any, str] = {}
        """For what is asked and its status, the line from there on."""
        self._frames: dict[int, tuple[str, str]] = {}
        """For each status, what is before and after the request line."""
        handlers = self._logger.handlers
        if len(handlers) == 1 and type(handlers[0]) is LineHandler:
            self._adopt(handlers[0])

    def _adopt(self, handler: LineHandler) -> None:
        formatter = handler.formatter
        if type(formatter) is AccessFormatter and formatter.usual:
            self._handler, self._formatter, self._waiting = handler, formatter, handler.waiting
            for other in logging.getLogger("ostler").handlers:
                if isinstance(other, LineHandler):
                    other.before = handler.flush

    def log(self, scope: dict[str, Any], status: int) -> None:
        """Log a response that starts."""
        if not self._in_round and not self._begin():
            self._record(scope, status)
            return
        client = scope["client"]
        asked = (scope["path"], scope["query_string"], status, scope["method"], scope["http_version"])
        try:
            beginning = self._beginnings.get(client) or self._beginning(scope)
            end = self._ends.get(asked) or self._end(asked, scope, status)
        except TypeError:  # an application has put a list into its scope
            self._record(scope, status)
            return
        self._waiting.append(beginning + end)

    def _begin(self) -> bool:
        """Whether lines may wait, which are then written in the loop's next round."""
        handler = self._handler
        if handler is None or not self._as_set_up(handler):
            return False
        try:
            self._loop.call_soon(self._end_round)
        except RuntimeError:  # the loop is closed
            return False
        self._in_round = True
        return True

    def _end_round(self) -> None:
        self._in_round = False
        assert self._handler is not None
        self._handler.flush()

    def _as_set_up(self, handler: LineHandler) -> bool:
        """Whether nothing would see or change a record but our own handler and formatter."""
        logger = self._logger
        handlers = logger.handlers
        name = logging.getLevelName(logging.INFO)
        if name != self._level_name:
            self._level_name = name
            self._start_anew()
        return (
            len(handlers) == 1
            and handlers[0] is handler
            and handler.formatter is self._formatter
            and not handler.filters
            and handler.level <= logging.INFO
            and not logger.filters
            and not logger.propagate
            and logger.isEnabledFor(logging.INFO)
            and logging.getLogRecordFactory() is logging.LogRecord
            and is_original(logging.Logger.handle)
            and is_original(logging.Logger.callHandlers)
        )

    def _start_anew(self) -> None:
        for known in (self._beginnings, self._ends, self._frames):
            known.clear()
        self._prefix = self._around(200)[0]

    def _around(self, status: int) -> list[str]:
        """Let the formatter itself say what is around client, method, path and version."""
        assert self._formatter is not None
        return self._formatter.format(_made(self._logger, ("\0", "\0", "\0", "\0", status))).split("\0")

    def _beginning(self, scope: dict[str, Any]) -> str:
        beginning = self._prefix + _client(scope)
        _remember(self._beginnings, scope["client"], beginning)
        return beginning

    def _end(self, asked: tuple[str, bytes, int, str, str], scope: dict[str, Any], status: int) -> str:
        frame = self._frames.get(status)
        if frame is None:
            _, before, _, _, after = self._around(status)
            frame = before, after
            _remember(self._frames, status, frame)
        target = _target(scope)
        end = f"{frame[0]}{scope['method']} {target} HTTP/{scope['http_version']}{frame[1]}\n"
        if len(target) <= _SHORT:
            _remember(self._ends, asked, end)
        return end

    def _record(self, scope: dict[str, Any], status: int) -> None:
        logger = self._logger
        if logger.isEnabledFor(logging.INFO):
            # Not info(), which would look for its caller through the frames.
            logger.handle(_made(logger, arguments(scope, status)))


_KNOWN = 1024
"""Lines' parts of one kind that are kept: a megabyte in all, if they are as long as they can be."""
_SHORT = 200


def _remember(known: dict[Any, Any], key: object, part: object) -> None:
    if len(known) >= _KNOWN:
        known.clear()
    known[key] = part


def _made(logger: logging.Logger, args: tuple[str, str, str, str, int]) -> logging.LogRecord:
    return logger.makeRecord(logger.name, logging.INFO, __file__, 0, MESSAGE, args, None, "log")


def log_handshake(logger: logging.Logger, scope: dict[str, Any], outcome: int | None) -> None:
    """Log what became of a WebSocket handshake: accepted, or answered with the status `outcome`."""
    if outcome is None:
        logger.info('%s - "WebSocket %s" [accepted]', _client(scope), _target(scope))
    else:
        logger.info('%s - "WebSocket %s" %d', _client(scope), _target(scope), outcome)


def _client(scope: dict[str, Any]) -> str:
    client = scope["client"]
    return f"{client[0]}:{client[1]}" if client else ""


def _target(scope: dict[str, Any]) -> str:
    path = scope["path"]
    if not _plain(path):
        path = quote(path)
    query = scope["query_string"]
    return f"{path}?{query.decode('ascii')}" if query else path
