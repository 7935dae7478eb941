"""Holds bytes that come in pieces until all are there, and joins them once."""

from __future__ import annotations

_LONG = 4 * 1024
"""Bytes of a piece from which it is kept as it is. Shorter ones are copied into one buffer: as an object of
its own, each byte of a peer that sends single bytes would take forty."""


class Pieces:
    """Takes no more memory than twice the bytes that were added, however short they were."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray | memoryview] = []

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, data: bytes, start: int, stop: int) -> None:
        """Add `data[start:stop]`."""
        size = stop - start
        pieces = self._pieces
        if size >= _LONG:
            # A view keeps all of `data` in memory; a slice of all of it is no copy.
            viewed = size < len(data) <= 2 * size
            pieces.append(memoryview(data)[start:stop] if viewed else data[start:stop])
        elif pieces and type(pieces[-1]) is bytearray:
            pieces[-1] += memoryview(data)[start:stop]
        else:
            pieces.append(bytearray(data[start:stop]))

    def take(self) -> bytes:
        """Return all that was added, and hold it no more."""
        joined = b"".join(self._pieces)
        self._pieces.clear()
        return joined
