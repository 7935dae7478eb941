"""WebSocket cases, each with the section of the RFC that decides it. `test_cases.py` runs them.

The expectations come from RFC 6455 and RFC 7692, not from what ostler does. Where the RFCs leave a choice,
the row says what is chosen, or allows all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.worker.websocket.harness import (
    BINARY,
    CLOSE,
    DEFLATE,
    KEY,
    PING,
    PONG,
    TEXT,
    close,
    deflate,
    frame,
    request,
)

CONT = 0
LIMIT = 1 << 17
"""The `ws_max_size` of the cases: above the longest frame with a length of two bytes."""


# -- the opening handshake


@dataclass(frozen=True)
class Handshake:
    """A request, and how it is answered; 200 is the answer of an HTTP application to a plain request."""

    name: str
    section: str
    sent: bytes
    status: int | tuple[int, ...]
    fields: dict[str, str | None] = field(default_factory=dict)
    """Fields that the answer has; None for one that it must not have."""

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


def _with(*fields: str, without: str = "", target: str = "/", method: str = "GET") -> bytes:
    """The bytes of a handshake with more fields, or without one."""
    data = request(target, *fields, method=method)
    return b"\r\n".join(
        line for line in data.split(b"\r\n") if not without or not line.startswith(without.encode() + b":")
    )


def _replaced(old: str, new: str) -> bytes:
    data = request()
    assert old.encode() in data
    return data.replace(old.encode(), new.encode("latin-1"))


def _version(value: str) -> bytes:
    return request(version=value)


def _key(value: str) -> bytes:
    return request(key=value)


_UPGRADED = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "content-length": None,
    "transfer-encoding": None,
    "sec-websocket-extensions": None,
    "sec-websocket-protocol": None,
}
_WANTS_13: dict[str, str | None] = {"sec-websocket-version": "13", "upgrade": "websocket"}
_S = "RFC 6455, 4.2.1"
HANDSHAKES = [
    Handshake("the least that a client sends", "RFC 6455, 4.2.2", request(), 101, _UPGRADED),
    Handshake(
        "the RFC's own key",
        "RFC 6455, 1.3",
        _key("dGhlIHNhbXBsZSBub25jZQ=="),
        101,
        {"sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
    ),
    Handshake(
        "field names in lower case",
        _S,
        request().lower().replace(b"get / http", b"GET / HTTP").replace(KEY.lower(), KEY),
        101,
    ),
    Handshake("field names in upper case", _S, _replaced("Upgrade: web", "UPGRADE: web"), 101),
    Handshake("Upgrade: WebSocket", _S, _replaced("websocket", "WebSocket"), 101),
    Handshake("Upgrade: WEBSOCKET", _S, _replaced("websocket", "WEBSOCKET"), 101),
    Handshake("Connection: upgrade", _S, _replaced("Connection: Upgrade", "Connection: upgrade"), 101),
    Handshake(
        "Connection: keep-alive, Upgrade", _S, _replaced("Connection: ", "Connection: keep-alive, "), 101
    ),
    Handshake("Connection: Upgrade,keep-alive", _S, _replaced(": Upgrade", ": Upgrade,keep-alive"), 101),
    Handshake("two Connection fields", _S, _with("Connection: keep-alive"), 101),
    Handshake("Upgrade: h2c, websocket", "RFC 9110, 7.8", _replaced(": websocket", ": h2c, websocket"), 101),
    Handshake("two Upgrade fields", "RFC 9110, 7.8", _with("Upgrade: h2c"), 101),
    Handshake("space around values", "RFC 9112, 5", _replaced(": websocket", ":  \t websocket \t"), 101),
    Handshake("a query", "RFC 6455, 3", request("/a?b=c&d"), 101),
    Handshake("an absolute target", _S, request("http://a.example/x"), 101),
    Handshake("an Origin", _S, _with("Origin: https://b.example"), 101),
    Handshake("cookies and unknown fields", _S, _with("Cookie: a=b", "X-Unknown: 1"), 101),
    Handshake("Sec-WebSocket-Accept in a request", _S, _with("Sec-WebSocket-Accept: x"), 101),
    Handshake("Content-Length: 0", "RFC 9110, 8.6", _with("Content-Length: 0"), 101),
    Handshake("the wrong method POST", _S, _with(method="POST"), (400, 405)),
    Handshake("the wrong method PUT", _S, _with(method="PUT"), (400, 405)),
    Handshake("the wrong method OPTIONS", _S, _with(method="OPTIONS"), (400, 405)),
    Handshake("the wrong method DELETE", _S, _with(method="DELETE"), (400, 405)),
    Handshake("HTTP/1.0", "RFC 9110, 7.8", _replaced("HTTP/1.1", "HTTP/1.0"), 200),
    Handshake("no Upgrade", "RFC 9110, 7.8", _with(without="Upgrade"), 200),
    Handshake("no Connection", "RFC 9110, 7.8", _with(without="Connection"), 200),
    Handshake("Connection without upgrade", "RFC 9110, 7.8", _replaced(": Upgrade", ": keep-alive"), 200),
    Handshake("Connection: upgraded", "RFC 9110, 7.6.1", _replaced(": Upgrade", ": upgraded"), 200),
    Handshake("Upgrade: h2c", "RFC 9110, 7.8", _replaced(": websocket", ": h2c"), 200),
    Handshake("Upgrade: websockets", "RFC 9110, 7.8", _replaced(": websocket", ": websockets"), 200),
    Handshake("no Host", "RFC 9112, 3.2", _with(without="Host"), 400),
    Handshake("two Hosts", "RFC 9112, 3.2", _with("Host: b.example"), 400),
    Handshake("a body with a length", _S, _with("Content-Length: 3") + b"abc", 400),
    Handshake("a chunked body", _S, _with("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    Handshake("no version", _S, _with(without="Sec-WebSocket-Version"), (400, 426)),
    *(
        Handshake(f"version {value!r}", "RFC 6455, 4.4", _version(value), 426, _WANTS_13)
        for value in ("0", "7", "8", "12", "14", "113", "013", "+13", "13, 8", "x", "255")
    ),
    Handshake("version 13 twice", _S, _with("Sec-WebSocket-Version: 13"), (400, 426)),
    Handshake("version with space around", "RFC 9112, 5", _version(" 13 "), 101),
    Handshake("no key", _S, _with(without="Sec-WebSocket-Key"), 400),
    *(
        Handshake(f"a key {name}", _S, _key(value), 400)
        for name, value in (
            ("that is empty", ""),
            ("of 15 bytes", "AAECAwQFBgcICQoLDA0O"),
            ("of 17 bytes", "AAECAwQFBgcICQoLDA0ODxA="),
            ("of 16 characters", "0123456789abcdef"),
            ("without padding", "AAECAwQFBgcICQoLDA0ODw"),
            ("with a space in it", "AAECAwQFBgcI CQoLDA0ODw=="),
            ("with a character that is not base64", "AAECAwQFBgcI*QoLDA0ODw=="),
            ("of the URL-safe alphabet", "__________________-_-w=="),
        )
    ),
    Handshake("two keys", _S, _with("Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="), 400),
]


# -- extensions


@dataclass(frozen=True)
class Offer:
    """A value of Sec-WebSocket-Extensions, and what permessage-deflate was agreed to, by parameter."""

    value: str
    section: str
    agreed: dict[str, str | None] | None = None
    """None if the offer is declined. A parameter that must only be there, whatever its value, has "*"."""
    status: int = 101

    def __str__(self) -> str:
        return f"{self.section}: {self.value}"


_P = "permessage-deflate"
_S7 = "RFC 7692, 7"
_TAKES: dict[str, str | None] = {}
OFFERS = [
    Offer(_P, _S7, _TAKES),
    Offer(f" {_P} ", _S7, _TAKES),
    Offer(f"{_P}; client_max_window_bits", "RFC 7692, 7.1.2.2", _TAKES),
    Offer(f"{_P};client_max_window_bits=15", "RFC 7692, 7.1.2.2", _TAKES),
    Offer(f"{_P}; client_max_window_bits=9", "RFC 7692, 7.1.2.2", {"client_max_window_bits": "9"}),
    Offer(f"{_P}; client_max_window_bits=8", "RFC 7692, 7.1.2.2", {"client_max_window_bits": "8"}),
    Offer(f'{_P}; client_max_window_bits="10"', "RFC 6455, 9.1", {"client_max_window_bits": "10"}),
    Offer(f"{_P}; server_max_window_bits=9", "RFC 7692, 7.1.2.1", {"server_max_window_bits": "9"}),
    Offer(f"{_P} ; server_max_window_bits = 10", "RFC 6455, 9.1", {"server_max_window_bits": "10"}),
    Offer(f"{_P}; server_max_window_bits=15", "RFC 7692, 7.1.2.1", {"server_max_window_bits": "*"}),
    Offer(f"{_P}; server_no_context_takeover", "RFC 7692, 7.1.1.1", {"server_no_context_takeover": None}),
    Offer(f"{_P}; client_no_context_takeover", "RFC 7692, 7.1.1.2", _TAKES),
    Offer(
        f"{_P}; client_no_context_takeover; server_max_window_bits=10; server_no_context_takeover",
        _S7,
        {"server_max_window_bits": "10", "server_no_context_takeover": None},
    ),
    Offer(f"x-unknown, {_P}", "RFC 7692, 5", _TAKES),
    Offer(f"x-unknown; a=1; b, {_P}", "RFC 7692, 5", _TAKES),
    Offer(f'x-unknown; a="1", {_P}', "RFC 6455, 9.1", _TAKES),
    Offer(f", ,{_P},,", "RFC 9110, 5.6.1", _TAKES),
    Offer(f"{_P}; server_max_window_bits=10, {_P}", "RFC 7692, 5", {"server_max_window_bits": "10"}),
    Offer(f"{_P}; unknown, {_P}; server_max_window_bits=11", _S7, {"server_max_window_bits": "11"}),
    Offer(f"{_P}; server_max_window_bits=99, {_P}", _S7, _TAKES),
    Offer("x-unknown", "RFC 6455, 9.1"),
    Offer("permessage-deflat", "RFC 6455, 9.1"),
    Offer("x-webkit-deflate-frame", "RFC 6455, 9.1"),
    Offer(f"{_P}; unknown", _S7),
    Offer(f"{_P}; unknown=1", _S7),
    Offer(f"{_P}; server_no_context_takeover_x", _S7),
    Offer(f"{_P}; client_max_window_bits_=10", _S7),
    Offer(f"{_P}; server_no_context_takeover; server_no_context_takeover", _S7),
    Offer(f"{_P}; client_no_context_takeover; client_no_context_takeover", _S7),
    Offer(f"{_P}; client_max_window_bits; client_max_window_bits=10", _S7),
    Offer(f"{_P}; server_max_window_bits=10; server_max_window_bits=10", _S7),
    Offer(f"{_P}; server_no_context_takeover=1", "RFC 7692, 7.1.1.1"),
    Offer(f"{_P}; client_no_context_takeover=true", "RFC 7692, 7.1.1.2"),
    Offer(f"{_P}; server_max_window_bits", "RFC 7692, 7.1.2.1"),
    *(
        Offer(f"{_P}; {side}_max_window_bits={bits}", f"RFC 7692, 7.1.2.{number}")
        for number, side in ((1, "server"), (2, "client"))
        for bits in ("0", "7", "16", "99", "09", "010", "+10", "-10", "1e1", "x", "10.0")
    ),
    # Malformed: not what the grammar has. The recipient must fail the connection.
    *(
        Offer(value, "RFC 6455, 9.1", status=400)
        for value in (
            f"{_P};",
            f"{_P};;",
            f"; {_P}",
            f"{_P} x",
            f"{_P}; a b",
            f"{_P}; a=",
            f'{_P}; a="',
            f"{_P}; =1",
            f'{_P}; a=""',
            f'{_P}; a="b c"',
            f"{_P}=1",
            f'"{_P}"',
            f"{_P}; a=b=c",
            f"{_P}\x80",
        )
    ),
]


# -- frames


@dataclass(frozen=True)
class Frames:
    """What a client sends on an open WebSocket, to an app that echoes, and the frames that come back.

    Where the last one is a close frame, the connection ends behind it, and messages before it are received,
    but it may be too late to send them back. Otherwise the connection goes on.
    """

    name: str
    section: str
    sent: bytes
    back: list[tuple[int, Any]]
    offer: str = ""
    """The value of Sec-WebSocket-Extensions."""
    whole: bool = False
    """Only sent in one piece: the server does not wait for the rest."""

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


def _text(data: bytes, *, fin: bool = True) -> bytes:
    return frame(TEXT, data, fin=fin)


def _more(data: bytes = b"", *, fin: bool = False, rsv: int = 0) -> bytes:
    return frame(CONT, data, fin=fin, rsv=rsv)


def _last(data: bytes = b"") -> bytes:
    return _more(data, fin=True)


def head(first: int, length: int, form: int) -> bytes:
    """The header of a masked frame without its payload; `form` is how many bytes more the length takes."""
    assert form in (0, 2, 8)
    if form == 0:
        return bytes((first, 0x80 | length)) + b"\1\2\3\4"
    return bytes((first, 0x80 | (126 if form == 2 else 127))) + length.to_bytes(form, "big") + b"\1\2\3\4"


def _long(first: int, length: int, form: int) -> bytes:
    """A frame whose length has a form of its own, with a payload of mask bytes (zeros, unmasked)."""
    return head(first, length, form) + (b"\1\2\3\4" * (length // 4 + 1))[:length]


def _failed(code: int) -> list[tuple[int, Any]]:
    return [(CLOSE, code)]


def _bad(name: str, section: str, sent: bytes, code: int = 1002, offer: str = "") -> Frames:
    return Frames(name, section, sent, _failed(code), offer)


_SIZES = (0, 1, 125, 126, 127, 65535, 65536, LIMIT)
_S52, _S54, _S55 = "RFC 6455, 5.2", "RFC 6455, 5.4", "RFC 6455, 5.5"
FRAMES = [
    *(Frames(f"a text of {n} bytes", _S52, _text(b"*" * n), [(TEXT, b"*" * n)]) for n in _SIZES),
    *(Frames(f"{n} bytes", _S52, frame(BINARY, b"\xfe" * n), [(BINARY, b"\xfe" * n)]) for n in _SIZES),
    Frames("two messages at once", _S52, _text(b"a") + frame(BINARY, b"b"), [(TEXT, b"a"), (BINARY, b"b")]),
    Frames("a mask of zeros", "RFC 6455, 5.3", b"\x81\x81\0\0\0\0a", [(TEXT, b"a")]),
    Frames("a mask of ones", "RFC 6455, 5.3", b"\x81\x81\xff\xff\xff\xff\x9e", [(TEXT, b"a")]),
    *(
        _bad(f"a length of {n} in {form} bytes", _S52, _long(0x82, n, form))
        for n, form in ((0, 2), (1, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8))
    ),
    _bad("a ping with a length of 3 in 2 bytes", _S55, _long(0x89, 3, 2)),
    _bad("a length with its highest bit set", _S52, head(0x82, 1 << 63, 8)),
    _bad("a length of all ones", _S52, head(0x81, (1 << 64) - 1, 8)),
    *(
        _bad(f"no mask on opcode {code}, {len(data)} bytes", "RFC 6455, 5.1", frame(code, data, masked=False))
        for code, data in ((TEXT, b"x"), (TEXT, b""), (BINARY, b"x"), (PING, b""), (PONG, b""), (CLOSE, b""))
    ),
    _bad(
        "no mask on a continuation", "RFC 6455, 5.1", _text(b"a", fin=False) + frame(CONT, b"b", masked=False)
    ),
    *(_bad(f"reserved bits {rsv:03b} of a text", _S52, frame(TEXT, b"x", rsv=rsv)) for rsv in range(1, 8)),
    *(
        _bad(f"reserved bits {rsv:03b} of opcode {code}", _S52, frame(code, b"", rsv=rsv))
        for code, rsv in ((BINARY, 4), (BINARY, 1), (PING, 4), (PING, 2), (PONG, 1), (CLOSE, 4))
    ),
    *(
        _bad(f"reserved bits {rsv:03b} of a continuation", _S52, _text(b"a", fin=False) + _more(b"", rsv=rsv))
        for rsv in (4, 2, 1)
    ),
    *(_bad(f"opcode {code}", _S52, frame(code, b"x")) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    _bad("opcode 3 without a payload", _S52, frame(3)),
    _bad("opcode 3 in fragments", _S52, frame(3, b"x", fin=False)),
    _bad("opcode 11 within a message", _S52, _text(b"a", fin=False) + frame(11)),
    Frames(
        "what comes before a broken frame counts", _S52, _text(b"a") + frame(3), [(TEXT, b"a"), (CLOSE, 1002)]
    ),
    Frames("a ping before a broken frame", _S55, frame(PING, b"p") + frame(3), [(PONG, b"p"), (CLOSE, 1002)]),
    # Control frames.
    *(
        Frames(f"a ping of {len(data)} bytes", "RFC 6455, 5.5.2", frame(PING, data), [(PONG, data)])
        for data in (b"", b"p", b"\0\xff\xfe", b"*" * 124, b"*" * 125)
    ),
    Frames(
        "ten pings",
        "RFC 6455, 5.5.3",
        b"".join(frame(PING, b"%d" % n) for n in range(10)),
        [(PONG, b"%d" % n) for n in range(10)],
    ),
    Frames("a pong that was not asked for", "RFC 6455, 5.5.3", frame(PONG, b"x"), []),
    Frames("an empty pong", "RFC 6455, 5.5.3", frame(PONG), []),
    Frames("pongs and a ping", "RFC 6455, 5.5.3", frame(PONG, b"x") * 3 + frame(PING, b"y"), [(PONG, b"y")]),
    *(
        _bad(f"opcode {code} of 126 bytes, at its header", _S55, head(0x80 | code, 126, 2))
        for code in (PING, PONG, CLOSE)
    ),
    _bad("a ping of 64 KiB, at its header", _S55, head(0x89, 65536, 8)),
    *(_bad(f"opcode {code} in fragments", _S55, frame(code, b"", fin=False)) for code in (PING, PONG, CLOSE)),
    _bad("a ping in fragments within a message", _S54, _text(b"a", fin=False) + frame(PING, fin=False)),
]

FRAGMENTS = [
    Frames("two fragments", _S54, _text(b"a", fin=False) + _last(b"b"), [(TEXT, b"ab")]),
    Frames("three fragments", _S54, _text(b"a", fin=False) + _more(b"b") + _last(b"c"), [(TEXT, b"abc")]),
    Frames(
        "binary fragments", _S54, frame(BINARY, b"\xff", fin=False) + _last(b"\xfe"), [(BINARY, b"\xff\xfe")]
    ),
    Frames("an empty first fragment", _S54, _text(b"", fin=False) + _last(b"b"), [(TEXT, b"b")]),
    Frames("an empty middle", _S54, _text(b"a", fin=False) + _more() + _last(b"b"), [(TEXT, b"ab")]),
    Frames("an empty last fragment", _S54, _text(b"a", fin=False) + _last(), [(TEXT, b"a")]),
    Frames("fragments that are all empty", _S54, _text(b"", fin=False) + _more() + _last(), [(TEXT, b"")]),
    Frames("empty binary fragments", _S54, frame(BINARY, b"", fin=False) + _last(), [(BINARY, b"")]),
    Frames(
        "200 fragments",
        _S54,
        _text(b"a", fin=False) + _more(b"b") * 198 + _last(b"c"),
        [(TEXT, b"a" + b"b" * 198 + b"c")],
    ),
    Frames(
        "500 empty fragments", _S54, _text(b"a", fin=False) + _more() * 500 + _last(b"c"), [(TEXT, b"ac")]
    ),
    Frames(
        "two messages in fragments",
        _S54,
        (_text(b"a", fin=False) + _last(b"b")) * 2,
        [(TEXT, b"ab"), (TEXT, b"ab")],
    ),
    Frames(
        "a ping between",
        _S54,
        _text(b"a", fin=False) + frame(PING, b"p") + _last(b"b"),
        [(PONG, b"p"), (TEXT, b"ab")],
    ),
    Frames(
        "a ping between, before the message ends",
        "RFC 6455, 5.5.2",
        _text(b"a", fin=False) + frame(PING, b"p"),
        [(PONG, b"p")],
    ),
    Frames("a pong between", _S54, _text(b"a", fin=False) + frame(PONG, b"p") + _last(b"b"), [(TEXT, b"ab")]),
    Frames(
        "pings between empty fragments",
        _S54,
        _text(b"", fin=False) + frame(PING, b"1") + _more() + frame(PING, b"2") + _last(b"b"),
        [(PONG, b"1"), (PONG, b"2"), (TEXT, b"b")],
    ),
    _bad("a continuation of nothing", _S54, _more(b"x")),
    _bad("a last continuation of nothing", _S54, _last(b"x")),
    _bad("an empty continuation of nothing", _S54, _last()),
    Frames(
        "a continuation behind a whole message",
        _S54,
        _text(b"a") + _last(b"b"),
        [(TEXT, b"a"), (CLOSE, 1002)],
    ),
    Frames(
        "a continuation behind the last fragment",
        _S54,
        _text(b"a", fin=False) + _last(b"b") + _last(b"c"),
        [(TEXT, b"ab"), (CLOSE, 1002)],
    ),
    _bad("a text within a text", _S54, _text(b"a", fin=False) + _text(b"b")),
    _bad("bytes within a text", _S54, _text(b"a", fin=False) + frame(BINARY, b"b")),
    _bad("a text within bytes", _S54, frame(BINARY, b"a", fin=False) + _text(b"b")),
    _bad("a fragmented text within a text", _S54, _text(b"a", fin=False) + _text(b"b", fin=False)),
    _bad("a text within a text, behind a ping", _S54, _text(b"", fin=False) + frame(PONG) + _text(b"b")),
]

_S81 = "RFC 6455, 8.1"
_GOOD_TEXTS = {
    "Greek": "κόσμε".encode(),
    "the last character of 1 byte": b"\x7f",
    "the first of 2 bytes": b"\xc2\x80",
    "the last of 2 bytes": b"\xdf\xbf",
    "the first of 3 bytes": b"\xe0\xa0\x80",
    "the last before the surrogates": b"\xed\x9f\xbf",
    "the first behind the surrogates": b"\xee\x80\x80",
    "the replacement character": b"\xef\xbf\xbd",
    "a noncharacter": b"\xef\xbf\xbf",
    "the first of 4 bytes": b"\xf0\x90\x80\x80",
    "the last of all": b"\xf4\x8f\xbf\xbf",
    "a NUL": b"a\0b",
    "a byte order mark": b"\xef\xbb\xbfa",
}
_BAD_TEXTS = {
    "a lone continuation byte": b"a\x80",
    "two continuation bytes": b"\x80\xbf",
    "FE": b"\xfe",
    "FF": b"a\xff",
    "an overlong slash of 2 bytes": b"\xc0\xaf",
    "an overlong NUL of 2 bytes": b"\xc0\x80",
    "C1": b"\xc1\xbf",
    "an overlong form of 3 bytes": b"\xe0\x80\xaf",
    "an overlong form of 4 bytes": b"\xf0\x80\x80\xaf",
    "the first surrogate": b"\xed\xa0\x80",
    "the last surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "F5": b"\xf5\x80\x80\x80",
    "a form of 5 bytes": b"\xf8\x88\x80\x80\x80",
    "Latin-1": "café!".encode("latin-1"),
}
UTF_8 = [
    *(Frames(f"a text with {name}", _S81, _text(data), [(TEXT, data)]) for name, data in _GOOD_TEXTS.items()),
    *(
        Frames(
            f"{size} bytes of a character, one a fragment",
            _S81,
            _text(data[:1], fin=False) + b"".join(_more(data[n : n + 1]) for n in range(1, size)) + _last(),
            [(TEXT, data)],
        )
        for size, data in ((2, "é".encode()), (3, "€".encode()), (4, "😀".encode()))
    ),
    Frames(
        "a character split around a ping",
        _S81,
        _text(b"\xe2", fin=False) + frame(PING) + _more(b"\x82") + _last(b"\xac"),
        [(PONG, b""), (TEXT, b"\xe2\x82\xac")],
    ),
    *(_bad(f"a text with {name}", _S81, _text(data), 1007) for name, data in _BAD_TEXTS.items()),
    *(
        _bad(f"a first fragment with {name}, at once", _S81, _text(data, fin=False), 1007)
        for name, data in _BAD_TEXTS.items()
    ),
    *(
        _bad(f"a text that ends in {data!r}", _S81, _text(b"a" + data), 1007)
        for data in (b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98")
    ),
    _bad(
        "a text whose last fragment ends within a character",
        _S81,
        _text(b"", fin=False) + _last(b"\xe2"),
        1007,
    ),
    _bad(
        "a text that ends within a character, empty last fragment",
        _S81,
        _text(b"\xe2", fin=False) + _last(),
        1007,
    ),
    _bad("a middle fragment, at once", _S81, _text(b"a", fin=False) + _more(b"\xff"), 1007),
    _bad("a third fragment, at once", _S81, _text(b"a", fin=False) + _more(b"b") + _more(b"\x80"), 1007),
    _bad(
        "a surrogate split over two fragments, at once",
        _S81,
        _text(b"\xed", fin=False) + _more(b"\xa0"),
        1007,
    ),
    _bad(
        "an overlong form split over two fragments, at once",
        _S81,
        _text(b"\xf0", fin=False) + _more(b"\x80"),
        1007,
    ),
    _bad("half a character, then a letter, at once", _S81, _text(b"\xe2\x82", fin=False) + _more(b"a"), 1007),
    _bad(
        "half a character, then another's beginning, at once",
        _S81,
        _text(b"\xe2", fin=False) + _more(b"\xe2"),
        1007,
    ),
    _bad("behind a ping, at once", _S81, _text(b"a", fin=False) + frame(PONG) + _more(b"\xff"), 1007),
    Frames(
        "a second text after a good one", _S81, _text(b"a") + _text(b"\xff"), [(TEXT, b"a"), (CLOSE, 1007)]
    ),
    Frames(
        "half a character at the end of one text is not the next one's",
        _S81,
        _text(b"a", fin=False) + _last(b"b") + _text(b"\x82", fin=False),
        [(TEXT, b"ab"), (CLOSE, 1007)],
    ),
    Frames("bytes need not be UTF-8", "RFC 6455, 5.6", frame(BINARY, b"\xff\xc0"), [(BINARY, b"\xff\xc0")]),
    Frames(
        "bytes in fragments need not be UTF-8",
        "RFC 6455, 5.6",
        frame(BINARY, b"\xff", fin=False) + _last(b"\xed\xa0"),
        [(BINARY, b"\xff\xed\xa0")],
    ),
    _bad("a close reason with FF", "RFC 6455, 5.5.1", close(1000, b"\xff"), 1007),
    _bad("a close reason with a surrogate", "RFC 6455, 5.5.1", close(1000, b"\xed\xa0\x80"), 1007),
    _bad("a close reason that ends within a character", "RFC 6455, 5.5.1", close(1000, b"a\xe2\x82"), 1007),
    _bad(
        "such a close reason between fragments",
        "RFC 6455, 5.5.1",
        _text(b"a", fin=False) + close(1000, b"\xff"),
        1007,
    ),
]

_S551, _S74 = "RFC 6455, 5.5.1", "RFC 6455, 7.4"
CLOSES = [
    *(
        Frames(f"close code {code}", _S74, close(code), [(CLOSE, code)])
        for code in (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999)
    ),
    *(
        _bad(f"close code {code}", _S74, close(code))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    _bad("half a close code", _S551, frame(CLOSE, b"\x03")),
    Frames("no close code", _S551, frame(CLOSE), [(CLOSE, 1005)]),
    Frames("a reason", _S551, close(1000, b"bye"), [(CLOSE, 1000)]),
    Frames("the longest reason", _S551, close(1000, b"*" * 123), [(CLOSE, 1000)]),
    Frames("a reason that is not ASCII", _S551, close(4000, "adiós ☃".encode()), [(CLOSE, 4000)]),
    Frames("a text behind a close", "RFC 6455, 1.4", close(1000) + _text(b"x"), [(CLOSE, 1000)], whole=True),
    Frames(
        "a ping behind a close", "RFC 6455, 5.5.2", close(1000) + frame(PING), [(CLOSE, 1000)], whole=True
    ),
    Frames("a second close", "RFC 6455, 1.4", close(1000) + close(1001), [(CLOSE, 1000)], whole=True),
    Frames(
        "a broken frame behind a close",
        "RFC 6455, 1.4",
        close(1000) + frame(3, rsv=7),
        [(CLOSE, 1000)],
        whole=True,
    ),
    Frames(
        "a text before a close", "RFC 6455, 1.4", _text(b"x") + close(1001), [(TEXT, b"x"), (CLOSE, 1001)]
    ),
    Frames(
        "a ping before a close",
        "RFC 6455, 5.5.2",
        frame(PING, b"p") + close(1000),
        [(PONG, b"p"), (CLOSE, 1000)],
    ),
    Frames(
        "a close between fragments of a text", _S551, _text(b"a", fin=False) + close(1001), [(CLOSE, 1001)]
    ),
    Frames(
        "a close between fragments of bytes",
        _S551,
        frame(BINARY, b"a", fin=False) + close(4000, b"x"),
        [(CLOSE, 4000)],
    ),
    Frames(
        "a close between fragments, without a code",
        _S551,
        _text(b"", fin=False) + _more(b"a") + frame(CLOSE),
        [(CLOSE, 1005)],
    ),
    Frames("a close within a character", _S551, _text(b"\xe2", fin=False) + close(1000), [(CLOSE, 1000)]),
    Frames(
        "the rest of a message behind a close",
        _S551,
        _text(b"a", fin=False) + close(1000) + _last(b"b"),
        [(CLOSE, 1000)],
        whole=True,
    ),
    _bad("a close between fragments, with a wrong code", _S74, _text(b"a", fin=False) + close(1005)),
]


# -- sizes

_TOO_BIG = "RFC 6455, 7.4.1 and 10.4"
SIZES = [
    _bad("one byte above the limit, at its header", _TOO_BIG, head(0x81, LIMIT + 1, 8), 1009),
    _bad("a length of 2**31, at its header", _TOO_BIG, head(0x82, 1 << 31, 8), 1009),
    _bad("a length of 2**62, at its header", _TOO_BIG, head(0x81, 1 << 62, 8), 1009),
    _bad("a length of 2**62, before the mask", _TOO_BIG, head(0x82, 1 << 62, 8)[:-4], 1009),
    _bad("a length of 2**63 - 1, at its header", _TOO_BIG, head(0x82, (1 << 63) - 1, 8), 1009),
    _bad("a first fragment of 2**62", _TOO_BIG, head(0x02, 1 << 62, 8), 1009),
    _bad("a continuation of 2**62", _TOO_BIG, _text(b"a", fin=False) + head(0x00, 1 << 62, 8), 1009),
    Frames(
        "fragments up to the limit",
        _TOO_BIG,
        frame(BINARY, b"x" * (LIMIT // 2), fin=False) + _more(b"x" * (LIMIT // 2)) + _last(),
        [(BINARY, b"x" * LIMIT)],
    ),
    _bad(
        "fragments above the limit, at the header of the last",
        _TOO_BIG,
        frame(BINARY, b"x" * (LIMIT // 2), fin=False) + _more(b"x" * (LIMIT // 2)) + head(0, 1, 0),
        1009,
    ),
    _bad("a text that never ends", _TOO_BIG, _text(b"a", fin=False) + _more(b"x" * 5000) * 27, 1009),
    _bad("empty fragments that never end", _TOO_BIG, _text(b"", fin=False) + _more() * 3000, 1009),
    _bad(
        "empty fragments that never end, behind a byte",
        _TOO_BIG,
        frame(BINARY, b"x", fin=False) + _more() * 3000,
        1009,
    ),
    Frames(
        "a message behind another of the limit",
        _TOO_BIG,
        _text(b"x" * LIMIT) + _text(b"y"),
        [(TEXT, b"x" * LIMIT), (TEXT, b"y")],
    ),
]


# -- compression

_S6, _S72 = "RFC 7692, 6", "RFC 7692, 7.2.2"
_D = DEFLATE.partition(": ")[2]
_HELLO = bytes.fromhex("f248cdc9c90700")


def _packed(data: bytes, *, fin: bool = True, opcode: int = TEXT) -> bytes:
    return frame(opcode, data, fin=fin, rsv=4)


_BOMB = deflate(b"\0" * (LIMIT * 8))
COMPRESSED = [
    Frames("one block", "RFC 7692, 7.2.3.1", _packed(_HELLO), [(TEXT, b"Hello")], _D),
    Frames(
        "two fragments",
        "RFC 7692, 7.2.3.1",
        _packed(_HELLO[:3], fin=False) + _last(_HELLO[3:]),
        [(TEXT, b"Hello")],
        _D,
    ),
    Frames(
        "a shared window",
        "RFC 7692, 7.2.3.2",
        _packed(_HELLO) + _packed(bytes.fromhex("f200110000")),
        [(TEXT, b"Hello")] * 2,
        _D,
    ),
    Frames(
        "no shared window",
        "RFC 7692, 7.2.3.2",
        _packed(_HELLO) * 2,
        [(TEXT, b"Hello")] * 2,
        _D + "; client_no_context_takeover",
    ),
    Frames(
        "a block without compression",
        "RFC 7692, 7.2.3.3",
        _packed(bytes.fromhex("000500faff48656c6c6f00")),
        [(TEXT, b"Hello")],
        _D,
    ),
    Frames(
        "a final block",
        "RFC 7692, 7.2.3.4",
        _packed(bytes.fromhex("f348cdc9c9070000")),
        [(TEXT, b"Hello")],
        _D,
    ),
    Frames(
        "a message behind a final block",
        "RFC 7692, 7.2.3.4",
        _packed(bytes.fromhex("f348cdc9c9070000")) + _packed(_HELLO),
        [(TEXT, b"Hello")] * 2,
        _D,
    ),
    Frames(
        "two blocks",
        "RFC 7692, 7.2.3.5",
        _packed(bytes.fromhex("f248050000 00ffff cac9c90700")),
        [(TEXT, b"Hello")],
        _D,
    ),
    Frames("an empty message", "RFC 7692, 7.2.3.6", _packed(b"\0"), [(TEXT, b"")], _D),
    Frames(
        "an empty message of bytes", "RFC 7692, 7.2.3.6", _packed(b"\0", opcode=BINARY), [(BINARY, b"")], _D
    ),
    Frames("a message that is not compressed", _S6, _text(b"plain"), [(TEXT, b"plain")], _D),
    Frames(
        "both kinds of messages",
        _S6,
        _packed(_HELLO) + _text(b"b") + _packed(_HELLO),
        [(TEXT, b"Hello"), (TEXT, b"b"), (TEXT, b"Hello")],
        _D,
    ),
    Frames(
        "a message that is not compressed, in fragments",
        _S6,
        _text(b"a", fin=False) + _last(b"b"),
        [(TEXT, b"ab")],
        _D,
    ),
    Frames(
        "a ping between compressed fragments",
        "RFC 7692, 6.1",
        _packed(_HELLO[:3], fin=False) + frame(PING, b"p") + _last(_HELLO[3:]),
        [(PONG, b"p"), (TEXT, b"Hello")],
        _D,
    ),
    Frames(
        "empty compressed fragments",
        _S6,
        _packed(b"", fin=False) + _more(_HELLO) + _last(),
        [(TEXT, b"Hello")],
        _D,
    ),
    Frames(
        "compressed byte by byte",
        _S6,
        _packed(_HELLO[:1], fin=False) + b"".join(_more(_HELLO[n : n + 1]) for n in range(1, 7)) + _last(),
        [(TEXT, b"Hello")],
        _D,
    ),
    Frames(
        "compressed bytes", _S6, _packed(deflate(b"\xff\xfe"), opcode=BINARY), [(BINARY, b"\xff\xfe")], _D
    ),
    Frames(
        "a small window",
        "RFC 7692, 7.1.2.2",
        _packed(_HELLO) * 2,
        [(TEXT, b"Hello")] * 2,
        _D + "; client_max_window_bits=9",
    ),
    Frames(
        "the smallest window",
        "RFC 7692, 7.1.2.2",
        _packed(_HELLO) * 2,
        [(TEXT, b"Hello")] * 2,
        _D + "; client_max_window_bits=8",
    ),
    Frames(
        "a window of 32 KiB",
        "RFC 7692, 7.1.2.2",
        _packed(deflate(b"ab" * 30_000)),
        [(TEXT, b"ab" * 30_000)],
        _D,
    ),
    Frames(
        "a close between compressed fragments",
        _S551,
        _packed(_HELLO[:3], fin=False) + close(1001),
        [(CLOSE, 1001)],
        _D,
    ),
    _bad(
        "RSV1 of a continuation",
        "RFC 7692, 6.1",
        _packed(_HELLO[:3], fin=False) + _more(_HELLO[3:], rsv=4),
        1002,
        _D,
    ),
    _bad(
        "RSV1 of a continuation of a plain message",
        "RFC 7692, 6.1",
        _text(b"a", fin=False) + _more(b"b", rsv=4),
        1002,
        _D,
    ),
    *(
        _bad(f"RSV1 of opcode {code}", "RFC 7692, 6.1", frame(code, rsv=4), 1002, _D)
        for code in (PING, PONG, CLOSE)
    ),
    _bad("RSV2 of a compressed message", _S52, frame(TEXT, _HELLO, rsv=6), 1002, _D),
    _bad("RSV3 of a compressed message", _S52, frame(TEXT, _HELLO, rsv=5), 1002, _D),
    _bad("compressed, though that was not agreed to", _S52, _packed(_HELLO)),
    _bad("compressed, though the offer was declined", _S52, _packed(_HELLO), 1002, _D + "; unknown"),
    _bad("what does not decompress", _S72, _packed(b"\xff" * 8), 1007, _D),
    _bad(
        "a first fragment that does not decompress, at once", _S72, _packed(b"\xff" * 8, fin=False), 1007, _D
    ),
    _bad("a block of a wrong length", _S72, _packed(b"\x00\x05\x00\x00\x00Hello\x00"), 1007, _D),
    _bad("a reference before the beginning", _S72, _packed(bytes.fromhex("f200110000")), 1007, _D),
    Frames(
        "a reference into a window that is not shared",
        "RFC 7692, 7.1.1.2",
        _packed(_HELLO) + _packed(bytes.fromhex("f200110000")),
        [(TEXT, b"Hello"), (CLOSE, 1007)],
        _D + "; client_no_context_takeover",
    ),
    _bad("compressed text that is not UTF-8", _S81, _packed(deflate(b"a\xff")), 1007, _D),
    _bad(
        "a compressed fragment that is not UTF-8, at once",
        _S81,
        _packed(deflate(b"a\xff") + b"\0\0\xff\xff", fin=False),
        1007,
        _D,
    ),
    _bad("a bomb", _TOO_BIG, _packed(_BOMB, opcode=BINARY), 1009, _D),
    _bad("a bomb of text", _TOO_BIG, _packed(_BOMB), 1009, _D),
    _bad("a bomb in a first fragment, at once", _TOO_BIG, _packed(_BOMB, fin=False, opcode=BINARY), 1009, _D),
    _bad(
        "a bomb in many fragments",
        _TOO_BIG,
        _packed(_BOMB[:50], fin=False)
        + b"".join(_more(_BOMB[n : n + 50]) for n in range(50, len(_BOMB), 50)),
        1009,
        _D,
    ),
    _bad("a bomb one byte too big", _TOO_BIG, _packed(deflate(b"\0" * (LIMIT + 1)), opcode=BINARY), 1009, _D),
    Frames(
        "the limit, compressed",
        _TOO_BIG,
        _packed(deflate(b"\0" * LIMIT), opcode=BINARY),
        [(BINARY, b"\0" * LIMIT)],
        _D,
    ),
    _bad(
        "blocks that never end and hold nothing",
        _TOO_BIG,
        _packed(b"", fin=False) + _more(b"\0\0\0\xff\xff" * 5000) * 7,
        1009,
        _D,
    ),
    _bad(
        "empty compressed fragments that never end",
        _TOO_BIG,
        _packed(b"", fin=False) + _more() * 3000,
        1009,
        _D,
    ),
    _bad("a compressed length of 2**62, at its header", _TOO_BIG, head(0xC1, 1 << 62, 8), 1009, _D),
]


# -- what the application does


@dataclass(frozen=True)
class AppCase:
    """What the app of `test_cases.py` does below a path, and what its client gets."""

    name: str
    section: str
    path: str
    status: int = 101
    back: list[tuple[int, Any]] = field(default_factory=list)
    then: bytes = b""
    """What the client sends behind `back`, and `rest` is what comes of it; then the connection ends."""
    rest: list[tuple[int, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


def _denied(status: Any, *, seen: int) -> AppCase:
    return AppCase(f"denied with {status}", "RFC 9110, 15", f"/deny?{status}", seen)


_CLOSED: list[tuple[int, Any]] = [(CLOSE, 4000)]
_S712 = "RFC 6455, 7.1.2"
APPS = [
    _denied(401, seen=401),
    _denied(200, seen=200),
    _denied(599, seen=599),
    _denied(600, seen=500),
    _denied(700, seen=500),
    _denied(999, seen=500),
    _denied(1000, seen=500),
    _denied(99, seen=500),
    _denied(100, seen=500),
    _denied(101, seen=500),
    _denied(199, seen=500),
    _denied(0, seen=500),
    _denied(-200, seen=500),
    AppCase("closed before it is accepted", "RFC 6455, 4.2.2", "/refuse", 403),
    AppCase("an error before it is accepted", "RFC 6455, 4.2.2", "/fail", 500),
    AppCase("neither accepted nor denied", "RFC 6455, 4.2.2", "/return", 500),
    AppCase("the client answers", _S712, "/close", 101, _CLOSED, close(4000)),
    AppCase("the client answers with another code", _S712, "/close", 101, _CLOSED, close(1000, b"x")),
    AppCase("the client answers without a code", _S712, "/close", 101, _CLOSED, frame(CLOSE)),
    AppCase("a text was on its way", _S551, "/close", 101, _CLOSED, _text(b"x") + close(4000)),
    AppCase("a fragment was on its way", _S551, "/close", 101, _CLOSED, _text(b"x", fin=False) + close(4000)),
    AppCase(
        "a ping was on its way",
        "RFC 6455, 5.5.2",
        "/close",
        101,
        _CLOSED,
        frame(PING, b"p") + close(4000),
        [(PONG, b"p")],
    ),
    AppCase("a broken frame was on its way", "RFC 6455, 7.1.7", "/close", 101, _CLOSED, frame(3)),
    AppCase(
        "a text that is not UTF-8 was on its way", "RFC 6455, 7.1.7", "/close", 101, _CLOSED, _text(b"\xff")
    ),
    AppCase("the client closed at the same time", _S712, "/close", 101, _CLOSED, close(1001)),
    AppCase("an error of the app", "RFC 6455, 7.4.1", "/error", 101, [(CLOSE, 1011)], close(1011)),
    AppCase("a second accept", "RFC 6455, 7.4.1", "/again", 101, [(CLOSE, 1011)], close(1011)),
    AppCase("the app returns", "RFC 6455, 7.4.1", "/done", 101, [(CLOSE, 1000)], close(1000)),
    AppCase(
        "a close code that must not be sent",
        "RFC 6455, 7.4",
        "/close?1005",
        101,
        [(CLOSE, 1011)],
        close(1011),
    ),
    AppCase("a message behind the app's close", _S551, "/late", 101, _CLOSED, close(4000)),
]


# -- clients that do not play along


@dataclass(frozen=True)
class Silent:
    """The server has to close TCP by itself within 5 s, as its client does nothing more after `sent`."""

    name: str
    path: str
    code: int
    sent: bytes = b""
    drain: bool = False
    """The server begins to stop."""
    section: str = "RFC 6455, 7.1.1"

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


SILENT = [
    Silent("after the app's close", "/close", 4000),
    Silent("after the app's error", "/error", 1011),
    Silent("after a second accept", "/again", 1011),
    Silent("after the app's return", "/done", 1000),
    Silent("after a broken frame", "/echo", 1002, frame(3)),
    Silent("after a text that is not UTF-8", "/echo", 1007, _text(b"\xff")),
    Silent("after a message too big", "/echo", 1009, head(0x82, 1 << 62, 8)),
    Silent("after its own close", "/echo", 1001, close(1001)),
    Silent("at a drain", "/echo", 1012, drain=True),
    Silent("at a drain, within a frame", "/echo", 1012, _text(b"abc")[:5], drain=True),
    Silent("at a drain, within a message", "/echo", 1012, _text(b"abc", fin=False), drain=True),
]


@dataclass(frozen=True)
class Lost:
    """The client sends `sent` and leaves without a close frame: the app is told 1006."""

    name: str
    sent: bytes
    section: str = "RFC 6455, 7.1.5"

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


LOST = [
    Lost("between messages", _text(b"a")),
    Lost("within a header", frame(BINARY, b"*" * 200)[:3]),
    Lost("within a mask", _text(b"abc")[:4]),
    Lost("within a payload", _text(b"abc")[:-1]),
    Lost("within a message", _text(b"a", fin=False) + _more(b"b")),
    Lost("within a character", _text(b"\xe2", fin=False)),
    Lost("within a close frame", close(1000)[:-1]),
    Lost("behind a ping", frame(PING, b"p")),
]
