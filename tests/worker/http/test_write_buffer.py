"""Bodies in pieces: which pieces wait for the next one, and for how long."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from ostler.worker.asgi import Application, Receive, Scope, Send
from ostler.worker.gathered_write import write_gathered
from ostler.worker.http import write_buffer
from ostler.worker.http.write_buffer import JOIN, WriteBuffer
from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, get, part, start

LONG = b"x" * 16 * 1024


class FakeTransport(asyncio.Transport):
    """Keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return False


class BufferHarness:
    """A write buffer on a fake transport, with a clock and a loop of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(write_buffer, "monotonic", lambda: self.now)
        self.loop = asyncio.new_event_loop()
        self.transport = FakeTransport()
        self.buffer = WriteBuffer(self.transport, self.loop, write_gathered(self.loop), chunked=False)

    @property
    def sizes(self) -> list[int]:
        return [len(data) for data in self.transport.writes]

    def add(self, data: bytes, *, more: bool = True) -> None:
        self.buffer.add(b"", data, more)

    def turn(self) -> None:
        """Let the loop run once."""
        self.loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    harness = BufferHarness(monkeypatch)
    yield harness
    harness.loop.close()


def test_long_pieces_leave_together_once_they_are_enough(harness: BufferHarness) -> None:
    for _ in range(9):
        harness.add(LONG)
    assert harness.sizes == [4 * len(LONG)] * 2
    harness.add(b"", more=False)
    assert harness.sizes == [4 * len(LONG)] * 2 + [len(LONG)]


def test_the_next_turn_of_the_loop_writes_what_is_gathered_and_nothing_else(
    harness: BufferHarness,
) -> None:
    harness.add(LONG)
    harness.add(LONG)
    assert harness.sizes == []
    harness.turn()
    assert harness.sizes == [2 * len(LONG)]
    harness.turn()
    harness.add(LONG)
    harness.turn()
    assert harness.sizes == [2 * len(LONG), len(LONG)]


def test_a_short_piece_is_written_at_once_with_what_came_before_it(harness: BufferHarness) -> None:
    harness.add(b"event")
    harness.add(LONG)
    harness.add(b"event")
    assert harness.sizes == [5, len(LONG) + 5]


def test_a_piece_that_comes_late_is_written_at_once(harness: BufferHarness) -> None:
    harness.add(LONG)
    harness.now += write_buffer.GATHER_TIME
    harness.add(LONG)
    assert harness.sizes == [2 * len(LONG)]
    harness.now += write_buffer.GATHER_TIME
    harness.add(LONG)
    assert harness.sizes == [2 * len(LONG), len(LONG)]


@pytest.mark.parametrize("gathers", [False, True])
def test_a_piece_too_long_to_be_copied_is_written_alone_and_in_order(
    harness: BufferHarness, gathers: bool
) -> None:
    gathered: list[Sequence[bytes]] = []
    write = (lambda _, buffers: gathered.append(buffers)) if gathers else write_gathered(harness.loop)
    buffer = WriteBuffer(harness.transport, harness.loop, write, chunked=True)
    huge = bytes(100_000)
    buffer.add(b"head", LONG, True)
    buffer.add(b"", huge, True)
    buffer.add(b"", huge, False)
    before = b"head4000\r\n" + LONG + b"\r\n186a0\r\n"
    written = [[before, huge, b"\r\n"], [b"186a0\r\n", huge, b"\r\n0\r\n\r\n"]]
    assert (gathered or harness.transport.writes) == (written if gathers else [*written[0], *written[1]])
    harness.turn()
    assert len(harness.transport.writes) == (0 if gathers else 6)


@pytest.mark.parametrize("size", [JOIN, JOIN + 1])
def test_a_long_body_in_one_piece_is_not_copied_to_join_its_head(serve: Serve, size: int) -> None:
    body = bytes(size)
    written: list[Sequence[bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"%d" % size)))
        await send(part(body))

    server = serve(app)
    write = server.server_state.write_gathered

    def write_gathered(transport: asyncio.WriteTransport, buffers: Sequence[bytes]) -> None:
        written.append(buffers)
        write(transport, buffers)

    server.server_state.write_gathered = write_gathered
    assert server.ask(get()).body == body
    assert [buffers[1] is body for buffers in written] == [True] * (size > JOIN)


def test_what_is_cleared_is_not_written(harness: BufferHarness) -> None:
    harness.add(LONG)
    harness.buffer.clear()
    harness.turn()
    assert harness.transport.writes == []


@pytest.mark.parametrize("announced", [False, True], ids=["chunked", "length"])
def test_pieces_of_every_size_arrive_in_their_order(serve: Serve, announced: bool) -> None:
    chance = random.Random(6)
    sizes = [chance.choice((0, 1, 100, 4095, 4096, 16384, 32768, 32769, 70_000)) for _ in range(150)]
    pieces = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    fields = [(b"content-length", b"%d" % sum(sizes))] if announced else []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *fields))
        for index, piece in enumerate(pieces):
            await send(part(piece, more=True))
            if index % 7 == 0:
                await asyncio.sleep(0)
        await send(part(b""))

    client = serve(app).connect()
    for _ in range(2):
        assert client.ask(get()).body == b"".join(pieces)


def test_a_client_receives_a_short_piece_while_the_app_blocks_the_loop(serve: Serve) -> None:
    read = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(part(LONG, more=True))
        await send(part(b"short", more=True))
        assert read.wait(PATIENCE)
        await send(part(b""))

    client = serve(app).connect()
    client.send(get())
    client.until(b"short\r\n")
    read.set()
    assert client.until(b"0\r\n\r\n") == b"0\r\n\r\n"


def test_a_client_receives_a_long_piece_while_the_app_waits(serve: Serve) -> None:
    goes_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(part(LONG, more=True))
        await goes_on.wait()
        await send(part(b""))

    server = serve(app)
    client = server.connect()
    client.send(get())
    client.until(LONG + b"\r\n")
    server.call(goes_on.set)
    assert client.until(b"0\r\n\r\n") == b"0\r\n\r\n"


async def fails_after_a_piece(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200))
    await send(part(LONG, more=True))
    raise RuntimeError("boom")


async def falls_short(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"%d" % (2 * len(LONG)))))
    await send(part(LONG, more=True))
    await send(part(b""))


@pytest.mark.parametrize("app", [fails_after_a_piece, falls_short])
def test_what_was_sent_before_a_cut_arrives(serve: Serve, app: Application) -> None:
    client = serve(app).connect()
    client.send(get())
    assert LONG in client.rest()
