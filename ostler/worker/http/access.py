"""The access log: one line for each response, in uvicorn's format."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote


def log_access(logger: logging.Logger, scope: dict[str, Any], status: int) -> None:
    """Log a response; formatters may rely on the five arguments: client, method, path, version, status."""
    client = scope["client"]
    path = quote(scope["path"])
    query = scope["query_string"]
    logger.info(
        '%s - "%s %s HTTP/%s" %d',
        f"{client[0]}:{client[1]}" if client else "",
        scope["method"],
        f"{path}?{query.decode('ascii')}" if query else path,
        scope["http_version"],
        status,
    )
