"""What all connections of one server share: application, settings, and the tick that drives time-outs."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol, TypeAlias

from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.worker.access_log import AccessLog
from ostler.worker.asgi import PATHSEND, ZEROCOPYSEND, Application
from ostler.worker.eager_tasks import BeginsRequests, HeldRequest, eager_tasks
from ostler.worker.gathered_write import write_gathered

FirstRequest: TypeAlias = "Coroutine[Any, Any, None] | None"
"""Answers the first request of a new connection, if that has arrived; to be awaited in a task."""
Connect: TypeAlias = Callable[[socket.socket], Coroutine[Any, Any, FirstRequest]]
"""Makes a connection of an accepted socket. An OSError means that the client is gone already."""


class Proxies(Protocol):
    """Which peers may say where a request came from, and what they said."""

    def trusts(self, peer_host: str | None) -> bool:
        """Whether fields from this peer count; `unix:` stands for any peer on a Unix socket."""

    def apply(self, scope: dict[str, Any]) -> None:
        """Set the scope's client and scheme from the forwarding fields of a trusted peer."""


LONGEST_TICK = 1.0
"""Seconds between two ticks at the most."""
IDLE_AT_STOP = 1.0
"""Seconds without a request after which a connection is closed when everything stops."""


class ServedConnection(Protocol):
    """One client's connection, as the server sees it."""

    last_request: int
    """The number of its last request; counted only where `limit_connections` is set."""

    def check(self, settled: float) -> None:
        """Act on a deadline that lies at or before `settled`, in monotonic seconds."""

    def leave(self) -> None:
        """Close at once unless a request is being answered, and take no further one."""

    def on_drain(self) -> None:
        """The server is to stop: let the client know, if it would not learn it from a response."""

    def limit_idle(self, latest: float) -> None:
        """Everything stops: if no request is under way, close after IDLE_AT_STOP, and at `latest`."""

    @property
    def idle_until(self) -> float:
        """When the keep-alive time ends of a connection that is idle between two requests; else infinity."""

    def give_way(self) -> bool:
        """Close an idle connection to make room; False if the next request has arrived."""

    def cancel(self) -> None:
        """Close as soon as nothing runs on it any more."""

    def abort(self) -> None:
        """Cut it off, whatever is still to be sent."""


class MakesRoom(Protocol):
    """Keeps the number of connections at a limit."""

    def guard(self, connect: Connect, *, handshake: bool) -> Connect:
        """Return `connect` for accepted sockets, but that it closes those far above the limit at once."""

    def admit(self, connection: ServedConnection, descriptor: int, *, arriving: bool) -> None:
        """Make room for a new connection of the socket with this descriptor; `arriving` says that
        `ServerState.arriving` counts it, too."""

    def take_request(self, connection: ServedConnection) -> bool:
        """Note a request of `connection`; return False if it is to be answered with 503."""


class RunningRequest(Protocol):
    """One request that the application has not returned from."""

    @property
    def streaming(self) -> bool:
        """Whether its response has started without a known length: it may never end."""

    def cancel(self) -> None:
        """Cancel the application's task."""


class ServerState:
    """The state of one server that its connections and requests read and change, all in the loop's thread.

    Connections and requests add themselves to `connections` and `requests`, and call `left`, `returned` and
    `count`. The server calls `tick` about once a second, which is the only clock of all deadlines: nothing
    here has a timer of its own. To stop, the server calls `withdraw`, `drain`, `leave`, `end_streams`,
    `cancel` and `abort`, each more forceful than the one before; what was called already may be called again.
    """

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
        """The context that no request has changed. What one request sets off for another runs in a copy."""
        self.create_task = _in_fresh_contexts(loop) if settings.reset_contextvars else loop.create_task
        """Starts the task of a request."""
        self.eager_tasks: BeginsRequests | None = eager_tasks(
            loop, self.context, self.create_task, fresh=settings.reset_contextvars
        )
        """Starts the tasks of requests instead, where Python can start a task for less."""
        self.write_gathered = write_gathered(loop)
        """Writes several buffers to a transport of the loop."""
        self.extensions: dict[str, Any] = {PATHSEND: {}, ZEROCOPYSEND: {}} if settings.sendfile else {}
        """What `extensions` in a request's scope begins with. Each has a copy: an app may take one away."""
        self.root_path = settings.root_path
        self.timeout_keep_alive = settings.timeout_keep_alive
        self.timeout_first_request = settings.timeout_request_header
        self.limit_concurrency: float | None = settings.limit_concurrency
        self.connection_limit: MakesRoom | None = None
        """Keeps to `limit_connections`; the server sets it where there is such a limit."""
        self.health_path = None if settings.health_path is None else settings.health_path.encode()
        self.connections: set[ServedConnection] = set()
        self.arriving = 0
        """Accepted sockets whose PROXY header or TLS handshake is under way: they are no connections yet, and
        count for `limit_connections`."""
        self.requests: set[RunningRequest] = set()
        """Those that the application has not returned from, whether or not their connections are still there.
        The set keeps the tasks alive."""
        self.served = 0
        self.withdrawn = False
        """The whole instance is going to stop: health checks say so, and responses close their connections.
        Not so in a worker that drains because another one has taken its place."""
        self.ends_listening = False
        """Once the whole instance has stopped, no process serves from the listening sockets."""
        self.supervised = False
        """An arbiter lives, which may yet say that the whole instance stops."""
        self.draining = False
        self.keeps = bool(settings.timeout_keep_alive)
        """Whether responses leave their connections open."""
        self.cancelled = False
        self.turning_away = False
        """The code has changed: requests from now on are for the successor to answer."""
        self.retire_after: int | None = None
        """How many requests may be answered before the server should be replaced."""
        self.on_change: Callable[[], None] | None = None
        """Called when a connection or a request has ended, the server drains, and no connection is left."""
        self.on_stop: Callable[[], None] | None = None
        """Called when the server drains because the whole instance stops; perhaps after the drain's begin."""
        self.on_served: Callable[[], None] | None = None
        """Called once `retire_after` requests are answered."""
        self.on_left: Callable[[], None] | None = None
        """Called when a connection is gone."""
        self.overloaded: Application | None = None
        """Answers in the application's place above `limit_concurrency`; None is a plain 503."""
        self.log = logging.getLogger("ostler.error.worker")
        access = logging.getLogger("ostler.access")
        logged = settings.access_log and access.isEnabledFor(logging.INFO)
        self.access = AccessLog(loop) if logged and not log_setup.at_completion(settings) else None
        """The access log of responses that start; None where it is off."""
        self.log_handshakes = logged
        """Whether the outcome of WebSocket handshakes is logged, in the error log as by uvicorn."""
        self.hosts: set[bytes] = set()
        """Values of Host that were found valid, kept in bounds."""
        self.names: dict[bytes, tuple[bytes, int]] = {}
        """Names of response fields that were found valid, as `ostler.worker.http.response` caches them."""
        self.heads: dict[object, tuple[bytes, int, bool, bool]] = {}
        """Response heads that were rendered since the last tick, cached in the same way."""
        self.static: tuple[bytes, bytes, bytes, bytes] = (b"", b"", b"", b"")
        self._extra = b"".join(_render_field(line) for line in settings.header)
        given = {line.partition(":")[0].strip().lower() for line in settings.header}
        self._server = b"server: ostler\r\n" if settings.server_header and "server" not in given else b""
        self._date = settings.date_header and "date" not in given
        self.now = 0.0
        """Monotonic seconds at the last tick."""
        self.idle_until = 0.0
        """Monotonic seconds until which a connection is kept that becomes idle now."""
        self.tick(time.monotonic())

    def __repr__(self) -> str:
        state = "draining" if self.draining else "withdrawn" if self.withdrawn else "serving"
        counts = f"{len(self.connections)} connections, {self.in_flight} in flight, {self.served} served"
        return f"<ServerState {state}, {counts}>"

    @property
    def in_flight(self) -> int:
        """How many requests the application has not returned from."""
        return len(self.requests)

    def tick(self, now: float) -> None:
        """Move the clock, render what changes with it, and act on the deadlines that have passed.

        A deadline is compared with the tick *before* this one. So it never passes early, although it was
        computed from a clock up to one tick old; and after a pause of the whole process, the sockets are read
        before deadlines count.
        """
        settled, self.now = self.now, now
        date = b"date: %b\r\n" % imf_fixdate(time.time()).encode() if self._date else b""
        server, extra = self._server, self._extra
        self.static = (date + server + extra, date + extra, server + extra, extra)
        self.heads.clear()
        self.idle_until = now + self.timeout_keep_alive
        for connection in tuple(self.connections):
            connection.check(settled)

    def withdraw(self) -> None:
        """Serve on, but let health checks fail, so that load balancers choose other instances."""
        self.withdrawn = True
        self.keeps = False
        if self.draining and self.on_stop is not None:
            self.on_stop()

    def drain(self) -> None:
        """Let every response close its connection from now on; idle ones wait out their keep-alive time.

        If everything stops, that time is IDLE_AT_STOP.
        """
        self._drain()
        for connection in tuple(self.connections):
            connection.on_drain()
        if self.withdrawn and self.on_stop is not None:
            self.on_stop()

    def limit_idle(self, now: float) -> None:
        """Keep no connection for longer than IDLE_AT_STOP without a request. `now` is monotonic seconds."""
        for connection in tuple(self.connections):
            connection.limit_idle(now + IDLE_AT_STOP)
        # Of connections that are still to come, and of those that are idle only after their last response.
        self.timeout_first_request = min(self.timeout_first_request, IDLE_AT_STOP)
        self.timeout_keep_alive = min(self.timeout_keep_alive, IDLE_AT_STOP)
        self.idle_until = min(self.idle_until, now + IDLE_AT_STOP)

    def turn_away(self) -> None:
        """Begin no further request, from this instant on. A signal's handler may call it."""
        self.turning_away = True
        # The check of the limit leads to the check of `turning_away`: without either, a request pays nothing.
        self.limit_concurrency = 0

    def leave(self) -> None:
        """Close idle connections, and let requests in flight finish."""
        self._drain()
        for connection in tuple(self.connections):
            connection.leave()

    def end_streams(self) -> None:
        """Cancel streams, which may never end, and close connections that have sent no request yet."""
        self.cancelled = True
        for request in tuple(self.requests):
            if request.streaming:
                request.cancel()
        for connection in tuple(self.connections):
            connection.cancel()

    def cancel(self) -> int:
        """Cancel requests in flight and close all connections; return how many requests that were."""
        self._drain()
        self.cancelled = True
        requests = tuple(self.requests)
        for request in requests:
            request.cancel()
        for connection in tuple(self.connections):
            connection.cancel()
        return len(requests)

    def abort(self) -> None:
        """Cut every connection and cancel every request's task."""
        self._drain()
        self.cancelled = True
        for request in tuple(self.requests):
            request.cancel()
        for connection in tuple(self.connections):
            connection.abort()

    def _drain(self) -> None:
        self.draining = True
        self.keeps = False

    # -- called by acceptors

    def feed_first(self, protocol: asyncio.Protocol, data: bytes) -> FirstRequest:
        """Give a new connection its first bytes; return what answers the request in them, if it is complete.

        That request gets no task of its own. The caller has to await what is returned, in its task.
        """
        usual, held = self.eager_tasks, HeldRequest()
        self.eager_tasks = held
        try:
            protocol.data_received(data)
        finally:
            self.eager_tasks = usual
        return held.run

    # -- called by connections and cycles

    def left(self, connection: ServedConnection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self.on_left is not None:
            self.on_left()
        self._changed()

    def returned(self, request: RunningRequest) -> None:
        """The application has returned from a request."""
        self.requests.discard(request)
        if self.draining:
            self._changed()

    def count(self) -> None:
        """Count a request that was answered or cancelled."""
        self.served += 1
        if self.served == self.retire_after and self.on_served is not None:
            self.on_served()

    def _changed(self) -> None:
        if self.draining and not self.connections and self.on_change is not None:
            self.on_change()


def _in_fresh_contexts(loop: asyncio.AbstractEventLoop) -> Callable[..., asyncio.Task[Any]]:
    """Return a `create_task` whose tasks run in empty contexts.

    The loop's own `create_task` copies the server's context, with what was set before it started. Neither
    shows a task the context of another request.
    """

    def create_task(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        # Not by the argument `context`, which Python 3.10 does not have.
        return Context().run(loop.create_task, coroutine)

    return create_task


def imf_fixdate(seconds: float) -> str:
    """Return a time in seconds since the epoch as an IMF-fixdate (RFC 9110, section 5.6.7).

    `strftime` would name days and months in the locale's words, and `email.utils` would import twenty modules
    at the start of each worker.
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
