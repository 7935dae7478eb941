"""Socket activation: adopts listening sockets that a service manager has opened (sd_listen_fds(3))."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping

from ostler.errors import BindError
from ostler.records import record
from ostler.system.shared_sockets import from_descriptor
from ostler.system.sockets import Listener, adopt

FIRST = 3
"""The lowest descriptor that is passed (SD_LISTEN_FDS_START)."""

_MOST_DIGITS = 30
"""A number that is longer is neither a pid nor a count of descriptors."""


@record
class PassedSockets:
    """The sockets that were passed: their number, and the names that the manager gave them."""

    count: int = 0
    names: tuple[str, ...] = ()
    ignored_because: str = ""
    """The text of a warning: why the variables are set, but the sockets are not used."""

    def descriptors(self) -> range:
        """Return the numbers of the descriptors."""
        return range(FIRST, FIRST + self.count)


def read(environ: Mapping[str, str], pid: int) -> PassedSockets:
    """Return the sockets that LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES describe.

    Args:
        environ: the environment.
        pid: of this process, for which LISTEN_PID must be meant.

    Raises:
        BindError: the protocol does not allow a value.
    """
    text = environ.get("LISTEN_FDS")
    if text is None:
        return PassedSockets()
    if "LISTEN_PID" not in environ:
        return PassedSockets(ignored_because="LISTEN_PID is not set")
    for name in ("LISTEN_PID", "LISTEN_FDS"):
        value = environ[name]
        # int() refuses a text of more than 4300 digits.
        if not (value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS):
            raise BindError(f"{name} is {value!r}: expected a number, as the service manager sets it")
    if int(environ["LISTEN_PID"]) != pid:
        return PassedSockets(
            ignored_because=f"LISTEN_PID is {environ['LISTEN_PID']} and this process is {pid}"
        )
    count = int(text)
    if count > _most_descriptors():
        raise BindError(f"LISTEN_FDS is {text!r}: more descriptors than a process can have")
    given = environ.get("LISTEN_FDNAMES")
    names = tuple(given.split(":")) if given else ()
    if given and len(names) != count:
        raise BindError(f"LISTEN_FDNAMES is {given!r}: expected {count} names, as LISTEN_FDS is {count}")
    return PassedSockets(count, names)


def listeners(passed: PassedSockets, backlog: int) -> list[Listener]:
    """Return a listener for every socket that was passed; the inherited descriptors are closed.

    Args:
        passed: as `read` returns it.
        backlog: for a socket that does not listen yet.

    Raises:
        BindError: one of the descriptors is not a listening stream socket.
    """
    # All are checked before any is duplicated: a duplicate would get the number of one that is missing.
    for fd in passed.descriptors():
        _refuse_wrong(fd, passed.count)
    opened: list[Listener] = []
    try:
        for index, fd in enumerate(passed.descriptors()):
            name = passed.names[index] if passed.names else ""
            origin = f"systemd ({name})" if name else "systemd"
            opened.append(
                Listener(adopt(fd, backlog, source=_source(passed.count)), origin=origin, ours=False)
            )
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    for fd in passed.descriptors():
        os.close(fd)
    return opened


def _refuse_wrong(fd: int, count: int) -> None:
    try:
        kind = os.fstat(fd).st_mode
    except OSError:
        raise BindError(f"{_source(count)}: descriptor {fd} is not open") from None
    if not stat.S_ISSOCK(kind):
        raise BindError(f"{_source(count)}: descriptor {fd} is not a socket")
    with contextlib.suppress(OSError), from_descriptor(os.dup(fd)) as sock:
        sock.getpeername()
        raise BindError(
            f"{_source(count)}: descriptor {fd} is a connection and no listening socket; "
            f"the socket unit needs Accept=no"
        )


def _source(count: int) -> str:
    return f"LISTEN_FDS={count}"


def _most_descriptors() -> int:
    return int(os.sysconf("SC_OPEN_MAX"))
