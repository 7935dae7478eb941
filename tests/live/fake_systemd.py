"""A fake service manager: it passes sockets to ostler, and receives ostler's notifications.

These are the two protocols of systemd: sd_listen_fds(3) and sd_notify(3). `tests/hosting/systemd.py` runs the
real one.
"""

from __future__ import annotations

import fcntl
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.live.harness import PATIENCE, add_note

# sd_listen_fds(3): the passed sockets begin at descriptor 3, and LISTEN_PID is the pid that they are for.
_LAUNCH = """
import os, sys
for wanted, fd in enumerate(map(int, os.environ.pop("PASSED").split(",")), 3):
    os.dup2(fd, wanted)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "ostler", *sys.argv[1:]])
"""
SOCKET_ACTIVATED = ("-c", _LAUNCH)
"""A `program` for `Ostler` that puts the sockets of `PassedSockets` where sd_listen_fds(3) has them."""


class PassedSockets:
    """Duplicates of sockets for a child process.

    Their numbers are above those where the child expects them, so that moving one overwrites no other.
    """

    def __init__(self, *sockets: socket.socket) -> None:
        self.fds = [fcntl.fcntl(sock, fcntl.F_DUPFD, 200) for sock in sockets]
        self.environment = {
            "PASSED": ",".join(map(str, self.fds)),
            "LISTEN_FDS": str(len(self.fds)),
        }

    def close(self) -> None:
        for fd in self.fds:
            socket.close(fd)


class NotifySocket:
    """Receive notifications at `address` while the context lasts.

    `address` is a value for NOTIFY_SOCKET: a path, or a name in the abstract namespace that begins with `@`.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1))
        self._messages: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> NotifySocket:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        add_note(error, f"notifications: {self.messages}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.address.replace("@", "\0", 1))
        self._thread.join(PATIENCE)
        self._socket.close()

    def _receive(self) -> None:
        while message := self._socket.recv(65536).decode():
            with self._changed:
                self._messages.append(message)
                self._changed.notify_all()

    @property
    def messages(self) -> Sequence[str]:
        with self._changed:
            return tuple(self._messages)

    @property
    def fields(self) -> list[str]:
        """Every field that was received, in order."""
        return [field for message in self.messages for field in message.split("\n")]

    def wait_for(self, start: str, count: int = 1) -> str:
        """Return the `count`-th field that begins with `start`, as soon as it has been received."""
        found: list[str] = []

        def received() -> bool:
            fields = [field for message in self._messages for field in message.split("\n")]
            found[:] = [field for field in fields if field.startswith(start)]
            return len(found) >= count

        with self._changed:
            if not self._changed.wait_for(received, PATIENCE):
                raise AssertionError(f"{start!r} was not received: {self._messages}")
        return found[count - 1]
