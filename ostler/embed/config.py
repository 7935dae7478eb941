"""`ostler.Config`: the settings of an embedded server, from keyword arguments as for `uvicorn.Config`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ostler import tls
from ostler.records import frozen_record
from ostler.settings.declarations import App, Settings
from ostler.settings.sources import Sources

# Platforms set it to describe the network around the process: it also counts for an embedded server.
_PLATFORMS = ("FORWARDED_ALLOW_IPS",)


@frozen_record
class Config(Settings):
    """The settings of a server, from keyword arguments.

    Of the environment only `FORWARDED_ALLOW_IPS` is read, and of all files only `env_file`.

    Args:
        app: the application: an ASGI or WSGI callable, or its import string such as `"main:app"`.
        env_file: the path of a file with environment variables. A `Server` sets them when it begins to serve,
            except for those that are set already; the constructor sets none.
        **settings: every other setting by its name, or by the name that `uvicorn.Config` has for it. None
            means that the setting is not given, but `log_config=None` leaves logging alone.

    Raises:
        SettingsError: a name or value is wrong, two exclude each other, or `env_file` cannot be read.
    """

    env_file: str | None = None
    environment: tuple[tuple[str, str], ...] = field(default=(), init=False, repr=False)
    """The variables of `env_file`; a `Server` sets them, unless they are set, when it begins to serve."""

    def __init__(
        self,
        app: App | None = None,
        *,
        env_file: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        configuration = Sources(
            values={"app": app, **settings},
            environ=_real(os.environ),
            env_file=None if env_file is None else os.fspath(env_file),
            repeated_defaults=True,
            pyproject=False,
        ).load()
        super().__init__(**vars(configuration.settings))
        # Not by assignment, which a frozen record refuses.
        environment = tuple(configuration.environment.items())
        self.__dict__.update(env_file=configuration.env_file, environment=environment)

    @property
    def is_ssl(self) -> bool:
        """Whether the server speaks TLS; the name is uvicorn's."""
        return tls.wanted(self)

    @property
    def should_reload(self) -> bool:
        """Whether `ostler.run` would reload: a `Server` never does. The name is uvicorn's."""
        return isinstance(self.app, str) and self.reload


def set_environment(settings: Settings) -> None:
    """Set the variables of the `env_file` for the application, except for those that are set already."""
    if isinstance(settings, Config):
        for name, value in settings.environment:
            os.environ.setdefault(name, value)


def _real(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in _PLATFORMS if name in environ}
