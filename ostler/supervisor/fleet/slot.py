"""The state machine of one worker, from its spawn until its process is reaped. Pure.

`TABLE` lists every (state, event). Pass each event of the worker to `Slot.handle`, and a `Tick` when
`deadline()` has passed. `handle` returns actions, and notices that the fleet acts on. A slot is used once:
the next worker in the same place gets a new slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal

from ostler.ipc.contract import HURRY_GRACE, HURRY_SIGNAL, QUIT_GRACE
from ostler.ipc.messages import Beat, Blocked, BootFailed, Ready, RetireAsked
from ostler.records import record
from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.duration import format_duration
from ostler.supervisor.fleet.events import Exited, Inspected, Report, SpawnFailed, Started, Tick, Timings
from ostler.supervisor.fleet.hang_detector import HangDetector, Verdict
from ostler.supervisor.fleet.slot_events import (
    BecameReady,
    Leave,
    LeaveNow,
    LeaveSoon,
    Lost,
    Outcome,
    SpawnAt,
    Vacated,
)

FAILED_GRACE = 5.0
"""Seconds that a worker has to exit by itself after it has reported that its boot failed."""
ABORT_GRACE = 2.0
"""Seconds from SIGABRT to SIGKILL for a worker that hangs: time to write its stacks."""
DRAIN_GRACE = 1.0
"""Seconds past the graceful time-out until SIGABRT, and again until SIGKILL.

At the time-out the worker cancels what is left, which takes it half a second at most. Its own deadline, the
time-out plus `WORKER_EXIT_MARGIN` (3 s), is later on purpose: it ends a worker whose arbiter is gone. While
the arbiter lives, SIGABRT comes first, so that the log says why the worker ended and shows its stacks."""


class SlotState(Enum):
    """The states of a worker: EMPTY first, VACATED last."""

    EMPTY = "empty"  # no worker was spawned, and no time is set for it
    BACKOFF = "backoff"  # a worker will be spawned at the deadline
    BOOTING = "booting"  # it was spawned, and loads the application
    READY = "ready"  # it serves
    DRAINING = "draining"  # it was told to finish what is in flight and exit (SIGTERM)
    ABORTED = "aborted"  # it was told to exit now or soon (SIGQUIT, SIGURG, SIGABRT, SIGKILL)
    FAILED = "failed"  # it has reported that it cannot start, and exits by itself
    VACATED = "vacated"  # there is no process, or not any longer


class UnlistedEvent(Exception):
    """An event that cannot happen in this state: a defect of the caller."""


class Slot:
    """One worker.

    Args:
        number: the number of its place.
        generation: the generation of its settings and its code.
        timings: how long each phase of its life may take.
        ticket: the number of its spawn, by which it is found before it has a pid.

    All times are in seconds of the monotonic clock.
    """

    def __init__(self, number: int, generation: int, timings: Timings, ticket: int) -> None:
        self.number = number
        self.generation = generation
        self.timings = timings
        self.ticket = ticket
        self.state = SlotState.EMPTY
        self.pid: int | None = None
        self.beat: Beat | None = None
        """The last heartbeat."""
        self.blocked_in: str | None = None
        """Where its event loop is blocked; None if it has run since, or the worker could not tell."""
        self.ready_since: float | None = None
        self.retiring: str | None = None
        """Why the worker asked for a successor; None if it has not asked."""
        self.retiring_since = 0.0
        self.may_import = False
        """Whether it was allowed to import the application (--reload only)."""
        self.hurried = False
        """Whether it was ordered to leave soon: no new worker imports the application until it is gone."""
        self._deadline: float | None = None
        """Of every state but READY, whose deadline is the hang detector's."""
        self._hang_detector: HangDetector | None = None
        self._spawned = 0.0
        self._sent: list[str] = []
        """The names of the signals that it was sent."""
        self._grace = 0.0
        """Seconds until the deadline of ABORTED, for the log."""

    def __repr__(self) -> str:
        pid = "" if self.pid is None else f" pid={self.pid}"
        return f"<Slot {self.number}{pid} generation={self.generation} {self.state.value}>"

    @property
    def name(self) -> str:
        """The worker's name in the log."""
        return f"Worker {self.number}" + ("" if self.pid is None else f" (pid {self.pid})")

    def served(self, now: float) -> float:
        """Return the seconds since it became READY; 0 if it never did."""
        return 0.0 if self.ready_since is None else now - self.ready_since

    def healthy(self, now: float) -> bool:
        """Whether it is READY and has not been silent for half of its healthcheck time-out."""
        return self.state is SlotState.READY and not self._detector().suspicious(now)

    def deadline(self) -> float | None:
        """When to call `handle(Tick(), now)`, if nothing happens before. None: not at all."""
        if self.state is SlotState.READY:
            return self._detector().deadline()
        return self._deadline

    def silent_for(self, now: float) -> float:
        """Return the seconds since the last sign of its event loop; 0 before it was READY."""
        return 0.0 if self._hang_detector is None else self._hang_detector.lasts(now)

    def extend(self, seconds: float) -> None:
        """Extend the deadlines of boot and silence by this time, in which the arbiter did not run."""
        if self.state is SlotState.BOOTING and self._deadline is not None:
            self._deadline += seconds
        if self._hang_detector is not None:
            self._hang_detector.extend(seconds)

    def handle(self, event: object, now: float) -> list[Outcome]:
        """Handle one event, and return actions and notices in the order in which to act on them.

        Raises:
            UnlistedEvent: `TABLE` has no row for this event in this state.
        """
        row = TABLE.get((self.state, type(event)))
        if row is None:
            raise UnlistedEvent(f"{type(event).__name__} for {self!r}")
        before = self.state
        outcomes = row.act(self, event, now)
        if self.state not in row.next:
            raise AssertionError(f"{before.value}, {type(event).__name__}: unlisted next state of {self!r}")
        return outcomes

    def _process(self) -> int:
        if self.pid is None:
            raise UnlistedEvent(f"no process yet: {self!r}")
        return self.pid

    def _move(self, state: SlotState, deadline: float | None = None) -> None:
        self.state = state
        self._deadline = deadline

    # --- from empty to ready ----------------------------------------------------------------------

    def _spawn_at(self, order: SpawnAt, now: float) -> list[Outcome]:
        if order.at > now:
            self._move(SlotState.BACKOFF, order.at)
            return []
        return self._spawn(order, now)

    def _spawn(self, _: SpawnAt | Tick, now: float) -> list[Outcome]:
        self._spawned = now
        self._move(SlotState.BOOTING)
        return [ev.Spawn(self.ticket, self.number, self.generation)]

    def _cancel(self, _: Leave | LeaveSoon | LeaveNow, now: float) -> list[Outcome]:
        self._move(SlotState.VACATED)
        return [Vacated()]

    def _started(self, event: Started, now: float) -> list[Outcome]:
        if self.pid is not None:
            raise UnlistedEvent(f"started twice: {self!r}")
        self.pid = event.pid
        if self.state is SlotState.DRAINING:  # it was told to leave while its spawn was under way
            return self._leave(Leave(), now)
        if self.state is SlotState.ABORTED:
            return self._leave_now(LeaveNow(), now)
        self._deadline = now + self.timings.startup
        return []

    def _spawn_failed(self, event: SpawnFailed, now: float) -> list[Outcome]:
        ordered = self.state is not SlotState.BOOTING
        self._move(SlotState.VACATED)
        if ordered:
            return [Vacated()]
        cause = f"{self.name} could not be spawned: {event.reason}"
        return [Lost("error", cause, cause, failed_start=True), Vacated()]

    def _ready(self, _: Ready, now: float) -> list[Outcome]:
        self._move(SlotState.READY)
        self.ready_since = now
        self._hang_detector = HangDetector(self.timings.healthcheck, now)
        report = Report("info", f"{self.name} is ready after {format_duration(now - self._spawned)}")
        return [report, BecameReady()]

    def _boot_failed(self, event: BootFailed, now: float) -> list[Outcome]:
        self._move(SlotState.FAILED, now + FAILED_GRACE)
        cause = f"{self.name} could not start: {event.reason}"
        return [Lost("error", cause, event.reason, failed_start=True)]

    def _boot_timed_out(self, _: Tick, now: float) -> list[Outcome]:
        reason = f"not ready after {format_duration(now - self._spawned)}"
        cause = f"{self.name} {reason}, aborted"
        lost = Lost("warning", cause, f"{self.name} was {reason}", failed_start=True)
        return [*self._abort(ABORT_GRACE, now), lost]

    # --- ready: heartbeats and silence ------------------------------------------------------------

    def _detector(self) -> HangDetector:
        assert self._hang_detector is not None, f"never ready: {self!r}"
        return self._hang_detector

    def _store_beat(self, beat: Beat, now: float) -> list[Outcome]:
        if self.beat is None or beat.loop != self.beat.loop:
            self.blocked_in = None
        self.beat = beat
        return []

    def _blocked(self, event: Blocked, now: float) -> list[Outcome]:
        # What the stacks tell is the beginning of what the worker itself tells.
        if self.blocked_in is None or not self.blocked_in.startswith(event.where):
            self.blocked_in = event.where
        return []

    def _warning(self, cause: str, consequence: str) -> Outcome:
        """Return the warning of a worker whose stacks follow: they tell its place if it could not itself."""
        if self.blocked_in is None:
            return ev.ReportWithPlace(self._process(), cause, consequence)
        return Report("warning", f"{cause}: {consequence}")

    def _blocked_where(self) -> str:
        """Return the part of a log line that says where the event loop is blocked, if that is known."""
        return "" if self.blocked_in is None else f", blocked in {self.blocked_in}"

    def _beat_received(self, beat: Beat, now: float) -> list[Outcome]:
        detector = self._detector()
        lasted, last = detector.lasts(now), self.beat
        self._store_beat(beat, now)
        if detector.beat_received(last, beat, now):
            return [Report("info", f"{self.name} answers again, it was silent for {format_duration(lasted)}")]
        return []

    def _retire_asked(self, event: RetireAsked, now: float) -> list[Outcome]:
        if self.retiring is not None:
            return []
        self.retiring, self.retiring_since = event.reason, now
        # The reason is a sentence with a full stop, because a plain server logs it as it is.
        reason = event.reason.rstrip(".")
        return [Report("info", f"{self.name} asks for a successor: {reason}; it serves on until then")]

    def _silence_due(self, _: Tick, now: float) -> list[Outcome]:
        detector = self._detector()
        if detector.asked:
            return self._judge(None, now)
        detector.ask(now)
        return [ev.Inspect(self._process())]

    def _inspected(self, event: Inspected, now: float) -> list[Outcome]:
        if not self._detector().asked:  # it has beaten since, or was judged without this answer
            self._detector().excuse(self.beat, event, now)
            return []
        return self._judge(event, now)

    def _judge(self, seen: Inspected | None, now: float) -> list[Outcome]:
        detector = self._detector()
        verdict = detector.judge(self.beat, seen, now)
        said = detector.describe("no evidence to be had" if seen is None else seen.evidence, now)
        said += self._blocked_where()
        if verdict is Verdict.ABORT:
            lost = Lost("error", f"{self.name} {said}: aborted", f"{said}, aborted")
            return [*self._abort(ABORT_GRACE, now), lost]
        if verdict is Verdict.WARN:
            left = format_duration(detector.left(now))
            warning = self._warning(f"{self.name} {said}", f"its stacks follow, abort in {left}")
            return [ev.ShowStack(self._process()), warning]
        return [Report("debug", f"{self.name} {said}: not counted against it")]

    # --- leaving ----------------------------------------------------------------------------------

    def _leave(self, _: Leave, now: float) -> list[Outcome]:
        if self.pid is None:
            self._move(SlotState.DRAINING)
            return []
        self._move(SlotState.DRAINING, now + self.timings.graceful + DRAIN_GRACE)
        self._sent.append("SIGTERM")
        return [ev.Drain(self.pid)]

    def _drain_timed_out(self, _: Tick, now: float) -> list[Outcome]:
        allowed = format_duration(self.timings.graceful + DRAIN_GRACE)
        state = f"still drains {allowed} after SIGTERM{self._blocked_where()}"
        warning = self._warning(f"{self.name} {state}", "its stacks follow, aborted")
        return [warning, *self._abort(DRAIN_GRACE, now)]

    def _leave_now(self, _: LeaveNow, now: float) -> list[Outcome]:
        if self.pid is None:
            self._move(SlotState.ABORTED)
            return []
        self._grace = QUIT_GRACE
        self._move(SlotState.ABORTED, now + QUIT_GRACE)
        self._sent.append("SIGQUIT")
        return [ev.Quit(self.pid)]

    def _leave_soon(self, _: LeaveSoon, now: float) -> list[Outcome]:
        self.hurried = True
        if self.pid is None:
            self._move(SlotState.ABORTED)
            return []
        self._grace = HURRY_GRACE
        self._move(SlotState.ABORTED, now + HURRY_GRACE)
        self._sent.append(HURRY_SIGNAL.name)
        return [ev.Hurry(self.pid)]

    def _shorten(self, order: LeaveSoon | LeaveNow, now: float) -> list[Outcome]:
        self.hurried = self.hurried or isinstance(order, LeaveSoon)
        if self._deadline is not None:
            self._deadline = min(self._deadline, now + QUIT_GRACE)
        return []

    def _abort(self, grace: float, now: float) -> list[Outcome]:
        # SIGABRT makes the worker's faulthandler write its stacks: no ShowStack is needed.
        self._grace = grace
        self._move(SlotState.ABORTED, now + grace)
        self._sent.append("SIGABRT")
        return [ev.Abort(self._process())]

    def _kill(self, _: Tick, now: float) -> list[Outcome]:
        if self.state is SlotState.FAILED:
            why = f"did not exit within {format_duration(FAILED_GRACE)} of its failed start"
        else:
            why = f"did not end within {format_duration(self._grace)} of {self._sent[-1]}"
        # No further deadline: a process that SIGKILL does not end sleeps uninterruptibly in the kernel.
        self._move(SlotState.ABORTED)
        self._sent.append("SIGKILL")
        return [Report("warning", f"{self.name} {why}: killed"), ev.Kill(self._process())]

    def _ignore(self, _: object, now: float) -> list[Outcome]:
        return []

    def _exited(self, event: Exited, now: float) -> list[Outcome]:
        foreign = event.signal is not None and event.signal not in self._sent
        sender = "" if event.signal is None else f" ({'not ' if foreign else ''}sent by ostler)"
        when = (
            "before it was ready"
            if self.ready_since is None
            else f"after serving for {format_duration(self.served(now))}"
        )
        how = f"{event.how}{sender} {when}" + (f", {event.hint}" if event.hint else "")
        lost = self.state in (SlotState.BOOTING, SlotState.READY)
        failed = self.state is SlotState.FAILED
        self._move(SlotState.VACATED)
        if lost:
            return [Lost("warning", f"{self.name} {how}", f"{self.name} {how}"), Vacated()]
        level: Literal["debug", "info", "warning"] = "warning" if foreign else "debug" if failed else "info"
        return [Report(level, f"{self.name} {how}"), Vacated()]


# --- the table --------------------------------------------------------------------------------------


@record
class Row:
    """What a slot does on one event in one state, and the states that this may lead to."""

    act: Callable[[Slot, Any, float], list[Outcome]]
    next: tuple[SlotState, ...]


def _table() -> dict[tuple[SlotState, type], Row]:
    s, row = SlotState, Row
    booting = row(Slot._started, (s.BOOTING,))
    inspecting = (s.READY, s.ABORTED)
    gone = row(Slot._exited, (s.VACATED,))
    table: dict[tuple[SlotState, type], Row] = {
        (s.EMPTY, SpawnAt): row(Slot._spawn_at, (s.BOOTING, s.BACKOFF)),
        (s.BACKOFF, Tick): row(Slot._spawn, (s.BOOTING,)),
        (s.BOOTING, Started): booting,
        (s.BOOTING, SpawnFailed): row(Slot._spawn_failed, (s.VACATED,)),
        (s.BOOTING, Beat): row(Slot._store_beat, (s.BOOTING,)),
        (s.BOOTING, Ready): row(Slot._ready, (s.READY,)),
        (s.BOOTING, BootFailed): row(Slot._boot_failed, (s.FAILED,)),
        (s.BOOTING, Exited): gone,
        (s.BOOTING, Tick): row(Slot._boot_timed_out, (s.ABORTED,)),
        (s.BOOTING, Leave): row(Slot._leave, (s.DRAINING,)),
        (s.READY, Beat): row(Slot._beat_received, (s.READY,)),
        (s.READY, Blocked): row(Slot._blocked, (s.READY,)),
        (s.DRAINING, Blocked): row(Slot._blocked, (s.DRAINING,)),
        (s.READY, RetireAsked): row(Slot._retire_asked, (s.READY,)),
        (s.READY, Tick): row(Slot._silence_due, inspecting),
        (s.READY, Inspected): row(Slot._inspected, inspecting),
        (s.READY, Exited): gone,
        (s.READY, Leave): row(Slot._leave, (s.DRAINING,)),
        (s.DRAINING, Started): row(Slot._started, (s.DRAINING,)),
        (s.DRAINING, Tick): row(Slot._drain_timed_out, (s.ABORTED,)),
        (s.FAILED, Tick): row(Slot._kill, (s.ABORTED,)),
        (s.FAILED, Beat): row(Slot._store_beat, (s.FAILED,)),
        (s.FAILED, Exited): gone,
        (s.ABORTED, Started): row(Slot._started, (s.ABORTED,)),
        (s.ABORTED, Tick): row(Slot._kill, (s.ABORTED,)),
        (s.ABORTED, LeaveSoon): row(Slot._shorten, (s.ABORTED,)),
        (s.ABORTED, LeaveNow): row(Slot._shorten, (s.ABORTED,)),
    }
    for state in (s.EMPTY, s.BACKOFF):
        for order in (Leave, LeaveSoon, LeaveNow):
            table[state, order] = row(Slot._cancel, (s.VACATED,))
    for state in (s.BOOTING, s.READY, s.FAILED, s.DRAINING):
        table[state, LeaveSoon] = row(Slot._leave_soon, (s.ABORTED,))
        table[state, LeaveNow] = row(Slot._leave_now, (s.ABORTED,))
    for leaving in (s.DRAINING, s.ABORTED):
        table[leaving, SpawnFailed] = row(Slot._spawn_failed, (s.VACATED,))
        table[leaving, Exited] = gone
        table[leaving, Beat] = row(Slot._store_beat, (leaving,))
    for state in (s.BOOTING, s.READY, s.FAILED, s.DRAINING, s.ABORTED):
        # Late, or sent twice, for example by a process that the application has forked: ignored.
        for message in (Ready, BootFailed, RetireAsked, Blocked, Inspected):
            table.setdefault((state, message), row(Slot._ignore, (state,)))
    return table


TABLE: Mapping[tuple[SlotState, type], Row] = MappingProxyType(_table())
"""Every (state, event) that can happen. A pair that is not listed raises UnlistedEvent."""
