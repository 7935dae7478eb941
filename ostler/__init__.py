"""ostler: a multi-process supervisor and server for ASGI and WSGI applications.

From code: `ostler.run(app, ...)` serves as the command does; `ostler.Server(ostler.Config(app, ...))` serves
inside another program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostler.errors import BindError, OstlerError, SettingsError, StartupError
from ostler.settings.declarations import Settings

if TYPE_CHECKING:
    from ostler.embed.config import Config
    from ostler.embed.run import run
    from ostler.embed.server import Server
    from ostler.version import __version__

__all__ = [
    "BindError",
    "Config",
    "OstlerError",
    "Server",
    "Settings",
    "SettingsError",
    "StartupError",
    "__version__",
    "run",
]


def __getattr__(name: str) -> Any:
    # Imported on first use (PEP 562): the arbiter, which imports this package too, must not load a worker's
    # modules.
    if name == "run":
        from ostler.embed.run import run

        return run
    if name == "Server":
        from ostler.embed.server import Server

        return Server
    if name == "Config":
        from ostler.embed.config import Config

        return Config
    if name == "__version__":
        from ostler.version import __version__

        return __version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
