"""`--pid-file`: a file with the process id to send signals to, for hosts without a service manager."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ostler.errors import SettingsError

_CLOCK_TOLERANCE = 2.0
"""Seconds. File systems store times less exactly than the kernel counts them."""


class PidFile:
    """A file with this process's pid, from `write` until `remove`. No reader sees it half written."""

    def __init__(self, path: str, directory: str) -> None:
        self.path = Path(directory, path)

    def refuse_live(self, besides: int | None = None) -> None:
        """Refuse to start if the file is that of another process that is still running.

        Args:
            besides: the pid of the arbiter that this one replaces, which may have the file.

        Raises:
            SettingsError: a running process has the file, or the file cannot be read.
        """
        try:
            written = self.path.stat().st_mtime
            pid = self._read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise SettingsError(f"cannot read the pid file {self.path}: {error.strerror}") from None
        if pid is not None and pid not in (os.getpid(), besides) and _lives(pid, written):
            raise SettingsError(
                f"the pid file {self.path} is that of process {pid}, which runs: "
                f"stop it, or give another --pid-file"
            )

    def write(self) -> None:
        """Write this process's pid; replaces an existing file.

        Raises:
            SettingsError: the file cannot be written.
        """
        temporary = self.path.with_name(f".{self.path.name}.{os.urandom(4).hex()}")
        try:
            try:
                with open(temporary, "x") as file:
                    os.fchmod(file.fileno(), 0o644)  # readable for all users, whatever the umask
                    file.write(f"{os.getpid()}\n")
                os.rename(temporary, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise SettingsError(
                f"cannot write the pid file {self.path}: {error.strerror}; check --pid-file"
            ) from None

    def remove(self) -> None:
        """Remove the file if it still has this process's pid."""
        with contextlib.suppress(OSError):
            if self._read() == os.getpid():
                self.path.unlink()

    def _read(self) -> int | None:
        text = self.path.read_bytes()[:32].strip()
        return int(text) if text.isdigit() and int(text) > 0 else None


def _lives(pid: int, written: float) -> bool:
    """Whether the process that wrote `pid` at the time `written` still runs.

    A process that started later has the same pid by chance. In a container pids start at 1 at each start, so
    a file that is kept in a volume would otherwise prevent the next start.
    """
    from ostler.system.processes import started_at  # needed only if there is an old file

    started = started_at(pid)
    return started is not None and started <= written + _CLOCK_TOLERANCE
