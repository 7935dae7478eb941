"""How much one connection takes of a turn of the event loop, whatever its peer sends; and what it copies."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ostler.settings.declarations import Settings
from ostler.worker.asgi import Message, Receive, Scope, Send
from ostler.worker.http.flow_control import HIGH_WATER
from ostler.worker.websocket import websockets_codec
from ostler.worker.websocket.codec import BINARY as BINARY_FRAME
from ostler.worker.websocket.codec import CodecOptions
from ostler.worker.websocket.connection import WebSocket
from ostler.worker.websocket.frame_codec import FRAMES_PER_FEED
from tests.worker.conftest import Serve
from tests.worker.websocket.harness import BINARY, CLOSE, PING, PONG, TEXT, accept, close, frame, opened

READ = 256 * 1024
"""Bytes that one read may bring."""


class FakeTransport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, data: Sequence[bytes]) -> None:
        self.written += data

    def close(self) -> None:
        self.reading = False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None


class FakeCycle:
    """An application that has not received anything yet."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.disconnects: list[tuple[int, str]] = []

    def on_message_queued(self) -> None:
        pass

    def on_disconnect(self, code: int, reason: str) -> None:
        self.disconnects.append((code, reason))


class Opened:
    """A WebSocket on a transport and a loop that the test drives."""

    def __init__(self, **settings: Any) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.transport = FakeTransport()
        self.cycle = FakeCycle()
        state: Any = SimpleNamespace(
            now=0.0,
            draining=False,
            settings=Settings(**settings),
            loop=SimpleNamespace(call_soon=self.scheduled.append),
            left=lambda connection: None,
            write_gathered=lambda transport, buffers: transport.writelines(buffers),
        )
        self.state = state
        self.socket = WebSocket(state, self.cycle, None)
        codec = websockets_codec.make_codec(self.socket, CodecOptions(1 << 24, False), [])
        transport: Any = self.transport
        self.socket.begin(transport, codec, b"", False)

    def turn(self) -> bool:
        """Run what was scheduled; return whether there was something."""
        scheduled, self.scheduled[:] = self.scheduled.copy(), []
        for each in scheduled:
            each()
        return bool(scheduled)


def test_a_read_of_tiny_messages_is_taken_up_to_the_limit_of_the_queue() -> None:
    opened = Opened(ws_max_queue=32)
    one = frame(TEXT, b"x")
    count = READ // len(one)
    opened.socket.data_received(one * count)
    taken = 0
    while taken < count:
        assert len(opened.cycle.messages) <= 32
        assert not opened.transport.reading or taken + len(opened.cycle.messages) == count
        taken += len(opened.cycle.messages)
        opened.cycle.messages.clear()
        # However often the application receives in this turn, the next messages come in the next one.
        opened.socket.resume_input()
        opened.socket.resume_input()
        assert not opened.cycle.messages
        assert len(opened.scheduled) <= 1
        opened.turn()
    assert opened.transport.reading


def test_a_read_of_longer_messages_is_taken_up_to_the_high_water_mark() -> None:
    opened = Opened(ws_max_queue=1000)
    opened.socket.data_received(frame(BINARY, b"x" * 16_000) * 16)
    assert sum(len(each["bytes"]) for each in opened.cycle.messages) <= HIGH_WATER + 16_000
    assert not opened.transport.reading


@pytest.mark.parametrize("one", [frame(PING), frame(PONG), frame(0, b"x", fin=False)])
def test_a_read_of_frames_that_are_no_messages_is_taken_in_many_turns(one: bytes) -> None:
    opened = Opened()
    opened.socket.data_received(frame(TEXT, b"", fin=False) + one * (READ // len(one)))
    turns = 1
    while opened.turn():
        turns += 1
    assert turns >= READ // len(one) // FRAMES_PER_FEED
    assert opened.transport.reading
    pongs = [data.count(b"\x8a\0") for data in opened.transport.written]
    assert max(pongs, default=0) <= FRAMES_PER_FEED
    assert sum(pongs) == (READ // len(one) if one == frame(PING) else 0)


@pytest.mark.parametrize("payload", [b"", b"x" * 4000])
def test_messages_that_are_dropped_behind_our_close_are_bounded_too(payload: bytes) -> None:
    opened = Opened()
    one = frame(TEXT, payload)
    opened.socket.close(1000, "")
    opened.socket.data_received(one * (READ // len(one)) + frame(CLOSE))
    turns = 1
    while opened.turn():
        turns += 1
    assert turns >= max(READ // len(one) // FRAMES_PER_FEED, READ // HIGH_WATER - 1)
    assert not opened.cycle.messages
    assert opened.socket._closed_by_peer


@pytest.mark.parametrize(
    ("end", "disconnect"),
    [
        (b"", (1006, "")),
        (frame(TEXT, b"x", fin=False), (1006, "")),
        (close(1001, b"bye") + b"behind", (1001, "bye")),
        (frame(7), (1002, "unknown opcode 7")),
    ],
)
def test_what_came_before_the_transport_was_lost_is_received_in_turns(
    end: bytes, disconnect: tuple[int, str]
) -> None:
    opened = Opened(ws_max_queue=32)
    opened.socket.data_received((frame(TEXT, b"x") + frame(PING)) * 1000 + end)
    written = len(opened.transport.written)
    opened.socket.connection_lost(None)
    taken = 0
    while not opened.cycle.disconnects:
        assert len(opened.cycle.messages) <= 32
        taken += len(opened.cycle.messages)
        opened.cycle.messages.clear()
        opened.socket.resume_input()
        assert opened.turn()
    assert taken + len(opened.cycle.messages) == 1000
    assert opened.cycle.disconnects[0] == disconnect
    assert len(opened.transport.written) == written
    assert not hasattr(opened.socket, "_cycle")  # no reference cycle is left


def test_a_drain_does_not_wait_for_an_app_to_receive_all_that_a_lost_client_sent() -> None:
    opened = Opened(ws_max_queue=32)
    opened.socket.data_received(frame(TEXT, b"x") * 1000)
    opened.socket.connection_lost(None)
    opened.state.draining = True
    opened.cycle.messages.clear()
    opened.socket.resume_input()
    opened.turn()
    assert not opened.cycle.messages
    assert opened.cycle.disconnects[0] == (1012, "")
    assert not hasattr(opened.socket, "_cycle")


def test_what_an_app_has_not_received_when_it_returns_is_dropped() -> None:
    opened = Opened(ws_max_queue=32)
    opened.socket.data_received(frame(TEXT, b"x") * 1000)
    opened.socket.connection_lost(None)
    opened.socket.close(1000, "")
    opened.turn()
    assert not opened.turn()
    assert not hasattr(opened.socket, "_cycle")


def test_the_payload_of_a_long_message_is_not_copied_into_its_frame() -> None:
    opened = Opened()
    payload = b"x" * 100_000
    opened.socket.send(BINARY_FRAME, payload)
    assert opened.transport.written[0] == b"\x82\x7f" + (100_000).to_bytes(8, "big")
    assert opened.transport.written[1] is payload


def test_a_flood_of_messages_leaves_turns_to_the_others(serve: Serve) -> None:
    """An application that receives without ever waiting gets a queue's worth of messages a turn."""
    per_turn: Counter[int] = Counter()
    count = 30_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        turn, left = 0, False

        def count_turn() -> None:
            nonlocal turn
            turn += 1
            if not left:
                loop.call_soon(count_turn)

        count_turn()
        await send(accept())
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.receive":
                per_turn[turn] += 1
        left = True

    server = serve(app)
    peer = opened(server)
    peer.send(frame(TEXT, b"x") * count)
    server.until(lambda: sum(per_turn.values()) == count)
    assert max(per_turn.values()) <= 2 * server.settings.ws_max_queue
    peer.client.close()
    server.until(lambda: not server.server_state.requests)
