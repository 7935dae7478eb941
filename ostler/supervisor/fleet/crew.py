"""Who is there: places with their tenants and successors, and whoever has left its place. Pure.

How an order reaches a slot, and its notices whoever decides, is here; what is decided is above.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypeAlias

from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.events import Timings
from ostler.supervisor.fleet.places import Place
from ostler.supervisor.fleet.slot import Slot, State
from ostler.supervisor.fleet.slot_events import (
    BecameReady,
    Leave,
    LeaveNow,
    LeaveSoon,
    Lost,
    SpawnAt,
    Vacated,
)

UNRESPONSIVE = 2.5
"""Seconds of silence after which a worker gets no new connections. It beats about once a second."""

Actions: TypeAlias = list[ev.Action]


class Crew(ABC):
    """Every worker that lives or is awaited. What becomes of them is for `fleet.Fleet` to decide."""

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}
        self._leaving: list[Slot] = []
        self._tickets = 0

    @property
    def ready(self) -> int:
        """How many workers are READY."""
        return sum(slot.state is State.READY for slot in self.slots())

    def slots(self) -> Iterator[Slot]:
        """Every worker that lives or is awaited: places in order, then those that leave."""
        for place in self._places.values():
            yield from place.slots()
        yield from self._leaving

    def responsive_slots(self, now: float) -> set[int]:
        """The slots whose workers are READY and heard of lately; if of none, all that are READY."""
        ready = [
            slot for place in self._places.values() for slot in place.slots() if slot.state is State.READY
        ]
        heard = {slot.number for slot in ready if slot.silent(now) < UNRESPONSIVE}
        return heard or {slot.number for slot in ready}

    def find(self, pid: int) -> Slot | None:
        """Return the slot of this process, unless it is gone."""
        return next((slot for slot in self.slots() if slot.pid == pid), None)

    def _new_slot(self, number: int, generation: int, timings: Timings) -> Slot:
        self._tickets += 1
        return Slot(number, generation, timings, self._tickets)

    def _awaited(self, event: ev.Started | ev.SpawnFailed, ticket: int) -> Slot:
        for slot in self.slots():
            if slot.ticket == ticket and slot.pid is None:
                if isinstance(event, ev.Started) and self.find(event.pid) is not None:
                    raise ValueError(f"there is a worker with pid {event.pid} already")
                return slot
        raise ValueError(f"no spawn is awaited under ticket {ticket}")

    def _pass(self, slot: Slot, event: object, now: float) -> Actions:
        """Let a slot live through an event, and act on its notices where they stand among its actions."""
        actions: Actions = []
        for outcome in slot.handle(event, now):
            match outcome:
                case BecameReady():
                    actions += self._arrived(slot, now)
                case Lost():
                    actions += self._lost(slot, outcome, now)
                case Vacated():
                    self._leaving.remove(slot)
                case _:
                    actions.append(outcome)
        return actions

    def _fill(self, place: Place, now: float) -> Actions:
        return self._pass(place.tenant, SpawnAt(now), now)

    def _send_off(self, slot: Slot, order: Leave | LeaveSoon | LeaveNow, now: float) -> Actions:
        self._leaving.append(slot)
        return self._pass(slot, order, now)

    def _clear(self, place: Place, order: Leave | LeaveSoon | LeaveNow, now: float) -> Actions:
        return [action for slot in place.slots() for action in self._send_off(slot, order, now)]

    @abstractmethod
    def _arrived(self, slot: Slot, now: float) -> Actions:
        """Decide what follows when a worker gets READY."""

    @abstractmethod
    def _lost(self, slot: Slot, lost: Lost, now: float) -> Actions:
        """Decide what follows when a worker will not serve (any longer) that was meant to."""

    def _surge(self) -> Place | None:
        return next((place for place in self._places.values() if place.successor is not None), None)

    def _serving(self, on: str = "") -> str:
        ready = [slot for slot in self.slots() if slot.state is State.READY]
        if not ready:
            return "no worker is ready at present"
        generations = " and ".join(map(str, sorted({slot.generation for slot in ready})))
        verb = "serves" if len(ready) == 1 else "serve"
        return f"{workers(len(ready))} of generation {generations} {verb}{on}"


def workers(count: int) -> str:
    """Return how many workers, in words."""
    return "1 worker" if count == 1 else f"{count} workers"
