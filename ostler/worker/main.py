"""Entry points of a process that serves: a worker under the arbiter, or a plain server by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from socket import socket
from typing import NoReturn

from ostler.errors import OstlerError
from ostler.ipc.assignment import Assignment
from ostler.ipc.load_board import SharedQueues
from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.system import privileges
from ostler.system.controlling_terminal import ControllingTerminal
from ostler.system.early_exit import exit_with_hooks
from ostler.system.pipes import PipeEnd
from ostler.system.process_title import set_title
from ostler.system.sd_notify import Notifier
from ostler.worker import application, event_loops, executor_exit, fresh_bytecode
from ostler.worker.heartbeat import Heartbeat
from ostler.worker.plain_watcher import PlainWatcher
from ostler.worker.protocols import http_protocol
from ostler.worker.server import Server, Watcher
from ostler.worker.signal_handlers import SignalHandlers

_STDERR = 2


def run_worker(assignment: Assignment) -> NoReturn:
    """Serve as one of the arbiter's workers, and exit: 0 drained as asked, 3 the application failed to start.

    The arbiter spawns this process with its signals blocked. They are unblocked once the handlers stand, so
    that an order to stop is obeyed at any instant of the boot.
    """
    if assignment.terminal:
        _take_terminal()
    else:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
    settings = assignment.settings
    set_title(f"ostler: worker {assignment.slot} {settings.app}")
    _keep_descriptors(assignment)
    # An arbiter that does not read must not hold up a dying worker.
    os.set_blocking(assignment.stacks.fileno(), False)
    leave = partial(exit_with_hooks, os.getpid())
    signal_handlers = SignalHandlers(settings, assignment.stacks.fileno(), supervised=True, leave=leave)
    signal_handlers.install(terminal=assignment.terminal)
    heartbeat = Heartbeat(assignment, signal_handlers)
    heartbeat.start()
    code = 0
    if settings.reload:
        fresh_bytecode.install()
    try:
        if settings.umask is not None:
            os.umask(settings.umask)
        identity = privileges.wanted(settings)
        if identity is not None:
            identity.assume()
        log_setup.configure(settings, slot=assignment.slot)
        _serve(
            settings,
            assignment.directory,
            assignment.sockets,
            signal_handlers,
            heartbeat,
            gate=assignment.gate,
            shared_queues=assignment.shared_queues,
        )
    except OstlerError as exc:
        heartbeat.failed(str(exc))
        code = exc.exit_code
    executor_exit.end_idle_executors()
    sys.exit(code)


def run_plain(
    settings: Settings,
    directory: str,
    sockets: Sequence[socket],
    notifier: Notifier,
    leave: Callable[[], NoReturn],
    *,
    owns_sockets: bool = False,
) -> None:
    """Serve in this process, without an arbiter, until a signal ends it.

    Args:
        settings: the server's settings.
        directory: the working directory, symbolic links kept; `app_dir` is relative to it.
        sockets: the listening sockets; the server closes them.
        notifier: tells the service manager how the server fares.
        leave: ends the process at an order to stop that comes before there is a server to drain.
        owns_sockets: no other process serves from the sockets afterwards: they are shut down at the end.

    Raises:
        StartupError: the application could not be imported, or its lifespan start-up failed.
        SettingsError: the loop or the parser asked for is not installed.
    """
    terminal = ControllingTerminal()
    signal_handlers = SignalHandlers(settings, _STDERR, supervised=False, leave=leave, terminal=terminal)
    signal_handlers.install()
    plain_watcher = PlainWatcher(settings, notifier, signal_handlers)
    plain_watcher.starting()
    _serve(settings, directory, sockets, signal_handlers, plain_watcher, owns_sockets=owns_sockets)


def _keep_descriptors(assignment: Assignment) -> None:
    """Keep the worker's descriptors from the processes that its application starts."""
    pipes = (assignment.beats, assignment.stacks, assignment.lifeline)
    fds = [pipe.fileno() for pipe in pipes] + [sock.fileno() for sock in assignment.sockets]
    if assignment.shared_queues is not None:
        fds += assignment.shared_queues.filenos()
    for fd in fds:
        os.set_inheritable(fd, False)


def _serve(
    settings: Settings,
    directory: str,
    sockets: Sequence[socket],
    signal_handlers: SignalHandlers,
    watcher: Watcher,
    gate: PipeEnd | None = None,
    shared_queues: SharedQueues | None = None,
    owns_sockets: bool = False,
) -> None:
    """Import the application and serve it, in a new event loop, until a signal asks for the end."""
    sys.path.insert(0, os.path.join(directory, settings.app_dir))
    loop = event_loops.new_event_loop(settings)
    asyncio.set_event_loop(loop)
    if gate is not None:
        http_protocol(settings)  # its libraries are not the application's: their import need not wait
        _wait_for_gate(gate)
    try:
        # Before the loop runs, as by uvicorn: a module may call asyncio.run(). The loop is current meanwhile,
        # for modules that ask for it at import.
        found = application.find(settings)
        loop = event_loops.after_import(loop, settings)
        loop.run_until_complete(
            _main(settings, found, sockets, signal_handlers, watcher, shared_queues, owns_sockets)
        )
    finally:
        signal_handlers.over()
        event_loops.close(loop)
        log_setup.flush()


def _wait_for_gate(gate: PipeEnd) -> None:
    """Wait for the byte that says that the old code has gone.

    The end of the arbiter ends the wait, too; `Heartbeat` then drains this worker.
    """
    poll = select.poll()  # not select.select, which takes no descriptor above 1023
    poll.register(gate.fileno(), select.POLLIN)
    poll.poll()


async def _main(
    settings: Settings,
    found: object,
    sockets: Sequence[socket],
    signal_handlers: SignalHandlers,
    watcher: Watcher,
    shared_queues: SharedQueues | None,
    owns_sockets: bool,
) -> None:
    app = application.complete(found, settings)
    server = Server(settings, app, sockets, watcher, shared_queues=shared_queues, owns_sockets=owns_sockets)
    signal_handlers.drain(server)
    await server.serve()


def _take_terminal() -> None:
    """Read from the terminal, as a debugger does: multiprocessing has replaced stdin by /dev/null.

    A process that reads from a terminal has to be in its foreground process group (termios(3)), which is the
    arbiter's. So Ctrl+C reaches this process, too, although it is meant for the arbiter. SIGINT is blocked
    and not ignored, because pdb installs a handler of its own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115
