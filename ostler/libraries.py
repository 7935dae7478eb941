"""Which of the optional C libraries serve: found without importing them, so that the arbiter may ask too."""

from __future__ import annotations

from importlib.util import find_spec

from ostler.errors import SettingsError
from ostler.settings import Settings


def event_loop(settings: Settings) -> str:
    """Return `uvloop`, `asyncio` or a `module:function`; `auto` takes uvloop where it is installed.

    Raises:
        SettingsError: uvloop is asked for and not installed.
    """
    if ":" in settings.loop:
        return settings.loop  # not imported: that is for the process that serves
    return _choose("--loop", settings.loop, "uvloop", "asyncio")


def http_parser(settings: Settings) -> str:
    """Return `httptools` or `h11`; `auto` takes httptools where it is installed.

    Raises:
        SettingsError: httptools is asked for and not installed.
    """
    return _choose("--http", settings.http, "httptools", "h11")


def _choose(flag: str, asked: str, fast: str, pure: str) -> str:
    if asked == pure:
        return pure
    if find_spec(fast) is not None:
        return fast
    if asked == "auto":
        return pure
    raise SettingsError(f"{flag} {fast}: {fast} is not installed; pip install {fast}, or use {flag} {pure}")
