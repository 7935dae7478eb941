"""Chooses the event loop, HTTP parser and WebSocket library that the settings ask for.

The libraries are looked up without being imported, so that the arbiter can check the choice.
"""

from __future__ import annotations

from importlib.util import find_spec

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings


def event_loop(settings: Settings) -> str:
    """Return `uvloop`, `asyncio` or a `module:function`; `auto` takes uvloop if it is installed.

    Raises:
        SettingsError: uvloop is asked for and not installed.
    """
    if ":" in settings.loop:
        return settings.loop  # the worker imports it, not the arbiter
    return _choose("--loop", settings.loop, "uvloop", "asyncio")


def http_parser(settings: Settings) -> str:
    """Return `httptools` or `h11`; `auto` takes httptools if it is installed.

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
        return fast
    if asked == "auto":
        return pure
    raise SettingsError(f"{flag} {fast}: {fast} is not installed; pip install {fast}, or use {flag} {pure}")
