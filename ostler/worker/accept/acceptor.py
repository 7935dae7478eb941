"""Accepts connections from one listening socket, and passes each socket to a callback."""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from ostler.system import stop_listening
from ostler.worker.accept.first_step import Begun
from ostler.worker.server_state import Connect, FirstRequest

if TYPE_CHECKING:
    from ostler.worker.http.connection import Connection
    from ostler.worker.server_state import ServerState
    from ostler.worker.tls.credentials import Credentials

CreateTask = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]

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

MAX_A_TURN = 64
"""Connections accepted in one turn of the loop: a crowd of new clients must not keep the others waiting."""

LIMITED_A_TURN = 16
"""The same with `--limit-connections`: those above the limit are still being closed two turns later, and no
more of them than `connection_limit.SURPLUS` are answered at a time."""

_FIRST_READ = 16 * 1024
"""Bytes that are read from a new connection; its transport reads the rest."""

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
        connect = _plain(server_state, make_connection)
    else:
        # Imported here: most servers need neither.
        from ostler.worker.accept.handshake import Handshake

        connect = Handshake(server_state, make_connection, credentials).connect
    limit = server_state.connection_limit
    return connect if limit is None else limit.guard(connect, handshake=handshake)


def _plain(server_state: ServerState, make_connection: Callable[[ServerState], Connection]) -> Connect:
    """Return the way of a server without PROXY headers and TLS, which reads the first request at once.

    On a busy server the request has arrived when its connection is accepted. If the transport had to find
    that, the client would wait for a turn of the loop more: the socket is read at the end of one, and the
    request's task begins in the next.
    """
    loop = server_state.loop
    adopt = loop.connect_accepted_socket

    async def connect(sock: socket.socket) -> FirstRequest:
        transport, connection = await adopt(lambda: make_connection(server_state), sock)
        try:
            data = sock.recv(_FIRST_READ)
        except OSError:
            return None  # nothing has arrived, or the transport will find the error
        if not data:
            return None
        try:
            return server_state.feed_first(connection, data)
        except Exception as error:  # noqa: BLE001 - as the transport does with what a protocol raises
            transport.abort()
            loop.call_exception_handler(
                {
                    "message": "Fatal error: protocol.data_received() call failed.",
                    "exception": error,
                    "transport": transport,
                    "protocol": connection,
                }
            )
            return None

    return connect


class LoadSharing(Protocol):
    """The other workers, where each has a queue of its own."""

    def accepted(self) -> None:
        """A connection was accepted."""

    def pass_on(self) -> bool:
        """Whether another worker has been called to take the next connection."""


class Acceptor:
    """Accepts the connections that wait in a listening socket's queue, until it is closed.

    It accepts some of them, and then the loop goes on: kept connections are to be served, too, and what is
    left in a shared queue can be accepted by another worker meanwhile.

    On a busy server a turn of the loop is long, so a new client should wait for few of them. The first step
    of making a connection, which makes its transport, runs at once. In the next turn the loop calls
    `connection_made`. Right after that, in the same turn, a task reads the socket and answers the first
    request.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        connect: Connect,
        *,
        create_task: CreateTask | None = None,
        most: int = MAX_A_TURN,
        sharing: int = 1,
    ) -> None:
        """Accept nothing yet.

        Args:
            loop: the running loop.
            sock: the listening socket.
            connect: makes a connection of an accepted socket.
            create_task: makes the tasks, which go on to answer the first request of each connection.
            most: how many connections are accepted in one turn of the loop.
            sharing: how many processes accept from the same queue. Each takes no more than its share at once,
                so that others, which may be idle, get theirs.
        """
        self._loop = loop
        self._socket = sock
        self._connect = connect
        self._create_task = create_task or loop.create_task
        self._most = max(1, most // sharing)
        self._connecting: dict[socket.socket, asyncio.Task[None]] = {}
        self._settled = asyncio.Event()
        """Set whenever `_connecting` has become empty."""
        self._resume: asyncio.TimerHandle | None = None
        self._held = False
        self._started = False
        self._passed_on = False
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self.balancer: LoadSharing | None = None
        """May ask another worker to take a connection instead."""
        sock.setblocking(False)

    @property
    def pending(self) -> int:
        """Connections accepted that have no protocol yet."""
        return len(self._connecting)

    async def settled(self) -> None:
        """Wait until every connection accepted so far has its protocol or is gone; give up the slowest."""
        if not self._connecting:
            return
        self._settled.clear()
        try:
            await asyncio.wait_for(self._settled.wait(), _CONNECT_GRACE)
        except asyncio.TimeoutError:
            slow = tuple(self._connecting.values())
            for task in slow:
                task.cancel()
            if slow:
                await asyncio.wait(slow)

    def start(self) -> None:
        """Begin to accept."""
        self._resume = None
        self._started = True
        self._loop.add_reader(self._socket.fileno(), self._accept_some)

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
        for task in self._connecting.values():
            # Not at once: a task that is cancelled before its first step would not close its socket.
            self._loop.call_soon(task.cancel)

    def _stop_reading(self) -> None:
        self._started = False
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def _accept_some(self) -> None:
        """Accept what waits in the queue, as much of it as one turn may take."""
        accept = self.accept if self.balancer is None else self._accept_or_pass_on
        for _ in range(self._most):
            # An accept(2) that finds nothing costs ten times what it costs to ask first.
            if not accept() or not self._poll.poll(0):
                break

    def _accept_or_pass_on(self) -> bool:
        """Accept one connection, or leave it to a worker that is less busy; False when this takes a pause."""
        assert self.balancer is not None
        if self._passed_on or self._held or not self.balancer.pass_on():
            self._passed_on = False
            return self.accept()
        self._passed_on = True  # but only once: the worker that was called may be stuck
        self._pause(_PASSED_ON_PAUSE)
        return False

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
        try:
            connecting = Begun(self._connect(connection))
        except StopIteration:
            return True  # it is closed already
        except OSError:
            connection.close()  # gone already
            return True
        # It begins when the loop has called `connection_made`, for which `connecting` waits.
        task = self._create_task(self._finish_connecting(connection, connecting))
        self._connecting[connection] = task
        return True

    async def _finish_connecting(self, connection: socket.socket, connecting: Begun[FirstRequest]) -> None:
        request: FirstRequest = None
        try:
            request = await connecting
        except OSError:
            connection.close()  # gone between accept and here
        finally:
            del self._connecting[connection]
            if not self._connecting:
                self._settled.set()
        if request is not None:
            await request
