"""Replaces workers one at a time: rolling restarts, and recycling (a worker asked for a successor). Pure."""

from __future__ import annotations

from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.duration import format_duration
from ostler.supervisor.fleet.events import Report
from ostler.supervisor.fleet.places import Actions, Place, Places, backoff, workers
from ostler.supervisor.fleet.slot import Slot, SlotState
from ostler.supervisor.fleet.slot_events import Leave, Lost


class RollingRestart:
    """Gives places a successor, at most one place at a time, and so needs one worker more than N.

    A roll's first successor has to prove its generation: it is READY for `min_ready` seconds before it takes
    over. Until then, any failure of it ends the roll, and the old workers serve on. A successor of a proven
    generation takes over as soon as it is READY, and is tried again if it fails.

    Args:
        places: the fleet's places.
        min_ready: seconds.
    """

    def __init__(self, places: Places, *, min_ready: float) -> None:
        self.current: ev.Roll | None = None
        """The roll that is under way."""
        self.following: ev.Roll | None = None
        """The newest roll that waits for its turn: those that waited before it are skipped."""
        self._places = places
        self._min_ready = min_ready

    def __repr__(self) -> str:
        return f"<RollingRestart current={self.current} following={self.following}>"

    def request(self, roll: ev.Roll) -> Actions:
        """Roll as soon as possible; report what has to end before."""
        self.following = roll
        if self.current is not None:
            before = f"the one to generation {self.current.generation}"
        elif self._places.first_boot():
            before = "the first boot"
        else:
            return []
        return [Report("info", f"Rolling restart to generation {roll.generation} follows after {before}")]

    def cancel(self) -> None:
        """Forget the roll that is under way, and the one that waits."""
        self.current = self.following = None

    def deadline(self) -> float | None:
        """When there is something to do, if nothing happens before. None: not at all."""
        if self._places.with_successor() is not None:
            return self._proven_at()
        return min((place.retry_at for place in self._waiting()), default=None)

    # --- step by step -----------------------------------------------------------------------------

    def proceed(self, now: float) -> Actions:
        """Do what has become possible: end a roll, begin the next one, spawn the next successor."""
        actions: Actions = []
        roll = self.current
        if roll and all(place.tenant.generation == roll.generation for place in self._places):
            text = f"Rolling restart to generation {roll.generation} complete: {self._places.serving()}"
            actions.append(Report("info", text))
            self.current = None
        waits = self.following is not None and not self._places.first_boot()
        if waits and (self.current is None or self._stuck(now)):
            actions += self._begin(now)
        if self._places.with_successor() is None:
            due = (place for place in self._waiting() if place.retry_at <= now)
            if (place := next(due, None)) is not None:
                actions += self._spawn_successor(place, now)
        return actions

    def prove(self, now: float) -> Actions:
        """Let a generation whose first worker has been READY for long enough take over."""
        proven_at = self._proven_at()
        if proven_at is None or proven_at > now:
            return []
        place, roll = self._places.with_successor(), self.current
        assert place is not None
        assert roll is not None
        self._places.generation, self._places.timings = roll.generation, roll.timings
        actions: Actions = [Report("debug", f"Generation {roll.generation} has proved itself")]
        actions += self._places.take_over(place, now)
        for place in self._places:
            # It does not serve, so no successor has to come first.
            if place.tenant.state is SlotState.BACKOFF:
                actions += self._places.replace_tenant(place, now)
        return actions

    def successor_ready(self, place: Place, slot: Slot, now: float) -> Actions:
        """A worker is READY: if it is a successor of a proven generation, it takes over."""
        if slot is place.successor and slot.generation == self._places.generation:
            return self._places.take_over(place, now)
        return []

    def successor_lost(self, place: Place, lost: Lost, now: float) -> Actions:
        """A successor has failed: give its generation up, or try again later if that was proven."""
        assert place.successor is not None, f"place {place.number} has no successor"
        generation, place.successor = place.successor.generation, None
        if generation != self._places.generation:
            return self._give_up(lost)
        place.misses += 1
        delay = backoff(place.misses)
        place.retry_at = now + delay
        stays = f"{place.tenant.name.lower()} stays until then"
        return [Report(lost.level, f"{lost.cause}: next try in {format_duration(delay)}, {stays}")]

    def _begin(self, now: float) -> Actions:
        assert self.following is not None
        actions: Actions = []
        if self.current is not None:
            text = f"Rolling restart to generation {self.current.generation} ends incomplete for a newer one"
            actions.append(Report("warning", text))
        roll = self.current = self.following
        self.following = None
        count = workers(len(self._places))
        text = f"Rolling restart to generation {roll.generation} begins: {count}, one by one"
        actions.append(Report("info", text))
        for place in self._places:
            place.misses, place.retry_at = 0, 0.0  # an order is no next try: it waits for no back-off
            if place.successor is not None:  # of a worker that is recycled: the roll replaces that one anyway
                successor, place.successor = place.successor, None
                actions += self._places.tell_to_leave(successor, Leave(), now)
        return actions

    def _spawn_successor(self, place: Place, now: float) -> Actions:
        roll = self.current
        if roll is not None and place.tenant.generation == roll.generation:
            roll = None
        place.successor = self._places.new_slot(place.number, roll)
        return self._places.spawn(place.successor, now)

    def _give_up(self, lost: Lost) -> Actions:
        assert self.current is not None
        generation, self.current = self.current.generation, None
        cause = lost.cause[0].lower() + lost.cause[1:]
        text = f"Rolling restart to generation {generation} given up: {cause}; {self._places.serving(' on')}"
        return [Report("error", text)]

    # --- what is due ------------------------------------------------------------------------------

    def _proven_at(self) -> float | None:
        """When the first worker of an unproven generation will have proved it; None if none is READY."""
        place = self._places.with_successor()
        if place is None or place.successor is None or place.successor.generation == self._places.generation:
            return None
        since = place.successor.ready_since
        return None if since is None else since + self._min_ready

    def _waiting(self) -> list[Place]:
        """Places that want a successor, in the order in which they get it."""
        # Without a roll: the places that an incomplete roll has left in an older generation.
        newest = self._places.generation if self.current is None else self.current.generation
        places = sorted(self._places, key=_not_serving_first)
        rolled = [p for p in places if p.tenant.generation != newest]
        recycled = [p for p in places if p.tenant.retiring is not None and p not in rolled]
        # First come, first served: one that asks again and again must not keep another one waiting.
        return rolled + sorted(recycled, key=lambda p: p.tenant.retiring_since)

    def _stuck(self, now: float) -> bool:
        """Whether every place that the roll has yet to replace waits for its next try."""
        return self._places.with_successor() is None and all(p.retry_at > now for p in self._waiting())


def _not_serving_first(place: Place) -> tuple[int, int]:
    """Sort places without a serving worker first, then by number."""
    return ({SlotState.BACKOFF: 0, SlotState.BOOTING: 1}.get(place.tenant.state, 2), place.number)
