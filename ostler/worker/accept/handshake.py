"""Makes the connection of an accepted socket: reads the PROXY header, does the TLS handshake.

Every log line of a connection that is closed on this way is written here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ostler.worker.accept.peek import peek
from ostler.worker.accept.proxy_header import NoOrigin, ProxyPeers, apply_origin, take_header
from ostler.worker.http.connection import Connection
from ostler.worker.proxies.proxy_protocol import Origin
from ostler.worker.proxies.trusted import TrustedProxies
from ostler.worker.server_state import ServerState

if TYPE_CHECKING:
    from ostler.worker.tls.credentials import Credentials

_SHUTDOWN = 3600.0
"""Seconds until asyncio cuts a TLS connection that is closing. A short time would cut off a slow client that
still reads its response. The connection has a deadline of its own, which takes account of progress
(`Connection.check`)."""

_NO_CERTIFICATE = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
"""OpenSSL's reason where a client shows no certificate and has to."""

_UNIX = "unix:"


class Handshake:
    """Makes connections of accepted sockets, where PROXY headers or TLS come first.

    With `--proxy-protocol` every peer has to be trusted and has to send a header: a peer that is not trusted
    is a client that bypasses the proxy, or a proxy that is not listed. The specification forbids to guess
    whether there is a header (HAProxy's proxy-protocol.txt, section 2).
    """

    def __init__(
        self,
        server_state: ServerState,
        make_connection: Callable[[ServerState], Connection],
        credentials: Credentials | None,
    ) -> None:
        """`credentials` is None without TLS."""
        settings = server_state.settings
        self._server_state = server_state
        self._loop = server_state.loop
        self._make_connection = make_connection
        self._credentials = credentials
        self._proxy_peers: ProxyPeers | None = None
        if settings.proxy_protocol:
            self._proxy_peers = TrustedProxies(settings.forwarded_allow_ips)
        self._timeout = settings.timeout_request_header
        self._tls_timeouts: dict[str, Any] = {"ssl_handshake_timeout": self._timeout}
        # asyncio has this option since 3.11; before, only the connection's own deadline ends a TLS shutdown.
        if sys.version_info >= (3, 11) or not isinstance(self._loop, asyncio.BaseEventLoop):
            self._tls_timeouts["ssl_shutdown_timeout"] = _SHUTDOWN

    async def connect(self, sock: socket.socket) -> None:
        """Make a connection of `sock`, or close it; nothing is raised for what a client may do wrong.

        Raises:
            OSError: the client is gone already.
        """
        peer = str(sock.getpeername()[0]) if sock.family in (socket.AF_INET, socket.AF_INET6) else _UNIX
        try:
            origin = await self._take_origin(sock, peer)
            if self._credentials is None:
                await self._open(sock, origin)
            else:
                await self._open_tls(sock, origin, self._credentials)
        except NoOrigin as error:
            if str(error):
                self._warn(peer, str(error))
            sock.close()
        except OSError as error:  # an SSLError is one, and so is asyncio's time-out
            self._log_failure(peer, error)
            sock.close()
        except BaseException:
            sock.close()
            raise

    def _log_failure(self, peer: str, error: OSError) -> None:
        reason = _refused_certificate(error)
        if reason:
            self._warn(peer, reason)
        elif self._credentials is not None:
            log = self._server_state.log
            log.debug("Connection from %s closed: TLS handshake failed: %s", _shown(peer), _describe(error))

    def _warn(self, peer: str, reason: str) -> None:
        self._server_state.log.warning("Connection from %s closed: %s", _shown(peer), reason)

    async def _take_origin(self, sock: socket.socket, peer: str) -> Origin | None:
        """Take the PROXY header, where one is demanded."""
        if self._proxy_peers is None:
            return None
        if not self._proxy_peers.trusts(peer):
            raise NoOrigin("the peer is not in --forwarded-allow-ips")
        with self._arriving():
            return await take_header(self._loop, sock, self._loop.time() + self._timeout)

    @contextlib.contextmanager
    def _arriving(self) -> Iterator[None]:
        """Count the socket meanwhile: there is no connection yet that `--limit-connections` could count."""
        self._server_state.arriving += 1
        try:
            yield
        finally:
            self._server_state.arriving -= 1

    async def _open_tls(self, sock: socket.socket, origin: Origin | None, credentials: Credentials) -> None:
        with self._arriving():
            first = await peek(self._loop, sock, 1, self._loop.time() + self._timeout)
        if not first:
            sock.close()  # a check of the port, or a client that changed its mind
        elif first.isalpha() and first.isupper():
            # A record of a handshake begins with 22 (RFC 8446, section 5.1), a request with a method.
            await self._open(sock, origin, misdirected=True)
        else:
            with self._arriving():
                await self._open(sock, origin, ssl=credentials.context, **self._tls_timeouts)

    async def _open(
        self, sock: socket.socket, origin: Origin | None, *, misdirected: bool = False, **options: Any
    ) -> None:
        """Let a transport read the socket; `misdirected` refuses the request, which should be https."""

        def enter(transport: asyncio.BaseTransport) -> None:
            connection = self._make_connection(self._server_state)
            transport.set_protocol(connection)
            connection.connection_made(transport)
            if origin is not None and self._proxy_peers is not None:
                apply_origin(connection, origin, self._proxy_peers)
            if misdirected:
                connection.misdirected("This port speaks TLS: the request must be https.")

        def make_protocol() -> asyncio.Protocol:
            if origin is None and not misdirected:
                return self._make_connection(self._server_state)
            return _OnTransport(enter)

        await self._loop.connect_accepted_socket(make_protocol, sock, **options)


class _OnTransport(asyncio.Protocol):
    """Calls `enter`, which sets the protocol, as soon as there is a transport and before anything is read."""

    def __init__(self, enter: Callable[[asyncio.BaseTransport], None]) -> None:
        self._enter = enter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._enter(transport)


def _shown(peer: str) -> str:
    return "unix socket" if peer == _UNIX else peer


def _refused_certificate(error: OSError) -> str:
    """Return what is wrong with the client's certificate; nothing where that is not the cause."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and error.reason == _NO_CERTIFICATE:
        return "it shows no certificate"
    return ""


def _describe(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__
