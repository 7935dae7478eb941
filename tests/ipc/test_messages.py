"""The form of the messages from a worker to the arbiter on the heartbeat pipe."""

import pytest

from ostler.ipc.messages import (
    MAX_TEXT,
    Beat,
    Blocked,
    BootFailed,
    Decoder,
    Message,
    Ready,
    RetireAsked,
    encode,
)

BEAT = Beat(
    loop=1,
    thread=2,
    waited=3,
    served=4,
    in_flight=5,
    connections=6,
    lag=0.25,
    draining=True,
    ran=7,
    throttled=8,
)
ALL: list[Message] = [
    Ready(),
    BootFailed("ImportError: no"),
    RetireAsked("1000 requests"),
    BEAT,
    Blocked("a.py:4 f()"),
]

PIPE_BUF = 4096


@pytest.mark.parametrize("message", ALL)
def test_a_message_is_decoded_as_it_was_encoded(message: Message) -> None:
    assert Decoder().feed(encode(message)) == [message]


def test_frames_cut_at_any_byte_come_back_whole_and_in_order() -> None:
    stream = b"".join(encode(message) for message in ALL)
    for cut in range(len(stream) + 1):
        decoder = Decoder()
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == ALL


def test_no_message_is_longer_than_an_atomic_write_of_a_pipe() -> None:
    endless = BootFailed("ä" * 100_000)
    frame = encode(endless)
    assert len(frame) <= PIPE_BUF
    [message] = Decoder().feed(frame)
    assert isinstance(message, BootFailed)
    assert message.reason.startswith("ä" * (MAX_TEXT // 2 - 1))


@pytest.mark.parametrize("garbage", [b"\xff\x00\x00", b"\x01\x00\x01x", b"\x04\x00\x02xy", b"\x02\xff\xff"])
def test_bytes_that_are_no_message_are_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        Decoder().feed(garbage)
