"""The terminal that ostler was started at: whether it is in the foreground there, and whether that has gone.

The controlling terminal belongs to the session (credentials(7)); standard streams may be redirected. When a
terminal is hung up (ssh dropped, a window or a tmux pane closed), the kernel and the shell send SIGHUP, and
the session has no terminal any more.
"""

from __future__ import annotations

import os
import signal


def in_foreground() -> bool:
    """Whether this process is in the foreground of a terminal, where Ctrl+C sends SIGINT to it."""
    return _foreground_group() == os.getpgrp()


class ControllingTerminal:
    """The controlling terminal at the time when this object is made; make it before SIGHUP is handled.

    Args:
        background: whether a process that was started in the terminal's background ends with it, too.
    """

    def __init__(self, *, background: bool = False) -> None:
        group = _foreground_group()
        # nohup(1) has SIGHUP ignored: then the process is to outlive the terminal.
        self._ends_us = (
            group is not None
            and (background or group == os.getpgrp())
            and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
        )

    @property
    def gone(self) -> bool:
        """Whether a SIGHUP means that this process has lost the terminal that it was started at."""
        return self._ends_us and _foreground_group() is None


def _foreground_group() -> int | None:
    """Return the foreground process group of the controlling terminal; None if there is no such terminal."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.tcgetpgrp(descriptor)
    except OSError:  # it was hung up in this moment
        return None
    finally:
        os.close(descriptor)
