"""Who is there: places with their tenants and successors, and whoever has left its place. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ostler.supervisor import events as ev
from ostler.supervisor.events import Timings
from ostler.supervisor.place import Place
from ostler.supervisor.slot import Slot, State

INATTENTIVE = 2.5
"""Seconds of silence after which a worker gets no new connections. It beats about once a second."""


class Crew:
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

    def attentive(self, now: float) -> set[int]:
        """The slots whose workers are READY and heard of lately; if of none, all that are READY."""
        ready = [
            slot for place in self._places.values() for slot in place.slots() if slot.state is State.READY
        ]
        heard = {slot.number for slot in ready if slot.silent(now) < INATTENTIVE}
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
