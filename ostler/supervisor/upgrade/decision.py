"""Replacing the arbiter itself (SIGUSR2), as the old one decides it: events in, actions out. Pure.

```
IDLE -> STARTING -> DONE        the new arbiter is ready: this one drains its workers and goes
  ^         |
  |         v
  +------ GOING                 it has failed, or is not wanted any more: its end is waited for
```
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

from ostler.records import record
from ostler.supervisor.fleet.events import Report

_MARGIN = 10.0
"""Seconds that an interpreter may take to start, on top of what a worker may."""


class State(Enum):
    """How far an upgrade has come."""

    IDLE = "idle"
    STARTING = "starting"
    STOPPING = "stopping"
    DONE = "done"


@record
class Preconditions:
    """What counts when an upgrade is asked for."""

    obstacle: str
    """Why there can be none in this process, whenever; empty: there can."""
    stopping: bool
    served: bool
    """Whether there has ever been a worker that is ready."""
    newcomer: bool
    """Whether this arbiter is itself still the new one."""
    startup: float
    """Seconds that a worker may take to get ready."""
    grace: float
    """Seconds that an arbiter may take to stop."""


@record
class Launch:
    """Start the new arbiter, and answer with `launched` or `failed`."""


@record
class HandOver:
    """The new arbiter has the place: tell everybody, drain, go."""

    pid: int


@record
class SendSignal:
    """Send this signal to the new arbiter."""

    pid: int
    signal: Literal["SIGTERM", "SIGQUIT", "SIGKILL"]


@record
class RunPostponed:
    """Do what was put off for the upgrade, which is over without one."""


Action: TypeAlias = Launch | HandOver | SendSignal | RunPostponed | Report


class UpgradeDecision:
    """Decides about one upgrade at a time; `deadline()` says when to call `tick`."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.pid: int | None = None
        self._deadline: float | None = None
        self._patience = 0.0
        self._grace = 0.0
        self._words = ""
        self._cause = ""

    def __repr__(self) -> str:
        return f"<UpgradeDecision {self.state.value} pid={self.pid}>"

    @property
    def under_way(self) -> bool:
        """Whether there is a new arbiter that may still take the place, or has not gone yet."""
        return self.state in (State.STARTING, State.STOPPING)

    def deadline(self) -> float | None:
        """When to call `tick`. None: not at all."""
        return self._deadline

    def requested(self, given: Preconditions, now: float) -> list[Action]:
        """SIGUSR2 has come."""
        if refusal := self._refusal(given):
            return [Report("warning", f"SIGUSR2: no upgrade, {refusal}")]
        self.state, self.pid, self._words, self._cause = State.STARTING, None, "", ""
        self._patience, self._grace = given.startup + _MARGIN, given.grace
        self._deadline = now + self._patience
        return [Launch()]

    def _refusal(self, given: Preconditions) -> str:
        if given.stopping or self.state is State.DONE:
            return "ostler stops"
        if given.obstacle:
            return given.obstacle
        if self.under_way:
            return f"one is under way already: new arbiter process [{self.pid}]"
        if given.newcomer:
            return "this arbiter is the new one of an upgrade that is under way"
        return "" if given.served else "no worker has been ready yet"

    def launched(self, pid: int) -> list[Action]:
        """The new arbiter is this process."""
        self.pid = pid
        return [Report("info", f"Upgrade: started new arbiter process [{pid}], workers serve on meanwhile")]

    def launch_failed(self, reason: str) -> list[Action]:
        """There is no new arbiter."""
        return self._over(f"it could not be started ({reason})")

    def ready(self) -> list[Action]:
        """All workers of the new arbiter are ready."""
        if self.state is not State.STARTING or self.pid is None:
            return []  # too late: it has been told to go
        self.state, self._deadline = State.DONE, None
        text = f"Upgrade: new arbiter process [{self.pid}] is ready and takes over; this one drains and exits"
        return [Report("info", text), HandOver(self.pid)]

    def message_received(self, words: str) -> None:
        """It has said this, which is probably why it fails."""
        self._words = words

    def exited(self) -> list[Action]:
        """The new arbiter is gone; or has the place, and needs us no more."""
        if self.state is State.DONE:
            return []
        words = f": {self._words}" if self._words else ", without a word: was it killed?"
        return self._over(self._cause or f"it has ended{words}")

    def stop(self, signal: Literal["SIGTERM", "SIGQUIT"], now: float) -> list[Action]:
        """Everything stops, the new arbiter as well."""
        if not self.under_way or self.pid is None:
            return []
        self._cause = self._cause or "ostler stops"
        self.state, self._deadline = State.STOPPING, now + self._grace
        return [SendSignal(self.pid, signal)]

    def tick(self, now: float) -> list[Action]:
        """A deadline may have passed."""
        if self._deadline is None or now < self._deadline or self.pid is None:
            return []
        if self.state is State.STARTING:
            self.state, self._deadline = State.STOPPING, now + self._grace
            last = f"; its last words: {self._words}" if self._words else ""
            self._cause = f"it was not ready after {self._patience:g} s{last}"
            return [SendSignal(self.pid, "SIGTERM")]
        self._deadline = None
        return [SendSignal(self.pid, "SIGKILL")]

    def _over(self, cause: str) -> list[Action]:
        name = "new arbiter" if self.pid is None else f"new arbiter process [{self.pid}]"
        stops = self._cause == "ostler stops"
        self.state, self.pid, self._deadline = State.IDLE, None, None
        if stops:
            return [Report("info", f"Upgrade given up: {cause}")]
        return [Report("error", f"Upgrade given up, this arbiter serves on: {name}: {cause}"), RunPostponed()]
