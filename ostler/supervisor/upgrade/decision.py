"""Decides about an upgrade in the old arbiter (SIGUSR2): events in, actions out. Pure.

An upgrade starts a new arbiter, which inherits the sockets and takes this one's place once it is ready.

```
IDLE -> STARTING -> DONE        the new arbiter is ready: this one drains its workers and exits
  ^      |     |
  |      |     v
  +------+-- STOPPING           it was told to stop, late or unwanted: its exit is awaited
```

A new arbiter that exits, or cannot be started, leads back to IDLE, and the old one serves on.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

from ostler.records import record
from ostler.supervisor.fleet.events import Report

_START_MARGIN = 10.0
"""Seconds for the new arbiter's interpreter to start, on top of the time for a worker."""


class UpgradeState(Enum):
    """The states of an upgrade."""

    IDLE = "idle"
    STARTING = "starting"
    STOPPING = "stopping"
    DONE = "done"


@record
class Preconditions:
    """What an upgrade that is requested depends on."""

    obstacle: str
    """Why this process can never be upgraded in place; empty if it can."""
    stopping: bool
    """Whether this arbiter stops."""
    served: bool
    """Whether a worker has ever been ready."""
    is_new: bool
    """Whether this arbiter is itself the new one of an upgrade that is under way."""
    startup: float
    """Seconds that a worker may take to become ready."""
    grace: float
    """Seconds that an arbiter may take to stop."""


@record
class Launch:
    """Start the new arbiter, and answer with `launched` or `launch_failed`."""


@record
class HandOver:
    """The new arbiter takes over: tell it and the service manager, drain, exit."""

    pid: int


@record
class SendSignal:
    """Send this signal to the new arbiter."""

    pid: int
    signal: Literal["SIGTERM", "SIGQUIT", "SIGKILL"]


@record
class RunPostponed:
    """The upgrade was given up: carry out the signals that were postponed for it."""


Action: TypeAlias = Launch | HandOver | SendSignal | RunPostponed | Report


class UpgradeDecision:
    """Decides about one upgrade at a time. Call `tick` when `deadline()` has passed.

    All times are in seconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self.state = UpgradeState.IDLE
        self.pid: int | None = None
        """The new arbiter's, once it runs."""
        self._deadline: float | None = None
        self._start_timeout = 0.0
        self._grace = 0.0
        self._last_words = ""
        """What the new arbiter said last: probably why it failed."""
        self._cause = ""
        """Why the new arbiter was told to stop."""

    def __repr__(self) -> str:
        return f"<UpgradeDecision {self.state.value} pid={self.pid}>"

    @property
    def under_way(self) -> bool:
        """Whether there is a new arbiter that may still take over, or has not exited yet."""
        return self.state in (UpgradeState.STARTING, UpgradeState.STOPPING)

    def deadline(self) -> float | None:
        """When to call `tick`. None: not at all."""
        return self._deadline

    def requested(self, given: Preconditions, now: float) -> list[Action]:
        """SIGUSR2 has come: start a new arbiter, or say why not."""
        if refusal := self._refusal(given):
            return [Report("warning", f"SIGUSR2: no upgrade, {refusal}")]
        self.state, self.pid, self._last_words, self._cause = UpgradeState.STARTING, None, "", ""
        self._start_timeout, self._grace = given.startup + _START_MARGIN, given.grace
        self._deadline = now + self._start_timeout
        return [Launch()]

    def _refusal(self, given: Preconditions) -> str:
        if given.stopping or self.state is UpgradeState.DONE:
            return "ostler stops"
        if given.obstacle:
            return given.obstacle
        if self.under_way:
            return f"one is under way already: new arbiter process [{self.pid}]"
        if given.is_new:
            return "this arbiter is the new one of an upgrade that is under way"
        return "" if given.served else "no worker has been ready yet"

    def launched(self, pid: int) -> list[Action]:
        """The new arbiter was started, and is this process."""
        self.pid = pid
        return [Report("info", f"Upgrade: started new arbiter process [{pid}], workers serve on meanwhile")]

    def launch_failed(self, reason: str) -> list[Action]:
        """The new arbiter could not be started."""
        return self._give_up(f"it could not be started ({reason})")

    def ready(self) -> list[Action]:
        """All workers of the new arbiter are ready."""
        if self.state is not UpgradeState.STARTING or self.pid is None:
            return []  # too late: it has been told to stop
        self.state, self._deadline = UpgradeState.DONE, None
        text = f"Upgrade: new arbiter process [{self.pid}] is ready and takes over; this one drains and exits"
        return [Report("info", text), HandOver(self.pid)]

    def message_received(self, text: str) -> None:
        """The new arbiter has said this, which is probably why it fails."""
        self._last_words = text

    def exited(self) -> list[Action]:
        """The new arbiter has exited, or has taken over and has closed its line to this one."""
        if self.state is UpgradeState.DONE:
            return []
        words = f": {self._last_words}" if self._last_words else ", without a word: was it killed?"
        return self._give_up(self._cause or f"it has ended{words}")

    def stop(self, signal: Literal["SIGTERM", "SIGQUIT"], now: float) -> list[Action]:
        """The service stops: stop the new arbiter as well, with the signal that stopped this one."""
        if not self.under_way or self.pid is None:
            return []
        self._cause = self._cause or "ostler stops"
        self.state, self._deadline = UpgradeState.STOPPING, now + self._grace
        return [SendSignal(self.pid, signal)]

    def tick(self, now: float) -> list[Action]:
        """A deadline may have passed."""
        if self._deadline is None or now < self._deadline or self.pid is None:
            return []
        if self.state is UpgradeState.STARTING:
            self.state, self._deadline = UpgradeState.STOPPING, now + self._grace
            last = f"; its last words: {self._last_words}" if self._last_words else ""
            self._cause = f"it was not ready after {self._start_timeout:g} s{last}"
            return [SendSignal(self.pid, "SIGTERM")]
        self._deadline = None
        return [SendSignal(self.pid, "SIGKILL")]

    def _give_up(self, cause: str) -> list[Action]:
        name = "new arbiter" if self.pid is None else f"new arbiter process [{self.pid}]"
        stops = self._cause == "ostler stops"
        self.state, self.pid, self._deadline = UpgradeState.IDLE, None, None
        if stops:
            return [Report("info", f"Upgrade given up: {cause}")]
        return [Report("error", f"Upgrade given up, this arbiter serves on: {name}: {cause}"), RunPostponed()]
