"""Settings as code gives them to a server that is embedded, in the words of `uvicorn.Config`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ostler.settings.declarations import App, Settings
from ostler.settings.sources import Sources

# What a platform says of the network that a process is in counts for whoever serves there.
_PLATFORMS = ("FORWARDED_ALLOW_IPS",)


class Config(Settings):
    """Settings from keyword arguments, under their own names or those of `uvicorn.Config`; None is not given.

    Of the environment only FORWARDED_ALLOW_IPS counts, and no file but `env_file`, whose variables are
    set for the application, save those that are set already.

    Raises:
        SettingsError: a name or value is wrong, two exclude each other, or `env_file` cannot be read.
    """

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
            pyproject=False,
        ).load()
        for name, value in configuration.environment.items():
            os.environ.setdefault(name, value)
        super().__init__(**vars(configuration.settings))


def _real(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in _PLATFORMS if name in environ}
