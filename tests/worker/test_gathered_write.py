"""Buffers that are written together arrive in order, and writing them pauses as any write does."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from ostler.worker import gathered_write
from ostler.worker.gathered_write import write_gathered
from tests.worker.harness import Way

BUFFERS = [b"head", b"x" * 5_000_000, b"tail"]


class Paused(asyncio.Protocol):
    def __init__(self) -> None:
        self.paused: list[bool] = []

    def pause_writing(self) -> None:
        self.paused.append(True)

    def resume_writing(self) -> None:
        self.paused.append(False)


async def write(sock: socket.socket, send: socket.socket) -> list[bool]:
    loop = asyncio.get_running_loop()
    received: list[bytes] = []
    transport, protocol = await loop.connect_accepted_socket(Paused, sock)
    write_gathered(loop)(transport, BUFFERS)
    assert protocol.paused == [True]

    def read() -> None:
        while data := send.recv(1 << 20):
            received.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    transport.close()
    await asyncio.to_thread(reader.join)
    assert b"".join(received) == b"".join(BUFFERS)
    return protocol.paused


def test_what_is_written_together_arrives_in_order_and_pauses(way: Way) -> None:
    ours, theirs = socket.socketpair()
    loop = way.new_loop()
    try:
        assert loop.run_until_complete(write(ours, theirs))[0] is True
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        theirs.close()


@pytest.mark.parametrize(
    ("version", "gathers"),
    [((3, 11, 9), False), ((3, 12, 8), False), ((3, 12, 9), True), ((3, 13, 1), False), ((3, 13, 2), True)],
)
def test_asyncio_gathers_only_where_its_flow_control_works(version: tuple[int, ...], gathers: bool) -> None:
    assert gathered_write._asyncio_gathers(version) is gathers
    assert gathered_write._asyncio_gathers((3, 14, 0)) is True
