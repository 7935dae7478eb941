"""ASGI's extensions path send and zero copy send: a file, or a part of one, as the response's body.

A small part is read and sent like any piece of a body, so that it leaves together with the head. A longer one
is sent by `FileTransfer`. What only reading tells the length of (a pipe, a file of /proc) is read to its end.

https://asgi.readthedocs.io/en/latest/extensions.html
"""

from __future__ import annotations

from ostler.worker.asgi import PATHSEND, ClientDisconnected, Message
from ostler.worker.http.cycle import COMPLETE, SENDING, STARTED, Cycle, file_under_way, out_of_order
from ostler.worker.http.file_part import FilePart, open_part
from ostler.worker.http.response import BODILESS, FILE, UNKNOWN
from ostler.worker.http.sendfile import READ_PIECE

SMALL = 64 * 1024
"""Bytes of a part up to which it is read at once: for less than the system calls of sendfile(2) cost."""

_BODY = "http.response.body"


async def send_file(cycle: Cycle, message: Message) -> None:
    """Send what the message names.

    Until the file is open, nothing of the response is written. The announced length counts: of a file that
    has grown since it was announced, no more is sent.

    Raises:
        RuntimeError: the message is not allowed in this state, or cannot be sent.
        TypeError: something in the message is of a wrong type.
        OSError: the file cannot be opened, or be read.
        ClientDisconnected: the client is gone.
    """
    kind = message["type"]
    more = False
    if kind != PATHSEND:
        more = message.get("more_body", False)
    elif cycle.state != STARTED:
        raise RuntimeError(f"The ASGI message '{kind}' is the whole body; a piece of it was sent before.")
    part = open_part(message)
    try:
        stream = cycle.stream
        if stream.write_paused:
            await stream.drain()
        if cycle.disconnected:
            raise ClientDisconnected("The client is gone.")
        if cycle.state == COMPLETE:  # another task has ended the response meanwhile
            raise out_of_order(kind, COMPLETE)
        if cycle._remaining == FILE:
            raise file_under_way(kind)
        size = _size_to_send(cycle._remaining, part)
        if size is None:
            await _read_to_the_end(cycle, part, more)
        elif size <= SMALL:
            if part.cached(size):
                data = part.read(size)
            else:
                data = await stream.server_state.loop.run_in_executor(None, part.read, size)
            await cycle.send({"type": _BODY, "body": data, "more_body": more})
        else:
            await _transfer(cycle, part, size, more)
    finally:
        part.close()


def _size_to_send(announced: int, part: FilePart) -> int | None:
    """Return how many bytes of `part` to send; None if only reading tells.

    Raises:
        RuntimeError: they are more than is announced.
    """
    if announced == BODILESS:
        return 0
    size = part.count
    if announced == UNKNOWN:
        return size
    if part.limit is not None and (part.limit if size is None else size) > announced:
        raise RuntimeError("Response content longer than Content-Length")
    return None if size is None else min(size, announced)


async def _transfer(cycle: Cycle, part: FilePart, size: int, more: bool) -> None:
    """Send `size` bytes through the stream, and end the response if that was the last of it."""
    stream = cycle.stream
    announced = cycle._remaining
    cycle.state = SENDING
    cycle._remaining = FILE  # and it stays so if an exception ends this: what was sent is not whole
    sent = await stream.file(cycle, part, size, more)
    if sent < size and (cycle.disconnected or stream.is_closing()):
        cycle.disconnect()
        raise ClientDisconnected("The client is gone.")
    left = announced if announced == UNKNOWN else announced - sent
    if more and sent == size:
        cycle._remaining = left
        return
    if sent < size:
        stream.server_state.log.error(
            "File %s became shorter while it was sent: the response ends after %d of %d bytes",
            part.name,
            sent,
            size,
        )
    elif left > 0:
        stream.server_state.log.error("Response content shorter than Content-Length")
    cycle._finish()
    if sent == size and left <= 0:
        stream.complete(cycle)
        return
    stream.cut(cycle)
    if more:
        cycle.disconnect()
        raise ClientDisconnected("The response was broken off.")


async def _read_to_the_end(cycle: Cycle, part: FilePart, more: bool) -> None:
    """Send what a thread reads, up to the limit, or to the end of the announced length or of the file."""
    loop = cycle.stream.server_state.loop
    left = part.limit
    while left is None or left > 0:
        size = READ_PIECE if left is None else min(left, READ_PIECE)
        announced = cycle._remaining
        if announced >= 0:
            size = min(size, announced)
        if not size:
            break
        data = await loop.run_in_executor(None, part.read, size)
        if not data:
            break
        if left is not None:
            left -= len(data)
        await cycle.send({"type": _BODY, "body": data, "more_body": True})
    if not more:
        await cycle.send({"type": _BODY, "body": b"", "more_body": False})
