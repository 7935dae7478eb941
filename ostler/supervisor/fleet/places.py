"""The fleet's numbered places: their tenants, their successors, and the workers that leave. Pure.

An open place always has one tenant: a worker that serves, boots, or waits for its next try. It may also have
a successor, which boots beside the tenant. A worker that was told to leave, or was lost, is in no place any
more: it is among the leaving until its process has been reaped.

`Places` keeps these lists and gives slots their orders. When a worker has to leave, and when a successor is
spawned, is decided by the users of this module: `reload`, `roll` and `fleet`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.duration import format_duration
from ostler.supervisor.fleet.events import Report, Timings
from ostler.supervisor.fleet.slot import Slot, SlotState
from ostler.supervisor.fleet.slot_events import (
    BecameReady,
    Leave,
    LeaveNow,
    LeaveSoon,
    Lost,
    SpawnAt,
    Vacated,
)

STABLE_RUN = 10.0
"""Seconds of serving that end a row of crashes."""
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 30.0
UNRESPONSIVE = 2.5
"""Seconds of silence after which a worker gets no new connections. A worker beats about once a second."""

Actions: TypeAlias = list[ev.Action]
LeaveOrder: TypeAlias = Leave | LeaveSoon | LeaveNow


@dataclass
class Place:
    """One of the fleet's N places."""

    number: int
    tenant: Slot
    successor: Slot | None = None
    crashes: int = 0
    """Tenants that were lost in a row, none but the first after a stable run; see `Places.respawn`."""
    misses: int = 0
    """Successors that failed in a row while the tenant served on."""
    retry_at: float = 0.0
    """No successor is spawned before this time."""

    def slots(self) -> list[Slot]:
        """Return the tenant and, if there is one, the successor."""
        return [self.tenant] if self.successor is None else [self.tenant, self.successor]

    def promote(self) -> Slot:
        """Make the successor the tenant, and return the previous tenant."""
        assert self.successor is not None, f"place {self.number} has no successor"
        old, self.tenant, self.successor, self.misses = self.tenant, self.successor, None, 0
        return old


class Places:
    """All workers that live or are awaited, and what new ones are spawned with.

    Args:
        timings: how long each phase of a worker of the first generation may take.
    """

    def __init__(self, timings: Timings) -> None:
        self.generation = 1
        """The newest generation that has proved itself: tenants are respawned in it."""
        self.timings = timings
        self.leaving: list[Slot] = []
        """Workers that are in no place any more, in the order in which they left."""
        self._places: dict[int, Place] = {}
        self._tickets = 0
        self._first_tickets = 0

    def __repr__(self) -> str:
        return f"<Places {list(self._places)}, {len(self.leaving)} leaving>"

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places.values())

    def __getitem__(self, number: int) -> Place:
        return self._places[number]

    # --- which workers there are ------------------------------------------------------------------

    def slots(self) -> Iterator[Slot]:
        """Yield every worker that lives or is awaited: by place, then those that leave."""
        for place in self:
            yield from place.slots()
        yield from self.leaving

    def find(self, pid: int) -> Slot | None:
        """Return the slot of this process, or None if it is gone."""
        return next((slot for slot in self.slots() if slot.pid == pid), None)

    def awaiting(self, event: ev.Started | ev.SpawnFailed) -> Slot:
        """Return the slot whose spawn this event answers.

        Raises:
            ValueError: no spawn is awaited under its ticket, or there is a worker with its pid already.
        """
        for slot in self.slots():
            if slot.ticket == event.ticket and slot.pid is None:
                if isinstance(event, ev.Started) and self.find(event.pid) is not None:
                    raise ValueError(f"there is a worker with pid {event.pid} already")
                return slot
        raise ValueError(f"no spawn is awaited under ticket {event.ticket}")

    def ready(self) -> list[Slot]:
        """Return the workers that are READY."""
        return [slot for slot in self.slots() if slot.state is SlotState.READY]

    def responsive(self, now: float) -> set[int]:
        """Return the numbers of the places with a READY worker that was heard lately; if none, with any."""
        ready = self.ready()
        heard = {slot.number for slot in ready if slot.silent_for(now) < UNRESPONSIVE}
        return heard or {slot.number for slot in ready}

    def with_successor(self) -> Place | None:
        """Return the place that has a successor: there is one at most."""
        return next((place for place in self if place.successor is not None), None)

    def empty(self) -> list[Place]:
        """Return the places whose tenant has not been spawned, and waits for no time at which it will be."""
        return [place for place in self if place.tenant.state is SlotState.EMPTY]

    def first_boot(self) -> bool:
        """Whether one of the first N workers still boots."""
        first = (place.tenant for place in self if place.tenant.ticket <= self._first_tickets)
        return any(slot.state is SlotState.BOOTING for slot in first)

    def serving(self, on: str = "") -> str:
        """Return how many workers of which generations serve, for the log."""
        ready = self.ready()
        if not ready:
            return "no worker is ready at present"
        generations = " and ".join(map(str, sorted({slot.generation for slot in ready})))
        verb = "serves" if len(ready) == 1 else "serve"
        return f"{workers(len(ready))} of generation {generations} {verb}{on}"

    # --- opening and closing ----------------------------------------------------------------------

    def open_first(self, size: int) -> None:
        """Open the first N places, EMPTY as yet."""
        self._first_tickets = size
        for _ in range(size):
            self.open()

    def open(self) -> Place:
        """Open the place with the lowest free number, EMPTY as yet."""
        number = next(n for n in range(1, len(self) + 2) if n not in self._places)
        place = Place(number, self.new_slot(number))
        self._places = dict(sorted({**self._places, number: place}.items()))
        return place

    def close_one(self, now: float) -> Actions:
        """Close a place: one without a READY worker if there is any, otherwise the highest number."""
        idle = {SlotState.EMPTY: 3, SlotState.BACKOFF: 2, SlotState.BOOTING: 1}
        last = max(self, key=lambda place: (idle.get(place.tenant.state, 0), place.number))
        del self._places[last.number]
        return self._clear(last, Leave(), now)

    def close_all(self, order: LeaveOrder, now: float) -> Actions:
        """Close every place; those that leave already get an order that is more urgent, too."""
        actions = self._urge(order, now)
        places, self._places = self._places, {}
        for place in places.values():
            actions += self._clear(place, order, now)
        return actions

    def renew_all(self, order: LeaveOrder, now: float) -> Actions:
        """Tell every worker to leave, and put a new tenant into each place, EMPTY as yet."""
        actions = self._urge(order, now)
        for number, place in self._places.items():
            actions += self._clear(place, order, now)
            self._places[number] = Place(number, self.new_slot(number))
        return actions

    def remove(self, number: int) -> None:
        """Close the place of a worker that was lost."""
        del self._places[number]

    # --- orders to slots --------------------------------------------------------------------------

    def new_slot(self, number: int, roll: ev.Roll | None = None) -> Slot:
        """Return a slot for this place: of the proven generation, or of the one that is rolled out."""
        self._tickets += 1
        if roll is None:
            return Slot(number, self.generation, self.timings, self._tickets)
        return Slot(number, roll.generation, roll.timings, self._tickets)

    def spawn(self, slot: Slot, now: float, *, delay: float = 0.0) -> Actions:
        """Spawn the worker of an EMPTY slot, after a delay in seconds."""
        return self._order(slot, SpawnAt(now + delay), now)

    def spawn_tenants(self, places: list[Place], now: float) -> Actions:
        """Spawn the tenants of these places at once."""
        return [action for place in places for action in self.spawn(place.tenant, now)]

    def tell_to_leave(self, slot: Slot, order: LeaveOrder, now: float) -> Actions:
        """Tell a worker to leave; the caller has taken it out of its place."""
        self.leaving.append(slot)
        return self._order(slot, order, now)

    def mark_lost(self, slot: Slot) -> Place:
        """Count a worker that was lost among those that leave; return its place, which the caller fills."""
        self.leaving.append(slot)
        return self._places[slot.number]

    def forget(self, slot: Slot) -> None:
        """Remove a worker whose process has been reaped from those that leave."""
        self.leaving.remove(slot)

    def take_over(self, place: Place, now: float) -> Actions:
        """Let the successor, which is READY, take the place, and drain the tenant before it."""
        old = place.promote()
        if old.served(now) >= STABLE_RUN:
            place.crashes = 0
        report: Actions = []
        if old.pid is not None:
            report = [Report("info", f"{old.name} drains, {place.tenant.name.lower()} has taken its place")]
        return report + self.tell_to_leave(old, Leave(), now)

    def replace_tenant(self, place: Place, now: float) -> Actions:
        """Let a new tenant, spawned at once, take the place of a tenant that waits for its next try."""
        old, place.tenant = place.tenant, self.new_slot(place.number)
        return self.tell_to_leave(old, Leave(), now) + self.spawn(place.tenant, now)

    def respawn(self, place: Place, lost: Lost, now: float) -> Actions:
        """Fill the place of a lost tenant: at once after the first crash in a row, else after a back-off.

        A failed start counts as the second at least: the next one would most likely fail, too.
        """
        row = 0 if place.tenant.served(now) >= STABLE_RUN else place.crashes
        place.crashes = max(row, int(lost.failed_start)) + 1
        if place.successor is not None and place.successor.generation == self.generation:
            place.promote()
            return [Report(lost.level, f"{lost.cause}: its successor starts already")]
        delay = backoff(place.crashes - 1) if place.crashes > 1 else 0.0
        what_next = f"next try in {format_duration(delay)}" if delay else "successor starts now"
        place.tenant = self.new_slot(place.number)
        return [
            Report(lost.level, f"{lost.cause}: {what_next}"),
            *self.spawn(place.tenant, now, delay=delay),
        ]

    def _urge(self, order: LeaveOrder, now: float) -> Actions:
        """Give an order to those that leave already, unless it is only to drain."""
        if isinstance(order, Leave):
            return []
        return [action for slot in list(self.leaving) for action in self._order(slot, order, now)]

    def _clear(self, place: Place, order: LeaveOrder, now: float) -> Actions:
        return [action for slot in place.slots() for action in self.tell_to_leave(slot, order, now)]

    def _order(self, slot: Slot, order: SpawnAt | LeaveOrder, now: float) -> Actions:
        """Give an order to a slot, and forget the slot if that ends it: it has no process."""
        actions: Actions = []
        for outcome in slot.handle(order, now):
            if isinstance(outcome, Vacated):
                self.forget(slot)
            else:
                assert not isinstance(outcome, BecameReady | Lost), f"{outcome} upon {order}"
                actions.append(outcome)
        return actions


def backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: doubling from half a second up to 30."""
    return float(min(BACKOFF_FIRST * 2 ** min(failures - 1, 10), BACKOFF_MOST))


def workers(count: int) -> str:
    """Return a number of workers in words, for the log."""
    return "1 worker" if count == 1 else f"{count} workers"
