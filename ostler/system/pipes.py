"""The two ends of a pipe, as objects that multiprocessing can hand to a process that it spawns.

Not multiprocessing's connections: these need sockets, authentication and temporary directories, and every
process of a fleet would have to import all that.
"""

from __future__ import annotations

import os
from multiprocessing.reduction import DupFd
from typing import Any


class PipeEnd:
    """One end of a pipe. If it is pickled while a process is spawned, that process gets a copy of its own."""

    # Kept here, because at the end of the interpreter the module may have lost its names before `__del__` is
    # called; a free-threaded Python does so.
    _close = staticmethod(os.close)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __repr__(self) -> str:
        return f"<PipeEnd {'closed' if self.closed else self._fd}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _end, (DupFd(self.fileno()),)

    def __del__(self) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._fd < 0

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            OSError: it is closed.
        """
        if self._fd < 0:
            raise OSError("the end of a pipe is closed")
        return self._fd

    def close(self) -> None:
        """Close the descriptor; a second call is a no-op."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._close(fd)


def pipe() -> tuple[PipeEnd, PipeEnd]:
    """Return the read and the write end of a new pipe. A child does not inherit them by itself (PEP 446)."""
    reader, writer = os.pipe()
    return PipeEnd(reader), PipeEnd(writer)


def _end(fd: Any) -> PipeEnd:
    return PipeEnd(fd.detach())
