"""Formatters for log lines, as text in uvicorn's formats and as JSON.

A log configuration may name them: they take the options of uvicorn's, and `uvicorn.logging.DefaultFormatter`
becomes `ostler.logging.DefaultFormatter`, and so on. Without a log configuration, `ostler.logging.setup` uses
the same ones.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Literal

from ostler.logging.line_handler import LineHandler as LineHandler  # a configuration may name it as well

TRACE = 5
"""The log level of ASGI messages, below DEBUG, as in uvicorn."""

DEFAULT_FORMAT = "%(levelprefix)s %(message)s"
ACCESS_FORMAT = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'

ACCESS_LOGGER = "ostler.access"
"""The logger of requests. Its records have five arguments: client, method, path with query, HTTP version,
status. A record that is made when the response is complete also has the attributes `request_time` (seconds)
and `response_length` (bytes)."""

_LEVEL_COLOURS = {TRACE: 34, logging.DEBUG: 36, logging.INFO: 32, logging.WARNING: 33, logging.ERROR: 31}
_CRITICAL_COLOUR = 91
_STATUS_COLOURS = {1: 97, 2: 32, 3: 33, 4: 31, 5: 91}
_BOLD = 1

Style = Literal["%", "{", "$"]


class DefaultFormatter(logging.Formatter):
    """Formats a record as `INFO:     message`, with its traceback below.

    `%(levelprefix)s` is a field of this formatter: the level and a colon, padded.

    Args:
        fmt: as for logging.Formatter.
        datefmt: as for logging.Formatter.
        style: as for logging.Formatter.
        use_colors: whether the level is coloured; None: if the handler that uses this formatter writes to a
            terminal.
        validate: as for logging.Formatter.
        defaults: as for logging.Formatter.
    """

    stream_name = "stderr"

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Style = "%",
        use_colors: bool | None = None,
        *,
        validate: bool = True,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fmt, datefmt, style, validate, defaults=defaults)
        self._is_default = fmt == DEFAULT_FORMAT
        self.undecided = use_colors is None
        """Whether colours depend on the stream: see `decided_for`."""
        self.colours = _is_terminal(getattr(sys, self.stream_name)) if use_colors is None else use_colors

    def decided_for(self, stream: object) -> DefaultFormatter:
        """Return this formatter for a handler that writes to `stream`, coloured if that is a terminal."""
        if not self.undecided:
            return self
        decided = copy.copy(self)
        decided.colours = _is_terminal(stream)
        return decided

    def formatMessage(self, record: logging.LogRecord) -> str:
        message = record.message
        if self.colours:
            # As in uvicorn: a record may have a second message with colours in it.
            coloured = getattr(record, "color_message", None)
            if coloured is not None:
                message = str(coloured) % record.args if record.args else str(coloured)
        if self._is_default:
            return f"{self.prefix(record)} {message}"
        return self._filled(record, message=message, levelprefix=self.prefix(record))

    def prefix(self, record: logging.LogRecord) -> str:
        """Return the level and a colon, padded to the width of the longest level."""
        name = record.levelname
        if not self.colours:
            return f"{name + ':':<9}"
        shown = _styled(name, _LEVEL_COLOURS.get(record.levelno, _CRITICAL_COLOUR))
        return f"{shown}:{' ' * (8 - len(name))}"

    def _filled(self, record: logging.LogRecord, **values: object) -> str:
        filled = copy.copy(record)  # other handlers also get the record
        vars(filled).update(values)
        return super().formatMessage(filled)


class AccessFormatter(DefaultFormatter):
    """Formats a record of the access log as `INFO:     127.0.0.1:5000 - "GET / HTTP/1.1" 200 OK`.

    Fields of this formatter are `%(client_addr)s`, `%(request_line)s` and `%(status_code)s`, as in uvicorn,
    and `%(request_time).6f` in seconds and `%(response_length)d` in bytes. If the format has one of the last
    two, the line is written when the response is complete. The arguments are those of DefaultFormatter.
    """

    stream_name = "stdout"

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Style = "%",
        use_colors: bool | None = None,
        *,
        validate: bool = True,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fmt, datefmt, style, use_colors, validate=validate, defaults=defaults)
        self._phrases: dict[int, str] = {}
        self.wants_completion = any(n in (fmt or "") for n in ("request_time", "response_length"))
        self._is_default = fmt == ACCESS_FORMAT
        self.usual = fmt == ACCESS_FORMAT and style == "%" and not defaults
        """Whether the line is uvicorn's: it depends on the level and the arguments of the record only."""

    def format(self, record: logging.LogRecord) -> str:
        # The quick way for most lines: they do not need the record's message, which super() would format.
        match record.args:
            case (client, method, path, version, int() as status) if self._quick(record):
                phrase = self._phrases.get(status) or self._phrase(status)
                outcome = f"{status} {phrase}"
                return f'{record.levelname + ":":<9} {client} - "{method} {path} HTTP/{version}" {outcome}'
        return super().format(record)

    def _quick(self, record: logging.LogRecord) -> bool:
        return self._is_default and not self.colours and not record.exc_info

    def formatMessage(self, record: logging.LogRecord) -> str:
        match record.args:
            case (client, method, path, version, int() as status):
                line = f"{method} {path} HTTP/{version}"
                outcome = f"{status} {self._phrase(status)}"
                if self.colours:
                    line = _styled(line, _BOLD)
                    outcome = _styled(outcome, _STATUS_COLOURS.get(status // 100, _BOLD))
            case _ if self._is_default:
                return f"{self.prefix(record)} {record.message}"
            case _:
                client, line, outcome = "-", record.message, "-"
        if self._is_default:
            return f'{self.prefix(record)} {client} - "{line}" {outcome}'
        known = {"request_time": 0.0, "response_length": 0, **vars(record)}
        own = {"client_addr": client, "request_line": line, "status_code": outcome}
        return self._filled(record, **{**known, **own, "levelprefix": self.prefix(record)})

    def _phrase(self, status: int) -> str:
        if not self._phrases:
            from http import HTTPStatus  # imported here: 1 MB, which the arbiter does not need

            self._phrases.update((known.value, known.phrase) for known in HTTPStatus)
        return self._phrases.get(status, "")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line with a JSON object (RFC 8259), in ASCII.

    ASCII is the same in every encoding, and has no line separators that a reader could split at. Lone
    surrogates, which many readers refuse, are written as text. `extra` fields of a record become members of
    the object, unless their name is one of ostler's members.

    Args:
        fmt: ignored, as are `datefmt`, `style`, `validate` and `defaults`: logging.config passes them.
        datefmt: ignored.
        style: ignored.
        slot: the worker's slot; None reads it from the environment.
        validate: ignored.
        defaults: ignored.
    """

    wants_completion = True

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Style = "%",
        slot: int | None = None,
        *,
        validate: bool = True,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        from json.encoder import encode_basestring  # imported here: few logs are JSON

        self._encode: Callable[[str], str] = encode_basestring
        if slot is None and os.environ.get("OSTLER_SLOT", "").isdecimal():
            slot = int(os.environ["OSTLER_SLOT"])
        self._slot = "null" if slot is None else str(slot)
        self._second = -1
        self._shown_second = ""

    def format(self, record: logging.LogRecord) -> str:
        text = self._text
        parts = [
            f'{{"time":"{self._time(record.created)}","level":{text(record.levelname)}'
            f',"logger":{text(record.name)},"message":{text(_message(record))}'
            f',"slot":{self._slot},"pid":{record.process or "null"}'
        ]
        args = record.args
        if record.name == ACCESS_LOGGER and type(args) is tuple and len(args) == 5 and type(args[4]) is int:
            client, method, target, version, status = args
            path, _, query = str(target).partition("?")
            parts.append(
                f',"client":{text(str(client))},"method":{text(str(method))},"path":{text(path)}'
                f',"query":{text(query)},"http_version":{text(str(version))},"status":{status}'
            )
        if len(vars(record)) > _FEWEST:
            parts += [
                f",{text(name)}:{self._value(value)}"
                for name, value in vars(record).items()
                if name not in _NO_EXTRAS
            ]
        if record.exc_info or record.exc_text:
            if not record.exc_text and record.exc_info:
                record.exc_text = self.formatException(record.exc_info)
            parts.append(f',"exception":{text(record.exc_text or "")}')
        if record.stack_info:
            parts.append(f',"stack":{text(self.formatStack(record.stack_info))}')
        parts.append("}")
        return "".join(parts)

    def _time(self, created: float) -> str:
        """Return a time as in RFC 3339, in UTC, with milliseconds."""
        second = int(created)
        if second != self._second:
            self._shown_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._shown_second}.{int((created - second) * 1000):03d}Z"

    def _text(self, text: str) -> str:
        encoded = self._encode(text)
        return encoded if encoded.isascii() else _in_ascii(encoded)

    def _value(self, value: object) -> str:
        """Return the value of an `extra` field as JSON; as text if it has no JSON."""
        if type(value) is str:
            return self._text(value)
        if type(value) is int or (type(value) is float and isfinite(value)):
            return repr(value)
        import json

        try:
            return _in_ascii(json.dumps(value, default=str, ensure_ascii=False, allow_nan=False))
        except Exception:  # noqa: BLE001  # a circle, NaN, a key that is no string, an error in __str__
            return self._text(_shown(value))


_FEWEST = len(vars(logging.makeLogRecord({})))
"""Attributes of a record without `extra` fields."""
_NO_EXTRAS = frozenset(
    (
        *vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message",
        "time", "level", "logger", "slot", "pid", "client", "method", "path", "query", "http_version",
        "status", "exception", "stack",
    )
)  # fmt: skip
"""Attributes that every record has or formatters add, and the members of our own; all others are `extra`."""


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  # logging would print a traceback to stderr, which is not JSON
        return f"{_shown(record.msg)} % {_shown(record.args)}"


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # a __repr__ raises anything
        return f"<{type(value).__name__}>"


def _in_ascii(encoded: str) -> str:
    """Escape all characters that are not ASCII; in JSON they can only be inside strings."""
    if encoded.isascii():
        return encoded
    return _NOT_ASCII.sub(_escaped, encoded)


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xD800 <= number < 0xE000:  # a lone surrogate, most often for a byte that was not UTF-8: as text
        return f"\\\\u{number:04x}"
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def _is_terminal(stream: object) -> bool:
    try:
        return stream is not None and bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # a handler's own kind of stream; a closed stream
        return False


def _styled(text: str, code: int) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"
