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
from ostler.supervisor.fleet.slot import SlotState
from ostler.system.request_rate import PAUSE, RequestRate

Datagram: TypeAlias = tuple[str, ...]
"""The fields of one datagram."""

EXTENSION = 20.0
"""Seconds by which EXTEND_TIMEOUT_USEC extends a start, a roll or a stop; sent in half that time again."""


@record
class FleetSnapshot:
    """The figures of a fleet at one instant that its status depends on."""

    size: int
    ready: int
    healthy: int
    """How many of the ready ones are not silent for too long (`Slot.healthy`)."""
    booting: int
    processes: int
    """How many workers have a process, in whatever state."""
    generation: int
    rolling: bool
    stopping: bool
    served: Mapping[int, int] = field(default_factory=dict)
    """Requests served so far, by the pid of the worker."""


def snapshot(fleet: Fleet, now: float) -> FleetSnapshot:
    """Return the figures of this fleet now."""
    slots = list(fleet.slots())
    states = [slot.state for slot in slots]
    return FleetSnapshot(
        size=fleet.size,
        ready=states.count(SlotState.READY),
        healthy=sum(slot.healthy(now) for slot in slots),
        booting=states.count(SlotState.BOOTING),
        processes=sum(slot.pid is not None for slot in slots),
        generation=fleet.generation,
        rolling=fleet.rolling,
        stopping=fleet.stopping,
        served={slot.pid: slot.beat.served for slot in slots if slot.pid and slot.beat},
    )


class Phase(Enum):
    """The state of the service that its manager was told."""

    STARTING = "starting"
    SERVING = "serving"
    RELOADING = "reloading"
    STOPPING = "stopping"


class SystemdStatus:
    """Decides what a service manager is told. See sd_notify(3) for the fields.

    Args:
        pid: of the arbiter, for MAINPID.
        watchdog: WATCHDOG_USEC in seconds; None if there is no watchdog.
    """

    def __init__(self, pid: int, watchdog: float | None = None) -> None:
        self.phase = Phase.STARTING
        self._pid = pid
        self._interval = None if watchdog is None else watchdog / 2
        self._next_watchdog = 0.0
        self._watchdog_owed = False
        """Whether the watchdog's answer is due, and is sent as soon as enough workers are healthy."""
        self._next_extension = 0.0
        self._changing = False
        self._complete_size = 0
        """The fleet's size when all its workers were last ready. Workers that are added later do not count
        for the watchdog until they are ready."""
        self._status = ""
        self._counts = ""
        self._status_sent = 0.0
        self._note = ""
        self._stop_asked = False
        self._asked_generation = 0
        """The newest generation that a reload asked for which has not ended; 0 for none."""
        self._request_rate = RequestRate()

    def __repr__(self) -> str:
        return f"<SystemdStatus {self.phase.value}, {self._status!r}>"

    def deadline(self) -> float | None:
        """When to call `update`, if nothing happens before. None: not at all."""
        times = []
        if self._changing:
            times.append(self._next_extension)
        if self._watched and not self._watchdog_owed:
            times.append(self._next_watchdog)
        return min(times, default=None)

    def reload_asked(self, now: float) -> list[Datagram]:
        """SIGHUP has come.

        With Type=notify-reload the manager waits for RELOADING=1 with a time later than that of its SIGHUP
        (systemd.service(5)).
        """
        self._note = ""
        if self.phase not in (Phase.SERVING, Phase.RELOADING):
            return []
        self.phase = Phase.RELOADING
        return [_reloading(now)]

    def reload_refused(self, reason: str) -> None:
        """The reload changes nothing: the next `update` says so, and why."""
        self._note = f"; last reload refused: {reason}"

    def reload_begins(self, generation: int) -> None:
        """The reload is a rolling restart to this generation."""
        self._asked_generation = generation

    def stop_asked(self) -> None:
        """The service stops; with a drain delay, the fleet serves on for a while."""
        self._stop_asked = True

    def update(self, fleet: FleetSnapshot, now: float) -> list[Datagram]:
        """Return the messages to send now."""
        self._request_rate.read(fleet.served)
        if fleet.ready >= fleet.size:
            self._complete_size = fleet.size
        fields = self._change_phase(fleet, now)
        status = self._new_status(fleet, now, force=bool(fields))
        messages: list[Datagram] = []
        if fields or status:
            messages.append((*fields, *status))
        if self.phase is Phase.SERVING and fleet.rolling:  # it was asked for during the start
            self.phase = Phase.RELOADING
            messages.append(_reloading(now))
        return messages + self._extend_timeout(fleet, now) + self._answer_watchdog(fleet, now)

    @property
    def _watched(self) -> bool:
        return self._interval is not None and self.phase in (Phase.SERVING, Phase.RELOADING)

    def _change_phase(self, fleet: FleetSnapshot, now: float) -> Datagram:
        """Enter the phase that the fleet is in, and return the fields that tell of it."""
        if fleet.stopping or self._stop_asked:
            entered, self.phase = self.phase is not Phase.STOPPING, Phase.STOPPING
            return ("STOPPING=1",) if entered else ()
        if self.phase is Phase.STARTING and self._complete_size:
            self.phase = Phase.SERVING
            self._next_watchdog = now
            self._request_rate.restart(now)
            return ("READY=1", f"MAINPID={self._pid}")
        if self.phase is Phase.RELOADING and not fleet.rolling:
            self.phase = Phase.SERVING
            if fleet.generation < self._asked_generation:
                self._note = (
                    f"; rolling restart to generation {self._asked_generation} given up, the log says why"
                )
            self._asked_generation = 0
            return ("READY=1",)
        return ()

    def _new_status(self, fleet: FleetSnapshot, now: float, *, force: bool) -> Datagram:
        counts = self._describe(fleet)
        due = now >= self._status_sent + PAUSE
        if counts == self._counts and not due and not force:
            return ()
        serving = self.phase in (Phase.SERVING, Phase.RELOADING)
        status = counts + (f", {self._request_rate.rate(now)}" if serving else "") + self._note
        if status == self._status and not force:
            return ()
        self._counts, self._status, self._status_sent = counts, status, now
        return (f"STATUS={status}",)

    def _describe(self, fleet: FleetSnapshot) -> str:
        if self.phase is Phase.STOPPING:
            return f"stopping, {fleet.processes} workers left"
        # In a roll one worker more than `size` may be ready.
        counts = f"{min(fleet.ready, fleet.size)} of {fleet.size} workers ready"
        return counts if self.phase is Phase.STARTING else f"{counts}, generation {fleet.generation}"

    def _extend_timeout(self, fleet: FleetSnapshot, now: float) -> list[Datagram]:
        """Ask for more time during a start, a roll or a stop: the fleet has deadlines of its own for them."""
        rolling = fleet.rolling and fleet.booting > 0
        starting = self.phase is Phase.STARTING and fleet.booting > 0
        self._changing = starting or rolling or self.phase is Phase.STOPPING
        if not self._changing or now < self._next_extension:
            return []
        self._next_extension = now + EXTENSION / 2
        return [(f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}",)]

    def _answer_watchdog(self, fleet: FleetSnapshot, now: float) -> list[Datagram]:
        """Answer the watchdog while more than half of the workers are healthy."""
        if self._interval is None or not self._watched or now < self._next_watchdog:
            return []
        self._watchdog_owed = 2 * fleet.healthy <= min(fleet.size, self._complete_size)
        if self._watchdog_owed:
            return []
        self._next_watchdog = now + self._interval
        return [("WATCHDOG=1",)]


def _reloading(now: float) -> Datagram:
    # MONOTONIC_USEC is of CLOCK_MONOTONIC, which time.monotonic() reads on Linux.
    return ("RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}")
