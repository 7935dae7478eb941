"""`ostler.run()`: runs the command from code, and then restores what it has changed in the process."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ostler import import_guard
from ostler.cli import run as cli_run
from ostler.cli.main import INTERRUPTED, report_error, take_handover, write_to_stderr
from ostler.errors import OstlerError, SettingsError
from ostler.ipc.assignment import ARBITERS_OWN
from ostler.ipc.contract import STACK_SIGNAL
from ostler.settings.declarations import App
from ostler.settings.sources import Configuration, Sources
from ostler.supervisor.upgrade.handover import Inherited
from ostler.system.working_directory import working_directory


def run(
    app: App | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> None:
    """Serve an application as the command `ostler` does, until a signal stops it.

    Variables, the configuration file and `pyproject.toml` are read as the command reads them; an argument
    counts before them. At the end the process is as before. An error is logged as one line on stderr.

    Args:
        app: the application: an ASGI or WSGI callable, or its import string such as `"main:app"`. `workers`
            and `reload` need an import string, because other processes import it.
        config: the path of a TOML file with settings, as `--config`.
        env_file: the path of a file with environment variables, as `--env-file`.
        **settings: every other setting by its name, or by the name that `uvicorn.run` has for it. None means
            that the setting is not given, but `log_config=None` leaves logging alone.

    Raises:
        SystemExit: the server ended with an exit code other than 0; the code is that of the command.
        StartupError: the application calls `ostler.run` while ostler imports it.
    """
    import_guard.refuse("ostler.run()")
    inherited = None
    try:
        inherited = take_handover()
        code = _run({"app": app, **settings}, _text(config), _text(env_file), inherited)
    except OstlerError as error:
        report_error(error)
        if inherited is not None:
            inherited.failed(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code:
        sys.exit(code)


def _run(
    values: dict[str, object], config: str | None, env_file: str | None, inherited: Inherited | None
) -> int:
    if asyncio._get_running_loop() is not None:
        raise SettingsError(
            "ostler.run() was called in a running event loop: "
            "await ostler.Server(ostler.Config(...)).serve() there instead"
        )
    sources = Sources(
        values=values,
        config=config,
        env_file=env_file,
        environ=dict(os.environ),
        directory=working_directory(),
    )
    configuration = sources.load()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not cli_run.logs_warnings(configuration.settings):
        for warning in configuration.warnings:
            write_to_stderr(f"Warning: {warning}")
    _refuse_what_takes_processes(configuration)
    with _environment_restored(configuration):
        if not in_main_thread:
            if inherited is not None:
                raise SettingsError("an upgrade takes an arbiter, in the main thread: restart the program")
            return _serve_in_thread(configuration)
        with _process_restored():
            return cli_run.serve(sources, configuration, inherited)


def _refuse_what_takes_processes(configuration: Configuration) -> None:
    """Refuse `workers` and `reload` where the arbiter cannot run.

    Its workers need an application that they can import, and it needs the main thread for its signals.

    Raises:
        SettingsError: one of the two is missing.
    """
    settings, origins = configuration.settings, configuration.origins
    for name in ("workers", "reload"):
        if not getattr(settings, name, None):
            continue
        if not isinstance(settings.app, str):
            raise SettingsError(
                f"{name} from {origins[name]} takes an application that other processes can import: "
                'pass it as "module:attribute", such as "main:app", instead of the object'
            )
        if threading.current_thread() is not threading.main_thread():
            raise SettingsError(
                f"{name} from {origins[name]} takes the main thread: call ostler.run() there, "
                f"or without {name}"
            )


def _serve_in_thread(configuration: Configuration) -> int:
    # Not as the command serves: signals, systemd's messages and stop deadlines concern the whole process.
    from ostler.embed.server import Server

    for name, value in configuration.environment.items():
        os.environ.setdefault(name, value)
    Server(configuration.settings).run()
    return 0


@contextlib.contextmanager
def _environment_restored(configuration: Configuration) -> Iterator[None]:
    """Restore what serving changes in `os.environ` and `sys.path`; the application's own changes stay."""
    taken = {name: os.environ[name] for name in ARBITERS_OWN if name in os.environ}
    added = [name for name in configuration.environment if name not in os.environ]
    entry = os.path.join(working_directory(), configuration.settings.app_dir)
    times = sys.path.count(entry)
    try:
        yield
    finally:
        os.environ.update(taken)
        for name in added:
            os.environ.pop(name, None)
        if sys.path.count(entry) > times:
            sys.path.remove(entry)


@contextlib.contextmanager
def _process_restored() -> Iterator[None]:
    """Restore signal handlers, signal mask, wake-up descriptor, faulthandler, umask and directory."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    faulthandler_enabled = faulthandler.is_enabled()
    directory = os.getcwd()
    umask = os.umask(0)  # the only way to read it is to set it (umask(2))
    os.umask(umask)
    try:
        yield
    finally:
        # The plain server's deadline, at which faulthandler would end the process: the server has ended.
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(STACK_SIGNAL)
        if not faulthandler_enabled:
            faulthandler.disable()
        for number, handler in handlers.items():
            # None: C code has installed the handler, and ostler has not changed it.
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.umask(umask)
        with contextlib.suppress(OSError):  # the directory was removed
            os.chdir(directory)


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
