"""A multi-process supervisor and ASGI server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostler.errors import BindError, OstlerError, SettingsError, StartupError
from ostler.settings import Settings

if TYPE_CHECKING:
    from ostler.cli.from_code import run
    from ostler.config import Config
    from ostler.worker.embedding import Server

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
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    # Only when they are asked for: the arbiter's process is to hold nothing of a worker's.
    if name == "run":
        from ostler.cli.from_code import run

        return run
    if name == "Server":
        from ostler.worker.embedding import Server

        return Server
    if name == "Config":
        from ostler.config import Config

        return Config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
