"""How a fleet reloads: nobody is answered by old code, and one worker tries the new. Pure."""

from __future__ import annotations

from abc import abstractmethod

from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.crew import Actions, Crew
from ostler.supervisor.fleet.events import Reload, Report, Roll, Timings
from ostler.supervisor.fleet.places import Place
from ostler.supervisor.fleet.slot import State
from ostler.supervisor.fleet.slot_events import LeaveSoon, Lost


class Reloading(Crew):
    """A crew of which every member has to go when the code changes.

    New code is tried by one worker (the scout); the other places are EMPTY until that one is READY, and all
    of them are when it fails, until the code changes again.
    """

    def __init__(self, timings: Timings, *, reloads: bool) -> None:
        super().__init__()
        self.generation = 1
        """The newest that proved itself: respawned workers are of this one."""
        self._timings = timings
        self._reloads = reloads
        self._scout: int | None = None
        self._roll: Roll | None = None
        self._next_roll: Roll | None = None
        self._newest = 1

    @property
    @abstractmethod
    def stopping(self) -> bool:
        """Whether the fleet ends."""

    @property
    def _unproven(self) -> bool:
        """Whether nobody serves, until the code has changed or its scout is READY."""
        waiting = any(place.tenant.state is State.EMPTY for place in self._places.values())
        return self._scout is not None or waiting

    @property
    def absorbs_changes(self) -> bool:
        """Whether a change of the code is none: whoever is to try it has not read any of it yet."""
        if self._scout is None or self.stopping:
            return False
        return not self._places[self._scout].tenant.admitted

    def _reload(self, reload: Reload, now: float) -> Actions:
        if self.stopping:
            return [Report("info", "Files have changed: ignored, ostler stops")]
        if reload.generation <= self._newest:
            raise ValueError(f"generation {reload.generation} is not newer than {self._newest}")
        self._newest = self.generation = reload.generation
        self._timings = reload.timings
        self._roll = self._next_roll = None
        actions: Actions = []
        for slot in list(self._leaving):  # one that drains for a roll still answers
            actions += self._pass(slot, LeaveSoon(), now)
        for number, place in self._places.items():
            actions += self._clear(place, LeaveSoon(), now)
            self._places[number] = Place(number, self._new_slot(number, self.generation, self._timings))
        # Only after those orders: whoever has read this line is answered by the new code.
        actions.append(Report("warning", reload.why))
        return actions + self._try_code(now)

    def _try_code(self, now: float) -> Actions:
        """Let one worker try the code, so that what is wrong with it is said once."""
        scout = next(iter(self._places.values()))
        self._scout = scout.number
        return self._fill(scout, now)

    def _proven(self, now: float) -> Actions:
        self._scout = None
        waiting = [place for place in self._places.values() if place.tenant.state is State.EMPTY]
        return [action for place in waiting for action in self._fill(place, now)]

    def _hold(self, place: Place, lost: Lost) -> Actions:
        self._scout = None
        place.tenant = self._new_slot(place.number, self.generation, self._timings)
        return [Report(lost.level, f"{lost.cause}: waiting for a change of its files")]

    def _admit(self) -> Actions:
        """Let newcomers import the application once the old code has gone, with its ports and locks."""
        if not self._reloads or any(slot.hurried for slot in self._leaving):
            return []
        actions: Actions = []
        for slot in self.slots():
            if slot.state is State.BOOTING and slot.pid is not None and not slot.admitted:
                slot.admitted = True
                actions.append(ev.AllowImport(slot.pid))
        return actions
