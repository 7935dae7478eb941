"""Holds bytes that come in pieces until they are wanted, and joins no long ones before."""

from __future__ import annotations

from collections import deque

_LONG = 4 * 1024
"""Bytes of a piece from which it is kept as it is. Shorter ones are copied into one buffer: as an object of
its own, each byte of a peer that sends single bytes would take forty."""


class Pieces:
    """Takes little more memory than the bytes that were added, however short the pieces were."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray] = deque()

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, piece: bytes) -> None:
        """Add a piece."""
        pieces = self._pieces
        if len(piece) >= _LONG:
            pieces.append(piece)
        elif pieces and type(pieces[-1]) is bytearray:
            pieces[-1] += piece
        else:
            pieces.append(bytearray(piece))

    def pop(self) -> bytes:
        """Return the first piece, or short ones joined, and hold it no more; only if there is one."""
        return bytes(self._pieces.popleft())

    def take(self) -> bytes:
        """Return all that was added, and hold it no more."""
        joined = b"".join(self._pieces)
        self._pieces.clear()
        return joined
