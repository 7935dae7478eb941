"""`ostler.run()`: the command, from code; what it changes of the process it puts back."""

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
from ostler.cli.main import INTERRUPTED, complain, handover_to_us, last_words, working_directory
from ostler.errors import OstlerError, SettingsError
from ostler.ipc.assignment import ARBITERS_OWN
from ostler.settings.declarations import App
from ostler.settings.sources import Configuration, Sources
from ostler.supervisor.upgrade.handover import Inherited


def run(
    app: App | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> None:
    """Serve as the command does, until it is stopped; every setting is a keyword, None is not given.

    What is given here counts before variables and files. uvicorn's names count as well. When it has stopped,
    the process is as before; an error is one line on stderr.

    Raises:
        SystemExit: it ended with another exit code than 0, as the command does.
        StartupError: the application that is being imported calls this itself.
    """
    import_guard.refuse("ostler.run()")
    inherited = None
    try:
        inherited = handover_to_us()
        code = _run({"app": app, **settings}, _text(config), _text(env_file), inherited)
    except OstlerError as error:
        last_words(error)
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
    for warning in configuration.warnings:
        complain(f"Warning: {warning}")
    _refuse_what_takes_processes(configuration)
    with _environment_restored(configuration):
        if threading.current_thread() is not threading.main_thread():
            if inherited is not None:
                raise SettingsError("an upgrade takes an arbiter, in the main thread: restart the program")
            return _serve_in_thread(configuration)
        with _process_restored():
            return cli_run.serve(sources, configuration, inherited)


def _refuse_what_takes_processes(configuration: Configuration) -> None:
    """Other processes take an application that they can import, and this one's main thread, for the signals.

    Raises:
        SettingsError: one of them is missing.
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
    # Signals, systemd's messages and the deadlines of a stop are matters of the whole process: not here.
    from ostler.embed.server import Server

    for name, value in configuration.environment.items():
        os.environ.setdefault(name, value)
    Server(configuration.settings).run()
    return 0


@contextlib.contextmanager
def _environment_restored(configuration: Configuration) -> Iterator[None]:
    """Put back what serving changes in the environment and on sys.path; not what the application does."""
    taken = {name: os.environ[name] for name in ARBITERS_OWN if name in os.environ}
    added = [name for name in configuration.environment if name not in os.environ]
    entry = os.path.join(cli_run.working_directory(), configuration.settings.app_dir)
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
    """Put back signal handlers and mask, the descriptor that signals wake, faulthandler and the directory."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    traced = faulthandler.is_enabled()
    directory = os.getcwd()
    mask_of_files = os.umask(0)
    os.umask(mask_of_files)
    try:
        yield
    finally:
        # The deadline at which a plain server that does not go is ended by force: it has gone.
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(signal.SIGUSR2)
        if not traced:
            faulthandler.disable()
        for number, handler in handlers.items():
            # None: installed by C code, which we have not touched.
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.umask(mask_of_files)
        with contextlib.suppress(OSError):  # it is gone
            os.chdir(directory)


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
