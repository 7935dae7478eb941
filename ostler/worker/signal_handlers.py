"""What signals order a serving process to do, from before its application is imported until its end."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import select
import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from ostler import tls
from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.system.signals import HURRY_SIGNAL, forgive_full_wakeup
from ostler.worker.server import Server

logger = logging.getLogger("ostler.error")

# The stacks of all threads, on demand. Free for it: a worker has no arbiter's business with SIGUSR2.
STACK_SIGNAL = signal.SIGUSR2

# The terminal's signals and the operator's orders may reach the whole process group; the arbiter decides. A
# worker that leads a group of its own would also be stopped by the terminal if it wrote there (termios(3)).
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
HANDLED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, STACK_SIGNAL)

MARGIN = 3.0
"""Seconds past its grace that a server has to cancel, to shut the application down, and to be gone."""
_AT_ONCE = 1.0


class SignalHandlers:
    """Heeds the signals of one process: a worker's, or with `supervised=False` a plain server's.

    The handlers are plain ones of the interpreter, not the loop's: they run although a blocking call holds
    the loop up, and then at least set the deadline at which faulthandler's own thread, which needs no GIL,
    ends the process.
    """

    def __init__(
        self, settings: Settings, stacks: int, *, supervised: bool, leave: Callable[[], NoReturn]
    ) -> None:
        self._grace = settings.timeout_graceful_shutdown
        # A worker drains whenever its arbiter says so; who withdraws the instance is the arbiter.
        self._delay = 0.0 if supervised else settings.drain_delay
        self._stacks = stacks
        self._supervised = supervised
        self._tls = tls.wanted(settings)
        self._leave = leave
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._withdrawn = False
        self._draining = False
        self._over = False

    def install(self, *, terminal: bool = False) -> None:
        """Heed signals from now on. Until there is a server to drain, an order to stop ends the process."""
        faulthandler.enable(self._stacks)
        faulthandler.register(STACK_SIGNAL, self._stacks, all_threads=True, chain=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGQUIT, self._on_stop_now)
        signal.signal(signal.SIGUSR1, lambda *_: log_setup.reopen())
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN if self._supervised else self._on_arbiters_order)
        if self._supervised:
            signal.signal(HURRY_SIGNAL, self._on_hurry)
        else:
            signal.signal(signal.SIGINT, self._on_interrupt)
        # Blocked across the spawn; a plain server may have been started with anything blocked.
        ignored = IGNORED[1:] if terminal else IGNORED  # there, SIGINT stays blocked
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*ignored, *HANDLED, HURRY_SIGNAL, signal.SIGCHLD))

    def drain(self, server: Server) -> None:
        """From now on an order to stop lets this server, on the running loop, drain."""
        self._loop = asyncio.get_running_loop()
        # Its side effect: whatever signal comes wakes the loop (signal.set_wakeup_fd).
        self._loop.add_signal_handler(signal.SIGUSR1, log_setup.reopen)
        forgive_full_wakeup()
        self._server = server

    def over(self) -> None:
        """The server has ended, or never began: orders change nothing any more, threads have their time."""
        self._over = True
        # The interpreter takes handlers off as it exits: one signal too many would then look like a death.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        if not self._draining:
            self.set_deadline(MARGIN)

    def stop(self) -> None:
        """Withdraw, and drain after the delay or when asked once more; be gone soon after the grace."""
        if self._server is None or self._loop is None:
            self._leave()
        if self._delay and not self._withdrawn:
            self._withdrawn = True
            self.set_deadline(self._delay + self._grace + MARGIN)
            self._loop.call_soon_threadsafe(self._withdraw)
        elif not self._draining:
            self._draining = True
            self.set_deadline(self._grace + MARGIN)
            self._loop.call_soon_threadsafe(self._drain)
            log_setup.flush()  # the loop may be held up until the deadline

    def _withdraw(self) -> None:
        assert self._server is not None
        assert self._loop is not None
        if self._server.withdraw():
            text = "Draining in %g s: until then, health checks say 503 and requests are served"
            logger.info(text, self._delay)
            self._loop.call_later(self._delay, self.stop)
        else:
            self.stop()

    def _drain(self) -> None:
        assert self._server is not None
        if not self._supervised:
            self._server.withdraw()
        self._server.stop()

    def set_deadline(self, seconds: float) -> None:
        """End this process by force in so many seconds, whatever it is doing then; its stacks tell what."""
        faulthandler.dump_traceback_later(seconds, file=_writable(self._stacks), exit=True)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if not self._over:
            self.stop()

    def _on_stop_now(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            return
        if self._server is None or self._loop is None:
            self._leave()
        self._draining = True
        self.set_deadline(_AT_ONCE)
        self._loop.call_soon_threadsafe(self._server.stop_now)
        log_setup.flush()

    def _on_hurry(self, number: int, frame: FrameType | None) -> None:
        """The code has changed: from here on nothing is answered that was not asked before."""
        if self._over:
            return
        if self._server is None or self._loop is None:
            self._leave()
        # No deadline of our own: the arbiter has one, and no stack is asked for that a debugger may hold.
        self._server.turn_away()
        self._loop.call_soon_threadsafe(self._server.stop)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._draining:
            self._on_stop_now(number, frame)
        else:
            self._on_stop(number, frame)

    def _on_arbiters_order(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._tls:
            if self._server is not None and self._loop is not None and not self._over:
                self._loop.call_soon_threadsafe(self._server.renew)
            return  # before there is a server, the files are not read yet
        name = signal.Signals(number).name
        logger.warning("%s ignored: rolling restarts and scaling need --workers", name)


def _writable(fd: int) -> int:
    """Return `fd`, or if nobody reads it /dev/null: a forced end must not wait for a reader."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if any(events & select.POLLOUT for _, events in poll.poll(0)):
        return fd
    return os.open(os.devnull, os.O_WRONLY)
