"""Opens listening sockets: binds TCP and Unix sockets, and adopts inherited descriptors.

Every socket, bound or inherited, is a `socket.socket` with the family and type that the kernel reports.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from ostler.errors import BindError
from ostler.settings.declarations import Settings
from ostler.system import shared_sockets, stop_listening

_UNIX_PATH_MAX = 107
"""Bytes: `sun_path` has 108 with the NUL at its end (unix(7))."""

Socket = socket.socket


@dataclass
class Listener:
    """A listening socket; for a Unix socket that ostler has bound, also its path and inode, to unlink it."""

    socket: socket.socket
    path: str | None = None
    inode: tuple[int, int] | None = None
    origin: str = ""
    """What opened the socket, as a text for the log; empty if ostler did."""
    owned: bool = True
    """Whether `close` unlinks the path. In an upgrade two arbiters have the socket, and one owns its path."""
    further: tuple[Socket, ...] = ()
    """The other sockets of its SO_REUSEPORT group, one for each further queue, in the group's order."""
    ours: bool = True
    """Whether ostler has opened the socket. Another program's is left listening: it may serve from it."""
    pid: int = field(default_factory=os.getpid)
    """The process that owns the socket: what the application forks leaves socket and path alone."""

    @property
    def address(self) -> str:
        """The address for clients, as the log shows it."""
        return self.url("http")

    def url(self, scheme: str) -> str:
        """Return the address for clients as a URL with this scheme, as the log shows it."""
        # A Unix socket is bound under a temporary name and then renamed: getsockname() has the old name.
        return describe(self.socket, scheme) if self.path is None else f"unix socket {self.path}"

    @property
    def ends_with_us(self) -> bool:
        """Whether no other process serves from the socket after this instance of ostler."""
        return self.ours and self.owned and self.pid == os.getpid()

    def end(self) -> None:
        """Close the socket; if it `ends_with_us`, let no process that has it open listen any more."""
        if self.ends_with_us:
            for sock in (self.socket, *self.further):
                stop_listening.shut_down(sock)
        self.close()

    def close(self) -> None:
        """Close the socket in this process, and unlink its path if no other socket has replaced it there."""
        self.socket.close()
        self.unlink()

    def unlink(self) -> None:
        """Remove the path of a Unix socket of ours, if no other socket has replaced it there."""
        if (
            self.owned
            and self.pid == os.getpid()
            and self.path is not None
            and self.inode == _inode(self.path)
        ):
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def open_listeners(settings: Settings, owner: tuple[int, int] | None = None) -> list[Listener]:
    """Return the listeners that the settings ask for; all of them listen.

    Args:
        settings: `fd`, `uds`, or `host` and `port`; `backlog`.
        owner: user id and group id that a new Unix socket gets, if this process runs as root.

    Raises:
        BindError: an address is in use, not of this machine, or forbidden; `fd` is not a listening socket.
    """
    if settings.fd is not None:
        return [Listener(adopt(settings.fd, settings.backlog), ours=False)]
    if settings.uds is not None:
        return [bind_unix(settings.uds, settings.uds_permissions, settings.backlog, owner)]
    return [Listener(sock) for sock in bind_tcp(settings.host, settings.port, settings.backlog)]


def describe(sock: socket.socket, scheme: str = "http") -> str:
    """Return `scheme://host:port`, or `unix socket PATH`, for a bound socket."""
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{scheme}://{host}:{name[1]}"
    if isinstance(name, bytes):  # Linux's abstract namespace (unix(7))
        name = "@" + name[1:].decode("utf-8", "replace")
    return f"unix socket {name}"


def adopt(fd: int, backlog: int, *, source: str = "") -> socket.socket:
    """Return a duplicate of the inherited socket `fd`, listening.

    If `fd` is a standard stream (0, 1 or 2), it is then opened on /dev/null: a closed descriptor 0 would be
    reused by the next file that is opened.

    Args:
        fd: the inherited descriptor.
        backlog: for a socket that does not listen yet.
        source: the flag or variable that named the descriptor, for the error message; by default `--fd`.

    Raises:
        BindError: `fd` is not open, not a stream socket, or already connected.
    """
    source = source or f"--fd {fd}"
    try:
        sock = shared_sockets.from_descriptor(os.dup(fd))
    except OSError as exc:
        what = "is not open" if exc.errno == errno.EBADF else "is not a socket"
        raise BindError(
            f"{source}: descriptor {fd} {what}; the parent process must pass a socket on it"
        ) from None
    try:
        if sock.type != socket.SOCK_STREAM:
            raise BindError(f"{source}: descriptor {fd} is not a stream socket")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            _listen(sock, backlog, f"descriptor {fd}")
    except BaseException:
        sock.close()
        raise
    if fd <= 2:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, fd)
        os.close(null)
    return sock


def bind_tcp(hosts: Iterable[str], port: int, backlog: int) -> list[socket.socket]:
    """Listen on every address of every host; for port 0, on the same free port on all of them.

    Raises:
        BindError: the message names the address and what to do.
    """
    hosts = list(dict.fromkeys(hosts))
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            opened = _bind_host(host, port, backlog, dual_stack=len(hosts) == 1)
            sockets += opened
            port = port or opened[0].getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_host(host: str, port: int, backlog: int, *, dual_stack: bool) -> list[socket.socket]:
    # A str is encoded by the idna codec, for which Python loads the tables of unicodedata. An IP address
    # needs no codec: the arbiter stays small.
    is_address = host.isascii() and (":" in host or host.replace(".", "").isdigit())
    name = host.encode() if is_address else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, socket.gaierror) else str(exc)
        raise BindError(f"cannot listen on {host}: no such host ({reason}); check --host") from None
    sockets: list[socket.socket] = []
    failure: BindError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        target = (address[0], port, *address[2:])
        try:
            sockets.append(_bind_one(family, target, backlog, dual_stack=dual_stack))
        except BindError as exc:
            # A name such as localhost may have addresses of a family that this machine does not support.
            cause = exc.__cause__
            if len(found) == 1 or not isinstance(cause, OSError) or cause.errno not in _UNAVAILABLE:
                for sock in sockets:
                    sock.close()
                raise
            failure = exc
            continue
        port = port or sockets[0].getsockname()[1]
    if failure is not None and not sockets:
        raise failure
    return sockets


_UNAVAILABLE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_ADVICE = {
    errno.EADDRINUSE: "another process has it; stop that one or choose another --port",
    errno.EACCES: "not allowed; a port below 1024 needs root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this machine has this address; check --host",
}


def _bind_one(family: int, address: tuple[object, ...], backlog: int, *, dual_stack: bool) -> socket.socket:
    host, port = address[:2]
    where = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise _cannot_listen(where, exc) from exc
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" alone serves IPv4 as well; beside an IPv4 host it must not take that host's port.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual_stack else 1)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        raise _cannot_listen(where, exc) from exc
    _listen(sock, backlog, where)
    return sock


def _listen(sock: socket.socket, backlog: int, where: str) -> None:
    try:
        sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise _cannot_listen(where, exc) from exc


def _cannot_listen(where: str, exc: OSError) -> BindError:
    advice = _ADVICE.get(exc.errno or 0)
    return BindError(f"cannot listen on {where}: {exc.strerror}" + (f" ({advice})" if advice else ""))


def bind_unix(path: str, permissions: int, backlog: int, owner: tuple[int, int] | None = None) -> Listener:
    """Listen on a Unix socket at `path`.

    A stale socket, left by a process that was killed, is replaced; a socket on which a server listens is an
    error.

    Args:
        path: of the socket.
        permissions: its mode.
        backlog: its backlog.
        owner: its user id and group id, if this process runs as root; by default those of the process.

    Raises:
        BindError: a server listens there, another file is there, or the directory cannot be written.
    """
    path = os.path.abspath(path)
    # Bound under a temporary name and renamed, so that at `path` the socket always listens and has its mode.
    temporary = os.path.join(os.path.dirname(path), f".{os.urandom(4).hex()}")
    if max(len(os.fsencode(path)), len(os.fsencode(temporary))) > _UNIX_PATH_MAX:
        raise BindError(
            f"cannot listen on unix socket {path}: the path is longer than {_UNIX_PATH_MAX} bytes"
        )
    _refuse_unless_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(temporary)
        try:
            os.chmod(temporary, permissions)
            if owner is not None and os.geteuid() == 0:
                os.chown(temporary, *owner)
            sock.listen(backlog)
            inode = _inode(temporary)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as exc:
        sock.close()
        raise BindError(f"cannot listen on unix socket {path}: {exc.strerror}; check the directory") from exc
    return Listener(sock, path, inode)


def _refuse_unless_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise BindError(f"cannot listen on unix socket {path}: {exc.strerror}") from exc
    if not stat.S_ISSOCK(mode):
        raise BindError(
            f"cannot listen on unix socket {path}: a file that is no socket lies there; remove it"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # stale: no process listens
        except BlockingIOError:
            pass  # a process listens, and its backlog is full
        except OSError as exc:
            raise BindError(f"cannot listen on unix socket {path}: {exc.strerror}") from exc
    raise BindError(
        f"cannot listen on unix socket {path}: another server listens there; stop it or change --uds"
    )


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
