"""Reloading (--reload): no request is answered by old code, and one worker tries the new code. Pure."""

from __future__ import annotations

from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.events import Report
from ostler.supervisor.fleet.places import Actions, Place, Places
from ostler.supervisor.fleet.slot import Slot, SlotState
from ostler.supervisor.fleet.slot_events import LeaveSoon, Lost


class CodeReload:
    """Starts all workers anew when the code has changed.

    One worker, the scout, tries new code, so that what is wrong with the code is logged once. The other
    places are EMPTY until the scout is READY. If the scout fails, all places are EMPTY until the code changes
    again.

    Args:
        places: the fleet's places.
        enabled: whether the fleet reloads (--reload). If not, there is no scout, and workers import the
            application without being allowed to.
    """

    def __init__(self, places: Places, *, enabled: bool) -> None:
        self.enabled = enabled
        self._places = places
        self._scout: int | None = None
        """The number of the place whose tenant tries new code."""

    def __repr__(self) -> str:
        return f"<CodeReload enabled={self.enabled} scout={self._scout}>"

    @property
    def unproven(self) -> bool:
        """Whether no worker serves until the scout is READY, or the code has changed."""
        return self._scout is not None or bool(self._places.empty())

    @property
    def absorbs_changes(self) -> bool:
        """Whether a change needs no reload, because the scout has not read any of the code yet."""
        return self._scout is not None and not self._places[self._scout].tenant.may_import

    def begin(self, order: ev.Reload, now: float) -> Actions:
        """Tell every worker to leave, and try the new code."""
        self._places.generation, self._places.timings = order.generation, order.timings
        actions = self._places.renew_all(LeaveSoon(), now)
        # Reported after those orders: a request sent by a reader of this line is answered by the new code.
        actions.append(Report("warning", order.why))
        return actions + self.send_scout(now)

    def send_scout(self, now: float) -> Actions:
        """Let the tenant of the first place try the code; the others are EMPTY."""
        scout = next(iter(self._places))
        self._scout = scout.number
        return self._places.spawn(scout.tenant, now)

    def scouts(self, slot: Slot) -> bool:
        """Whether this worker tries new code."""
        return slot.number == self._scout

    def proven(self, now: float) -> Actions:
        """The scout is READY: spawn the others."""
        self._scout = None
        return self._places.spawn_tenants(self._places.empty(), now)

    def hold(self, place: Place, lost: Lost) -> Actions:
        """The scout has failed: spawn nothing until the code changes."""
        self._scout = None
        place.tenant = self._places.new_slot(place.number)
        return [Report(lost.level, f"{lost.cause}: waiting for a change of its files")]

    def allow_imports(self) -> Actions:
        """Let new workers import the application once the old code is gone, with its ports and locks."""
        if not self.enabled or any(slot.hurried for slot in self._places.leaving):
            return []
        actions: Actions = []
        for slot in self._places.slots():
            if slot.state is SlotState.BOOTING and slot.pid is not None and not slot.may_import:
                slot.may_import = True
                actions.append(ev.AllowImport(slot.pid))
        return actions
