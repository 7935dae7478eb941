"""Logs every ASGI message at `--log-level trace`, without bodies and header fields, in uvicorn's words."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ostler.logging.formatters import TRACE
from ostler.worker.asgi import Application, Message, Receive, Scope, Send

_PLACEHOLDERS: Mapping[str, str] = MappingProxyType(
    {"body": "<{} bytes>", "bytes": "<{} bytes>", "text": "<{} chars>", "headers": "<...>"}
)
"""Replaces parts of a message that may be long or secret."""


class MessageLogger:
    """An ASGI application around another one, which logs the messages between that and the server."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._logger = logging.getLogger("ostler.asgi")
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        client = scope.get("client")
        prefix = f"{client[0]}:{client[1]} - ASGI [{next(self._numbers)}]" if client else None
        prefix = prefix or f"ASGI [{next(self._numbers)}]"

        async def logged_receive() -> Message:
            message = await receive()
            self._log("%s Receive %s", prefix, _shown(message))
            return message

        async def logged_send(message: Message) -> None:
            self._log("%s Send %s", prefix, _shown(message))
            await send(message)

        self._log("%s Started scope=%s", prefix, _shown(scope))
        try:
            result: object = await self._app(scope, logged_receive, logged_send)  # type: ignore[func-returns-value]
        except BaseException:
            self._log("%s Raised exception", prefix)
            raise
        self._log("%s Completed", prefix)
        return result  # it should be None: the server logs an error if it is not

    def _log(self, text: str, *args: object) -> None:
        self._logger.log(TRACE, text, *args)


def _shown(message: Message) -> dict[str, Any]:
    shown = dict(message)
    for name, text in _PLACEHOLDERS.items():
        content = shown.get(name)
        if content is not None:
            shown[name] = text.format(len(content)) if hasattr(content, "__len__") else "<...>"
    return shown
