"""The terminal under --reload: its workers share it for a debugger, and its modes are restored after them."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import Any


class Terminal:
    """Standard input, if that is a terminal, and its modes as they were when this object was made.

    A debugger's prompt changes the modes (no echo, single keys), and a worker may be killed meanwhile.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._modes = self._read()

    @property
    def present(self) -> bool:
        """Whether standard input is a terminal."""
        return self._modes is not None

    def restore(self) -> None:
        """Set the modes that the terminal had when this object was made."""
        if self._modes is None or self._read() in (None, self._modes):
            return
        # A process in the background that changes the modes is stopped by SIGTTOU (termios(3)).
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
