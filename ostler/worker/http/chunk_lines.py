"""Reads the lines of a chunked body, and checks them strictly: RFC 9112, section 7.1.

h11 takes any bytes in a chunk extension, and spaces after the size. A reader before or behind ostler may see
a line end in what h11 skips, and so find another request in the body than ostler does (request smuggling).
"""

from __future__ import annotations

import re

from ostler.settings.field_grammar import TOKEN_CHARACTERS
from ostler.worker.http.parser import PIECE
from ostler.worker.http.request import Refusal

# What llhttp takes: no white space around ";" and "="; a name or a value may be missing.
_TOKEN = rb"[%b]+" % TOKEN_CHARACTERS
_VALUE = rb'(?:%b|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*")?' % _TOKEN
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;(?:%b(?:=%b)?|=%b))*\r\n" % (_TOKEN, _VALUE, _VALUE))
_LARGEST = 2**64 - 1
_SHORT = 1024
"""Bytes of a chunk up to which it is cheaper to copy its data than to refer to them; and of its size line up
to which it is read by `_whole_chunks`."""
_TRAILER = re.compile(rb"(%b):[\t\x20-\x7e\x80-\xff]*\r\n\Z" % _TOKEN)
_PARTIAL_CHUNK = re.compile(rb"(?:[0-9A-Fa-f]{1,20}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?)?\Z")
_PARTIAL_TRAILER = re.compile(rb"(?:\r|%b(?::[\t\x20-\x7e\x80-\xff]*\r?)?)?\Z" % _TOKEN)
_FRAMING = frozenset(
    (b"content-length", b"transfer-encoding")
)  # RFC 9110, section 6.5.1 bans them in trailers

# What the next bytes are.
_SIZE_LINE, _DATA, _DATA_END, _TRAILER_LINE, _ENDED = range(5)


class ChunkLines:
    """Walks over one chunked body."""

    __slots__ = ("_left", "_limit", "_line", "_silent", "_state")

    def __init__(self, limit: int) -> None:
        """Lines between two pieces of data, as trailer fields, may have `limit` bytes or a little more."""
        self._limit = limit
        self._state = _SIZE_LINE
        self._line = b""
        """The part of a line that has arrived."""
        self._left = 0
        """Bytes of the chunk's data to come."""
        self._silent = 0
        """Bytes since the last data or chunk header."""

    @property
    def ended(self) -> bool:
        """Whether the body has ended, with its trailer fields."""
        return self._state == _ENDED

    def read(self, data: bytes, pieces: list[bytes | memoryview] | None = None) -> int:
        """Read the next bytes of the connection, as far as they belong to the body; return how many do.

        What they hold of the chunks' data is appended to `pieces`.

        Raises:
            Refusal: the body is malformed, or its lines are too long.
        """
        view = memoryview(data)
        at, size = 0, len(data)
        while at < size and self._state != _ENDED:
            if self._state == _SIZE_LINE and not self._line:
                at = self._whole_chunks(data, at, view, pieces)
                if at == size:
                    break
            if self._state == _DATA:
                taken = min(self._left, size - at)
                if pieces is not None:
                    pieces.append(view[at : at + taken])
                self._left -= taken
                at += taken
                if not self._left:
                    self._state = _DATA_END
                    self._silent = 0
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or size]
            self._silent += (end or size) - at
            if self._silent > self._limit + PIECE:
                raise Refusal(431, "The trailer fields are too large.")
            if not end:
                self._check_partial(self._line)
                return size
            line, self._line = self._line, b""
            self._take(line)
            at = end
        return at

    def _whole_chunks(
        self, data: bytes, at: int, view: memoryview, pieces: list[bytes | memoryview] | None
    ) -> int:
        """Read the chunks from `at` on that are complete; return where they end.

        A client may send hundreds of thousands of bytes in chunks of one: state by state, each would take
        some microseconds, and what one read brings would keep the event loop busy for a tenth of a second.
        """
        match = _CHUNK.match
        before = at
        while (line := match(data, at, at + _SHORT)) is not None:
            start = line.end()
            size = int(line[1], 16)
            end = start + size
            if not size or data[end : end + 2] != b"\r\n":
                break
            if pieces is not None:
                pieces.append(data[start:end] if size <= _SHORT else view[start:end])
            at = end + 2
        if at > before:
            self._silent = 0
        return at

    def _take(self, line: bytes) -> None:
        if self._state == _SIZE_LINE:
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise Refusal(400, "Invalid HTTP request received: malformed chunk size.")
            self._left = int(match[1], 16)
            if self._left > _LARGEST:
                raise Refusal(400, "Invalid HTTP request received: the chunk is too large.")
            self._state = _DATA if self._left else _TRAILER_LINE
            self._silent = 0
        elif self._state == _DATA_END:
            if line != b"\r\n":
                raise Refusal(400, "Invalid HTTP request received: malformed end of a chunk.")
            self._state = _SIZE_LINE
        elif line == b"\r\n":
            self._state = _ENDED
        else:
            match = _TRAILER.match(line)
            if match is None:
                raise Refusal(400, "Invalid HTTP request received: malformed trailer field.")
            if match[1].lower() in _FRAMING:
                raise Refusal(400, "Invalid HTTP request received: framing in a trailer field.")

    def _check_partial(self, line: bytes) -> None:
        """Refuse at once what no further bytes can make valid."""
        if self._state == _DATA_END:
            valid: object = line == b"\r"
        else:
            valid = (_PARTIAL_CHUNK if self._state == _SIZE_LINE else _PARTIAL_TRAILER).match(line)
        if not valid:
            raise Refusal(400, "Invalid HTTP request received: malformed chunk.")
