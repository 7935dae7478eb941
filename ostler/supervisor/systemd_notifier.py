"""Sends systemd the messages that `systemd_status` decides on, by `ostler.system.sd_notify`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ostler.supervisor.fleet.fleet import Fleet
from ostler.system.sd_notify import Notifier

if TYPE_CHECKING:
    from ostler.supervisor.systemd_status import SystemdStatus

# Seconds after which a message is sent again that the service manager had no room for.
_RETRY = 1.0


class SystemdNotifier:
    """Tells the service manager the state of a fleet. Without a service manager, each method is a no-op."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._status: SystemdStatus | None = None
        if notifier.listens or notifier.held:
            # Imported with a service manager only: the arbiter stays small.
            from ostler.supervisor.systemd_status import SystemdStatus, snapshot

            self._status = SystemdStatus(os.getpid(), notifier.watchdog)
            self._snapshot = snapshot

    def hand_over(self, pid: int) -> None:
        """Name the arbiter that reports to systemd from now on, and send nothing more."""
        self._notifier.send(f"MAINPID={pid}")
        self._notifier.held = True

    def take_over(self, fleet: Fleet) -> None:
        """Speak for the service from now on: the old arbiter has named this one."""
        self._notifier.held = False
        self.update(fleet)

    def deadline(self) -> float | None:
        """Return the monotonic time at which to call `update`; None: only when something has changed."""
        if self._status is None or not self._notifier.listens:
            return None
        due = self._status.deadline()
        if self._notifier.pending:
            return min(time.monotonic() + _RETRY, due or float("inf"))
        return due

    def update(self, fleet: Fleet) -> None:
        """Send what has changed."""
        if self._status is not None and self._notifier.listens:
            self._notifier.flush()
            now = time.monotonic()
            for fields in self._status.update(self._snapshot(fleet, now), now):
                self._notifier.send(*fields)

    def reload_asked(self) -> None:
        """Send that SIGHUP has come."""
        if self._status is not None:
            for fields in self._status.reload_asked(time.monotonic()):
                self._notifier.send(*fields)

    def reload_refused(self, reason: str, fleet: Fleet) -> None:
        """Send that the reload changes nothing, and why."""
        if self._status is not None:
            self._status.reload_refused(reason)
            self.update(fleet)

    def reload_begins(self, generation: int) -> None:
        """Note that the reload is a rolling restart to this generation."""
        if self._status is not None:
            self._status.reload_begins(generation)

    def stop_asked(self, fleet: Fleet) -> None:
        """Send that an order to stop has come, whether or not the fleet drains already."""
        if self._status is not None:
            self._status.stop_asked()
            self.update(fleet)
