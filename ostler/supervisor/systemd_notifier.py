"""Sends systemd the messages that `systemd_status` decides on, by `ostler.system.sd_notify`."""

from __future__ import annotations

import os
import time

from ostler.supervisor.fleet.fleet import Fleet
from ostler.supervisor.systemd_status import SystemdStatus, snapshot
from ostler.system.sd_notify import Notifier

# Seconds after which a manager that had no room for a message is told again.
_RETRY = 1.0


class Herald:
    """Tells a service manager how a fleet fares; nobody, when there is none."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._announcements = SystemdStatus(os.getpid(), notifier.watchdog)

    def hand_over(self, pid: int) -> None:
        """Name the arbiter that speaks for the service from now on, and say no more."""
        self._notifier.send(f"MAINPID={pid}")
        self._notifier.held = True

    def begin(self, fleet: Fleet) -> None:
        """Speak for the service: the arbiter that did has named us."""
        self._notifier.held = False
        self.update(fleet)

    def deadline(self) -> float | None:
        """When to call `update`, if nothing happens before. None: not at all."""
        if not self._notifier.listens:
            return None
        due = self._announcements.deadline()
        if self._notifier.pending:
            return min(time.monotonic() + _RETRY, due or float("inf"))
        return due

    def update(self, fleet: Fleet) -> None:
        """Tell what has changed."""
        if self._notifier.listens:
            self._notifier.flush()
            now = time.monotonic()
            for fields in self._announcements.update(snapshot(fleet, now), now):
                self._notifier.send(*fields)

    def reload_asked(self) -> None:
        """SIGHUP has come."""
        for fields in self._announcements.reload_asked(time.monotonic()):
            self._notifier.send(*fields)

    def reload_refused(self, reason: str, fleet: Fleet) -> None:
        """The reload changes nothing."""
        self._announcements.reload_refused(reason)
        self.update(fleet)

    def reload_begins(self, generation: int) -> None:
        """The reload is a rolling restart to this generation."""
        self._announcements.reload_begins(generation)

    def stop_asked(self, fleet: Fleet) -> None:
        """An order to stop has come, whether or not the fleet drains already."""
        self._announcements.stop_asked()
        self.update(fleet)
