"""Entry points of a process that serves: a worker under the arbiter, or a plain server by itself."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from socket import socket
from types import FrameType
from typing import NoReturn

from ostler import logs
from ostler.assignment import ARBITERS_OWN, SLOT_VARIABLE, Assignment
from ostler.errors import OstlerError, StartupError
from ostler.settings import Settings
from ostler.worker import application
from ostler.worker.asgi import Application
from ostler.worker.loops import new_event_loop
from ostler.worker.pulse import Pulse, end_by
from ostler.worker.server import Server
from ostler.worker.service import Service

logger = logging.getLogger("ostler.error")

# The stacks of all threads, on demand. Free for it: a worker has no arbiter's business with SIGUSR2.
STACK_SIGNAL = signal.SIGUSR2

# Ctrl+C and the operator's orders reach the whole foreground process group; the arbiter decides. A worker
# that leads a group of its own would also be stopped by the terminal if it wrote there (termios(3), TOSTOP).
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
HANDLED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, STACK_SIGNAL)

# Past its grace, a plain server has this long to cancel, to shut the application down, and to go.
_MARGIN = 3.0


def run_worker(assignment: Assignment) -> NoReturn:
    """Serve as one of the arbiter's workers, and exit: 0 drained as asked, 3 the application failed to start.

    The arbiter spawned this process with its signals blocked; they are let through once handlers stand, so
    that an order to stop is heeded at any instant of the boot.
    """
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    for name in ARBITERS_OWN:
        os.environ.pop(name, None)
    os.environ[SLOT_VARIABLE] = str(assignment.slot)
    _set_title(f"ostler: worker {assignment.slot} {assignment.settings.app}")
    pipes = (assignment.beats, assignment.stacks, assignment.lifeline)
    for fd in [pipe.fileno() for pipe in pipes] + [sock.fileno() for sock in assignment.sockets]:
        os.set_inheritable(fd, False)
    _show_stacks_on(assignment.stacks.fileno())
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt_boot)
    signal.signal(signal.SIGQUIT, _interrupt_boot)
    signal.signal(signal.SIGUSR1, lambda *_: logs.reopen())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*IGNORED, *HANDLED))
    logs.configure(assignment.settings)
    pulse = Pulse(assignment)
    pulse.start()
    try:
        _serve(assignment.settings, assignment.environment, assignment.directory, assignment.sockets, pulse)
    except OstlerError as exc:
        pulse.failed(str(exc))
        sys.exit(exc.exit_code)
    sys.exit(0)


def run_plain(
    settings: Settings, environment: Mapping[str, str], directory: str, sockets: Sequence[socket]
) -> None:
    """Serve in this process, without an arbiter, until a signal ends it.

    Raises:
        StartupError: the application could not be imported, or its lifespan start-up failed.
        SettingsError: the loop or the parser asked for is not installed.
    """
    faulthandler.enable()
    faulthandler.register(STACK_SIGNAL, all_threads=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, _interrupt_boot)
    _serve(settings, environment, directory, sockets, _Alone())


class _Alone:
    """Watches a plain server: nobody can replace it, so a limit stops it (`server.Watcher`)."""

    stop: Callable[[], None]

    def ready(self, service: Service) -> None:
        pass

    def ticked(self, lag: float) -> None:
        pass

    def retire(self, reason: str) -> None:
        logger.info("%s Terminating process.", reason)
        self.stop()


def _serve(
    settings: Settings,
    environment: Mapping[str, str],
    directory: str,
    sockets: Sequence[socket],
    watcher: Pulse | _Alone,
) -> None:
    """Import the application and serve it, in a new event loop, until a signal asks for the end."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    sys.path.insert(0, os.path.join(directory, settings.app_dir))
    loop = new_event_loop(settings)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_main(settings, sockets, watcher))
    finally:
        _close(loop)


async def _main(settings: Settings, sockets: Sequence[socket], watcher: Pulse | _Alone) -> None:
    # The application is imported inside the running loop, as under uvicorn, which some rely on. A signal
    # raises SystemExit out of the import; from here on it is the loop's to handle.
    app = _load(settings)
    server = Server(settings, app, sockets, watcher)
    supervised = not isinstance(watcher, _Alone)
    orders = _Orders(server, settings, supervised=supervised)
    if isinstance(watcher, _Alone):
        watcher.stop = orders.stop
    orders.install(asyncio.get_running_loop())
    await server.serve()


def _load(settings: Settings) -> Application:
    try:
        return application.load(settings)
    except StartupError:
        raise
    except Exception as exc:
        where = exc.with_traceback(application.own_traceback(exc))
        logger.error("The application could not be imported:\n", exc_info=where)
        raise StartupError(f"{settings.app} could not be imported: {application.one_line(exc)}") from None


class _Orders:
    """What the signals order a server to do."""

    def __init__(self, server: Server, settings: Settings, *, supervised: bool) -> None:
        self._server = server
        self._grace = settings.timeout_graceful_shutdown
        # A worker drains whenever its arbiter says so, and who withdraws the instance is the arbiter.
        self._delay = 0.0 if supervised else settings.drain_delay
        self._supervised = supervised
        self._withdrawn = False
        self._draining = False

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Heed signals on this loop; SIGINT and the orders to an arbiter only where there is none."""
        self._loop = loop
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGQUIT, self.stop_now)
        loop.add_signal_handler(signal.SIGUSR1, logs.reopen)
        if not self._supervised:
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
            for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
                loop.add_signal_handler(number, self._needs_arbiter, number)

    def stop(self) -> None:
        """Withdraw, and drain after the delay, or when asked once more."""
        if self._supervised or self._withdrawn or not self._server.withdraw() or not self._delay:
            self._drain()
            return
        self._withdrawn = True
        logger.info(
            "Draining in %g s: until then, health checks say 503 and requests are served", self._delay
        )
        self._end_within(self._delay + self._grace + _MARGIN)
        self._loop.call_later(self._delay, self._drain)

    def stop_now(self) -> None:
        """End at once."""
        self._drain()
        self._server.stop_now()

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._end_within(self._grace + _MARGIN)
        self._server.stop()

    def _end_within(self, seconds: float) -> None:
        """Be gone by force after so long, even if the loop is blocked by then."""
        threading.Thread(target=end_by, args=(seconds,), name="ostler-deadline", daemon=True).start()

    def _interrupt(self) -> None:
        if self._draining:
            self.stop_now()
        else:
            self.stop()

    def _needs_arbiter(self, number: signal.Signals) -> None:
        logger.warning("%s ignored: rolling restarts and scaling need --workers", number.name)


def _interrupt_boot(number: int, frame: FrameType | None) -> NoReturn:
    # Nothing is served yet, so nothing has to be drained.
    raise SystemExit(0)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Leave nothing of the loop behind, as asyncio.run() does."""
    # Closing the loop restores the defaults: a second SIGTERM would now make a clean exit look like a death.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _show_stacks_on(fd: int) -> None:
    """Write the stacks of all threads to `fd` on STACK_SIGNAL, and when the process dies of a fault."""
    # An arbiter that does not read must not hold up a dying worker.
    os.set_blocking(fd, False)
    faulthandler.enable(fd)
    faulthandler.register(STACK_SIGNAL, fd, all_threads=True, chain=False)


def _set_title(title: str) -> None:
    """Show `title` in ps(1) and top(1): Linux keeps a process's arguments in its own memory (proc(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/comm", "w") as comm:
            comm.write("ostler worker")
        with open("/proc/self/stat") as stat:
            # Fields are counted after the name, which may hold spaces: 48 and 49 of the line.
            fields = stat.read().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        room = end - start - 1
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(title.encode()[:room].ljust(room + 1, b"\0"))
