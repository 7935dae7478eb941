"""Composes the parts: sockets, then either a plain server in this process or an arbiter with workers."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from ostler import activation, libraries, logs, notify, sockets, tls
from ostler.assignment import ARBITERS_OWN, Assignment
from ostler.cpus import worker_count
from ostler.errors import OstlerError, StartupError
from ostler.notify import Notifier
from ostler.sockets import Listener
from ostler.sources import DEFAULT, Configuration, Sources

if TYPE_CHECKING:
    from ostler.supervisor.reloader import Reloader

logger = logging.getLogger("ostler.error")

# The settings that say where to listen.
_PLACES = ("fd", "uds", "host", "port")


def serve(sources: Sources, configuration: Configuration) -> int:
    """Run what the settings ask for until it is stopped, and return the exit code.

    Raises:
        BindError: an address cannot be listened on.
        StartupError: the application failed to start.
        SettingsError: a library is asked for that is not installed; certificate or key are wrong.
    """
    listeners: list[Listener] = []

    def leave(*_: object) -> NoReturn:
        """End at once, before anything is served; an exception could be swallowed by whatever runs now."""
        for listener in listeners:
            listener.close()
        os._exit(0)

    orders = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    for number in orders:
        signal.signal(number, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, orders)
    logs.configure(configuration.settings)
    if configuration.env_file is not None:
        logger.info("Loading environment from '%s'", configuration.env_file)
    if configuration.settings.log_format == "json":
        for warning in configuration.warnings:
            logger.warning("%s", warning)
    # For this process alone: neither the workers nor what the application starts are to see it.
    environ = {name: os.environ.pop(name) for name in ARBITERS_OWN if name in os.environ}
    notifier = notify.from_environment(environ, os.getpid())
    try:
        libraries.event_loop(configuration.settings)
        libraries.http_parser(configuration.settings)
        libraries.websocket(configuration.settings)
        directory = working_directory()
        tls.check(configuration.settings, directory)
        reloader = _reloader(sources, configuration, directory) if configuration.settings.reload else None
        listeners += _open(configuration, environ)
        size = worker_count(configuration.settings)
        if size is None:
            return _serve_plain(configuration, listeners, directory, notifier, leave)
        return _supervise(sources, configuration, size, listeners, directory, notifier, reloader)
    except OstlerError as error:
        notifier.send(*notify.failure(error))
        raise
    finally:
        notifier.close()
        for listener in listeners:
            listener.close()


def _open(configuration: Configuration, environ: Mapping[str, str]) -> list[Listener]:
    """Open what the settings ask for; where they ask for nothing, what the service manager has passed."""
    settings, origins = configuration.settings, configuration.origins
    asked = [f"{name} from {origins[name]}" for name in _PLACES if origins[name] != DEFAULT]
    passed = activation.read(environ, os.getpid())
    if passed.count and not asked:
        listeners = activation.listeners(passed, settings.backlog)
    else:
        if asked and any(fd != settings.fd for fd in passed.descriptors()):
            why = f"{asked[0]} says where to listen; nobody answers on them"
            logger.warning("Sockets from systemd are not used: %s", why)
        elif passed.stranger and not asked:
            logger.warning("Sockets from systemd are not used: %s", passed.stranger)
        listeners = sockets.open_listeners(settings)
    for listener in listeners:
        hint = f"from {listener.origin}" if listener.origin else "(Press CTRL+C to quit)"
        scheme = "https" if tls.wanted(settings) else "http"
        logger.info("Ostler running on %s %s", listener.url(scheme), hint)
    return listeners


def _serve_plain(
    configuration: Configuration,
    listeners: list[Listener],
    directory: str,
    notifier: Notifier,
    leave: Callable[[], NoReturn],
) -> int:
    from ostler.worker.main import run_plain

    for name, value in configuration.environment.items():
        os.environ.setdefault(name, value)
    opened = [listener.socket for listener in listeners]
    run_plain(configuration.settings, directory, opened, notifier, leave)
    return 0


def _supervise(
    sources: Sources,
    configuration: Configuration,
    size: int,
    listeners: list[Listener],
    directory: str,
    notifier: Notifier,
    reloader: Reloader | None,
) -> int:
    from ostler.supervisor.arbiter import Arbiter

    def load() -> Configuration:
        """Read the settings again, and find there and then what would fail in every worker."""
        fresh = sources.load()
        tls.check(fresh.settings, directory)
        return fresh

    arbiter = Arbiter(
        configuration,
        size=size,
        load=load,
        listeners=listeners,
        entry=_run_worker,
        directory=directory,
        notifier=notifier,
        reloader=reloader,
    )
    outcome = arbiter.run()
    if outcome.code == StartupError.exit_code:
        raise StartupError(outcome.reason)
    return outcome.code


def _reloader(sources: Sources, configuration: Configuration, directory: str) -> Reloader:
    from ostler.supervisor.reloader import Reloader
    from ostler.supervisor.watch import Watch, Watcher

    watch = Watch.of(configuration.settings, directory, sources.files())
    return Reloader(Watcher(watch), delay=configuration.settings.reload_delay, directory=directory)


def _run_worker(assignment: Assignment) -> None:
    """Enter the worker: a name that the arbiter can hand on without importing what it stands for."""
    from ostler.worker.main import run_worker

    run_worker(assignment)


def working_directory() -> str:
    """Return where we were started, symbolic links kept.

    A deploy often points a link (`current`) at the new release; a rolling restart is to follow it there.
    """
    logical = os.environ.get("PWD", "")
    try:
        if os.path.isabs(logical) and os.path.samefile(logical, "."):
            return logical
    except OSError:
        pass
    return os.getcwd()
