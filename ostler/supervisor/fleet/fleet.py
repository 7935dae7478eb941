"""Decides about all workers: start, respawn, roll, recycle, reload, scale and stop. Pure.

Theory of operation. The arbiter calls `handle(event, now)` for each event, and carries out the actions that
are returned, in their order. It calls `handle(Tick(), now)` when `deadline()` has passed. Nothing in here
knows of processes, signals or clocks. These state machines run, each in a module of its own:

- `slot`: the life of one worker, from its spawn until its process is reaped; a table of (state, event). The
  slot of a READY worker asks its `hang_detector` whether the event loop is silent by its own fault.
- `places`: N numbered places. Each has one tenant. A worker that leaves is in no place from that moment on.
- `roll`: rolling restarts and recycling. One place at a time gets a successor, which takes the place over.
- `reload`: a change of the code (--reload). All workers leave, one worker tries the code, the others follow.
- here: the first boot, the size of the fleet, and the stop, which is over when the last process is reaped.

`Fleet` drives the others, and none of them calls it. It passes an event of one worker to that worker's slot.
The slot returns actions and notices (`slot_events`); for each notice the fleet asks `reload`, `roll` or
`places` what follows. These give their orders to slots through `places`, and return the actions.

What must never happen:

- More than N + 1 workers READY or BOOTING: each place has one tenant, and one place at most has a successor.
- A serving worker is told to leave for a successor that is not READY, or whose generation is not proven: an
  unproven generation never costs a serving worker. Only a reload may: no request is answered by old code.
- A generation that failed before it was proven is spawned again.
- A worker is spawned before its back-off is over, except by an order of the operator.
- A worker imports the application while old code still runs (--reload).
- A worker is aborted before its own deadline, or killed without having been told to leave before.
- The fleet finishes while a process is left, or finishes twice.

`tests/supervisor/fleet/test_fleet_exhaustive.py` checks this in every order of events, up to a depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.events import Finish, Reload, Report, Roll, Timings
from ostler.supervisor.fleet.places import Actions, LeaveOrder, Places, workers
from ostler.supervisor.fleet.reload import CodeReload
from ostler.supervisor.fleet.roll import RollingRestart
from ostler.supervisor.fleet.slot import Slot
from ostler.supervisor.fleet.slot_events import BecameReady, Leave, LeaveNow, LeaveSoon, Lost, Vacated


class Fleet:
    """Decides about all workers. See the module's docstring for how.

    Args:
        size: how many workers; at least 1.
        timings: how long each phase of a worker of the first generation may take.
        min_ready: seconds that the first worker of a new generation has to be READY before it takes over.
        reloads: whether workers are started anew when the code changes (--reload). Such a fleet does not end
            when its first boot fails: it waits until the code changes.

    Raises:
        ValueError: from `handle`, an event that names a process or a ticket that the fleet cannot know; a
            defect of the caller.
        UnlistedEvent: from `handle`, an event that cannot happen (see `slot`); a defect of the caller, too.
    """

    def __init__(self, size: int, timings: Timings, *, min_ready: float = 1.0, reloads: bool = False) -> None:
        if size < 1:
            raise ValueError(f"a fleet has at least one worker, not {size}")
        self.size = size
        self._places = Places(timings)
        self._reload = CodeReload(self._places, enabled=reloads)
        self._roll = RollingRestart(self._places, min_ready=min_ready)
        self._newest = 1
        """The newest generation that was asked for."""
        self._ever_ready = False
        self._finish: Finish | None = None
        """How a stop that is under way will end."""
        self._finished = False
        self._awake = 0.0
        """When the last event was handled."""

    def __repr__(self) -> str:
        roll = self._roll.current
        rolling = "" if roll is None else f", rolling to generation {roll.generation}"
        state = f"generation={self.generation}"
        if self.stopping:
            state = "finished" if self._finished else "stopping"
        return f"<Fleet size={self.size} ready={self.ready} {state}{rolling}>"

    # --- what others may know of it ---------------------------------------------------------------

    @property
    def ready(self) -> int:
        """How many workers are READY."""
        return len(self._places.ready())

    @property
    def generation(self) -> int:
        """The newest generation that has proved itself: workers that die are respawned in it."""
        return self._places.generation

    @property
    def stopping(self) -> bool:
        """Whether the fleet ends, by order or because the first boot failed."""
        return self._finish is not None

    @property
    def rolling(self) -> bool:
        """Whether a rolling restart is under way or waits for its turn."""
        return self._roll.current is not None or self._roll.following is not None

    @property
    def absorbs_changes(self) -> bool:
        """Whether a change of the code needs no reload, because no worker has read any of it yet."""
        return not self.stopping and self._reload.absorbs_changes

    def slots(self) -> Iterator[Slot]:
        """Return every worker that lives or is awaited: by place, then those that leave."""
        return self._places.slots()

    def find(self, pid: int) -> Slot | None:
        """Return the slot of this process, or None if it is gone."""
        return self._places.find(pid)

    def responsive_slots(self, now: float) -> set[int]:
        """Return the slots whose workers are READY and were heard lately; if none was, all that are READY."""
        return self._places.responsive(now)

    # --- events in, actions out -------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When to call `handle(Tick(), now)`, if nothing happens before. None: not at all."""
        times = [slot.deadline() for slot in self.slots()]
        times.append(self._roll.deadline())
        # Infinite where a phase may last as long as it likes.
        return min((at for at in times if at is not None and at < inf), default=None)

    def start(self, now: float) -> Actions:
        """Begin the first boot: all places at once, or the scout alone if the fleet reloads."""
        if len(self._places):
            raise ValueError("started twice")
        self._awake = now
        self._places.open_first(self.size)
        if self._reload.enabled:
            return self._reload.send_scout(now)
        return self._places.spawn_tenants(list(self._places), now)

    def handle(self, event: ev.Event, now: float) -> Actions:
        """Take in one event, and return the actions that follow, in the order in which to carry them out.

        Args:
            event: what has happened.
            now: when it is handled, in seconds of the monotonic clock.
        """
        if self._finished:
            return []
        self._excuse_lateness(now)
        actions = self._dispatch(event, now)
        if not self.stopping:
            actions += self._roll.proceed(now) + self._reload.allow_imports()
        elif not self._places.leaving and self._finish is not None:
            self._finished = True
            actions.append(self._finish)
        return actions

    def _excuse_lateness(self, now: float) -> None:
        """Extend deadlines by the time in which the arbiter itself was late (suspended, or starved)."""
        # The arbiter was awake at the last event. Only what lies after that counts, so that no second is
        # excused twice.
        due = self.deadline()
        late = 0.0 if due is None else now - max(due, self._awake)
        if late > 0:
            for slot in self.slots():
                slot.extend(late)
        self._awake = now

    def _dispatch(self, event: ev.Event, now: float) -> Actions:
        match event:
            case ev.Started() | ev.SpawnFailed():
                return self._deliver(self._places.awaiting(event), event, now)
            case ev.MessageReceived(pid=pid, message=message):
                # None: what a worker wrote before its end was read after it.
                sender = self.find(pid)
                return [] if sender is None else self._deliver(sender, message, now)
            case ev.Inspected(pid=pid):
                inspected = self.find(pid)
                return [] if inspected is None else self._deliver(inspected, event, now)
            case ev.Exited(pid=pid):
                gone = self.find(pid)
                if gone is None:
                    raise ValueError(f"no worker has pid {pid}")
                return self._deliver(gone, event, now)
            case ev.Tick():
                return self._tick(now)
            case Roll():
                return self._request_roll(event, now)
            case Reload():
                return self._request_reload(event, now)
            case ev.Resize(by=by):
                return self._resize(by, now)
            case ev.Stop():
                return self._stop(Finish(0), Leave(), now)
            case ev.StopSoon():
                return self._stop(Finish(0), LeaveSoon(), now)
            case ev.StopNow():
                return self._stop(Finish(0), LeaveNow(), now)

    def _tick(self, now: float) -> Actions:
        actions = self._roll.prove(now)  # first: what is spawned from here on is of the newest generation
        for slot in list(self.slots()):
            # Each deadline is read only now: what was done for one slot may have changed another.
            due = slot.deadline()
            if due is not None and due <= now:
                actions += self._deliver(slot, ev.Tick(), now)
        return actions

    # --- events of one worker ---------------------------------------------------------------------

    def _deliver(self, slot: Slot, event: object, now: float) -> Actions:
        """Let a slot handle an event, and act on its notices where they stand among its actions."""
        actions: Actions = []
        for outcome in slot.handle(event, now):
            match outcome:
                case BecameReady():
                    actions += self._became_ready(slot, now)
                case Lost():
                    actions += self._lost(slot, outcome, now)
                case Vacated():
                    self._places.forget(slot)
                case _:
                    actions.append(outcome)
        return actions

    def _became_ready(self, slot: Slot, now: float) -> Actions:
        self._ever_ready = True
        if self._reload.scouts(slot):
            return self._reload.proven(now)
        return self._roll.successor_ready(self._places[slot.number], slot, now)

    def _lost(self, slot: Slot, lost: Lost, now: float) -> Actions:
        place = self._places.mark_lost(slot)
        if self._reload.scouts(slot) and slot.pid is not None:
            return self._reload.hold(place, lost)
        if not self._ever_ready and not self._reload.enabled:
            self._places.remove(slot.number)
            report = Report(lost.level, f"{lost.cause}: no worker has ever been ready, ostler stops")
            return [report, *self._stop(Finish(3, lost.reason), Leave(), now)]
        if slot is place.tenant:
            return self._places.respawn(place, lost, now)
        return self._roll.successor_lost(place, lost, now)

    # --- orders about all workers -----------------------------------------------------------------

    def _request_roll(self, roll: Roll, now: float) -> Actions:
        if self.stopping:
            text = f"Rolling restart to generation {roll.generation} ignored: ostler stops"
            return [Report("warning", text)]
        if self._reload.unproven:
            why = f"No worker serves: all begin anew with generation {roll.generation}"
            return self._request_reload(Reload(roll.generation, roll.timings, why), now)
        self._advance(roll.generation)
        return self._roll.request(roll)

    def _request_reload(self, reload: Reload, now: float) -> Actions:
        if self.stopping:
            return [Report("info", "Files have changed: ignored, ostler stops")]
        self._advance(reload.generation)
        self._roll.cancel()
        return self._reload.begin(reload, now)

    def _advance(self, generation: int) -> None:
        if generation <= self._newest:
            raise ValueError(f"generation {generation} is not newer than {self._newest}")
        self._newest = generation

    def _resize(self, by: int, now: float) -> Actions:
        if self.stopping:
            return [Report("warning", "Scaling ignored: ostler stops")]
        before, self.size = self.size, max(self.size + by, 1)
        if by == 0:
            return []
        actions: Actions = []
        for _ in range(before, self.size):
            unproven = self._reload.unproven
            place = self._places.open()
            if not unproven:
                actions += self._places.spawn(place.tenant, now)
        for _ in range(self.size, before):
            actions += self._places.close_one(now)
        text = f"Scaled from {workers(before)} to {self.size}" if self.size != before else "Not scaled"
        if before + by < 1:
            text += ": never below one"
        return [Report("info", text), *actions]

    def _stop(self, finish: Finish, order: LeaveOrder, now: float) -> Actions:
        actions: Actions = []
        if self._finish is None or not isinstance(order, Leave):
            going = sum(slot.pid is not None for slot in self.slots())
            how = "to quit at once" if isinstance(order, LeaveNow) else "to drain"
            how = "to leave" if isinstance(order, LeaveSoon) else how
            actions.append(Report("info", f"Stopping: {workers(going)} {how}"))
        self._finish = self._finish or finish
        self._roll.cancel()
        return actions + self._places.close_all(order, now)
