"""For a server without an arbiter: tells systemd its state, and stops the server at a limit."""

from __future__ import annotations

import logging
import os
import time

from ostler.ipc.contract import WORKER_EXIT_MARGIN
from ostler.settings.declarations import Settings
from ostler.system.request_rate import RequestRate
from ostler.system.sd_notify import Notifier, microseconds
from ostler.worker.limits import TERMINATING
from ostler.worker.server_state import ServerState
from ostler.worker.signal_handlers import SignalHandlers

logger = logging.getLogger("ostler.error.worker")

_TICK = 1.0
"""Seconds between two ticks at the most: what falls due before the next tick is done now."""


class PlainWatcher:
    """Tells the service manager how a plain server fares; a `server.Watcher`.

    At a limit the server is stopped, as there is no arbiter that could replace it.
    """

    def __init__(self, settings: Settings, notifier: Notifier, signal_handlers: SignalHandlers) -> None:
        self._notifier = notifier
        self._signal_handlers = signal_handlers
        self._startup = settings.timeout_worker_startup
        grace = settings.drain_delay + settings.timeout_graceful_shutdown
        self._time_to_stop = grace + WORKER_EXIT_MARGIN + _TICK
        # The loop's tick answers the watchdog, so that a blocked loop does not answer.
        self._interval = None if notifier.watchdog is None else notifier.watchdog / 2
        self._next_watchdog = 0.0
        self._server_state: ServerState | None = None
        self._request_rate = RequestRate()
        self._status = ""
        self._stopping = False

    def starting(self) -> None:
        """Say that the application is about to be imported; ask for the time now, as the import blocks."""
        self._notifier.send("STATUS=starting", f"EXTEND_TIMEOUT_USEC={microseconds(self._startup)}")

    def ready(self, server_state: ServerState) -> None:
        """Say that the server accepts connections."""
        self._server_state = server_state
        self._request_rate.restart(time.monotonic())
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
        self._request_rate.read({0: self._server_state.served})
        status = f"ready, {self._request_rate.rate(now)}"
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
        """Stop the server: a limit is reached."""
        logger.info(TERMINATING, reason)
        self._signal_handlers.stop()
