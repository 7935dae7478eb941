"""The load board: the number of connections of each worker, in memory that all processes share.

The arbiter makes it, hands it to every worker as it is spawned (`ostler.ipc.assignment`), and keeps it until
its own end.
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
"""In a queue's cell: no worker reads the queue. It is larger than any number of connections, so that no
worker is called there."""

MOST_QUEUES = 256
"""The number of queues at the most: a call to another worker is one byte, the queue's number."""


class LoadBoard:
    """For each queue, the number of open connections of its worker.

    There is no lock: a number may be out of date by a moment, and a decision that uses it must tolerate that.

    Args:
        size: the number of queues.
        fd: the descriptor of a board that exists; None makes a new one.

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
        """Unmap the memory and close its descriptor; a second call is a no-op."""
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
    """The queues of all workers, as one worker is given them. It owns the descriptors."""

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
