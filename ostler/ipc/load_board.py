"""What the workers of one arbiter share besides listening sockets: who is how busy, how to call for help.

Made by the arbiter, handed to every worker at its birth (`ostler.ipc.assignment`), and outliving them all.
"""

from __future__ import annotations

import mmap
import os
from multiprocessing.reduction import DupFd
from socket import socket
from typing import Any

from ostler.records import record
from ostler.system.pipes import PipeEnd

ABSENT = 2**32 - 1
"""In a queue's cell: nobody reads it. More than any worker has connections, so that nobody calls there."""

MOST_QUEUES = 256
"""A call is one byte, the queue's number."""


class LoadBoard:
    """The open connections of each queue's worker, in memory that the arbiter and all workers share.

    Nobody locks it: what one worker reads of another may be old by a moment, and whoever acts on it must be
    able to bear that.

    Raises:
        OSError: there is no memory, or the system has no memfd_create(2).
    """

    def __init__(self, size: int, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("ostler-board")
            os.ftruncate(fd, size * 4)
        self._fd = fd
        self._memory = mmap.mmap(fd, size * 4)
        self.cells = memoryview(self._memory).cast("I")

    def __reduce__(self) -> tuple[Any, ...]:
        return _board, (len(self.cells), DupFd(self._fd))

    def close(self) -> None:
        """Let go of the memory. Closed already: nothing."""
        if not self._memory.closed:
            self.cells.release()
            self._memory.close()
            os.close(self._fd)

    def fileno(self) -> int:
        """Return the descriptor of the memory."""
        return self._fd


def _board(size: int, fd: Any) -> LoadBoard:
    return LoadBoard(size, fd.detach())


@record
class SharedQueues:
    """Every worker's queues, as one worker has them. It owns the descriptors."""

    own: int
    """The number of the worker's own queues, which are among its assignment's sockets as well."""
    queues: tuple[tuple[socket, ...], ...]
    """By number, one socket for each address; none at `own`."""
    board: LoadBoard
    call_reader: PipeEnd
    """Read end of a pipe on which each byte is the number of queues that have too much to do."""
    call_writers: tuple[PipeEnd, ...]
    """By number, the write ends of those pipes."""

    def filenos(self) -> list[int]:
        """Return every descriptor."""
        sockets = [sock.fileno() for queue in self.queues for sock in queue]
        pipes = [self.call_reader.fileno(), *(writer.fileno() for writer in self.call_writers)]
        return [*sockets, *pipes, self.board.fileno()]
