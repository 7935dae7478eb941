"""`--limit-connections`: closes the connection that has been idle the longest where a new one needs room."""

from __future__ import annotations

import socket
from math import inf
from operator import itemgetter

from ostler.worker.server_state import Connect, FirstRequest, ServedConnection, ServerState

SURPLUS = 64
"""Connections above the limit that may wait for their 503 at a time; further ones are closed unanswered."""


class ConnectionLimit:
    """Keeps the number of one server's connections at its limit.

    A connection counts from its PROXY header or TLS handshake on, and has its place if there is room when
    its handshake begins: later ones do not take it away meanwhile. At the limit, a new connection takes the
    place of a kept one that is idle between two requests. Where none is idle, the new one is surplus: its
    first request is answered with 503, unless there is room by then.
    """

    def __init__(self, limit: int, server_state: ServerState) -> None:
        self._limit = limit
        self._server_state = server_state
        self._placed: set[int] = set()
        """Descriptors whose last socket had room when its handshake began, and is no connection yet."""
        self._accepted = 0
        """Sockets without a handshake that are no connections yet."""
        self._surplus: set[ServedConnection] = set()
        self._leaving: set[ServedConnection] = set()
        """Connections that were closed to make room and are not gone yet."""
        self._idle: list[tuple[float, int, ServedConnection]] = []
        """Those that the last search has found idle, the longest idle last; some may be idle no more."""
        self._requests = 0
        """Requests so far. They order connections that became idle between the same two ticks."""
        self._warned = -inf
        """When the last warning of an unanswered connection was logged, in monotonic seconds."""

    def install(self) -> None:
        """Have the server state's connections ask this limit."""
        server_state = self._server_state
        server_state.connection_limit = self
        if server_state.limit_concurrency is None:
            # A request without a limit asks nothing. The check of this one leads to that of the connections.
            server_state.limit_concurrency = inf

    def guard(self, connect: Connect, *, handshake: bool) -> Connect:
        """Return `connect` for accepted sockets, but that it closes those far above the limit at once."""

        async def connect_or_close(sock: socket.socket) -> FirstRequest:
            over = self._over(0) + self._accepted
            if over < SURPLUS:
                # Set or overwritten here for each socket, so what a failed handshake leaves does no harm.
                # Without a handshake, room is made when there is a connection, a turn later.
                (self._placed.add if over < 0 and handshake else self._placed.discard)(sock.fileno())
                if handshake:
                    return await connect(sock)
                self._accepted += 1
                try:
                    return await connect(sock)
                finally:
                    self._accepted -= 1
            sock.close()
            if self._server_state.now > self._warned:
                self._warned = self._server_state.now
                self._server_state.log.warning(
                    "Exceeded connection limit: connections are closed unanswered."
                )
            return None

        return connect_or_close

    def admit(self, connection: ServedConnection, descriptor: int, *, arriving: bool) -> None:
        """Make room for `connection`, which is new; if that is impossible, note that it is surplus.

        `arriving` says that `ServerState.arriving` still counts it, too.
        """
        if descriptor in self._placed:
            self._placed.discard(descriptor)
            return
        if self._over(1 if arriving else 0) > 0 and not self._close_longest_idle():
            self._surplus &= self._server_state.connections
            self._surplus.add(connection)

    def take_request(self, connection: ServedConnection) -> bool:
        """Note a request of `connection`; return False if it is to be answered with 503."""
        self._requests += 1
        connection.last_request = self._requests
        if connection not in self._surplus:
            return True
        self._surplus.discard(connection)
        return self._over(0) <= 0 or self._close_longest_idle()

    def _over(self, allowed: int) -> int:
        """Return how many connections there are above the limit, less `allowed` of them."""
        server_state = self._server_state
        self._leaving &= server_state.connections
        there = len(server_state.connections) - len(self._leaving) + server_state.arriving
        return there - self._limit - allowed

    def _close_longest_idle(self) -> bool:
        """Close the connection that has been idle the longest; return whether there was one."""
        if self._close_next():
            return True
        found = [(c.idle_until, c.last_request, c) for c in self._server_state.connections]
        self._idle = sorted((entry for entry in found if entry[0] < inf), key=itemgetter(0, 1), reverse=True)
        return self._close_next()

    def _close_next(self) -> bool:
        while self._idle:
            idle_until, last_request, connection = self._idle.pop()
            same = (connection.idle_until, connection.last_request) == (idle_until, last_request)
            if same and connection.give_way():
                self._leaving.add(connection)
                return True
        return False
