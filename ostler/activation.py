"""Socket activation: listening sockets that a service manager opened for us (sd_listen_fds(3))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from socket import socket

from ostler.errors import BindError
from ostler.sockets import Listener, adopt

FIRST = 3
"""The lowest descriptor that is passed (SD_LISTEN_FDS_START)."""


@dataclass(frozen=True)
class Passed:
    """The sockets that were passed: how many, and what the manager calls them."""

    count: int = 0
    names: tuple[str, ...] = ()
    stranger: str = ""
    """Why there are none, although the variables are set: in words, for a warning."""

    def descriptors(self) -> range:
        """Return their numbers."""
        return range(FIRST, FIRST + self.count)


def read(environ: Mapping[str, str], pid: int) -> Passed:
    """Return what LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES say.

    Raises:
        BindError: a value is not what the protocol has.
    """
    text = environ.get("LISTEN_FDS")
    if text is None:
        return Passed()
    if "LISTEN_PID" not in environ:
        return Passed(stranger="LISTEN_PID is not set")
    for name in ("LISTEN_PID", "LISTEN_FDS"):
        value = environ[name]
        if not (value.isascii() and value.isdigit()):
            raise BindError(f"{name} is {value!r}: expected a number, as the service manager sets it")
    if int(environ["LISTEN_PID"]) != pid:
        return Passed(stranger=f"LISTEN_PID is {environ['LISTEN_PID']} and this process is {pid}")
    count = int(text)
    if count > _most_descriptors():
        raise BindError(f"LISTEN_FDS is {text!r}: more descriptors than a process can have")
    given = environ.get("LISTEN_FDNAMES")
    names = tuple(given.split(":")) if given else ()
    if given and len(names) != count:
        raise BindError(f"LISTEN_FDNAMES is {given!r}: expected {count} names, as LISTEN_FDS is {count}")
    return Passed(count, names)


def listeners(passed: Passed, backlog: int) -> list[Listener]:
    """Adopt every socket that was passed, each as our own; what was inherited is closed.

    Raises:
        BindError: one of them is no listening stream socket.
    """
    opened: list[Listener] = []
    try:
        for index, fd in enumerate(passed.descriptors()):
            _refuse_connection(fd, passed.count)
            sock = adopt(fd, backlog, giver=f"LISTEN_FDS={passed.count}")
            name = passed.names[index] if passed.names else ""
            opened.append(Listener(sock, origin=f"systemd ({name})" if name else "systemd"))
            os.close(fd)
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _refuse_connection(fd: int, count: int) -> None:
    with contextlib.suppress(OSError), socket(fileno=os.dup(fd)) as sock:
        sock.getpeername()
        raise BindError(
            f"LISTEN_FDS={count}: descriptor {fd} is a connection and no listening socket; "
            f"the socket unit needs Accept=no"
        )


def _most_descriptors() -> int:
    return int(os.sysconf("SC_OPEN_MAX"))
