"""Fills gunicorn's atoms (`ostler.settings.access_format`) from a request and its response."""

from __future__ import annotations

import os
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterable
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple

from ostler.settings.access_format import parse
from ostler.worker.http.request import RequestHead


class Exchange(NamedTuple):
    """One request, and what became of it."""

    head: RequestHead
    scope: dict[str, Any]
    status: int
    fields: Iterable[tuple[bytes, bytes]]
    """The response's, as the application gave them."""
    sent: int
    """Bytes of the response's body."""
    seconds: float


Getter = Callable[[Exchange], object]

# What cannot stand between quotes in one line of ASCII. Apache and nginx escape the same, in this way.
_ODD = re.compile(r"[^ !#-\[\]-~]")
_NOTHING = "-"


def compile_format(text: str) -> Callable[[Exchange], str]:
    """Return what makes a line in this format, and looks at nothing that is not in it.

    Raises:
        ostler.settings.access_format.WrongAtom: there is an atom that does not exist.
    """
    template, names = parse(text)
    getters = tuple(_getter(name) for name in names)
    return lambda exchange: template % tuple([get(exchange) for get in getters])


def _getter(name: str) -> Getter:
    if name.startswith("{"):
        wanted, kind = name[1:-2].lower(), name[-1]
        if kind == "e":
            return _constant(_variable(wanted))
        field = wanted.encode("latin-1", "replace")
        if kind == "i":
            return lambda exchange: _field(exchange.head.headers, field)
        return lambda exchange: _field(exchange.fields, field)
    if name == "t":
        return _clock()
    if name == "l":
        return _constant(_NOTHING)
    if name == "p":
        return _constant(f"<{os.getpid()}>")  # workers compile for themselves
    return _GETTERS[name]


def _constant(value: str) -> Getter:
    return lambda _: value


def _variable(wanted: str) -> str:
    # Case does not matter, as with gunicorn; nor does it change while we serve.
    return next((_escaped(v) for k, v in os.environ.items() if k.lower() == wanted), _NOTHING)


def _clock() -> Getter:
    """The local time to the second, as CLF has it; rendered once a second."""
    last, shown = -1, ""

    def now(_: Exchange) -> str:
        nonlocal last, shown
        second = int(time.time())
        if second != last:
            last, shown = second, time.strftime("[%d/%b/%Y:%H:%M:%S %z]")
        return shown

    return now


def _escaped(text: str) -> str:
    return _ODD.sub(_escape, text) if _ODD.search(text) else text


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    # Byte by byte. Fields were read as Latin-1, so that these are the bytes that came.
    code = ord(character)
    if code < 256:
        return f"\\x{code:02x}"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def _field(fields: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    found = None
    for name, value in fields:
        if name == wanted or name.lower() == wanted:
            found = value if found is None else b"%b, %b" % (found, value)
    return _NOTHING if found is None else _escaped(found.decode("latin-1"))


def _user(exchange: Exchange) -> str:
    """The name in Basic credentials (RFC 7617); whether they are right, only the application knows."""
    for name, value in exchange.head.headers:
        if name == b"authorization" and value[:6].lower() == b"basic ":
            try:
                user = b64decode(value[6:].strip(), validate=True).partition(b":")[0]
            except ValueError:
                return _NOTHING
            return _escaped(user.decode("latin-1")) or _NOTHING
    return _NOTHING


def _phrase(exchange: Exchange) -> str:
    try:
        return HTTPStatus(exchange.status).phrase
    except ValueError:
        return _NOTHING


def _target(exchange: Exchange) -> str:
    return _escaped(exchange.head.target.decode("latin-1"))


_GETTERS: MappingProxyType[str, Getter] = MappingProxyType(
    {
        "h": lambda x: x.scope["client"][0] if x.scope["client"] else _NOTHING,
        "u": _user,
        "r": lambda x: f"{x.head.method} {_target(x)} HTTP/{x.head.version}",
        "m": lambda x: x.head.method,
        "U": lambda x: _target(x).partition("?")[0],
        "q": lambda x: _target(x).partition("?")[2],
        "H": lambda x: f"HTTP/{x.head.version}",
        "s": lambda x: x.status,
        "st": _phrase,
        "B": lambda x: x.sent,
        "b": lambda x: x.sent or _NOTHING,
        "f": lambda x: _field(x.head.headers, b"referer"),
        "a": lambda x: _field(x.head.headers, b"user-agent"),
        "T": lambda x: int(x.seconds),
        "M": lambda x: int(x.seconds * 1e3),
        "D": lambda x: int(x.seconds * 1e6),
        "L": lambda x: f"{x.seconds:.6f}",
    }
)
