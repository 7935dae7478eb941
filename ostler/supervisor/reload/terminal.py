"""The terminal that --reload was started at, which its workers share for a debugger."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import Any


class Terminal:
    """Standard input, if that is a terminal: its modes as they were, and as they shall be again.

    A debugger's prompt changes them (no echo, single keys), and a worker may be killed amid it.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._modes = self._read()

    @property
    def present(self) -> bool:
        """Whether there is one to share."""
        return self._modes is not None

    @property
    def gone(self) -> bool:
        """Whether there was one that has been hung up."""
        return self.present and self._read() is None

    def restore(self) -> None:
        """Give it the modes back that it had when this object was made."""
        if self._modes is None or self._read() in (None, self._modes):
            return
        # Without this a process in the background is stopped by its attempt (termios(3)).
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSANOW, self._modes)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _read(self) -> list[Any] | None:
        try:
            return termios.tcgetattr(self._descriptor) if os.isatty(self._descriptor) else None
        except (termios.error, OSError):
            return None
