"""Composes the parts: sockets, then either a plain server in this process or an arbiter with workers."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from ostler import libraries, logs, sockets
from ostler.assignment import Assignment
from ostler.cpus import worker_count
from ostler.errors import StartupError
from ostler.sockets import Listener
from ostler.sources import Configuration, Sources

logger = logging.getLogger("ostler.error")


def serve(sources: Sources, configuration: Configuration) -> int:
    """Run what the settings ask for until it is stopped, and return the exit code.

    Raises:
        BindError: an address cannot be listened on.
        StartupError: the application failed to start.
        SettingsError: a loop or parser is asked for that is not installed.
    """
    settings = configuration.settings
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
    logs.configure(settings)
    libraries.event_loop(settings)
    libraries.http_parser(settings)
    directory = _working_directory()
    listeners += sockets.open_listeners(settings)
    for listener in listeners:
        logger.info("Ostler running on %s (Press CTRL+C to quit)", listener.address)
    try:
        size = worker_count(settings)
        if size is None:
            return _serve_plain(configuration, listeners, directory, leave)
        return _supervise(sources, configuration, size, listeners, directory)
    finally:
        for listener in listeners:
            listener.close()


def _serve_plain(
    configuration: Configuration, listeners: list[Listener], directory: str, leave: Callable[[], NoReturn]
) -> int:
    from ostler.worker.main import run_plain

    for name, value in configuration.environment.items():
        os.environ.setdefault(name, value)
    run_plain(configuration.settings, directory, [listener.socket for listener in listeners], leave)
    return 0


def _supervise(
    sources: Sources, configuration: Configuration, size: int, listeners: list[Listener], directory: str
) -> int:
    from ostler.supervisor.arbiter import Arbiter

    arbiter = Arbiter(
        configuration,
        size=size,
        load=sources.load,
        listeners=listeners,
        entry=_run_worker,
        directory=directory,
    )
    outcome = arbiter.run()
    if outcome.code == StartupError.exit_code:
        raise StartupError(outcome.reason)
    return outcome.code


def _run_worker(assignment: Assignment) -> None:
    """Enter the worker: a name that the arbiter can hand on without importing what it stands for."""
    from ostler.worker.main import run_worker

    run_worker(assignment)


def _working_directory() -> str:
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
