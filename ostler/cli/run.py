"""Opens the sockets, then runs either a plain server in this process or an arbiter with workers."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from ostler import tls
from ostler.cli.worker_entry import run_worker
from ostler.errors import OstlerError, SettingsError, StartupError
from ostler.ipc.assignment import ARBITERS_OWN
from ostler.logging import setup as log_setup
from ostler.settings import libraries
from ostler.settings.declarations import DEFAULT, Settings
from ostler.settings.sources import Configuration, Sources
from ostler.supervisor.upgrade import command as upgrade_command
from ostler.supervisor.upgrade.handover import Inherited
from ostler.system import privileges, sd_notify, sockets
from ostler.system.cpus import worker_count
from ostler.system.early_exit import exit_with_hooks
from ostler.system.privileges import Identity
from ostler.system.sd_notify import Notifier
from ostler.system.sockets import Listener
from ostler.system.working_directory import working_directory

if TYPE_CHECKING:
    from ostler.supervisor.arbiter import Arbiter
    from ostler.supervisor.balancing.queues import Queues
    from ostler.supervisor.reload.reloader import Reloader
    from ostler.system.pid_file import PidFile

logger = logging.getLogger("ostler.error")

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

# The settings that say where to listen.
_ADDRESSES = ("fd", "uds", "host", "port")


def logs_warnings(settings: Settings) -> bool:
    """Return whether `serve` logs the configuration's warnings, as JSON. Its caller writes them as text."""
    return settings.log_format == "json" and settings.log_config is not None


def serve(sources: Sources, configuration: Configuration, inherited: Inherited | None = None) -> int:
    """Serve as the settings say until a signal stops it, and return the exit code.

    Args:
        sources: the sources of the settings, which SIGHUP reads again.
        configuration: what they said at the start.
        inherited: what the old arbiter hands over in an upgrade.

    Raises:
        BindError: the server cannot listen on an address.
        StartupError: the application failed to start.
        SettingsError: a library is not installed, the certificate or its key are wrong, or there is no such
        user.
    """
    owner = os.getpid()
    settings, listeners = configuration.settings, list[Listener]()
    directory = working_directory()
    pid_file = _pid_file(settings.pid_file, directory)

    def release() -> None:
        for listener in listeners:
            listener.end()
        if pid_file is not None:
            pid_file.remove()

    def leave(*_: object) -> NoReturn:
        """Exit at once, before serving begins. The code that runs now could catch an exception."""
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        release()
        exit_with_hooks(owner)

    if settings.umask is not None:
        os.umask(settings.umask)
    _handle_stop_signals(leave)
    identity = privileges.wanted(settings)
    log_setup.configure(settings)
    privileges.give(identity, log_setup.descriptors())
    if configuration.env_file is not None:
        logger.info("Loading environment from '%s'", configuration.env_file)
    if logs_warnings(settings):
        for warning in configuration.warnings:
            logger.warning("%s", warning)
    command = upgrade_command.this_command(directory, dict(os.environ))
    # These variables are for this process only. Workers and processes of the application must not see them.
    environ = {name: os.environ.pop(name) for name in ARBITERS_OWN if name in os.environ}
    notifier = sd_notify.from_environment(environ, os.getpid())
    notifier.held = inherited is not None
    try:
        _check_libraries(settings)
        tls.check(settings, directory)
        size = worker_count(settings)
        if inherited is not None and (size is None or settings.reload):
            raise SettingsError(
                "an upgrade takes an arbiter without --reload: set workers, or restart ostler"
            )
        if pid_file is not None:
            pid_file.refuse_live(None if inherited is None else inherited.pid)
        reloader = _reloader(sources, configuration, directory) if settings.reload else None
        listeners += _open(configuration, environ, inherited, identity)
        if pid_file is not None and inherited is None:
            pid_file.write()
        if size is None:
            if identity is not None:
                identity.assume()
            return _serve_plain(configuration, listeners, directory, notifier, leave)
        from ostler.supervisor.arbiter import Arbiter
        from ostler.supervisor.balancing.queues import open_queues

        queues = open_queues(listeners, settings, size)
        arbiter = Arbiter(
            configuration,
            size=size,
            load=lambda: _checked(sources.load(), directory),
            listeners=listeners,
            queues=queues,
            entry=run_worker,
            directory=directory,
            notifier=notifier,
            reloader=reloader,
            command=command,
            inherited=inherited,
            pid_file=pid_file,
        )
        return _run_arbiter(arbiter, queues)
    except OstlerError as error:
        notifier.send(*sd_notify.failure(error))
        raise
    finally:
        notifier.close()
        release()


def _handle_stop_signals(leave: Callable[..., NoReturn]) -> None:
    """Let SIGTERM, SIGINT and SIGQUIT call `leave`, also if this process was started with them blocked."""
    for number in _STOP_SIGNALS:
        signal.signal(number, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _check_libraries(settings: Settings) -> None:
    """Look up the libraries that the settings ask for.

    Raises:
        SettingsError: one of them is not installed.
    """
    libraries.event_loop(settings)
    libraries.http_parser(settings)
    libraries.websocket(settings)


def _run_arbiter(arbiter: Arbiter, queues: Queues | None) -> int:
    """Run the arbiter until it ends, close the workers' queues, and return the exit code.

    Raises:
        StartupError: the application failed to start.
    """
    try:
        outcome = arbiter.run()
    finally:
        if queues is not None:
            queues.close()
    if outcome.code == StartupError.exit_code:
        raise StartupError(outcome.reason)
    return outcome.code


def _pid_file(path: str | None, directory: str) -> PidFile | None:
    if path is None:
        return None
    from ostler.system.pid_file import PidFile

    return PidFile(path, directory)


def _checked(configuration: Configuration, directory: str) -> Configuration:
    """Return `configuration`, which SIGHUP has read, after checks of what would fail in every worker.

    Raises:
        SettingsError: there is no such user or group, or the certificate or its key are wrong.
    """
    privileges.wanted(configuration.settings)
    tls.check(configuration.settings, directory)
    return configuration


def _open(
    configuration: Configuration,
    environ: Mapping[str, str],
    inherited: Inherited | None,
    identity: Identity | None,
) -> list[Listener]:
    """Return the listening sockets: from the old arbiter, from the service manager, or newly opened.

    The old arbiter's sockets are used unless the settings now name another address. The service manager's are
    used if the settings name no address.
    """
    settings, origins = configuration.settings, configuration.origins
    asked = [f"{name} from {origins[name]}" for name in _ADDRESSES if origins[name] != DEFAULT]
    if inherited is not None and inherited.suits(settings, asked=bool(asked)):
        listeners = inherited.listeners(settings.backlog)
        for listener in listeners:
            logger.info("Ostler running on %s, handed over by [%d]", listener.address, inherited.pid)
        return listeners
    if inherited is not None:
        inherited.decline()
    listeners = _passed_sockets(environ, settings, asked) if "LISTEN_FDS" in environ else []
    if not listeners:
        owner = None if identity is None else (identity.uid, identity.gid)
        listeners = sockets.open_listeners(settings, owner)
    for listener in listeners:
        hint = f"from {listener.origin}" if listener.origin else "(Press CTRL+C to quit)"
        scheme = "https" if tls.wanted(settings) else "http"
        logger.info("Ostler running on %s %s", listener.url(scheme), hint)
    return listeners


def _passed_sockets(environ: Mapping[str, str], settings: Settings, asked: list[str]) -> list[Listener]:
    """Return the sockets that the service manager has passed; none, with a warning, if they are not used."""
    # Imported only if there are some: the arbiter stays small.
    from ostler.system import socket_activation

    passed = socket_activation.read(environ, os.getpid())
    if passed.count and not asked:
        return socket_activation.listeners(passed, settings.backlog)
    if asked and any(fd != settings.fd for fd in passed.descriptors()):
        why = f"{asked[0]} says where to listen; nobody answers on them"
        logger.warning("Sockets from systemd are not used: %s", why)
    elif passed.ignored_because and not asked:
        logger.warning("Sockets from systemd are not used: %s", passed.ignored_because)
    return []


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
    owned = all(listener.ends_with_us for listener in listeners)
    run_plain(configuration.settings, directory, opened, notifier, leave, owns_sockets=owned)
    return 0


def _reloader(sources: Sources, configuration: Configuration, directory: str) -> Reloader:
    from ostler.supervisor.reload.file_watcher import FileWatcher, Watch
    from ostler.supervisor.reload.reloader import Reloader

    settings = configuration.settings
    log_config = settings.log_config.name if settings.log_config is not None else ""
    files = [*sources.files(), *([log_config] if log_config else [])]
    watch = Watch.of(settings, directory, files)
    return Reloader(FileWatcher(watch), delay=settings.reload_delay, directory=directory)
