"""N places for workers: started, healed, rolled, scaled, stopped. Pure: events in, actions out.

The bound of N + 1 workers READY or BOOTING is in the structure: each place has one tenant, and at most one
place of the whole fleet has a successor. Whatever drains, was aborted or failed has left its place already.
"""

from __future__ import annotations

from math import inf

from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.crew import Actions, workers
from ostler.supervisor.fleet.duration import format_duration
from ostler.supervisor.fleet.events import Finish, Reload, Report, Roll, Timings
from ostler.supervisor.fleet.places import STABLE_RUN, Place, backoff
from ostler.supervisor.fleet.reload import Reloading
from ostler.supervisor.fleet.slot import Slot, State
from ostler.supervisor.fleet.slot_events import Leave, LeaveNow, LeaveSoon, Lost, SpawnAt


class Fleet(Reloading):
    """Decides about all workers. Feed it each event with the monotonic time at which it was handled.

    Raises ValueError for an event that names a process or ticket that it cannot know, and
    `slot.UnlistedEvent` for one that cannot happen: both are defects of the caller.

    `reloads`: as in development, where code that fails is not given up, but waited for until it changes.
    See `reloading.Reloading`.
    """

    def __init__(self, size: int, timings: Timings, *, settle: float = 1.0, reloads: bool = False) -> None:
        super().__init__(timings, reloads=reloads)
        if size < 1:
            raise ValueError(f"a fleet has at least one worker, not {size}")
        self.size = size
        self._settle = settle
        self._first_tickets = size
        self._ever_ready = False
        self._finish: Finish | None = None
        self._finished = False
        self._awake = 0.0

    def __repr__(self) -> str:
        rolling = "" if self._roll is None else f", rolling to generation {self._roll.generation}"
        state = f"generation={self.generation}"
        if self.stopping:
            state = "finished" if self._finished else "stopping"
        return f"<Fleet size={self.size} ready={self.ready} {state}{rolling}>"

    @property
    def stopping(self) -> bool:
        """Whether it ends, by order or because the first boot failed."""
        return self._finish is not None

    @property
    def rolling(self) -> bool:
        """Whether a rolling restart is under way or waits for its turn."""
        return self._roll is not None or self._next_roll is not None

    def deadline(self) -> float | None:
        """When to call `handle(Tick(), now)`, if nothing happens before. None: not at all."""
        times = [at for slot in self.slots() if (at := slot.deadline()) is not None]
        if (settled := self._settles_at()) is not None:
            times.append(settled)
        if self._surge() is None:
            times += [place.retry_at for place in self._waiting()]
        # Infinite where a phase may last as long as it likes.
        return min((at for at in times if at < inf), default=None)

    def start(self, now: float) -> Actions:
        """Begin the first boot: every place at once."""
        if self._places:
            raise ValueError("started twice")
        self._awake = now
        for number in range(1, self.size + 1):
            self._places[number] = Place(number, self._new_slot(number, self.generation, self._timings))
        if self._reloads:
            return self._try_code(now)
        return [action for place in self._places.values() for action in self._fill(place, now)]

    def handle(self, event: ev.Event, now: float) -> Actions:
        """Take in one event and return what is to be done, in this order."""
        if self._finished:
            return []
        self._forgive(now)
        actions = self._take(event, now)
        if not self.stopping:
            actions += self._proceed(now)
        elif not self._leaving and self._finish is not None:
            self._finished = True
            actions.append(self._finish)
        return actions

    def _forgive(self, now: float) -> None:
        # The arbiter's own lateness is nobody's silence. It was awake at the last event, so that only what
        # lies after that counts, and no second is forgiven twice.
        due = self.deadline()
        late = 0.0 if due is None else now - max(due, self._awake)
        if late > 0:
            for slot in self.slots():
                slot.forgive(late)
        self._awake = now

    def _take(self, event: ev.Event, now: float) -> Actions:
        match event:
            case ev.Started(ticket=ticket) | ev.SpawnFailed(ticket=ticket):
                return self._pass(self._awaited(event, ticket), event, now)
            case ev.MessageReceived(pid=pid, message=message):
                teller = self.find(pid)  # None: what a worker wrote before its end, read after it
                return [] if teller is None else self._pass(teller, message, now)
            case ev.Inspected(pid=pid):
                inspected = self.find(pid)
                return [] if inspected is None else self._pass(inspected, event, now)
            case ev.Exited(pid=pid):
                gone = self.find(pid)
                if gone is None:
                    raise ValueError(f"no worker has pid {pid}")
                return self._pass(gone, event, now)
            case ev.Tick():
                return self._tick(now)
            case Roll():
                return self._ask_roll(event, now)
            case Reload():
                return self._reload(event, now)
            case ev.Resize(by=by):
                return self._resize(by, now)
            case ev.Stop():
                return self._stop(Finish(0), Leave(), now)
            case ev.StopSoon():
                return self._stop(Finish(0), LeaveSoon(), now)
            case ev.StopNow():
                return self._stop(Finish(0), LeaveNow(), now)

    def _tick(self, now: float) -> Actions:
        actions: Actions = []
        settled = self._settles_at()
        if settled is not None and settled <= now:  # first: what is spawned now is of the newest generation
            actions += self._prove(now)
        for slot in list(self.slots()):
            # Asked again for each: what happens to one may have changed another.
            due = slot.deadline()
            if due is not None and due <= now:
                actions += self._pass(slot, ev.Tick(), now)
        return actions

    # --- a worker's arrival and loss --------------------------------------------------------------

    def _open_place(self, now: float) -> Actions:
        number = next(n for n in range(1, len(self._places) + 2) if n not in self._places)
        place = Place(number, self._new_slot(number, self.generation, self._timings))
        unproven = self._unproven
        self._places = dict(sorted({**self._places, number: place}.items()))
        return [] if unproven else self._fill(place, now)

    def _arrived(self, slot: Slot, now: float) -> Actions:
        self._ever_ready = True
        place = self._places[slot.number]
        if slot.number == self._scout:
            return self._proven(now)
        if slot is place.successor and slot.generation == self.generation:
            return self._take_over(place, now)
        return []

    def _take_over(self, place: Place, now: float) -> Actions:
        old = place.promote(now)
        report: Actions = []
        if old.pid is not None:
            report = [Report("info", f"{old.name} drains, {place.tenant.name.lower()} has taken its place")]
        return report + self._send_off(old, Leave(), now)

    def _lost(self, slot: Slot, lost: Lost, now: float) -> Actions:
        place = self._places[slot.number]
        self._leaving.append(slot)
        if slot.number == self._scout and slot.pid is not None:
            return self._hold(place, lost)
        if not self._ever_ready and not self._reloads:
            del self._places[slot.number]
            report = Report(lost.level, f"{lost.cause}: no worker has ever been ready, ostler stops")
            return [report, *self._stop(Finish(3, lost.reason), Leave(), now)]
        if slot is place.tenant:
            return self._refill(place, lost, now)
        place.successor = None
        if slot.generation != self.generation:
            return self._give_up(lost)
        place.misses += 1
        delay = backoff(place.misses)
        place.retry_at = now + delay
        stays = f"{place.tenant.name.lower()} stays until then"
        return [Report(lost.level, f"{lost.cause}: next try in {format_duration(delay)}, {stays}")]

    def _refill(self, place: Place, lost: Lost, now: float) -> Actions:
        healthy = place.tenant.served(now) >= STABLE_RUN
        place.crashes = 0 if healthy else place.crashes + 1
        if place.successor is not None and place.successor.generation == self.generation:
            place.promote(now)
            return [Report(lost.level, f"{lost.cause}: its successor starts already")]
        delay = 0.0 if healthy else backoff(place.crashes)
        what_next = "successor starts now" if healthy else f"next try in {format_duration(delay)}"
        place.tenant = self._new_slot(place.number, self.generation, self._timings)
        return [
            Report(lost.level, f"{lost.cause}: {what_next}"),
            *self._pass(place.tenant, SpawnAt(now + delay), now),
        ]

    # --- rolling and retiring: one successor at a time --------------------------------------------

    def _ask_roll(self, roll: Roll, now: float) -> Actions:
        if self.stopping:
            text = f"Rolling restart to generation {roll.generation} ignored: ostler stops"
            return [Report("warning", text)]
        if roll.generation <= self._newest:
            raise ValueError(f"generation {roll.generation} is not newer than {self._newest}")
        if self._unproven:
            why = f"No worker serves: all begin anew with generation {roll.generation}"
            return self._reload(Reload(roll.generation, roll.timings, why), now)
        self._newest = roll.generation
        self._next_roll = roll
        if self._roll is None and not self._first_boot():
            return []
        first = "the first boot" if self._roll is None else f"the one to generation {self._roll.generation}"
        return [Report("info", f"Rolling restart to generation {roll.generation} follows after {first}")]

    def _first_boot(self) -> bool:
        """Whether one of the first N workers is still on its way."""
        first = (p.tenant for p in self._places.values() if p.tenant.ticket <= self._first_tickets)
        return any(slot.state is State.BOOTING for slot in first)

    def _settles_at(self) -> float | None:
        """When the first worker of an unproven generation will have proved it; None if none is READY."""
        place = self._surge()
        if place is None or place.successor is None or place.successor.generation == self.generation:
            return None
        since = place.successor.ready_since
        return None if since is None else since + self._settle

    def _waiting(self) -> list[Place]:
        """Places that want a successor, in the order in which they get it."""
        # Without a roll: what one that ended incomplete has left behind of an older generation.
        newest = self.generation if self._roll is None else self._roll.generation
        places = sorted(self._places.values(), key=Place.rank)
        rolled = [p for p in places if p.tenant.generation != newest]
        retired = [p for p in places if p.tenant.retiring is not None and p not in rolled]
        # First come, first served: one that retires again and again must not keep another one waiting.
        return rolled + sorted(retired, key=lambda p: p.tenant.retiring_since)

    def _proceed(self, now: float) -> Actions:
        """Do what has become possible: end a roll, begin the next, spawn the next successor."""
        actions: Actions = []
        if self._roll and all(p.tenant.generation == self._roll.generation for p in self._places.values()):
            text = f"Rolling restart to generation {self._roll.generation} complete: {self._serving()}"
            actions.append(Report("info", text))
            self._roll = None
        if self._next_roll and not self._first_boot() and (self._roll is None or self._stuck(now)):
            actions += self._begin_roll(self._next_roll, now)
        if self._surge() is None:
            for place in [place for place in self._waiting() if place.retry_at <= now][:1]:
                actions += self._spawn_successor(place, now)
        return actions + self._admit()

    def _stuck(self, now: float) -> bool:
        """Whether whatever the roll has yet to replace waits for its next try."""
        return self._surge() is None and all(place.retry_at > now for place in self._waiting())

    def _begin_roll(self, roll: Roll, now: float) -> Actions:
        actions: Actions = []
        if self._roll is not None:
            text = f"Rolling restart to generation {self._roll.generation} ends incomplete for a newer one"
            actions.append(Report("warning", text))
        self._roll, self._next_roll = roll, None
        text = f"Rolling restart to generation {roll.generation} begins: {workers(self.size)}, one by one"
        actions.append(Report("info", text))
        for place in self._places.values():
            place.misses, place.retry_at = 0, 0.0  # an operator's order is not a next try
            if place.successor is not None:  # of a worker that retires: the roll replaces that one anyway
                successor, place.successor = place.successor, None
                actions += self._send_off(successor, Leave(), now)
        return actions

    def _spawn_successor(self, place: Place, now: float) -> Actions:
        if self._roll and place.tenant.generation != self._roll.generation:
            slot = self._new_slot(place.number, self._roll.generation, self._roll.timings)
        else:
            slot = self._new_slot(place.number, self.generation, self._timings)
        place.successor = slot
        return self._pass(slot, SpawnAt(now), now)

    def _prove(self, now: float) -> Actions:
        place, roll = self._surge(), self._roll
        assert place is not None
        assert roll is not None
        self.generation, self._timings = roll.generation, roll.timings
        actions: Actions = [Report("debug", f"Generation {roll.generation} has proved itself")]
        actions += self._take_over(place, now)
        for place in self._places.values():
            if place.tenant.state is State.BACKOFF:  # it serves nobody: no need of a surge
                old, place.tenant = place.tenant, self._new_slot(place.number, roll.generation, roll.timings)
                actions += self._send_off(old, Leave(), now)
                actions += self._pass(place.tenant, SpawnAt(now), now)
        return actions

    def _give_up(self, lost: Lost) -> Actions:
        assert self._roll is not None
        generation, self._roll = self._roll.generation, None
        cause = lost.cause[0].lower() + lost.cause[1:]
        text = f"Rolling restart to generation {generation} given up: {cause}; {self._serving(' on')}"
        return [Report("error", text)]

    # --- scaling and stopping ---------------------------------------------------------------------

    def _resize(self, by: int, now: float) -> Actions:
        if self.stopping:
            return [Report("warning", "Scaling ignored: ostler stops")]
        before, self.size = self.size, max(self.size + by, 1)
        if by == 0:
            return []
        actions: Actions = []
        for _ in range(before, self.size):
            actions += self._open_place(now)
        for _ in range(self.size, before):
            actions += self._close_place(now)
        text = f"Scaled from {workers(before)} to {self.size}" if self.size != before else "Not scaled"
        if before + by < 1:
            text += ": never below one"
        return [Report("info", text), *actions]

    def _close_place(self, now: float) -> Actions:
        idle = {State.EMPTY: 3, State.BACKOFF: 2, State.BOOTING: 1}
        last = max(self._places.values(), key=lambda p: (idle.get(p.tenant.state, 0), p.number))
        del self._places[last.number]
        return self._clear(last, Leave(), now)

    def _stop(self, finish: Finish, order: Leave | LeaveSoon | LeaveNow, now: float) -> Actions:
        actions: Actions = []
        if self._finish is None or not isinstance(order, Leave):
            going = sum(slot.pid is not None for slot in self.slots())
            how = "to quit at once" if isinstance(order, LeaveNow) else "to drain"
            how = "to leave" if isinstance(order, LeaveSoon) else how
            actions.append(Report("info", f"Stopping: {workers(going)} {how}"))
        self._finish = self._finish or finish
        self._roll = self._next_roll = None
        if not isinstance(order, Leave):
            for slot in list(self._leaving):
                actions += self._pass(slot, order, now)
        places, self._places = self._places, {}
        for place in places.values():
            actions += self._clear(place, order, now)
        return actions
