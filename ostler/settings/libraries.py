"""Chooses the event loop, HTTP parser and WebSocket library that the settings ask for.

The libraries are looked up without being imported, so that the arbiter can check the choice.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings

_GIL_STAYS_OFF_SINCE = {"uvloop": (0, 22), "httptools": (0, 8)}
"""On a free-threaded Python, the import of an older release switches the GIL on for the whole process."""


def event_loop(settings: Settings) -> str:
    """Return `uvloop`, `asyncio` or a `module:function`; `auto` takes uvloop if it can be used.

    Raises:
        SettingsError: uvloop is asked for and not installed.
    """
    if ":" in settings.loop:
        return settings.loop  # the worker imports it, not the arbiter
    return _choose("--loop", settings.loop, "uvloop", "asyncio")


def http_parser(settings: Settings) -> str:
    """Return `httptools` or `h11`; `auto` takes httptools if it can be used.

    Raises:
        SettingsError: httptools is asked for and not installed.
    """
    return _choose("--http", settings.http, "httptools", "h11")


def websocket(settings: Settings) -> str:
    """Return `websockets`, `wsproto` or `none`; `auto` takes the first of them that is installed.

    Raises:
        SettingsError: a library is asked for and not installed.
    """
    asked = settings.ws.removesuffix("-sansio")
    if asked == "auto":
        return next((name for name in ("websockets", "wsproto") if find_spec(name) is not None), "none")
    if asked != "none" and find_spec(asked) is None:
        raise SettingsError(f"--ws {asked}: {asked} is not installed; pip install {asked}, or use --ws none")
    return asked


def _choose(flag: str, asked: str, fast: str, pure: str) -> str:
    if asked == pure:
        return pure
    if find_spec(fast) is not None:
        return fast if asked == fast or _leaves_gil_off(fast) else pure
    if asked == "auto":
        return pure
    remedy = f"pip install {fast}, or use" if sys.implementation.name == "cpython" else "use"
    raise SettingsError(f"{flag} {fast}: {fast} is not installed; {remedy} {flag} {pure}")


def _leaves_gil_off(name: str) -> bool:
    """Whether a library can be imported without switching the GIL on; True where it is on already."""
    gil_is_on = getattr(sys, "_is_gil_enabled", lambda: True)  # since Python 3.13
    if gil_is_on():
        return True
    from importlib import metadata  # for a free-threaded Python only

    try:
        major, minor = metadata.version(name).split(".")[:2]
        return (int(major), int(minor)) >= _GIL_STAYS_OFF_SINCE[name]
    except (metadata.PackageNotFoundError, ValueError):
        return False
