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


def close_event_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Leave nothing of the loop behind, as asyncio.run() does."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
