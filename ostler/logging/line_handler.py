"""The handler that writes our lines, one by one or several at a time, whatever has become of the reader."""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

# What is written to a pipe in one piece up to this size stays in one piece (pipe(7), PIPE_BUF), and a pipe
# that is writable has room for that much.
_ROOM = 4096
_PATIENCE = 1000
"""Milliseconds that a line waits for a reader before it is given up."""


class LineHandler(logging.Handler):
    """Writes each record at once, with a single write(2), so that processes do not mix up their lines.

    Not through the stream's buffer: what a full disk or a closed pipe refuses would stay in there, fail
    again with every later line, and turn the exit code into 120 when the interpreter flushes it at last.

    Who has many lines puts them, whole, into `waiting` and calls `flush` soon after; a record and the end of
    the interpreter (logging.shutdown) do so, too.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.stream = stream
        self.waiting: list[str] = []
        """Lines, each with its end, that go out with the next flush."""
        self.before: Callable[[], None] | None = None
        """Writes what is older than a record, where both may go to one place."""
        self._owner = os.getpid()
        self._flushing = False
        self._lost = 0
        self._why = ""
        self._watched = -1
        self._poll: select.poll | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.before is not None:
            self.before()
        if self.waiting:
            self.flush()
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001  # whatever an argument's __str__ raises; logging's own way
            self.handleError(record)
            return
        self._put(line.encode(self._encoding(), "backslashreplace"), 1)

    def flush(self) -> None:
        """Write what waits, in as few pieces as keep every line whole; from any thread or signal handler."""
        waiting = self.waiting
        if not waiting:
            return
        self.acquire()
        try:
            # Not in a signal's handler that came amid this very loop, which will see what it has added.
            while waiting and not self._flushing:
                self._flushing = True
                try:
                    lines = waiting[:]
                    del waiting[: len(lines)]
                    if self._owner == os.getpid():
                        self._put_all(lines)
                    else:  # a fork: its parent writes them
                        self._owner = os.getpid()
                finally:
                    self._flushing = False
        finally:
            self.release()

    def _put_all(self, lines: list[str]) -> None:
        encoding = self._encoding()
        data = "".join(lines).encode(encoding, "backslashreplace")
        if len(data) <= _ROOM:
            self._put(data, len(lines))
            return
        for piece, count in _pieces(line.encode(encoding, "backslashreplace") for line in lines):
            self._put(piece, count)

    def _put(self, data: bytes, count: int) -> None:
        """Write so many lines, or count them as lost."""
        if self.stream is None:  # started with the descriptor closed, as daemons are
            return
        if self._lost:
            data = self._confession() + data
        rest = self._write(self.stream, data)
        if not rest:
            self._lost = 0
        else:
            # A record may have several lines itself, and counts as one.
            self._lost += min(count, rest.count(b"\n"))

    def _confession(self) -> bytes:
        lines = "1 log line was" if self._lost == 1 else f"{self._lost} log lines were"
        record = logging.LogRecord("ostler", logging.WARNING, "", 0, f"{lines} lost: {self._why}", (), None)
        return (self.format(record) + "\n").encode(self._encoding(), "backslashreplace")

    def _encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "utf-8"

    def _write(self, stream: TextIO, data: bytes) -> bytes:
        """Return what could not be written, having noted why."""
        try:
            # What the application has printed goes out first and with the log, as people expect to see it.
            stream.flush()
            try:
                descriptor = stream.fileno()
            except (OSError, AttributeError):  # io.UnsupportedOperation: a StringIO or the like
                stream.write(data.decode(self._encoding()))
                stream.flush()
                return b""
            while data:
                if not self._room(descriptor):
                    self._why = "nobody reads the log"
                    break
                # Short writes happen: a disk that fills up midway, a pipe set non-blocking by someone else.
                written = _write_much(descriptor, data) if len(data) > _ROOM else os.write(descriptor, data)
                data = data[written:]
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._why = str(error)
        return data

    def _room(self, descriptor: int) -> bool:
        """Whether so much can be written without waiting: a log that nobody reads must not stop a server."""
        # Taken while in use: a signal handler that logs may come amid, and poll objects are not reentrant.
        poll, self._poll = self._poll, None
        if poll is None or descriptor != self._watched:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            self._watched = descriptor
        # One line that was lost is patience enough with a reader.
        room = bool(poll.poll(0 if self._lost else _PATIENCE))
        if descriptor == self._watched:
            self._poll = poll
        return room


def _pieces(lines: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the lines in pieces that a pipe takes whole, and how many each is; a longer line is one."""
    piece, count = b"", 0
    for line in lines:
        if piece and len(piece) + len(line) > _ROOM:
            yield piece, count
            piece, count = b"", 0
        piece += line
        count += 1
    yield piece, count


def _write_much(descriptor: int, data: bytes) -> int:
    """Write as much as fits without waiting: into a pipe with room enough, a long line goes in one piece.

    pwritev2(2) with RWF_NOWAIT, which leaves the descriptor's own mode alone: others share that. Where that
    is not to be had, a piece that poll(2) has promised room for.
    """
    if sys.platform == "linux":
        try:
            return os.pwritev(descriptor, [data], -1, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE):
                raise
    return os.write(descriptor, data[:_ROOM])
