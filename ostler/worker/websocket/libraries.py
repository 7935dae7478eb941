"""WebSockets (RFC 6455): one cycle and one connection class, two libraries behind one face."""

from __future__ import annotations

from ostler.settings import libraries
from ostler.settings.declarations import Settings
from ostler.worker.http.connection import TakeUpgrade
from ostler.worker.websocket.codec import MakeCodec
from ostler.worker.websocket.cycle import Upgrades


def upgrades(settings: Settings) -> TakeUpgrade | None:
    """Return what takes WebSocket handshakes, with the library that the settings ask for, or None for none.

    Raises:
        SettingsError: that library is not installed.
    """
    library = libraries.websocket(settings)
    return None if library == "none" else Upgrades(_codec(library))


def _codec(library: str) -> MakeCodec:
    # Imported here: either library may be absent, and an unused one should cost no memory.
    if library == "websockets":
        from ostler.worker.websocket.websockets_codec import WebsocketsCodec

        return WebsocketsCodec
    from ostler.worker.websocket.wsproto_codec import WsprotoCodec

    return WsprotoCodec
