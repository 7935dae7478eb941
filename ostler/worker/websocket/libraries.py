"""Chooses the WebSocket library that the settings ask for."""

from __future__ import annotations

from ostler.settings import libraries
from ostler.settings.declarations import Settings
from ostler.worker.http.connection import TakeUpgrade
from ostler.worker.websocket.codec import MakeCodec
from ostler.worker.websocket.cycle import Upgrades


def upgrades(settings: Settings) -> TakeUpgrade | None:
    """Return what takes over WebSocket handshakes, with the library of the settings; None for no library.

    Raises:
        SettingsError: that library is not installed.
    """
    library = libraries.websocket(settings)
    return None if library == "none" else Upgrades(_codec(library))


def _codec(library: str) -> MakeCodec:
    # Imported here: either library may not be installed, and one that is not used should cost no memory.
    if library == "websockets":
        from ostler.worker.websocket import websockets_codec

        return websockets_codec.make_codec
    from ostler.worker.websocket import wsproto_codec

    return wsproto_codec.make_codec
