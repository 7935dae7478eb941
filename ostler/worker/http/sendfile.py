"""Sends a part of a file through a connection: by sendfile(2) on a plain socket, else by reading and writing.

sendfile(2) passes a file's pages from the page cache to the socket; they are never in this process. The
transport knows nothing of it. So what the transport still holds goes out first, and while the file is being
sent nothing else writes to the transport.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Protocol

from ostler.worker.http.file_part import FilePart

PIECE = 512 * 1024
"""Bytes that one file may send in a turn of the loop: a fast client, which always takes more, must not keep
the loop from the others."""
READ_PIECE = 128 * 1024
"""Bytes that are read at once where sendfile(2) cannot be used: a connection holds so many beside what its
transport holds."""

# The head leaves together with the first of the file (send(2)). Only Linux has it.
_MORE_FOLLOWS = getattr(socket, "MSG_MORE", 0)


class FlowControl(Protocol):
    """The flow control of the connection."""

    write_paused: bool

    @property
    def closed(self) -> bool:
        """Whether the transport is lost."""

    def is_closing(self) -> bool:
        """Whether the transport drops what is sent, and the client's loss is not reported yet."""

    def resume_writing(self) -> None:
        """Wake all that wait in `drain`."""

    async def drain(self) -> None:
        """Wait until `write_paused` is reset, or the transport is lost."""


class FileTransfer:
    """Sends `prefix`, and then `size` bytes of a file. `await run()` once."""

    __slots__ = (
        "_flow", "_loaded", "_loop", "_part", "_prefix", "_socket", "_transport", "_watched", "left",
    )  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        flow: FlowControl,
        loop: asyncio.AbstractEventLoop,
        *,
        prefix: bytes,
        part: FilePart,
        size: int,
    ) -> None:
        self._transport = transport
        self._flow = flow
        self._loop = loop
        self._prefix = prefix
        self._part = part
        self._socket: socket.socket | None = None
        """A duplicate of the transport's socket, while sendfile(2) is used."""
        self._watched = False
        """The loop calls `_step` whenever the socket takes more."""
        self._loaded = False
        """A thread has just read the next piece, so that it is in the page cache."""
        self.left = size
        """Bytes of the file that are not sent yet; more than 0 in the end if it was shorter, or the client
        is gone."""

    async def run(self, *, by_kernel: bool) -> None:
        """Send all, as fast as the client reads; return early at the end of the file or of the connection.

        Args:
            by_kernel: use sendfile(2) if it works with this file.

        Raises:
            OSError: the file cannot be read.
        """
        if by_kernel and hasattr(os, "sendfile"):
            await self._empty_transport()
            if not self._flow.closed and not self._transport.is_closing():
                await self._send_by_kernel()
        if self.left:
            await self._read_and_write()

    async def _empty_transport(self) -> None:
        """Wait until the transport holds nothing: what it holds comes before the file."""
        transport = self._transport
        if not transport.get_write_buffer_size():
            return
        low, high = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(0)  # it pauses while it holds anything
        try:
            await self._flow.drain()
        finally:
            if not self._flow.closed:
                transport.set_write_buffer_limits(high, low)

    # -- by sendfile(2)

    async def _send_by_kernel(self) -> None:
        shared = self._transport.get_extra_info("socket")
        # A duplicate: uvloop and asyncio watch no descriptor for others that a transport has, and the number
        # of the transport's own may be another client's once the transport is lost.
        try:
            duplicate = os.dup(shared.fileno())
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                return  # reading and writing needs no descriptor more
            raise
        self._socket = socket.socket(shared.family, shared.type, shared.proto, fileno=duplicate)
        flow = self._flow
        flow.write_paused = True
        try:
            self._step()
            await flow.drain()
        finally:
            own, self._socket = self._socket, None
            self._unwatch(own)
            own.close()
            if flow.write_paused and not flow.closed:
                flow.resume_writing()

    def _step(self) -> None:
        """Send what the socket takes, up to a PIECE; have the loop call this again, or end."""
        own = self._socket
        if own is None:
            return
        size = min(self.left, PIECE)
        if not self._loaded and not self._part.cached(size):
            self._load(own, size)
            return
        self._loaded = False
        try:
            taken_whole = self._send_piece(own, size)
        except (BlockingIOError, InterruptedError):
            taken_whole = False
        except (OSError, EOFError):
            # sendfile(2) does not take this file, or it is shorter than it was, or either side has failed: to
            # read and to write shows which.
            self._flow.resume_writing()
            return
        if not self.left:
            self._flow.resume_writing()
        elif self._watched:
            pass
        elif taken_whole:
            self._loop.call_soon(self._step)
        else:
            self._watched = True
            self._loop.add_writer(own.fileno(), self._step)

    def _send_piece(self, own: socket.socket, size: int) -> bool:
        """Send `size` bytes; return whether the socket took all of them, and may take more.

        Raises:
            OSError: it takes nothing now (BlockingIOError), or there is an error.
            EOFError: the file has ended.
        """
        if self._prefix:
            self._prefix = self._prefix[own.send(self._prefix, _MORE_FOLLOWS) :]
            if self._prefix:
                return False
        part = self._part
        assert part.offset is not None
        sent = os.sendfile(own.fileno(), part.descriptor, part.offset, size)
        if not sent:
            raise EOFError
        part.offset += sent
        self.left -= sent
        return sent == size

    def _load(self, own: socket.socket, size: int) -> None:
        """Have a thread read the next piece into the page cache: sendfile(2) would block the loop."""
        self._unwatch(own)
        loading = self._loop.run_in_executor(None, self._part.peek, size)
        loading.add_done_callback(self._on_loaded)

    def _on_loaded(self, loading: asyncio.Future[bytes]) -> None:
        if not loading.cancelled():
            loading.exception()  # the next step meets it again
        self._loaded = True
        self._step()

    def _unwatch(self, own: socket.socket) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_writer(own.fileno())

    # -- by reading and writing

    async def _read_and_write(self) -> None:
        transport, flow = self._transport, self._flow
        while self.left and not flow.closed and not transport.is_closing():
            data = await self._loop.run_in_executor(None, self._part.read, min(self.left, READ_PIECE))
            if not data or flow.closed or transport.is_closing():
                return
            self.left -= len(data)
            transport.write(self._prefix + data)
            self._prefix = b""
            if flow.write_paused:
                await flow.drain()
