"""Accepts connections from one listening socket, and passes each socket to a callback."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ostler.system import stop_listening
from ostler.worker.server_state import Connect

if TYPE_CHECKING:
    from ostler.worker.http.connection import Connection
    from ostler.worker.server_state import ServerState
    from ostler.worker.tls.credentials import Credentials

logger = logging.getLogger("ostler.error.worker")

# Errors of accept(2) that say nothing about the client: the process or the system has run out of something,
# which takes a pause. After any other error, the connection is gone and the listening socket is well.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE = 1.0
"""Seconds."""
_ENDED = (errno.EBADF, errno.EINVAL)
"""This process has closed the socket, or another one has shut it down because all of ostler stops."""

_CONNECT_GRACE = 3.0
"""Seconds that a PROXY header or a handshake gets that is under way when the server drains: it is not a
request yet."""

_PASSED_ON_PAUSE = 0.002
"""Seconds that another worker has to take a connection that was left to it."""


def connector(
    server_state: ServerState,
    make_connection: Callable[[ServerState], Connection],
    credentials: Credentials | None,
) -> Connect:
    """Return the one way from an accepted socket to a connection: PROXY header, then TLS, then HTTP.

    `credentials` is None without TLS.
    """
    connect: Connect
    handshake = credentials is not None or server_state.settings.proxy_protocol
    if not handshake:
        loop = server_state.loop
        connect = lambda sock: loop.connect_accepted_socket(lambda: make_connection(server_state), sock)  # noqa: E731
    else:
        # Imported here: most servers need neither.
        from ostler.worker.accept.handshake import Handshake

        connect = Handshake(server_state, make_connection, credentials).connect
    limit = server_state.connection_limit
    return connect if limit is None else limit.guard(connect, handshake=handshake)


class LoadSharing(Protocol):
    """The other workers, where each has a queue of its own."""

    def accepted(self) -> None:
        """A connection was accepted."""

    def pass_on(self) -> bool:
        """Whether another worker has been called to take the next connection."""


class Acceptor:
    """Accepts the connections that wait in a listening socket's queue, until it is closed.

    It accepts one connection, and then the loop goes on: what is left in a shared queue can be accepted by
    another worker meanwhile.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, connect: Connect) -> None:
        self._loop = loop
        self._socket = sock
        self._connect = connect
        self._connecting: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._held = False
        self._started = False
        self._passed_on = False
        self.balancer: LoadSharing | None = None
        """May ask another worker to take a connection instead."""
        sock.setblocking(False)

    @property
    def pending(self) -> int:
        """Connections accepted that have no protocol yet."""
        return len(self._connecting)

    async def settled(self) -> None:
        """Wait until every connection accepted so far has its protocol or is gone; give up the slowest."""
        if self._connecting:
            _, slow = await asyncio.wait(self._connecting, timeout=_CONNECT_GRACE)
            for task in slow:
                task.cancel()
            if slow:
                await asyncio.wait(slow)

    def start(self) -> None:
        """Begin to accept."""
        self._resume = None
        self._started = True
        accept = self.accept if self.balancer is None else self._accept_or_pass_on
        self._loop.add_reader(self._socket.fileno(), accept)

    def hold(self) -> None:
        """Accept nothing more, without touching the loop: a signal's handler may call it."""
        self._held = True

    def finish(self) -> None:
        """Accept all that waits in the queue by now, and no more; the socket is still to be closed."""
        self._stop_reading()
        while self.accept():
            pass

    def refuse_new(self) -> None:
        """Accept all that waits in the queue, and what the kernel still completes until `end`; no more."""
        stop_listening.refuse_new(self._socket)
        self.finish()
        # A Unix socket completes nothing more, and the loop would find it readable for ever.
        if self._socket.family != socket.AF_UNIX:
            self.balancer = None
            self.start()

    def end(self) -> None:
        """Accept all that waits in the queue by now, and end the socket for every process that has it."""
        self.finish()
        stop_listening.shut_down(self._socket)
        self.close()

    def close(self) -> None:
        """Stop accepting, at once."""
        self._stop_reading()
        self._socket.close()

    def abort(self) -> None:
        """Close the accepted connections that have no protocol yet."""
        for task in self._connecting:
            # Not at once: a task that is cancelled before its first step would not close its socket.
            self._loop.call_soon(task.cancel)

    def _stop_reading(self) -> None:
        self._started = False
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def _accept_or_pass_on(self) -> None:
        assert self.balancer is not None
        if self._passed_on or self._held or not self.balancer.pass_on():
            self._passed_on = False
            self.accept()
        else:  # but only once: the worker that was called may be stuck
            self._passed_on = True
            self._pause(_PASSED_ON_PAUSE)

    def _pause(self, seconds: float) -> None:
        started = self._started
        self._stop_reading()
        if started:
            self._resume = self._loop.call_later(seconds, self.start)

    def accept(self) -> bool:
        """Accept one connection from the queue; False when there was none."""
        if self._held:
            return False
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return False  # another worker was quicker
        except OSError as exc:
            if exc.errno in _ENDED:
                self._stop_reading()
                return False
            if exc.errno not in _EXHAUSTED:
                return True  # that client is gone already (accept(2), "Error handling")
            logger.error(
                "Cannot accept connections: %s; trying again in %d s", exc.strerror, _EXHAUSTED_PAUSE
            )
            self._pause(_EXHAUSTED_PAUSE)
            return False
        if self.balancer is not None:
            self.balancer.accepted()
        connection.setblocking(False)
        task = self._loop.create_task(self._connect_or_close(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _connect_or_close(self, connection: socket.socket) -> None:
        try:
            await self._connect(connection)
        except OSError:
            connection.close()  # gone between accept and here
