"""--pid-file: which process to send signals to, for those who have no service manager to ask."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ostler.errors import SettingsError

# File systems keep times less exactly than the kernel counts them.
_SLACK = 2.0


class PidFile:
    """A file with this process's pid, from `write` until `remove`; it is never seen half written."""

    def __init__(self, path: str, directory: str) -> None:
        self.path = Path(directory, path)

    def refuse_live(self, besides: int | None = None) -> None:
        """Refuse to go on where another process has the file; `besides` is the one whose place we take.

        Raises:
            SettingsError: a living process has it, or it cannot be read.
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
        """Write our pid, in place of whatever is there.

        Raises:
            SettingsError: the directory refuses.
        """
        temporary = self.path.with_name(f".{self.path.name}.{os.urandom(4).hex()}")
        try:
            try:
                with open(temporary, "x") as file:
                    os.fchmod(file.fileno(), 0o644)  # for whoever is to send signals, whatever the umask
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
        """Remove the file if it is still ours."""
        with contextlib.suppress(OSError):
            if self._read() == os.getpid():
                self.path.unlink()

    def _read(self) -> int | None:
        text = self.path.read_bytes()[:32].strip()
        return int(text) if text.isdigit() and int(text) > 0 else None


def _lives(pid: int, written: float) -> bool:
    """Whether the process that wrote its pid then still runs; a younger one only has the same number.

    In a container, where every start counts from 1, a file that is kept would else block the next start.
    """
    import psutil  # only where there is a file of somebody else's

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(process.create_time() <= written + _SLACK)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
