"""The access log: one line for each response, in uvicorn's format.

Where logging is as ostler has set it up, a line takes no logging record: it is put together from its parts,
and waits in the handler until the loop's next round, which writes all waiting lines at once. An application
may change the logger meanwhile (a handler, a filter, a level, a factory of records). The first line of each
round checks for that, and if so, lines are logged as records again.
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

# Characters that quote() leaves as they are. Most paths have no others, and this check is four times as fast.
_plain = re.compile(r"[A-Za-z0-9_.\-~/]*").fullmatch


def arguments(scope: dict[str, Any], status: int) -> Arguments:
    """Return the arguments of a record: client, method, path with query, HTTP version, status."""
    return _client(scope), scope["method"], _target(scope), scope["http_version"], status


class AccessLog:
    """Logs one line for each response as it starts."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._logger = logging.getLogger(ACCESS_LOGGER)
        self._handler: LineHandler | None = None
        self._formatter: AccessFormatter | None = None
        self._waiting: list[str] = []
        """The handler's own list of lines to write."""
        self._in_round = False
        """In this round of the loop, lines may wait; the next round writes them."""
        self._level_name = ""
        # Caches of what most lines are put together from; each is cleared when it has grown large.
        self._prefix = ""
        self._beginnings: dict[Any, str] = {}
        """By client: the line up to the end of the client's address."""
        self._ends: dict[Any, str] = {}
        """By request line and status: the line from there on."""
        self._frames: dict[int, tuple[str, str]] = {}
        """By status: the text before and after the request line."""
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
        """Log a response that starts. `scope` is its request's ASGI scope."""
        if not self._in_round and not self._begin():
            self._record(scope, status)
            return
        client = scope["client"]
        asked = (scope["path"], scope["query_string"], status, scope["method"], scope["http_version"])
        try:
            beginning = self._beginnings.get(client) or self._beginning(scope)
            end = self._ends.get(asked) or self._end(asked, scope, status)
        except TypeError:  # not hashable: an application has put a list into its scope
            self._record(scope, status)
            return
        self._waiting.append(beginning + end)

    def _begin(self) -> bool:
        """Return whether lines may wait; they are then written in the loop's next round."""
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
        """Whether only ostler's own handler and formatter would see a record."""
        logger = self._logger
        handlers = logger.handlers
        name = logging.getLevelName(logging.INFO)
        if name != self._level_name:
            self._level_name = name
            self._clear_caches()
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

    def _clear_caches(self) -> None:
        for cache in (self._beginnings, self._ends, self._frames):
            cache.clear()
        self._prefix = self._around(200)[0]

    def _around(self, status: int) -> list[str]:
        """Return the formatter's text around client, method, path and version, for a response of `status`."""
        assert self._formatter is not None
        return self._formatter.format(_make_record(self._logger, ("\0", "\0", "\0", "\0", status))).split(
            "\0"
        )

    def _beginning(self, scope: dict[str, Any]) -> str:
        beginning = self._prefix + _client(scope)
        _cache(self._beginnings, scope["client"], beginning)
        return beginning

    def _end(self, asked: tuple[str, bytes, int, str, str], scope: dict[str, Any], status: int) -> str:
        frame = self._frames.get(status)
        if frame is None:
            _, before, _, _, after = self._around(status)
            frame = before, after
            _cache(self._frames, status, frame)
        target = _target(scope)
        end = f"{frame[0]}{scope['method']} {target} HTTP/{scope['http_version']}{frame[1]}\n"
        if len(target) <= _SHORT:
            _cache(self._ends, asked, end)
        return end

    def _record(self, scope: dict[str, Any], status: int) -> None:
        logger = self._logger
        if logger.isEnabledFor(logging.INFO):
            # Not by info(), which would search the frames for its caller.
            logger.handle(_make_record(logger, arguments(scope, status)))


_MAX_CACHED = 1024
"""Entries of each cache: a megabyte in all, if they are as long as they can be."""
_SHORT = 200
"""Characters of a path with query that is cached."""


def _cache(cache: dict[Any, Any], key: object, part: object) -> None:
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    cache[key] = part


def _make_record(logger: logging.Logger, args: tuple[str, str, str, str, int]) -> logging.LogRecord:
    return logger.makeRecord(logger.name, logging.INFO, __file__, 0, MESSAGE, args, None, "log")


def log_handshake(logger: logging.Logger, scope: dict[str, Any], outcome: int | None) -> None:
    """Log the outcome of a WebSocket handshake: None if it is accepted, else the status of its response."""
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
