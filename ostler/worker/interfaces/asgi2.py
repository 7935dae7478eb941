"""ASGI 2 as ASGI 3: an ASGI 2 application takes the scope, and returns a callable for receive and send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ostler.worker.asgi import Application, Receive, Scope, Send

Asgi2Application: TypeAlias = Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]


def from_asgi2(app: Asgi2Application) -> Application:
    """Return the ASGI 3 application that does as `app` does."""

    async def adapted(scope: Scope, receive: Receive, send: Send) -> None:
        # The version of the interface that the application has, as under uvicorn.
        scope["asgi"] = {**scope["asgi"], "version": "2.0"}
        instance = app(scope)
        await instance(receive, send)

    return adapted
