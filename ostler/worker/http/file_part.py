"""The part of a file that a message of ASGI's path send or zero copy send names."""

from __future__ import annotations

import errno
import inspect
import os
import stat
import threading
from collections.abc import Callable
from typing import Any

from ostler.worker.asgi import PATHSEND, ZEROCOPYSEND, Message

# Fails instead of waiting for a disk (preadv2(2)). Only Linux has it.
_NO_WAIT = getattr(os, "RWF_NOWAIT", None)


class FilePart:
    """An open file and what of it is to be sent. The descriptor is its own: `close` it."""

    __slots__ = (
        "_closing", "_lock", "_read_by_thread", "count", "descriptor", "follow", "limit", "name", "offset",
    )  # fmt: skip

    def __init__(
        self, descriptor: int, name: object, offset: int | None = 0, limit: int | None = None
    ) -> None:
        """Take over `descriptor`.

        Args:
            descriptor: it is open for reading.
            name: what the log calls the file.
            offset: where to begin; None for a file without positions, such as a pipe.
            limit: the most bytes to send; None for all up to the end.

        Raises:
            IsADirectoryError: it is a directory.
        """
        self.descriptor = descriptor
        self.name = name
        self.offset = offset
        self.limit = limit
        self.follow: Callable[[int], object] | None = None
        """Called at the end with the offset of the first byte that was not sent."""
        self._lock = threading.Lock()
        self._read_by_thread = False
        self._closing = False
        info = os.fstat(descriptor)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self.count: int | None = None
        """Bytes that are there to be sent; None if only reading tells, as with a pipe or a file of /proc."""
        if offset is None or not stat.S_ISREG(info.st_mode):
            self.offset = offset or None
        elif info.st_size:
            there = max(info.st_size - offset, 0)
            self.count = there if limit is None else min(there, limit)
        elif not os.pread(descriptor, 1, offset):
            self.count = 0  # else it is a file of /proc, which says that its size is 0

    def read(self, size: int) -> bytes:
        """Read the next `size` bytes at the most; return nothing at the end. Another thread may `close`."""
        data = self.peek(size)
        if self.offset is not None:
            self.offset += len(data)
        return data

    def peek(self, size: int) -> bytes:
        """Read as `read` does, and stay at the same offset, if the file has any."""
        with self._lock:
            if self.descriptor < 0:
                return b""
            self._read_by_thread = True
        try:
            if self.offset is None:
                return os.read(self.descriptor, size)
            return os.pread(self.descriptor, size, self.offset)
        finally:
            with self._lock:
                self._read_by_thread = False
                if self._closing:
                    os.close(self.descriptor)

    def cached(self, size: int) -> bool:
        """Whether the next `size` bytes are in the page cache, so that to read them takes no time.

        It is true, too, where the system or the file system does not tell.
        """
        if _NO_WAIT is None or not size:  # an offset of -1 would read from, and move, the app's own position
            return True
        try:
            os.preadv(self.descriptor, [bytearray(1)], (self.offset or 0) + size - 1, _NO_WAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        """Close the descriptor; if a thread reads from it, once that is done."""
        try:
            if self.follow is not None and self.offset is not None:
                self.follow(self.offset)
        finally:
            with self._lock:
                if self._read_by_thread:
                    self._closing = True  # a number that is free again may be another file's
                else:
                    os.close(self.descriptor)
                    self.descriptor = -1


def open_part(message: Message) -> FilePart:
    """Open what a message of either kind names.

    The file is opened in the event loop's thread, as nginx does it: to have another thread do it would cost
    six times as much, where the disk is a local one.

    Raises:
        TypeError: something in the message is of a wrong type.
        OSError: the file cannot be opened, or is a directory.
    """
    if message["type"] == PATHSEND:
        return _open_path(message.get("path"))
    return _open_descriptor(message)


def _open_path(path: object) -> FilePart:
    if not isinstance(path, str):
        raise TypeError(f"The path of '{PATHSEND}' must be a str, not {type(path).__name__}.")
    # A relative one is taken as it is: Starlette's FileResponse passes on what it was given.
    # O_NONBLOCK: to open a FIFO would wait for its writer, and with it the event loop.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        part = FilePart(descriptor, path)
        if part.count is None:
            os.set_blocking(descriptor, True)  # the thread that reads waits for what comes
        return part
    except OSError as error:
        os.close(descriptor)
        error.filename = path
        raise


def _open_descriptor(message: Message) -> FilePart:
    file = message.get("file")
    fileno = getattr(file, "fileno", None)
    if fileno is None:
        raise TypeError(f"The file of '{ZEROCOPYSEND}' must have a fileno(), not be {type(file).__name__}.")
    offset, limit = _number(message, "offset"), _number(message, "count")
    descriptor = os.dup(fileno())
    try:
        follow = None
        if offset is None:
            offset, follow = _position(file, descriptor)
        part = FilePart(descriptor, getattr(file, "name", file), offset, limit)
    except BaseException:
        os.close(descriptor)
        raise
    part.follow = follow
    return part


def _number(message: Message, name: str) -> int | None:
    value = message.get(name)
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(f"The {name} of '{ZEROCOPYSEND}' must be an int, not {type(value).__name__}.")
    if value < 0:
        raise ValueError(f"The {name} of '{ZEROCOPYSEND}' must not be negative: {value}.")
    return value


def _position(file: Any, descriptor: int) -> tuple[int | None, Callable[[int], object] | None]:
    """Return the file's current position, and what moves it on; None and None if it has none."""
    try:
        # Not the descriptor's own position, if it can be helped: a buffered file has read ahead of the app.
        if hasattr(file, "tell") and hasattr(file, "seek"):
            if inspect.iscoroutinefunction(file.tell):
                raise TypeError(f"'{ZEROCOPYSEND}' needs an offset: the file's tell() is a coroutine.")
            return file.tell(), file.seek
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError as error:
        if error.errno != errno.ESPIPE:
            raise
        return None, None
    # The app's descriptor has the same position: both are of one open file (dup(2)).
    return at, lambda offset: os.lseek(descriptor, offset, os.SEEK_SET)
