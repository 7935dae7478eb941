"""What all connections of one server share: the app, the settings that matter per request, the one clock."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.worker.access_log import AccessLog
from ostler.worker.asgi import Application
from ostler.worker.eager_tasks import eager_tasks


class Proxies(Protocol):
    """Which peers may say where a request came from, and what they said."""

    def trusts(self, peer_host: str | None) -> bool:
        """Whether fields from this peer count; `unix:` stands for any peer on a Unix socket."""

    def apply(self, scope: dict[str, Any]) -> None:
        """Set the scope's client and scheme from the forwarding fields of a trusted peer."""


class Connection(Protocol):
    """One client's connection, as the service sees it."""

    def check(self, settled: float) -> None:
        """Act on a deadline that lies at or before `settled`."""

    def leave(self) -> None:
        """Close at once unless a request is being answered, and take no further one."""

    def on_drain(self) -> None:
        """The server is to stop: let the client know, if it would not learn it from a response."""

    def cancel(self) -> None:
        """Close as soon as nothing runs on it any more."""

    def abort(self) -> None:
        """Cut it off, whatever is still to be sent."""


class Request(Protocol):
    """One request that the app is at work on."""

    @property
    def streaming(self) -> bool:
        """Whether its answer is under way and nobody knows its length: it may never end."""

    def cancel(self) -> None:
        """Cancel the app's task."""


class ServerState:
    """The shared part of one server. `tick` it about once a second: nothing else here has a timer."""

    def __init__(
        self,
        settings: Settings,
        app: Application,
        *,
        state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        proxies: Proxies | None = None,
    ) -> None:
        self.settings = settings
        self.app = app
        self.state = state
        self.loop = loop
        self.proxies = proxies
        self.context = contextvars.copy_context()
        """What no request has changed: what one of them sets off for another is run in a copy of it."""
        self.create_task = _in_fresh_contexts(loop) if settings.reset_contextvars else loop.create_task
        """Starts the task of a request."""
        self.eager_tasks = eager_tasks(loop, self.context, self.create_task, fresh=settings.reset_contextvars)
        """What starts them instead, where Python can do that for less."""
        self.root_path = settings.root_path
        self.timeout_keep_alive = settings.timeout_keep_alive
        self.limit_concurrency = settings.limit_concurrency
        self.health_path = None if settings.health_path is None else settings.health_path.encode()
        self.connections: set[Connection] = set()
        self.requests: set[Request] = set()
        """What the app is at work on, whether or not its connection is still there. Keeps the tasks alive."""
        self.served = 0
        self.withdrawn = False
        """The instance is going to stop: health checks say so, and clients are to let go. More than a
        worker that drains, whose place another one has taken."""
        self.draining = False
        self.keeps = bool(settings.timeout_keep_alive)
        """Whether responses leave their connections open."""
        self.cancelled = False
        self.turning_away = False
        """The code has changed: what is asked from now on is for its successor to answer."""
        self.retire_after: int | None = None
        self.on_change: Callable[[], None] | None = None
        self.on_served: Callable[[], None] | None = None
        self.on_left: Callable[[], None] | None = None
        self.overloaded: Application | None = None
        """What answers in the app's place above `limit_concurrency`; None is a plain 503."""
        self.log = logging.getLogger("ostler.error")
        access = logging.getLogger("ostler.access")
        heard = settings.access_log and access.isEnabledFor(logging.INFO)
        self.access = AccessLog(loop) if heard and not log_setup.at_completion(settings) else None
        """The access log of responses that start, or None when nobody listens to it."""
        self.log_handshakes = heard
        """Whether what became of WebSocket handshakes is logged, in the error log as uvicorn has it."""
        self.names: dict[bytes, tuple[bytes, int]] = {}
        """Response field names that were found valid, as `ostler.worker.http.response` keeps them."""
        self.heads: dict[object, tuple[bytes, int, bool, bool]] = {}
        """Response heads that were rendered since the last tick, likewise."""
        self.static: tuple[bytes, bytes, bytes, bytes] = (b"", b"", b"", b"")
        self._extra = b"".join(_render_field(line) for line in settings.header)
        given = {line.partition(":")[0].strip().lower() for line in settings.header}
        self._server = b"server: ostler\r\n" if settings.server_header and "server" not in given else b""
        self._date = settings.date_header and "date" not in given
        self.now = 0.0
        """Monotonic seconds at the last tick."""
        self.idle_until = 0.0
        """Until when a connection is kept that falls idle now."""
        self.tick(time.monotonic())

    def __repr__(self) -> str:
        state = "draining" if self.draining else "withdrawn" if self.withdrawn else "serving"
        counts = f"{len(self.connections)} connections, {self.in_flight} in flight, {self.served} served"
        return f"<ServerState {state}, {counts}>"

    @property
    def in_flight(self) -> int:
        """Requests that the app has not returned from."""
        return len(self.requests)

    def tick(self, now: float) -> None:
        """Move the clock, render what changes with it, and act on the deadlines that have passed.

        A deadline is compared with the tick *before* this one. So it is never early, although it was computed
        from a clock up to one tick old; and after a pause of the whole process, what waits in the sockets is
        read first.
        """
        settled, self.now = self.now, now
        date = b"date: %b\r\n" % imf_fixdate(time.time()).encode() if self._date else b""
        server, extra = self._server, self._extra
        self.static = (server + date + extra, date + extra, server + extra, extra)
        self.heads.clear()
        self.idle_until = now + self.timeout_keep_alive
        for connection in tuple(self.connections):
            connection.check(settled)

    def withdraw(self) -> None:
        """Serve on, but let load balancers know that they should ask elsewhere."""
        self.withdrawn = True
        self.keeps = False

    def drain(self) -> None:
        """From now on every response closes its connection; idle ones wait out their keep-alive time."""
        self._drain()
        for connection in tuple(self.connections):
            connection.on_drain()

    def turn_away(self) -> None:
        """Begin no further request, from this instant on: a signal's handler may call it."""
        self.turning_away = True
        # Requests pay for this check as they pay for the limit: not at all when there is none.
        self.limit_concurrency = 0

    def leave(self) -> None:
        """Close what is idle, let finish what is in flight."""
        self._drain()
        for connection in tuple(self.connections):
            connection.leave()

    def end_streams(self) -> None:
        """Cancel streams, which may never end, and close what has still not asked for anything."""
        self.cancelled = True
        for request in tuple(self.requests):
            if request.streaming:
                request.cancel()
        for connection in tuple(self.connections):
            connection.cancel()

    def cancel(self) -> int:
        """Cancel what is in flight, close everything; return how many requests that were."""
        self._drain()
        self.cancelled = True
        requests = tuple(self.requests)
        for request in requests:
            request.cancel()
        for connection in tuple(self.connections):
            connection.cancel()
        return len(requests)

    def abort(self) -> None:
        """Stop at once: every connection is cut, every task cancelled."""
        self._drain()
        self.cancelled = True
        for request in tuple(self.requests):
            request.cancel()
        for connection in tuple(self.connections):
            connection.abort()

    def _drain(self) -> None:
        self.draining = True
        self.keeps = False

    # -- told by connections and cycles

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self.on_left is not None:
            self.on_left()
        self._changed()

    def returned(self, request: Request) -> None:
        """The app has returned from a request."""
        self.requests.discard(request)
        if self.draining:
            self._changed()

    def count(self) -> None:
        """A request was answered, or given up."""
        self.served += 1
        if self.served == self.retire_after and self.on_served is not None:
            self.on_served()

    def _changed(self) -> None:
        if self.draining and not self.connections and self.on_change is not None:
            self.on_change()


def _in_fresh_contexts(loop: asyncio.AbstractEventLoop) -> Callable[..., asyncio.Task[Any]]:
    """Return a `create_task` whose tasks see nothing of the context in which they are created.

    Without it that is the server's own, with what was set before it started; never another request's.
    """

    def create_task(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        # Not the `context` argument: Python 3.10 does not have it.
        return Context().run(loop.create_task, coroutine)

    return create_task


def imf_fixdate(seconds: float) -> str:
    """Return a time since the epoch as RFC 9110, section 5.6.7 has it.

    `strftime` would name days and months in the locale's words, and `email.utils` costs each worker's start
    twenty modules.
    """
    at = time.gmtime(seconds)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[at.tm_wday]
    month = (
        *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
        *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    )[at.tm_mon - 1]
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year} {clock} GMT"


def _render_field(line: str) -> bytes:
    name, _, value = line.partition(":")
    return f"{name.strip().lower()}: {value.strip()}\r\n".encode("latin-1")
