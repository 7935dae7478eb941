"""systemd's notification protocol (sd_notify(3)): a service tells the service manager its state.

The arbiter, or a server without an arbiter, decides what to send and when.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Mapping

logger = logging.getLogger("ostler.error")

_MOST_PENDING = 32
"""Messages that wait for a busy manager; of more than these, the oldest are dropped."""


class Notifier:
    """Sends messages to a service manager; without one, does nothing. Never raises, never blocks.

    If the manager's queue is full, a message stays `pending`: call `flush()` a second later.

    Args:
        address: a path, or `@name` in Linux's abstract namespace (unix(7)); None without a manager.
        watchdog: seconds within which the manager expects `WATCHDOG=1`; None if it does not.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self.watchdog = watchdog
        """Seconds within which the manager expects `WATCHDOG=1`; None if it does not."""
        self._address = None if address is None else _kernel_name(address)
        self._pending: deque[bytes] = deque(maxlen=_MOST_PENDING)
        self._socket: socket.socket | None = None
        self.held = False
        """Whether nothing is sent, because another arbiter reports to systemd during an upgrade."""
        if self._address is None:
            self.watchdog = None

    def __repr__(self) -> str:
        return f"<Notifier {self._address!r} watchdog={self.watchdog}>"

    @property
    def listens(self) -> bool:
        """Whether messages are sent: there is a manager, and `held` is false."""
        return self._address is not None and not self.held

    @property
    def pending(self) -> bool:
        """Whether something could not be sent yet."""
        return bool(self._pending)

    def send(self, *fields: str) -> None:
        """Send one message, such as `send("READY=1", "STATUS=serving")`."""
        if self.listens:
            # A line break would begin another field.
            lines = (" ".join(field.splitlines()) for field in fields)
            self._pending.append("\n".join(lines).encode("utf-8", "replace"))
            self.flush()

    def flush(self) -> None:
        """Send what is pending, in order."""
        while self._pending:
            try:
                self._transmit(self._pending[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                logger.debug("The service manager cannot be told: %s", exc.strerror or exc)
            self._pending.popleft()

    def close(self) -> None:
        """Try once more to send what is pending, and close the socket."""
        self.flush()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _transmit(self, message: bytes) -> None:
        assert self._address is not None
        if self._socket is None:
            # Close-on-exec, as all of Python's descriptors are (PEP 446): no child can speak for this
            # process.
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        # Not connected: a manager that re-executes itself may bind a new socket to the address.
        self._socket.sendto(message, self._address)


def from_environment(environ: Mapping[str, str], pid: int) -> Notifier:
    """Return the notifier for NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)).

    A value that is not understood is logged as a warning and ignored: the service can run without it.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return Notifier()
    if address[0] not in "/@" or len(address) < 2:
        logger.warning(
            "NOTIFY_SOCKET is %r, expected a path or @name: the service manager is told nothing", address
        )
        return Notifier()
    return Notifier(address, _watchdog(environ, pid))


def failure(error: BaseException) -> tuple[str, ...]:
    """Return the fields that tell the manager why this process exits."""
    fields = [f"STATUS={error}"]
    if isinstance(error.__cause__, OSError) and error.__cause__.errno:
        fields.append(f"ERRNO={error.__cause__.errno}")
    return tuple(fields)


def microseconds(seconds: float) -> int:
    """Return a time in microseconds, the unit of the protocol."""
    return int(seconds * 1e6)


def _watchdog(environ: Mapping[str, str], pid: int) -> float | None:
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None  # meant for another process
    text = environ.get("WATCHDOG_USEC", "")
    with contextlib.suppress(ValueError, OverflowError):
        if int(text) > 0:
            return int(text) / 1e6
    if text:
        logger.warning("WATCHDOG_USEC is %r, expected microseconds: no watchdog", text)
    return None


def _kernel_name(address: str) -> bytes:
    """Return an address as bind(2) takes it: a leading @ becomes the NUL of the abstract namespace."""
    name = os.fsencode(address)
    return b"\0" + name[1:] if name.startswith(b"@") else name
