"""Which event loop a worker runs on."""

from __future__ import annotations

import asyncio

from ostler.errors import SettingsError
from ostler.settings import Settings


def new_event_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """Return a new loop of the kind that the settings ask for; `auto` takes uvloop where it is installed.

    Raises:
        SettingsError: uvloop is asked for and not installed.
    """
    if settings.loop != "asyncio":
        try:
            import uvloop
        except ImportError:
            if settings.loop == "uvloop":
                raise SettingsError("--loop uvloop: uvloop is not installed; pip install uvloop") from None
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()
