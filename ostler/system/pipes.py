"""A pipe's ends, which the arbiter keeps or hands on to a worker at its birth.

multiprocessing's connections come with sockets, authentication and temporary directories, all of which every
process of a fleet would have to import.
"""

from __future__ import annotations

import os
from multiprocessing.reduction import DupFd
from typing import Any


class PipeEnd:
    """One end of a pipe. Pickled while a process is spawned, it is that process's as well."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __repr__(self) -> str:
        return f"<End {'closed' if self.closed else self._fd}>"

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
        """Close it. Closed already: nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def pipe() -> tuple[PipeEnd, PipeEnd]:
    """Return both ends of a new pipe, to read and to write; neither is inherited by itself (PEP 446)."""
    reader, writer = os.pipe()
    return PipeEnd(reader), PipeEnd(writer)


def _end(fd: Any) -> PipeEnd:
    return PipeEnd(fd.detach())
