"""A log handler that writes whole lines and never blocks: it drops lines if nothing reads the stream.

Relies on Linux for two things. A write of up to PIPE_BUF bytes to a pipe is not mixed with those of other
processes (pipe(7)): POSIX guarantees it as well. pwritev2(2) with RWF_NOWAIT writes longer lines as far as a
pipe has room: where the system or the file does not support that, it refuses with an error, and the line is
written in pieces of PIPE_BUF, which other processes' lines may separate.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

_PIPE_BUF = 4096
"""Bytes that a pipe takes in one piece; a pipe that poll(2) reports as writable has room for that many."""
_READER_TIMEOUT = 1000
"""Milliseconds that a line waits for a reader before it is lost."""


class LineHandler(logging.Handler):
    """Writes each record at once, with a single write(2), so that the lines of several processes do not mix.

    The stream's buffer is not used. What a full disk or a closed pipe refuses would stay in that buffer, fail
    again with every later line, and make the exit code 120 when the interpreter flushes it at its end.

    A caller with many lines appends complete lines to `waiting`, and calls `flush` soon after. The next
    record and the end of the interpreter (logging.shutdown) flush them as well.

    A line that cannot be written is lost. Lost lines are counted, and the next line that can be written is
    preceded by a warning with their number and the reason.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.stream = stream
        self.waiting: list[str] = []
        """Lines, each with its line feed, that the next flush writes."""
        self.before: Callable[[], None] | None = None
        """Called before each record: writes older lines of another handler for the same file."""
        self._owner = os.getpid()
        self._flushing = False
        self._lost = 0
        self._loss_reason = ""
        self._polled_descriptor = -1
        self._poll: select.poll | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.before is not None:
            self.before()
        if self.waiting:
            self.flush()
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001  # an argument's __str__ raises anything; as in logging
            self.handleError(record)
            return
        self._put(line.encode(self._encoding(), "backslashreplace"), 1)

    def flush(self) -> None:
        """Write the lines in `waiting`, in few pieces of whole lines; from any thread or signal handler."""
        waiting = self.waiting
        if not waiting:
            return
        self.acquire()
        try:
            # A signal handler that interrupts this loop does not write: the loop also writes its lines.
            while waiting and not self._flushing:
                self._flushing = True
                try:
                    lines = waiting[:]
                    del waiting[: len(lines)]
                    if self._owner == os.getpid():
                        self._put_all(lines)
                    else:  # this is a forked child: its parent writes these lines
                        self._owner = os.getpid()
                finally:
                    self._flushing = False
        finally:
            self.release()

    def _put_all(self, lines: list[str]) -> None:
        encoding = self._encoding()
        data = "".join(lines).encode(encoding, "backslashreplace")
        if len(data) <= _PIPE_BUF:
            self._put(data, len(lines))
            return
        for piece, count in _pieces(line.encode(encoding, "backslashreplace") for line in lines):
            self._put(piece, count)

    def _put(self, data: bytes, count: int) -> None:
        """Write `data`, which is `count` lines; count those as lost that could not be written."""
        if self.stream is None:  # the process was started with a closed descriptor, as daemons are
            return
        if self._lost:
            data = self._loss_notice() + data
        rest = self._write(self.stream, data)
        if not rest:
            self._lost = 0
        else:
            # A record with several lines counts as one.
            self._lost += min(count, rest.count(b"\n"))

    def _loss_notice(self) -> bytes:
        lines = "1 log line was" if self._lost == 1 else f"{self._lost} log lines were"
        text = f"{lines} lost: {self._loss_reason}"
        record = logging.LogRecord("ostler", logging.WARNING, "", 0, text, (), None)
        return (self.format(record) + "\n").encode(self._encoding(), "backslashreplace")

    def _encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "utf-8"

    def _write(self, stream: TextIO, data: bytes) -> bytes:
        """Return the bytes that could not be written; `_loss_reason` says why."""
        try:
            # What the application has printed is written first, so that it keeps its place among the lines.
            stream.flush()
            try:
                descriptor = stream.fileno()
            except (OSError, AttributeError):  # io.UnsupportedOperation: a StringIO, for one
                stream.write(data.decode(self._encoding()))
                stream.flush()
                return b""
            while data:
                if not self._has_room(descriptor):
                    self._loss_reason = "nobody reads the log"
                    break
                # A write may be short: the disk fills up, or another process has made the pipe non-blocking.
                if len(data) > _PIPE_BUF:
                    written = _write_without_waiting(descriptor, data)
                else:
                    written = os.write(descriptor, data)
                data = data[written:]
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._loss_reason = str(error)
        return data

    def _has_room(self, descriptor: int) -> bool:
        """Whether PIPE_BUF bytes can be written at once; waits for the reader, but not for ever.

        A log that is not read must not block the server.
        """
        # Taken out while it is used: poll objects are not reentrant, and a signal handler may log meanwhile.
        poll, self._poll = self._poll, None
        if poll is None or descriptor != self._polled_descriptor:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            self._polled_descriptor = descriptor
        # After a lost line the reader is not waited for any more.
        room = bool(poll.poll(0 if self._lost else _READER_TIMEOUT))
        if descriptor == self._polled_descriptor:
            self._poll = poll
        return room


def _pieces(lines: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of whole lines that fit into a pipe at once, and how many lines each has."""
    piece, count = b"", 0
    for line in lines:
        if piece and len(piece) + len(line) > _PIPE_BUF:
            yield piece, count
            piece, count = b"", 0
        piece += line
        count += 1
    yield piece, count


def _write_without_waiting(descriptor: int, data: bytes) -> int:
    """Write as much as fits now: if a pipe has enough room, a long line is written in one piece.

    RWF_NOWAIT applies to one call; O_NONBLOCK would change the descriptor for all processes that share it.
    Where it is not supported, write as much as poll(2) has reported room for.
    """
    if sys.platform == "linux":
        try:
            return os.pwritev(descriptor, [data], -1, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE):
                raise
    return os.write(descriptor, data[:_PIPE_BUF])
