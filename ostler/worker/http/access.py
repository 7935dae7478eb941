"""The access log: one line for each response, in uvicorn's format."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote


def log_access(logger: logging.Logger, scope: dict[str, Any], status: int) -> None:
    """Log a response; formatters may rely on the five arguments: client, method, path, version, status."""
    logger.info(
        '%s - "%s %s HTTP/%s" %d',
        _client(scope),
        scope["method"],
        _target(scope),
        scope["http_version"],
        status,
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
    path = quote(scope["path"])
    query = scope["query_string"]
    return f"{path}?{query.decode('ascii')}" if query else path
