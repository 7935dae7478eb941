"""Fills the atoms of an access log format, which are gunicorn's, from a request and its response."""

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


class LogEntry(NamedTuple):
    """One request and its response."""

    head: RequestHead
    scope: dict[str, Any]
    status: int
    fields: Iterable[tuple[bytes, bytes]]
    """The header fields of the response, as the application gave them."""
    sent: int
    """Bytes of the response's body."""
    seconds: float


Getter = Callable[[LogEntry], object]

# Characters that cannot stand between quotes in a line of ASCII. Apache and nginx escape the same ones.
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_ABSENT = "-"


def compile_format(text: str) -> Callable[[LogEntry], str]:
    """Return the function that makes a line in this format; it reads only what the format names.

    Raises:
        ostler.settings.access_format.WrongAtom: there is an atom that does not exist.
    """
    template, names = parse(text)
    getters = tuple(_getter(name) for name in names)
    return lambda entry: template % tuple([get(entry) for get in getters])


def _getter(name: str) -> Getter:
    if name.startswith("{"):
        wanted, kind = name[1:-2].lower(), name[-1]
        if kind == "e":
            return _constant(_variable(wanted))
        field = wanted.encode("latin-1", "replace")
        if kind == "i":
            return lambda entry: _field(entry.head.headers, field)
        return lambda entry: _field(entry.fields, field)
    if name == "t":
        return _clock()
    if name == "l":
        return _constant(_ABSENT)
    if name == "p":
        return _constant(f"<{os.getpid()}>")  # each worker compiles the format for itself
    return _GETTERS[name]


def _constant(value: str) -> Getter:
    return lambda _: value


def _variable(wanted: str) -> str:
    # Case does not matter, as with gunicorn. The environment does not change while the worker serves.
    return next((_escaped(v) for k, v in os.environ.items() if k.lower() == wanted), _ABSENT)


def _clock() -> Getter:
    """Return the getter of the local time, as in the Common Log Format; it is rendered once a second."""
    last, shown = -1, ""

    def now(_: LogEntry) -> str:
        nonlocal last, shown
        second = int(time.time())
        if second != last:
            last, shown = second, time.strftime("[%d/%b/%Y:%H:%M:%S %z]")
        return shown

    return now


def _escaped(text: str) -> str:
    return _UNSAFE.sub(_escape, text) if _UNSAFE.search(text) else text


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    # Byte by byte. Fields were decoded as Latin-1, so that these are the bytes that were received.
    code = ord(character)
    if code < 256:
        return f"\\x{code:02x}"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def _field(fields: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    found = None
    for name, value in fields:
        if name == wanted or name.lower() == wanted:
            found = value if found is None else b"%b, %b" % (found, value)
    return _ABSENT if found is None else _escaped(found.decode("latin-1"))


def _user(entry: LogEntry) -> str:
    """Return the user name in Basic credentials (RFC 7617), which only the application checks."""
    for name, value in entry.head.headers:
        if name == b"authorization" and value[:6].lower() == b"basic ":
            try:
                user = b64decode(value[6:].strip(), validate=True).partition(b":")[0]
            except ValueError:
                return _ABSENT
            return _escaped(user.decode("latin-1")) or _ABSENT
    return _ABSENT


def _phrase(entry: LogEntry) -> str:
    try:
        return HTTPStatus(entry.status).phrase
    except ValueError:
        return _ABSENT


def _target(entry: LogEntry) -> str:
    return _escaped(entry.head.target.decode("latin-1"))


_GETTERS: MappingProxyType[str, Getter] = MappingProxyType(
    {
        "h": lambda entry: entry.scope["client"][0] if entry.scope["client"] else _ABSENT,
        "u": _user,
        "r": lambda entry: f"{entry.head.method} {_target(entry)} HTTP/{entry.head.version}",
        "m": lambda entry: entry.head.method,
        "U": lambda entry: _target(entry).partition("?")[0],
        "q": lambda entry: _target(entry).partition("?")[2],
        "H": lambda entry: f"HTTP/{entry.head.version}",
        "s": lambda entry: entry.status,
        "st": _phrase,
        "B": lambda entry: entry.sent,
        "b": lambda entry: entry.sent or _ABSENT,
        "f": lambda entry: _field(entry.head.headers, b"referer"),
        "a": lambda entry: _field(entry.head.headers, b"user-agent"),
        "T": lambda entry: int(entry.seconds),
        "M": lambda entry: int(entry.seconds * 1e3),
        "D": lambda entry: int(entry.seconds * 1e6),
        "L": lambda entry: f"{entry.seconds:.6f}",
    }
)
