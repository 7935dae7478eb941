"""Watches a plain server, which has no arbiter: tells the service manager, and stops at a limit."""

from __future__ import annotations

import logging
import os
import time

from ostler.ipc.contract import WORKER_EXIT_MARGIN
from ostler.settings.declarations import Settings
from ostler.system.request_rate import RequestRate
from ostler.system.sd_notify import Notifier, microseconds
from ostler.worker.server_state import ServerState
from ostler.worker.signal_handlers import SignalHandlers

logger = logging.getLogger("ostler.error")

# The longest time between two ticks: what falls due before the next one is done now.
_TICK = 1.0


class PlainWatcher:
    """Speaks for a plain server (`server.Watcher`); at a limit it is stopped, as nobody can replace it."""

    def __init__(self, settings: Settings, notifier: Notifier, signal_handlers: SignalHandlers) -> None:
        self._notifier = notifier
        self._signal_handlers = signal_handlers
        self._startup = settings.timeout_worker_startup
        grace = settings.drain_delay + settings.timeout_graceful_shutdown
        self._time_to_stop = grace + WORKER_EXIT_MARGIN + _TICK
        # The loop's own tick answers: a loop that is blocked does not.
        self._interval = None if notifier.watchdog is None else notifier.watchdog / 2
        self._next_watchdog = 0.0
        self._server_state: ServerState | None = None
        self._meter = RequestRate()
        self._status = ""
        self._stopping = False

    def starting(self) -> None:
        """Say that the application is about to be imported, which nothing can interrupt to ask for time."""
        self._notifier.send("STATUS=starting", f"EXTEND_TIMEOUT_USEC={microseconds(self._startup)}")

    def ready(self, server_state: ServerState) -> None:
        """Say that the server accepts connections."""
        self._server_state = server_state
        self._meter.restart(time.monotonic())
        self._status = "ready"
        self._notifier.send("READY=1", f"MAINPID={os.getpid()}", "STATUS=ready")

    def ticked(self, lag: float) -> None:
        """Answer the watchdog when it is time, and update the status."""
        if not self._notifier.listens or self._server_state is None or self._stopping:
            return
        self._notifier.flush()
        now = time.monotonic()
        if self._interval is not None and now + _TICK >= self._next_watchdog:
            self._next_watchdog = now + self._interval
            self._notifier.send("WATCHDOG=1")
        self._meter.read({0: self._server_state.served})
        status = f"ready, {self._meter.rate(now)}"
        if status != self._status:
            self._status = status
            self._notifier.send(f"STATUS={status}")

    def stopping(self) -> None:
        """Say that the server is going to stop, at once or after its delay."""
        if not self._stopping:
            self._stopping = True
            time_left = microseconds(self._time_to_stop)
            self._notifier.send("STOPPING=1", "STATUS=stopping", f"EXTEND_TIMEOUT_USEC={time_left}")

    def retire(self, reason: str) -> None:
        """A limit is reached."""
        logger.info("%s Terminating process.", reason)
        self._signal_handlers.stop()
