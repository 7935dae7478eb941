"""Signal handlers of a process that serves, from before its application is imported until its end."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import select
import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from ostler import tls
from ostler.ipc.contract import (
    BLOCKED_ACROSS_SPAWN,
    HURRY_GRACE,
    HURRY_SIGNAL,
    IGNORED_BY_WORKERS,
    QUIT_GRACE,
    STACK_SIGNAL,
    WORKER_EXIT_MARGIN,
)
from ostler.ipc.drain_delay import NOTICE, DrainDelay, StopStep
from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.system import controlling_terminal
from ostler.system.controlling_terminal import ControllingTerminal
from ostler.system.signals import forgive_full_wakeup
from ostler.worker.server import Server

logger = logging.getLogger("ostler.error.worker")


REFUSED_WITHOUT_ARBITER = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
"""Signals that a plain server refuses with a warning, because only an arbiter can do what they ask for. With
TLS, SIGHUP renews the certificates instead."""


class SignalHandlers:
    """Handles the signals of one process: a worker's, or with `supervised=False` a plain server's.

    The handlers are the interpreter's (signal.signal), not the loop's: they also run while a blocking call
    holds the loop up. They then at least set the deadline at which the thread of faulthandler, which needs no
    GIL, ends the process.
    """

    def __init__(
        self,
        settings: Settings,
        stacks: int,
        *,
        supervised: bool,
        leave: Callable[[], NoReturn],
        terminal: ControllingTerminal | None = None,
    ) -> None:
        """Install nothing yet.

        Args:
            settings: the process's settings.
            stacks: the descriptor that faulthandler writes stacks to.
            supervised: whether an arbiter decides about this process.
            leave: ends the process at an order to stop that comes before there is a server to drain.
            terminal: the terminal that a plain server was started at; None for a worker.
        """
        self._terminal = terminal
        self._stream_grace: float | None = None
        """Seconds that streams have at a stop; None: as long as other requests."""
        self._grace = settings.timeout_graceful_shutdown
        # Only the arbiter withdraws the whole instance; a worker drains whenever its arbiter orders it.
        self._delay = 0.0 if supervised else settings.drain_delay
        self._drain_delay = DrainDelay()
        self._stacks = stacks
        self._supervised = supervised
        self._tls = tls.wanted(settings)
        self._leave = leave
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._draining = False
        self._over = False

    def install(self, *, terminal: bool = False) -> None:
        """Handle signals from now on. Until there is a server to drain, an order to stop ends the process.

        `terminal` leaves SIGINT blocked: the worker shares the arbiter's terminal, for a debugger.
        """
        faulthandler.enable(self._stacks)
        faulthandler.register(STACK_SIGNAL, self._stacks, all_threads=True, chain=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGQUIT, self._on_stop_now)
        signal.signal(signal.SIGUSR1, lambda *_: log_setup.reopen())
        # A worker that leads a process group of its own would also be stopped by the terminal if it wrote
        # there and did not ignore SIGTTOU (termios(3)).
        if self._supervised:
            for number in IGNORED_BY_WORKERS:
                signal.signal(number, signal.SIG_IGN)
            signal.signal(HURRY_SIGNAL, self._on_hurry)
        else:
            for number in REFUSED_WITHOUT_ARBITER:
                signal.signal(number, self._on_arbiter_signal)
            signal.signal(signal.SIGINT, self._on_interrupt)
        # The arbiter blocks them across the spawn; a plain server may have been started with any blocked.
        unblocked = {*BLOCKED_ACROSS_SPAWN, signal.SIGCHLD} - ({signal.SIGINT} if terminal else set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, unblocked)

    def drain(self, server: Server) -> None:
        """From now on an order to stop lets `server`, which runs on the running loop, drain."""
        self._loop = asyncio.get_running_loop()
        # The application may have replaced them as it was imported, and the process could not be stopped.
        signal.signal(signal.SIGTERM, self._on_stop)
        if not self._supervised:
            signal.signal(signal.SIGINT, self._on_interrupt)
        # For its side effect: every signal then wakes the loop (signal.set_wakeup_fd).
        self._loop.add_signal_handler(signal.SIGUSR1, log_setup.reopen)
        forgive_full_wakeup()
        self._server = server

    def over(self) -> None:
        """The server has ended, or never began: orders to stop change nothing any more, threads get time."""
        self._over = True
        # The interpreter removes its handlers as it exits: a late signal would then look like a crash.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if not self._draining:
            self.set_deadline(WORKER_EXIT_MARGIN)

    def stop(self) -> None:
        """Take an order to stop: withdraw and drain after the delay, or drain; exit soon after the grace."""
        if self._server is None or self._loop is None:
            self._leave_before_serving(WORKER_EXIT_MARGIN)
        step = self._drain_delay.stop(self._delay, serving=self._server.serving)
        if step is StopStep.WITHDRAW:
            self.set_deadline(self._delay + self._grace + WORKER_EXIT_MARGIN)
            self._loop.call_soon_threadsafe(self._withdraw)
        elif not self._draining:
            self._draining = True
            self.set_deadline(self._grace + WORKER_EXIT_MARGIN)
            self._loop.call_soon_threadsafe(self._drain)
            log_setup.flush()  # the loop may be held up until the deadline

    def _leave_before_serving(self, seconds: float) -> NoReturn:
        """End the process, within `seconds`: exit hooks are called, and one may hang."""
        self._over = True  # another signal must not call them again
        self.set_deadline(seconds)
        self._leave()

    def _withdraw(self) -> None:
        assert self._server is not None
        assert self._loop is not None
        self._server.withdraw()
        logger.info(NOTICE, self._delay)
        self._loop.call_later(self._delay, self.stop)

    def _drain(self) -> None:
        assert self._server is not None
        if not self._supervised:
            self._server.withdraw()
        self._server.stop(stream_grace=self._stream_grace)

    def set_deadline(self, seconds: float) -> None:
        """End this process by force in `seconds`, whatever it does then, and write its stacks.

        It takes a thread. Where a limit allows none (RLIMIT_NPROC, pids.max), there is no deadline.
        """
        with contextlib.suppress(RuntimeError):
            faulthandler.dump_traceback_later(seconds, file=_writable(self._stacks), exit=True)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if not self._over:
            self.stop()

    def _on_stop_now(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            return
        if self._server is None or self._loop is None:
            self._leave_before_serving(QUIT_GRACE)
        self._draining = True
        self.set_deadline(QUIT_GRACE)
        self._loop.call_soon_threadsafe(self._server.stop_now)
        log_setup.flush()

    def _on_hurry(self, number: int, frame: FrameType | None) -> None:
        """The code has changed: from now on, no request is answered that has not arrived before."""
        if self._over:
            return
        if self._server is None or self._loop is None:
            self._leave_before_serving(HURRY_GRACE)
        # No deadline here: the arbiter has one, and a worker that a debugger holds writes no stacks.
        self._server.turn_away()
        self._loop.call_soon_threadsafe(self._server.stop)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._draining:
            self._on_stop_now(number, frame)
            return
        if controlling_terminal.in_foreground():  # Ctrl+C should not wait for what may never end
            self._stream_grace = HURRY_GRACE
        self._on_stop(number, frame)

    def _on_arbiter_signal(self, number: int, frame: FrameType | None) -> None:
        """In a plain server: SIGHUP renews certificates; what only an arbiter can do is refused."""
        if number == signal.SIGHUP and self._terminal is not None and self._terminal.gone:
            self._stream_grace = HURRY_GRACE
            self._on_stop(number, frame)
            return
        if number == signal.SIGHUP and self._tls:
            if self._server is not None and self._loop is not None and not self._over:
                self._loop.call_soon_threadsafe(self._server.renew)
            return  # before there is a server, the files are not read yet
        name = signal.Signals(number).name
        logger.warning("%s ignored: rolling restarts and scaling need --workers", name)


def _writable(fd: int) -> int:
    """Return `fd`, or /dev/null if nothing reads `fd`: a forced end must not wait for a reader."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if any(events & select.POLLOUT for _, events in poll.poll(0)):
        return fd
    return os.open(os.devnull, os.O_WRONLY)
