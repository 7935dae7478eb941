"""The access log: one line for each response, in uvicorn's format."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import quote

MESSAGE = '%s - "%s %s HTTP/%s" %d'

Arguments = tuple[str, str, str, str, int]

# What quote() leaves as it is; most paths are made of nothing else, and this tells four times as fast.
_plain = re.compile(r"[A-Za-z0-9_.\-~/]*").fullmatch


def arguments(scope: dict[str, Any], status: int) -> Arguments:
    """Return what formatters may rely on: client, method, path with query, HTTP version, status."""
    return _client(scope), scope["method"], _target(scope), scope["http_version"], status


def log_access(logger: logging.Logger, scope: dict[str, Any], status: int) -> None:
    """Log a response that starts."""
    if logger.isEnabledFor(logging.INFO):
        # Not info(), which would look for its caller through the frames.
        logger.handle(
            logger.makeRecord(
                logger.name, logging.INFO, __file__, 0, MESSAGE, arguments(scope, status), None, "log_access"
            )
        )


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
