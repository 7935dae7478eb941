"""The life of one server: start up, accept, drain, shut down."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Sequence
from socket import SO_REUSEPORT, SOL_SOCKET, socket
from typing import TYPE_CHECKING, Protocol

from ostler import tls
from ostler.ipc.load_board import SharedQueues
from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.system.malloc import keep_freed_memory
from ostler.system.memory import resident
from ostler.worker.accept.acceptor import LIMITED_A_TURN, MAX_A_TURN, Acceptor, connector
from ostler.worker.asgi import Application
from ostler.worker.draining import CANCEL_GRACE, ServerDrain, run_until
from ostler.worker.lifespan import Lifespan
from ostler.worker.limits import Limits, request_limit, requests_exceeded
from ostler.worker.protocols import http_protocol
from ostler.worker.proxies.trusted import TrustedProxies
from ostler.worker.server_state import LONGEST_TICK, Connect, ServerState

if TYPE_CHECKING:
    from ostler.worker.balancing import Balancer
    from ostler.worker.tls.credentials import Credentials

logger = logging.getLogger("ostler.error.worker")


def tick_seconds(settings: Settings) -> float:
    """Return the seconds between two ticks, which serve all deadlines, the Date header and the heartbeat.

    One second, or less where `timeout_worker_healthcheck` is only a few seconds.
    """
    return min(LONGEST_TICK, settings.timeout_worker_healthcheck / 6)


_PERHAPS_SHARING = 8
"""How many processes may share a queue where nothing says it, such as that of an inherited socket."""

_TICK_AT_STOP = 0.1
"""Seconds between two ticks while everything stops: so much later than at its deadline a connection ends."""


class Watcher(Protocol):
    """Is told the state of a server: `Heartbeat` in a worker, and others where there is no arbiter.

    All methods are called in the loop's thread. None of them may block or raise.
    """

    def ready(self, server_state: ServerState) -> None:
        """The server accepts connections. Called once."""

    def ticked(self, lag: float) -> None:
        """The loop has run the server's tick, `lag` seconds late; about once a second from `ready` on."""

    def stopping(self) -> None:
        """The server is going to stop, at once or after its drain delay. May be called again."""

    def retire(self, reason: str) -> None:
        """The server should be replaced, for `reason`: a limit is reached. May be called for each limit."""


class Server:
    """Serves one application on listening sockets, from lifespan start-up to shutdown.

    Make it in the running loop, and `await serve()`. `withdraw()`, `stop()`, `stop_now()` and `renew()` may
    be called at any time and again, but only in the loop's thread; `turn_away()` also in a signal handler.
    Where the loop goes on after `serve()`, `await clear()` leaves nothing behind in it.
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
        owns_sockets: bool = False,
    ) -> None:
        """Accept nothing yet.

        Args:
            settings: the server's settings.
            app: an ASGI 3 application.
            sockets: the listening sockets; the server closes them.
            watcher: is told how the server fares.
            shared_queues: the other workers' queues, where each worker has its own.
            credentials: certificates and keys; by default as the settings say.
            owns_sockets: no other process serves from the sockets, nor will it: at a stop of everything they
                are shut down.

        Raises:
            SettingsError: a certificate, key or cipher is wrong.
            StartupError: the function that makes the TLS context is not there, or fails.
        """
        self._settings = settings
        self._app = app
        self._sockets = sockets
        self._watcher = watcher
        self._period = tick_seconds(settings)
        self._loop = asyncio.get_running_loop()
        self._stop_asked = self._loop.create_future()
        self._stop_now_asked = self._loop.create_future()
        self._acceptors: list[Acceptor] = []
        self._shared_queues = shared_queues
        self._balancer: Balancer | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._server_state: ServerState | None = None
        self._lifespan = Lifespan(app, settings.lifespan)
        self._limits: Limits | None = None
        self._turning_away = False
        self._stream_grace: float | None = None
        self._owns_sockets = owns_sockets
        self._credentials = credentials or _credentials(settings)

    @property
    def serving(self) -> bool:
        """Whether the server has begun to accept connections."""
        return self._server_state is not None

    def renew(self) -> None:
        """Read certificates and keys again, for connections to come; what is wrong then changes nothing."""
        if self._credentials is not None:
            self._credentials.renew()

    def withdraw(self) -> bool:
        """Serve on, but let load balancers know that it will stop; False when nothing is served yet."""
        if self._server_state is None:
            return False
        self._server_state.withdraw()
        self._watcher.stopping()
        return True

    def stop(self, *, stream_grace: float | None = None) -> None:
        """Drain: finish what is in flight, then shut down.

        Args:
            stream_grace: seconds that streams have to end; None gives them as long as other requests.
        """
        self._stream_grace = stream_grace
        if not self._stop_asked.done():
            self._stop_asked.set_result(None)

    def turn_away(self) -> None:
        """Take nothing more from this instant on, not even what waits. For a signal's handler."""
        self._turning_away = True
        for acceptor in self._acceptors:
            acceptor.hold()
        if self._server_state is not None:
            self._server_state.turn_away()

    def stop_now(self) -> None:
        """End at once: nothing more is finished, and the application is not asked to shut down."""
        self.stop()
        if not self._stop_now_asked.done():
            self._stop_now_asked.set_result(None)

    async def serve(self) -> None:
        """Start up, serve until `stop()`, drain, shut down.

        Raises:
            StartupError: the application's lifespan start-up failed.
            SettingsError: the HTTP parser that is asked for is not installed.
        """
        logger.info("Started server process [%d]", os.getpid())
        keep_freed_memory()
        lifespan = self._lifespan
        await run_until(self._stop_asked, lifespan.startup())
        if not self._stop_asked.done():
            server_state = self._open(lifespan)
            await self._stop_asked
            logger.info("Shutting down")
            await self._drain(server_state)
            if not self._stop_now_asked.done():
                await run_until(self._stop_now_asked, lifespan.shutdown())
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
            await ServerDrain(self._server_state, self._acceptors, self._stop_now_asked).abort()
        await self._lifespan.cancel(CANCEL_GRACE)
        log_setup.flush()

    def _open(self, lifespan: Lifespan) -> ServerState:
        settings = self._settings
        trusted = TrustedProxies(settings.forwarded_allow_ips, settings.forwarded_header)
        proxies = trusted if settings.proxy_headers else None
        server_state = ServerState(
            settings, self._app, state=lifespan.state, loop=self._loop, proxies=proxies
        )
        if settings.limit_connections is not None:
            from ostler.worker.connection_limit import ConnectionLimit  # most servers need none

            ConnectionLimit(settings.limit_connections, server_state).install()
        self._limits = Limits(settings, self._loop.time(), random.random())
        server_state.retire_after = request_limit(settings, random.randint)
        server_state.on_served = self._requests_exceeded
        connect = connector(server_state, http_protocol(settings), self._credentials)
        server_state.ends_listening = self._owns_sockets
        server_state.on_stop = self._close_idle_soon
        self._server_state = server_state
        self._acceptors += [self._acceptor(sock, connect) for sock in self._sockets]
        if self._shared_queues is not None:
            self._share_queues(self._shared_queues, server_state, connect)
        self._ticked(self._loop.time())
        for own in self._acceptors[: len(self._sockets)]:
            own.start()
        if self._turning_away:  # the signal has come before the acceptors were there
            self.turn_away()
        self._watcher.ready(server_state)
        return server_state

    def _acceptor(self, sock: socket, connect: Connect) -> Acceptor:
        assert self._server_state is not None
        return Acceptor(
            self._loop,
            sock,
            connect,
            create_task=self._server_state.create_task,
            most=MAX_A_TURN if self._settings.limit_connections is None else LIMITED_A_TURN,
            sharing=self._sharing(sock),
        )

    def _sharing(self, sock: socket) -> int:
        """Return how many processes accept connections from the queue of `sock`."""
        if self._owns_sockets:
            return 1
        if self._shared_queues is not None and sock.getsockopt(SOL_SOCKET, SO_REUSEPORT):
            return 1  # a worker's own
        workers = self._settings.workers
        return workers if isinstance(workers, int) else _PERHAPS_SHARING

    def _share_queues(self, shared_queues: SharedQueues, server_state: ServerState, connect: Connect) -> None:
        # Imported here: only workers with queues of their own need it.
        from ostler.worker.balancing import Balancer

        self._balancer = Balancer(shared_queues, server_state, lambda sock: self._acceptor(sock, connect))
        self._acceptors += self._balancer.acceptors
        for acceptor in self._acceptors:
            acceptor.balancer = self._balancer
        self._balancer.start()

    def _close_idle_soon(self) -> None:
        """Everything stops: end connections without a request, and look at their deadlines often."""
        assert self._server_state is not None
        self._server_state.limit_idle(time.monotonic())
        if self._period > _TICK_AT_STOP and self._tick is not None:
            self._period = _TICK_AT_STOP
            # The next tick has to come after a turn of the loop: what has arrived is served first.
            self._tick.cancel()
            self._tick = self._loop.call_later(self._period, self._ticked, self._loop.time() + self._period)

    async def _drain(self, server_state: ServerState) -> None:
        self._watcher.stopping()
        if self._balancer is not None:
            self._balancer.close()
        # The acceptors of the other workers' queues, too: when all workers drain, the last one has to leave
        # nothing behind in any queue.
        drain = ServerDrain(server_state, self._acceptors, self._stop_now_asked)
        await drain.run(stream_grace=self._stream_grace)
        if self._tick is not None:
            self._tick.cancel()

    def _requests_exceeded(self) -> None:
        assert self._server_state is not None
        assert self._server_state.retire_after is not None
        self._retire(requests_exceeded(self._server_state.retire_after))

    def _check_limits(self, now: float, limits: Limits) -> None:
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
            self._balancer.tick()
        log_setup.revive()
        if self._limits is not None and self._limits.watched:
            self._check_limits(now, self._limits)
        self._watcher.ticked(max(0.0, now - due))
        self._tick = self._loop.call_later(self._period, self._ticked, now + self._period)


def _credentials(settings: Settings) -> Credentials | None:
    # Imported here: most servers speak no TLS.
    if not tls.wanted(settings):
        return None
    from ostler.worker.tls.credentials import Credentials

    return Credentials(settings)
