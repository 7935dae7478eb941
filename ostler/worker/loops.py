"""Which event loop a worker runs on."""

from __future__ import annotations

import asyncio

from ostler import libraries
from ostler.settings import Settings


def new_event_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """Return a new loop of the kind that the settings ask for.

    Raises:
        SettingsError: uvloop is asked for and not installed.
    """
    if libraries.event_loop(settings) == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()
