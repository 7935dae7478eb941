"""The configuration of each generation of workers, and how the next one's is read (SIGHUP, --reload)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.settings.sources import Configuration
from ostler.supervisor.fleet.events import Timings
from ostler.system import privileges
from ostler.system.cpus import worker_count

logger = logging.getLogger("ostler.error.supervisor")

# Settings that a running arbiter cannot change: its sockets are open, its file watcher runs.
_FIXED = (
    *("host", "port", "uds", "uds_permissions", "fd", "backlog", "reuse_port", "pid_file"),
    *("reload", "reload_dir", "reload_include", "reload_exclude", "reload_delay"),
)


class Generations:
    """Configurations by generation: a respawned worker gets what its generation was started with.

    Args:
        configuration: the first generation's.
        load: reads the settings anew; raises SettingsError if they are wrong.
        timeouts: whether workers have deadlines to start and to send heartbeats; False under --reload, where
            a developer may sit at a debugger's prompt for any time.
    """

    def __init__(
        self, configuration: Configuration, load: Callable[[], Configuration], *, timeouts: bool
    ) -> None:
        self._load = load
        self._timeouts = timeouts
        self._configurations = {1: configuration}
        self.newest = 1

    def __repr__(self) -> str:
        return f"<Generations 1 to {self.newest}>"

    def __getitem__(self, generation: int) -> Configuration:
        return self._configurations[generation]

    @property
    def configuration(self) -> Configuration:
        """The newest generation's."""
        return self._configurations[self.newest]

    @property
    def settings(self) -> Settings:
        """The newest generation's."""
        return self.configuration.settings

    @property
    def timings(self) -> Timings:
        """How long each phase of the life of a worker of the newest generation may take."""
        settings = self.settings
        if not self._timeouts:
            return Timings(startup=inf, healthcheck=inf, graceful=settings.timeout_graceful_shutdown)
        return Timings(
            startup=settings.timeout_worker_startup,
            healthcheck=settings.timeout_worker_healthcheck,
            graceful=settings.timeout_graceful_shutdown,
        )

    def read(self) -> Configuration:
        """Read and check the settings, and let the arbiter log as they say.

        Raises:
            SettingsError: they are wrong; nothing has changed.
        """
        configuration = self._load()
        log_setup.reconfigure(configuration.settings, self.settings)
        return configuration

    def begin(self, configuration: Configuration, cause: str) -> Settings:
        """Begin the next generation with this configuration; return the settings of the one before.

        Args:
            configuration: read and checked.
            cause: what the log names as the cause, such as SIGHUP.
        """
        before = self.settings
        for name in _FIXED:
            if getattr(configuration.settings, name) != getattr(before, name):
                logger.warning("%s: a new value of %s takes a restart", cause, name)
        self.newest += 1
        self._configurations[self.newest] = configuration
        return before

    def new_size(self, before: Settings, cause: str) -> int | None:
        """Return the number of workers that the newest settings ask for, if it is not as `before`."""
        size = worker_count(self.settings)
        if size is None:
            logger.warning("%s: workers is not set any more; a plain server takes a restart", cause)
        return None if self.settings.workers == before.workers else size

    def reopen_logs(self) -> None:
        """Open the arbiter's log files anew, and give them to the user that the workers run as."""
        log_setup.reopen()
        identity = privileges.wanted(self.settings)
        if identity is not None:
            privileges.give(identity, log_setup.descriptors())
