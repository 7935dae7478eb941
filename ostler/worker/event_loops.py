"""Makes and closes the event loop that a worker runs on: uvloop's, asyncio's or one of the user's own."""

from __future__ import annotations

import asyncio

from ostler.errors import StartupError
from ostler.settings import libraries
from ostler.settings.declarations import Settings
from ostler.worker.importer import import_from_string
from ostler.worker.tracebacks import one_line


def new_event_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """Return a new loop of the kind that the settings ask for.

    Raises:
        SettingsError: uvloop is asked for and not installed.
        StartupError: the user's own function is not there, fails, or returns no event loop.
    """
    kind = libraries.event_loop(settings)
    if ":" in kind:
        return _made_by_the_user(kind)
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def _made_by_the_user(where: str) -> asyncio.AbstractEventLoop:
    try:
        loop = import_from_string(where)()
    except StartupError as error:
        raise StartupError(f"--loop {where}: {error}") from None
    except BaseException as error:  # noqa: BLE001 - whatever a user's module raises, it is a failed start
        raise StartupError(f"--loop {where} made no event loop: {one_line(error)}") from None
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise StartupError(f"--loop {where} must return an event loop, not {type(loop).__name__}")
    return loop


def after_import(loop: asyncio.AbstractEventLoop, settings: Settings) -> asyncio.AbstractEventLoop:
    """Return the loop to serve on, as the current one: `loop`, which was current during the import.

    A module that calls `asyncio.run()` leaves no current loop. One that closes the loop that it got from
    `asyncio.get_event_loop()`, or runs it in a thread, keeps that loop: another one serves.

    Raises:
        SettingsError: as `new_event_loop`.
        StartupError: as `new_event_loop`.
    """
    if loop.is_closed() or loop.is_running():
        loop = new_event_loop(settings)
    asyncio.set_event_loop(loop)
    return loop


def close(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left in the loop and close it, as asyncio.run() does.

    A loop that the application has closed, or runs in a thread of its own, is left alone.
    """
    if loop.is_closed() or loop.is_running():
        asyncio.set_event_loop(None)
        return
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
