"""What systemd (or another service manager) is told of the fleet, and when: sd_notify(3) messages. Pure.

`SystemdStatus.update` takes a snapshot of the fleet and the time, and returns the messages to send.
`deadline()` says when to call it again if nothing happens before. An idle fleet has no deadline but that of
the watchdog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from typing import TypeAlias

from ostler.records import record
from ostler.supervisor.fleet.fleet import Fleet
from ostler.supervisor.fleet.slot import State
from ostler.system.request_rate import PAUSE, RequestRate

Message: TypeAlias = tuple[str, ...]
"""The fields of one datagram."""

EXTENSION = 20.0
"""Seconds by which a start, a roll or a stop that goes on asks for more time, twice as often."""


@record
class FleetSnapshot:
    """What counts of a fleet at one instant."""

    size: int
    ready: int
    healthy: int
    """How many of those are not silent."""
    booting: int
    leaving: int
    generation: int
    rolling: bool
    stopping: bool
    served: Mapping[int, int] = field(default_factory=dict)
    """Requests served so far, by the pid of the worker."""


def snapshot(fleet: Fleet, now: float) -> FleetSnapshot:
    """Return what counts of this fleet now."""
    slots = list(fleet.slots())
    states = [slot.state for slot in slots]
    return FleetSnapshot(
        size=fleet.size,
        ready=states.count(State.READY),
        healthy=sum(slot.healthy(now) for slot in slots),
        booting=states.count(State.BOOTING),
        leaving=sum(slot.pid is not None for slot in slots),
        generation=fleet.generation,
        rolling=fleet.rolling,
        stopping=fleet.stopping,
        served={slot.pid: slot.beat.served for slot in slots if slot.pid and slot.beat},
    )


class Phase(Enum):
    """How far the service has come, as its manager was told."""

    STARTING = "starting"
    SERVING = "serving"
    RELOADING = "reloading"
    STOPPING = "stopping"


class SystemdStatus:
    """Decides what to tell. `watchdog` is WATCHDOG_USEC in seconds, None when nobody watches."""

    def __init__(self, pid: int, watchdog: float | None = None) -> None:
        self.phase = Phase.STARTING
        self._pid = pid
        self._interval = None if watchdog is None else watchdog / 2
        self._next_watchdog = 0.0
        self._withheld = False
        """Whether the watchdog is owed an answer: given as soon as a worker's beat makes a quorum."""
        self._next_extension = 0.0
        self._changing = False
        self._complete = 0
        """How many workers the fleet had when it was last complete: newcomers do not thin out the quorum."""
        self._status = ""
        self._counts = ""
        self._status_at = 0.0
        self._note = ""
        self._stop_asked = False
        self._asked = 0
        """The newest generation that was asked for in a reload that has not ended."""
        self._meter = RequestRate()

    def __repr__(self) -> str:
        return f"<SystemdStatus {self.phase.value}, {self._status!r}>"

    def deadline(self) -> float | None:
        """When to call `update`, if nothing happens before. None: not at all."""
        times = []
        if self._changing:
            times.append(self._next_extension)
        if self._watched and not self._withheld:
            times.append(self._next_watchdog)
        return min(times, default=None)

    def reload_asked(self, now: float) -> list[Message]:
        """SIGHUP has come: the manager waits for this, stamped later than its order (Type=notify-reload)."""
        self._note = ""
        if self.phase not in (Phase.SERVING, Phase.RELOADING):
            return []
        self.phase = Phase.RELOADING
        return [_reloading(now)]

    def reload_refused(self, reason: str) -> None:
        """The reload changes nothing; `update` says so, and why."""
        self._note = f"; last reload refused: {reason}"

    def reload_begins(self, generation: int) -> None:
        """The reload is a rolling restart to this generation."""
        self._asked = generation

    def stop_asked(self) -> None:
        """The service stops, although the fleet may serve on for a while before it drains."""
        self._stop_asked = True

    def update(self, facts: FleetSnapshot, now: float) -> list[Message]:
        """Return what is to be said now."""
        self._meter.read(facts.served)
        if facts.ready >= facts.size:
            self._complete = facts.size
        fields = self._turn(facts, now)
        status = self._new_status(facts, now, force=bool(fields))
        messages: list[Message] = []
        if fields or status:
            messages.append((*fields, *status))
        if self.phase is Phase.SERVING and facts.rolling:  # asked for while it was still starting
            self.phase = Phase.RELOADING
            messages.append(_reloading(now))
        return messages + self._extend(facts, now) + self._watch(facts, now)

    @property
    def _watched(self) -> bool:
        return self._interval is not None and self.phase in (Phase.SERVING, Phase.RELOADING)

    def _turn(self, facts: FleetSnapshot, now: float) -> Message:
        """Enter the phase that the facts call for, and return how that is announced."""
        if facts.stopping or self._stop_asked:
            entered, self.phase = self.phase is not Phase.STOPPING, Phase.STOPPING
            return ("STOPPING=1",) if entered else ()
        if self.phase is Phase.STARTING and self._complete:
            self.phase = Phase.SERVING
            self._next_watchdog = now
            self._meter.restart(now)
            return ("READY=1", f"MAINPID={self._pid}")
        if self.phase is Phase.RELOADING and not facts.rolling:
            self.phase = Phase.SERVING
            if facts.generation < self._asked:
                self._note = f"; rolling restart to generation {self._asked} given up, the log says why"
            self._asked = 0
            return ("READY=1",)
        return ()

    def _new_status(self, facts: FleetSnapshot, now: float, *, force: bool) -> Message:
        counts = self._describe(facts)
        due = now >= self._status_at + PAUSE
        if counts == self._counts and not due and not force:
            return ()
        serving = self.phase in (Phase.SERVING, Phase.RELOADING)
        status = counts + (f", {self._meter.rate(now)}" if serving else "") + self._note
        if status == self._status and not force:
            return ()
        self._counts, self._status, self._status_at = counts, status, now
        return (f"STATUS={status}",)

    def _describe(self, facts: FleetSnapshot) -> str:
        if self.phase is Phase.STOPPING:
            return f"stopping, {facts.leaving} workers left"
        # In a roll there is one more at times.
        counts = f"{min(facts.ready, facts.size)} of {facts.size} workers ready"
        return counts if self.phase is Phase.STARTING else f"{counts}, generation {facts.generation}"

    def _extend(self, facts: FleetSnapshot, now: float) -> list[Message]:
        """Ask for more time while something goes on that has a deadline of its own in the fleet."""
        rolling = facts.rolling and facts.booting > 0
        starting = self.phase is Phase.STARTING and facts.booting > 0
        self._changing = starting or rolling or self.phase is Phase.STOPPING
        if not self._changing or now < self._next_extension:
            return []
        self._next_extension = now + EXTENSION / 2
        return [(f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}",)]

    def _watch(self, facts: FleetSnapshot, now: float) -> list[Message]:
        """Answer the watchdog while more than half of the workers are well."""
        if self._interval is None or not self._watched or now < self._next_watchdog:
            return []
        self._withheld = 2 * facts.healthy <= min(facts.size, self._complete)
        if self._withheld:
            return []
        self._next_watchdog = now + self._interval
        return [("WATCHDOG=1",)]


def _reloading(now: float) -> Message:
    # CLOCK_MONOTONIC, which time.monotonic() is on Linux.
    return ("RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}")
