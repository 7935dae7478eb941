"""Codecs by themselves: however the bytes are split, they push the same messages."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.worker.websocket import websockets_codec, wsproto_codec
from ostler.worker.websocket.codec import Codec, CodecOptions, Failure, MakeCodec
from ostler.worker.websocket.frame_codec import FRAMES_PER_FEED
from tests.worker.websocket.harness import BINARY, PING, TEXT, close, frame

CODECS: list[MakeCodec] = [websockets_codec.make_codec, wsproto_codec.make_codec]


class Sink:
    is_full = False

    def __init__(self) -> None:
        self.got: list[object] = []

    def on_message(self, message: str | bytes) -> None:
        self.got.append(message)

    def on_pong(self, payload: bytes) -> None:
        self.got.append(("pong", payload))

    def on_close(self, code: int, reason: str) -> None:
        self.got.append((code, reason))


def made(make: MakeCodec, max_size: int = 1 << 20) -> tuple[Sink, Codec]:
    sink = Sink()
    return sink, make(sink, CodecOptions(max_size, True), [])


messages = st.lists(
    st.tuples(
        st.one_of(st.text(max_size=40), st.binary(max_size=40), st.just("x" * 126), st.just(b"y" * 70_000)),
        st.lists(st.integers(0, 200), max_size=3),
        st.booleans(),
    ),
    max_size=6,
)


def frames(message: str | bytes, cuts: list[int], pinged: bool) -> bytes:
    data = message.encode() if isinstance(message, str) else message
    ends = [*sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    wire, start = b"", 0
    for number, end in enumerate(ends):
        opcode = 0 if number else TEXT if isinstance(message, str) else BINARY
        wire += frame(opcode, data[start:end], fin=number == len(ends) - 1)
        if pinged:
            wire += frame(PING, b"p")
        start = end
    return wire


@pytest.mark.parametrize("make", CODECS)
@given(sent=messages, reads=st.lists(st.integers(1, 200), max_size=20))
def test_messages_arrive_however_they_are_framed_and_read(
    make: MakeCodec, sent: list[tuple[str | bytes, list[int], bool]], reads: list[int]
) -> None:
    sink, codec = made(make)
    wire = b"".join(frames(*each) for each in sent) + close(1000, b"end")
    for size in reads:
        codec.feed(wire[:size])
        wire = wire[size:]
        if not wire:
            break
    if wire:
        codec.feed(wire)
    assert sink.got == [message for message, _, _ in sent] + [(1000, "end")]


@pytest.mark.parametrize("make", CODECS)
@given(sent=messages)
def test_messages_arrive_frame_by_frame(
    make: MakeCodec, sent: list[tuple[str | bytes, list[int], bool]]
) -> None:
    sink, codec = made(make)
    for each in sent:
        codec.feed(frames(*each))
    assert sink.got == [message for message, _, _ in sent]


@pytest.mark.parametrize("make", CODECS)
@given(reads=st.lists(st.binary(min_size=1, max_size=30), max_size=10))
def test_garbage_is_a_failure_or_nothing(make: MakeCodec, reads: list[bytes]) -> None:
    sink, codec = made(make)
    try:
        for data in reads:
            codec.feed(data)
            if any(isinstance(each, tuple) and each[0] != "pong" for each in sink.got):
                break  # closed
    except Failure as failure:
        assert failure.code in (1002, 1007, 1009)  # noqa: PT017


@pytest.mark.parametrize("make", CODECS)
def test_a_message_above_the_limit_is_not_taken_by_the_fast_path_either(make: MakeCodec) -> None:
    _, codec = made(make, max_size=9)
    with pytest.raises(Failure) as failed:
        codec.feed(frame(TEXT, b"x" * 10))
    assert failed.value.code == 1009


@pytest.mark.parametrize("make", CODECS)
@pytest.mark.parametrize(
    "sizes", [(14, 100_000), (4, 7, 3, 40_001, 2, 29_999), (1, 70_002, 1), (65_550, 4449)]
)
def test_a_long_frame_is_unmasked_wherever_it_is_cut(make: MakeCodec, sizes: tuple[int, ...]) -> None:
    sink, codec = made(make)
    message = random.Random(len(sizes)).randbytes(sum(sizes))
    wire = frame(BINARY, message) + frame(TEXT, b"next")
    at = 0
    for size in (*sizes, len(wire)):
        data = wire[at : at + size]
        at += size
        assert codec.feed(data) == len(data)
    assert sink.got == [message, "next"]


@pytest.mark.parametrize("make", CODECS)
def test_feeding_stops_when_the_sink_is_full(make: MakeCodec) -> None:
    sink, codec = made(make)
    sink.is_full = True
    wire = frame(TEXT, b"a") + frame(TEXT, b"b", fin=False) + frame(0, b"c") + frame(TEXT, b"d")
    at, got = 0, []
    while at < len(wire):
        at = codec.feed(wire, at)
        got.append(sink.got.copy())
    assert got == [["a"], ["a"], ["a", "bc"], ["a", "bc", "d"]]


@pytest.mark.parametrize("make", CODECS)
@pytest.mark.parametrize("one", [frame(TEXT, b"x"), frame(PING), frame(BINARY, b"x" * 200)])
def test_a_feed_takes_a_bounded_number_of_frames(make: MakeCodec, one: bytes) -> None:
    _, codec = made(make)
    assert codec.feed(one * 1000) == len(one) * FRAMES_PER_FEED


@pytest.mark.parametrize("make", CODECS)
def test_a_length_that_is_only_announced_takes_no_memory(make: MakeCodec) -> None:
    _, codec = made(make, max_size=1 << 30)
    tracemalloc.start()
    try:
        codec.feed(frame(BINARY, b"")[:1] + b"\xff" + (1 << 29).to_bytes(8, "big") + b"\1\2\3\4" + b"x" * 100)
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", CODECS)
@pytest.mark.parametrize("first", [BINARY, 0])
def test_a_long_frame_that_comes_byte_by_byte_takes_little_more_than_its_bytes(
    make: MakeCodec, first: int
) -> None:
    _, codec = made(make)
    size = 50_000
    if first == 0:  # as a message of fragments
        codec.feed(frame(BINARY, b"", fin=False))
        wire = frame(0, b"x", fin=False) * size
        step = len(wire) // size
    else:
        wire = frame(BINARY, b"x" * size)[:-1]
        step = 1
    tracemalloc.start()
    try:
        for at in range(0, len(wire), step):
            codec.feed(wire[at : at + step])
        assert tracemalloc.get_traced_memory()[1] < 2 * size
    finally:
        tracemalloc.stop()
