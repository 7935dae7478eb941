"""PROXY headers, byte by byte, and other bytes that a peer may send instead."""

from __future__ import annotations

import random
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.worker.proxies.proxy_protocol import LONGEST, SIGNATURE, Malformed, Origin, read_header

V4 = socket.inet_aton("203.0.113.9") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 5678, 443)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 5678, 443)
)
UNIX = b"/run/a.sock".ljust(108, b"\0") + b"/run/b.sock".ljust(108, b"\0")


def v2(block: bytes, family: int, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def ssl(client: int) -> bytes:
    return tlv(0x20, struct.pack("!BI", client, 0) + tlv(0x21, b"TLSv1.3"))


PLAIN = Origin("inet", ("203.0.113.9", 5678))
TAKEN = {
    "v1 over IPv4": (b"PROXY TCP4 203.0.113.9 10.0.0.1 5678 443\r\n", PLAIN),
    "v1 over IPv6": (
        b"PROXY TCP6 2001:DB8::7 ::1 5678 443\r\n",
        Origin("inet", ("2001:db8::7", 5678)),
    ),
    "v1 with mapped addresses": (
        b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:10.0.0.1 5678 443\r\n",
        Origin("inet", ("::ffff:203.0.113.9", 5678)),
    ),
    "v1 with the longest addresses": (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % ((b":".join([b"ffff"] * 8),) * 2),
        Origin("inet", (":".join(["ffff"] * 8), 65535)),
    ),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", Origin("unknown")),
    "v1 unknown with addresses": (b"PROXY UNKNOWN ffff:f::1 ffff::2 65535 65535\r\n", Origin("unknown")),
    "v1 unknown with anything": (b"PROXY UNKNOWN \xff\n\r \0\r\n", Origin("unknown")),
    "v2 over IPv4": (v2(V4, 0x11), PLAIN),
    "v2 over IPv6": (v2(V6, 0x21), Origin("inet", ("2001:db8::7", 5678))),
    "v2 over a Unix socket": (v2(UNIX, 0x31), Origin("unix")),
    "v2 unspecified": (v2(b"", 0x00), Origin("unknown")),
    "v2 unspecified with a block": (v2(b"\xff" * 40, 0x00), Origin("unknown")),
    "v2 datagrams": (v2(V4, 0x12), Origin("unknown")),
    "v2 local": (v2(b"", 0x00, 0x20), Origin("local")),
    "v2 local, its family and block ignored": (v2(b"\xff" * 5, 0x99, 0x20), Origin("local")),
    "v2 with a TLV": (v2(V4 + tlv(0x02, b"a.example"), 0x11), PLAIN),
    "v2 with a wrong checksum": (v2(V4 + tlv(0x03, b"\0\0\0\0"), 0x11), PLAIN),
    "v2 with an empty TLV": (v2(V4 + tlv(0x04, b"") + tlv(0x20, b""), 0x11), PLAIN),
    "v2 as long as may be": (v2(V4 + tlv(0x04, bytes(LONGEST - 31)), 0x11), PLAIN),
    "v2 with TLS": (v2(V4 + tlv(0x01, b"h2") + ssl(1), 0x11), Origin("inet", ("203.0.113.9", 5678), True)),
    "v2 with a certificate": (v2(V6 + ssl(7), 0x21), Origin("inet", ("2001:db8::7", 5678), True)),
    "v2 with TLS and without": (v2(V4 + ssl(0), 0x11), PLAIN),
}

REFUSED = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP with a method like it": b"PROXYX / HTTP/1.1\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "an empty line": b"\r\n\r\n\r\n",
    "lower case": b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "no family": b"PROXY \r\n",
    "another family": b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "unknown and more": b"PROXY UNKNOWNS\r\n",
    "no ports": b"PROXY TCP4 1.2.3.4 1.2.3.4\r\n",
    "one part too many": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
    "two spaces": b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
    "a space at the end": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
    "a tab": b"PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n",
    "a line feed alone": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\nGET / HTTP/1.1\r\n",
    "the wrong family": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "the other wrong family": b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
    "a number with zeros before it": b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
    "a port with zeros before it": b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
    "a port too high": b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
    "a destination port too high": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n",
    "a negative port": b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
    "a wrong destination": b"PROXY TCP4 1.2.3.4 1.2.3.400 1 2\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "another script's digits": "PROXY TCP4 1.2.3.4 1.2.3.4 ¹ 2\r\n".encode("latin-1"),
    "a line without end": b"PROXY UNKNOWN " + b"x" * 93,
    "version 1 in the form of 2": SIGNATURE + b"\x11\x11\0\x0c" + V4,
    "version 3": SIGNATURE + b"\x31",
    "another command": v2(V4, 0x11, 0x22),
    "another family in v2": v2(V4, 0x41),
    "another protocol in v2": v2(V4, 0x13),
    "a family without a protocol": v2(V4, 0x10),
    "too short for IPv4": v2(V4[:-1], 0x11),
    "too short for IPv6": v2(V4, 0x21),
    "too short for a Unix socket": v2(UNIX[:-1], 0x31),
    "too long": SIGNATURE + b"\x21\x11" + struct.pack("!H", LONGEST - 15),
    "a TLV that is cut off": v2(V4 + b"\x20\0", 0x11),
    "a TLV beyond the end": v2(V4 + b"\x20\0\x05abcd", 0x11),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_header_is_read_and_the_bytes_after_it_are_not(name: str) -> None:
    header, origin = TAKEN[name]

    assert read_header(header + b"GET / HTTP/1.1\r\n") == (origin, len(header))


@pytest.mark.parametrize("name", TAKEN)
def test_a_header_is_incomplete_until_its_last_byte(name: str) -> None:
    header, origin = TAKEN[name]

    assert [read_header(header[:size]) for size in range(len(header))] == [None] * len(header)
    assert read_header(header) == (origin, len(header))


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_header_is_refused_at_some_byte_and_at_every_later_one(name: str) -> None:
    data = REFUSED[name]
    refused = False

    for size in range(len(data) + 1):
        try:
            assert read_header(data[:size]) is None
            assert not refused
        except Malformed:
            refused = True

    assert refused


def test_a_long_header_is_refused_before_it_arrives() -> None:
    with pytest.raises(Malformed, match="longer than 4096"):
        read_header(v2(b"", 0x11)[:14] + b"\xff\xff")


def test_the_bytes_held_of_a_header_are_bounded() -> None:
    for start in (
        b"",
        b"PROXY ",
        b"PROXY UNKNOWN ",
        SIGNATURE,
        SIGNATURE + b"\x21\x11",
        SIGNATURE + b"\x20\0",
    ):
        with pytest.raises(Malformed):
            read_header(start + b"\xff" * (LONGEST + 1))


@given(
    st.binary(max_size=600), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"!"])
)
def test_garbage_raises_nothing_but_malformed(data: bytes, start: bytes) -> None:
    try:
        found = read_header(start + data)
    except Malformed:
        return
    assert found is None or found[1] <= len(start + data)


def test_a_header_with_a_byte_changed_is_read_or_refused() -> None:
    chance = random.Random(3)
    for header, _ in TAKEN.values():
        for _ in range(300):
            changed = bytearray(header)
            changed[chance.randrange(len(changed))] = chance.randrange(256)
            try:
                found = read_header(bytes(changed))
            except Malformed:
                continue
            assert found is None or found[1] <= len(changed)
