"""The life of one server: start up, accept, drain, shut down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from socket import socket
from typing import TYPE_CHECKING, Any, Protocol

from ostler import tls
from ostler.errors import OstlerError
from ostler.ipc.load_board import SharedQueues
from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.system.memory import resident
from ostler.worker.accept.acceptor import Acceptor, Connect, connector
from ostler.worker.asgi import Application
from ostler.worker.lifespan import Lifespan
from ostler.worker.limits import Limits
from ostler.worker.protocols import http_protocol
from ostler.worker.proxies.trusted import TrustedProxies
from ostler.worker.server_state import ServerState

if TYPE_CHECKING:
    from ostler.worker.balancing import Balancer
    from ostler.worker.tls.credentials import Credentials

logger = logging.getLogger("ostler.error")


def tick_seconds(settings: Settings) -> float:
    """Return the seconds between two ticks, which serve all deadlines, the Date header and the beat.

    One, unless the arbiter is told to lose patience within a few of them.
    """
    return min(1.0, settings.timeout_worker_healthcheck / 6)


def request_limit(settings: Settings, choose: Callable[[int, int], int] = random.randint) -> int | None:
    """Return how many requests the server is good for, the jitter included."""
    if settings.limit_max_requests is None:
        return None
    return settings.limit_max_requests + choose(0, settings.limit_max_requests_jitter)


_NOTICEABLE = 0.1
"""Seconds; a stop that waits longer says for what."""
# What is cancelled at the end of the grace gets this long to clean up behind itself.
_CANCELLED = 0.5

# When new code waits (--reload): how long a client that had just connected has to ask, and streams have to
# notice; and how long a request in flight may go on. The arbiter kills at 1.25 s.
_GLANCE = 0.1
_HURRIED = 0.5
_HURRIED_CANCELLED = 0.2


class Watcher(Protocol):
    """Who is told how a server fares: a worker's pulse, or whoever runs a plain server."""

    def ready(self, server_state: ServerState) -> None:
        """The server accepts connections."""

    def ticked(self, lag: float) -> None:
        """The loop has come round, `lag` seconds late."""

    def stopping(self) -> None:
        """The server is going to stop, at once or after its delay."""

    def retire(self, reason: str) -> None:
        """A limit is reached: the server should be replaced."""


class Server:
    """Serves one application on listening sockets, from lifespan start-up to shutdown.

    `await serve()` runs it; `stop()` lets it drain, `stop_now()` ends it at once. Both may be called
    at any time, from the loop's thread, and again. Where the loop goes on, `await clear()` at the end.
    Making one raises SettingsError or StartupError where TLS is asked for and cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        app: Application,
        sockets: Sequence[socket],
        watcher: Watcher,
        *,
        shared_queues: SharedQueues | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._settings = settings
        self._app = app
        self._sockets = sockets
        self._watcher = watcher
        self._period = tick_seconds(settings)
        self._loop = asyncio.get_running_loop()
        self._stopping = self._loop.create_future()
        self._now = self._loop.create_future()
        self._acceptors: list[Acceptor] = []
        self._shared_queues = shared_queues
        self._balancer: Balancer | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._server_state: ServerState | None = None
        self._told = ""
        """What a stop waits for, as it was last said."""
        self._lifespan = Lifespan(app, settings.lifespan)
        self._limits: Limits | None = None
        self._hurried = False
        self._credentials = credentials or _credentials(settings)

    def renew(self) -> None:
        """Read certificates and keys again, for connections to come; what is wrong then changes nothing."""
        if self._credentials is None:
            return
        try:
            self._credentials.renew()
        except OstlerError as error:
            logger.error(
                "SIGHUP: certificates not renewed, the server serves on with the old ones: %s", error
            )
        else:
            logger.info("SIGHUP: certificates read again, new connections get them")

    def withdraw(self) -> bool:
        """Serve on, but let load balancers know that it will stop; False when nothing is served yet."""
        if self._server_state is None:
            return False
        self._server_state.withdraw()
        self._watcher.stopping()
        return True

    def stop(self) -> None:
        """Drain: finish what is in flight, then shut down."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def turn_away(self) -> None:
        """Take nothing more from this instant on, not even what waits. For a signal's handler."""
        self._hurried = True
        for acceptor in self._acceptors:
            acceptor.hold()
        if self._server_state is not None:
            self._server_state.turn_away()

    def stop_now(self) -> None:
        """End at once: nothing more is finished, and the application is not asked to shut down."""
        self.stop()
        if not self._now.done():
            self._now.set_result(None)

    async def serve(self) -> None:
        """Start up, serve until `stop()`, drain, shut down.

        Raises:
            StartupError: the application's lifespan start-up failed.
            SettingsError: the HTTP parser that is asked for is not installed.
        """
        logger.info("Started server process [%d]", os.getpid())
        lifespan = self._lifespan
        if await self._unless_stopped(lifespan.startup()):
            server_state = self._open(lifespan)
            await self._stopping
            logger.info("Shutting down")
            await self._drain(server_state)
            if not self._now.done():
                await self._first(lifespan.shutdown(), self._now)
        logger.info("Finished server process [%d]", os.getpid())

    async def clear(self) -> None:
        """Leave nothing behind in the loop, however `serve()` has ended: no timer, no task, no descriptor."""
        if self._balancer is not None:
            self._balancer.close()
        for acceptor in self._acceptors:
            acceptor.close()
        if self._tick is not None:
            self._tick.cancel()
        if self._server_state is not None:
            emptied = asyncio.Event()
            self._server_state.on_change = emptied.set
            self._server_state.abort()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._until_empty(self._server_state, emptied), _CANCELLED)
        await self._lifespan.cancel(_CANCELLED)
        log_setup.flush()

    async def _unless_stopped(self, startup: Coroutine[Any, Any, None]) -> bool:
        """Run the start-up, cancelled when the server is stopped before its end; True if it got there."""
        await self._first(startup, self._stopping)
        return not self._stopping.done()

    async def _first(self, work: Coroutine[Any, Any, None], until: asyncio.Future[None]) -> None:
        task = self._loop.create_task(work)
        try:
            await asyncio.wait((task, until), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCELLED)
        elif not task.cancelled():
            task.result()

    def _open(self, lifespan: Lifespan) -> ServerState:
        settings = self._settings
        trusted = TrustedProxies(settings.forwarded_allow_ips, settings.forwarded_header)
        proxies = trusted if settings.proxy_headers else None
        server_state = ServerState(
            settings, self._app, state=lifespan.state, loop=self._loop, proxies=proxies
        )
        self._limits = Limits(settings, self._loop.time(), random.random())
        server_state.retire_after = request_limit(settings)
        server_state.on_served = self._requests_answered
        connect = connector(server_state, http_protocol(settings), self._credentials)
        self._server_state = server_state
        self._acceptors += [Acceptor(self._loop, sock, connect) for sock in self._sockets]
        if self._shared_queues is not None:
            self._meet_neighbours(self._shared_queues, server_state, connect)
        self._ticked(self._loop.time())
        for own in self._acceptors[: len(self._sockets)]:
            own.start()
        if self._hurried:  # amid all this
            self.turn_away()
        self._watcher.ready(server_state)
        return server_state

    def _meet_neighbours(
        self,
        place: SharedQueues,
        server_state: ServerState,
        connect: Connect,
    ) -> None:
        # Imported here: only some workers have any.
        from ostler.worker.balancing import Balancer

        self._balancer = Balancer(place, server_state, lambda sock: Acceptor(self._loop, sock, connect))
        self._acceptors += self._balancer.acceptors
        for each in self._acceptors:
            each.balancer = self._balancer
        self._balancer.start()

    def _requests_answered(self) -> None:
        assert self._server_state is not None
        self._retire(f"Maximum request limit of {self._server_state.retire_after} exceeded.")

    def _look_at_limits(self, now: float, limits: Limits) -> None:
        if (reason := limits.look(now, resident)) is not None:
            self._retire(reason)
        if limits.warning is not None:
            logger.warning("%s", limits.warning)
            limits.warning = None

    def _retire(self, reason: str) -> None:
        self._limits = None  # one reason is enough
        self._watcher.retire(reason)

    def _ticked(self, due: float) -> None:
        assert self._server_state is not None
        now = self._loop.time()
        self._server_state.tick(time.monotonic())
        if self._balancer is not None:
            self._balancer.look()
        log_setup.revive()
        if self._limits is not None and self._limits.watched:
            self._look_at_limits(now, self._limits)
        self._watcher.ticked(max(0.0, now - due))
        self._tick = self._loop.call_later(self._period, self._ticked, now + self._period)

    async def _drain(self, server_state: ServerState) -> None:
        """Finish what is in flight (design: "Draining"); past the grace, cancel what is left and count it."""
        if self._balancer is not None:
            self._balancer.close()
        # The neighbours' queues, too: when all workers drain, the last one must leave nothing behind.
        for acceptor in self._acceptors:
            if self._hurried:
                acceptor.close()  # what waits in the queue is for the new code
            else:
                acceptor.finish()
        if self._now.done():
            server_state.abort()
            return
        if self._hurried:
            server_state.leave()
            self._loop.call_later(_GLANCE, server_state.end_streams)
        else:
            server_state.drain()
        emptied = asyncio.Event()
        server_state.on_change = emptied.set
        grace = _HURRIED if self._hurried else self._settings.timeout_graceful_shutdown
        notice = self._loop.call_later(_NOTICEABLE, self._tell, server_state)
        try:
            await self._within(grace, self._until_empty(server_state, emptied))
        finally:
            notice.cancel()
        if self._now.done():
            server_state.abort()
        elif self._busy(server_state):
            cancelled = server_state.cancel()
            if cancelled and not self._hurried:
                logger.error("Cancel %d running request(s), timeout graceful shutdown exceeded", cancelled)
            grace = _HURRIED_CANCELLED if self._hurried else _CANCELLED
            await self._within(grace, self._until_empty(server_state, emptied))
            server_state.abort()
        if self._tick is not None:
            self._tick.cancel()

    def _tell(self, server_state: ServerState) -> None:
        """Say what the stop waits for, in uvicorn's words, and each but once."""
        waiting_for = "connections to close" if server_state.connections else "background tasks to complete"
        if waiting_for != self._told:
            self._told = waiting_for
            # A worker that drains for its successor is nothing that Ctrl+C would hasten.
            logger.info(
                "Waiting for %s.%s", waiting_for, " (CTRL+C to force quit)" if server_state.withdrawn else ""
            )

    async def _within(self, seconds: float, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, given up after `seconds`, or as soon as the server is to stop now."""
        over: asyncio.Future[None] = self._loop.create_future()

        def done(_: object = None) -> None:
            if not over.done():
                over.set_result(None)

        timer = self._loop.call_later(seconds, done)
        self._now.add_done_callback(done)
        try:
            await self._first(work, over)
        finally:
            timer.cancel()

    def _busy(self, server_state: ServerState) -> bool:
        """Whether anything is left: a connection, or an application that works on after its response."""
        accepted = any(acceptor.pending for acceptor in self._acceptors)
        return bool(accepted or server_state.connections or server_state.in_flight)

    async def _until_empty(self, server_state: ServerState, emptied: asyncio.Event) -> None:
        await asyncio.gather(*(acceptor.settled() for acceptor in self._acceptors))
        while self._busy(server_state):
            if self._told:
                self._tell(server_state)
            emptied.clear()
            await emptied.wait()


def _credentials(settings: Settings) -> Credentials | None:
    # Imported here: most servers speak no TLS.
    if not tls.wanted(settings):
        return None
    from ostler.worker.tls.credentials import Credentials

    return Credentials(settings)
