"""What each generation of workers is started with, and how the next one's settings are read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.settings.sources import Configuration
from ostler.supervisor.fleet.events import Timings

logger = logging.getLogger("ostler.error")

# Settings that a running arbiter cannot change: its sockets are open, its watcher watches.
_FIXED = (
    *("host", "port", "uds", "uds_permissions", "fd", "backlog", "reuse_port", "pid_file"),
    *("reload", "reload_dir", "reload_include", "reload_exclude", "reload_delay"),
)


class Generations:
    """Configurations by generation: a worker that is spawned again gets what its generation was started with.

    `load` reads the settings anew. Where nobody is hurried (--reload), workers may start and think as long as
    they like.
    """

    def __init__(
        self, configuration: Configuration, load: Callable[[], Configuration], *, hurried: bool
    ) -> None:
        self._load = load
        self._hurried = hurried
        self._configurations = {1: configuration}
        self.newest = 1

    def __repr__(self) -> str:
        return f"<Generations 1 to {self.newest}>"

    def __getitem__(self, generation: int) -> Configuration:
        return self._configurations[generation]

    @property
    def configuration(self) -> Configuration:
        """The newest."""
        return self._configurations[self.newest]

    @property
    def settings(self) -> Settings:
        """The newest."""
        return self.configuration.settings

    @property
    def timings(self) -> Timings:
        """How long each phase of a newest worker's life may take."""
        settings = self.settings
        if not self._hurried:
            # Whoever sits at a debugger's prompt may think as long as they like.
            return Timings(startup=inf, healthcheck=inf, graceful=settings.timeout_graceful_shutdown)
        return Timings(
            startup=settings.timeout_worker_startup,
            healthcheck=settings.timeout_worker_healthcheck,
            graceful=settings.timeout_graceful_shutdown,
        )

    def read(self) -> Configuration:
        """Return the settings as they are now, checked; the arbiter logs as they say.

        Raises:
            SettingsError: they are wrong; nothing has changed.
        """
        configuration = self._load()
        log_setup.reconfigure(configuration.settings, self.settings)
        return configuration

    def begin(self, configuration: Configuration, cause: str) -> Settings:
        """Let the next generation have this configuration; return the settings of the one before it."""
        before = self.settings
        for name in _FIXED:
            if getattr(configuration.settings, name) != getattr(before, name):
                logger.warning("%s: a new value of %s takes a restart", cause, name)
        self.newest += 1
        self._configurations[self.newest] = configuration
        return before
