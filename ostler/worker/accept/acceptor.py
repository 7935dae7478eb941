"""Accepts connections from one listening socket."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

logger = logging.getLogger("ostler.error")

# What accept(2) may return although the listening socket is well: the connection is gone, or the
# process or system is out of something. Only the latter calls for a pause.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 1.0

_LAST_CHANCE = 3.0
"""Seconds that a handshake gets that is under way when the server drains. It is not a request yet."""


class Balancer(Protocol):
    """The other workers, where each has a queue of its own."""

    def accepted(self) -> None:
        """A connection was accepted."""

    def pass_on(self) -> bool:
        """Whether another worker has been called to take the next connection."""


_REST = 0.002
"""Seconds that another worker has to take a connection that was left to it."""


class Acceptor:
    """Turns what waits in a listening socket's queue into connections, until it is closed.

    One connection is taken at a time, and then the loop goes on: what is left in a shared queue
    can be had by another worker meanwhile.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        welcome: Callable[[socket.socket], Coroutine[Any, Any, object]],
    ) -> None:
        """`welcome` makes a connection of a socket; where it raises an OSError, the client is gone."""
        self._loop = loop
        self._socket = sock
        self._welcome = welcome
        self._adopting: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._held = False
        self._started = False
        self._passed = False
        self.balancer: Balancer | None = None
        """Who may be asked to take a connection instead."""
        sock.setblocking(False)

    @property
    def pending(self) -> int:
        """Connections accepted that have no protocol yet."""
        return len(self._adopting)

    async def settled(self) -> None:
        """Wait until every connection accepted so far has its protocol, or is gone; give up the slowest."""
        if self._adopting:
            _, slow = await asyncio.wait(self._adopting, timeout=_LAST_CHANCE)
            for task in slow:
                task.cancel()
            if slow:
                await asyncio.wait(slow)

    def start(self) -> None:
        """Begin to accept."""
        self._resume = None
        self._started = True
        take = self.accept if self.balancer is None else self._accept_or_pass_on
        self._loop.add_reader(self._socket.fileno(), take)

    def hold(self) -> None:
        """Accept nothing more, without touching the loop: a signal's handler may call it."""
        self._held = True

    def finish(self) -> None:
        """Accept all that waits in the queue by now, then close our copy of the socket."""
        self._stop_reading()
        while self.accept():
            pass
        self.close()

    def close(self) -> None:
        """Stop accepting, at once."""
        self._stop_reading()
        self._socket.close()

    def _stop_reading(self) -> None:
        self._started = False
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def _accept_or_pass_on(self) -> None:
        assert self.balancer is not None
        if self._passed or self._held or not self.balancer.pass_on():
            self._passed = False
            self.accept()
        else:  # but only once: whoever was called may be stuck
            self._passed = True
            self._pause(_REST)

    def _pause(self, seconds: float) -> None:
        started = self._started
        self._stop_reading()
        if started:
            self._resume = self._loop.call_later(seconds, self.start)

    def accept(self) -> bool:
        """Take one connection from the queue; False when there was none to take."""
        if self._held:
            return False
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return False  # another worker was quicker
        except OSError as exc:
            if exc.errno not in _EXHAUSTED:
                return True  # that client is gone already (accept(2), "Error handling")
            logger.error("Cannot accept connections: %s; trying again in %d s", exc.strerror, _PAUSE)
            self._pause(_PAUSE)
            return False
        if self.balancer is not None:
            self.balancer.accepted()
        connection.setblocking(False)
        task = self._loop.create_task(self._adopt(connection))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)
        return True

    async def _adopt(self, connection: socket.socket) -> None:
        try:
            await self._welcome(connection)
        except OSError:
            connection.close()  # gone between accept and here
