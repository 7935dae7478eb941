"""The orders that a fleet gives to a slot, and the notices that a slot gives to its fleet. Pure data."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ostler.records import record
from ostler.supervisor.fleet import events as ev

# --- the fleet's orders ---------------------------------------------------------------------------


@record
class SpawnAt:
    """Spawn a worker at this time; at once if the time is not in the future."""

    at: float


@record
class Leave:
    """Drain: finish what is in flight, then exit."""


@record
class LeaveSoon:
    """Take nothing more, and exit within a second or so: for a reload, or for Ctrl+C in development."""


@record
class LeaveNow:
    """Exit at once."""


# --- notices to the fleet -------------------------------------------------------------------------


@record
class BecameReady:
    """The worker is READY."""


@record
class Lost:
    """The worker will not serve, or not any longer, without having been told to leave. Given once at most."""

    level: Literal["warning", "error"]
    cause: str
    """Which worker and why, for the log. The fleet adds the consequence."""
    reason: str
    """Only why."""
    failed_start: bool = False
    """Whether it could not be spawned, could not start, or was not ready in time: the next may fail, too."""


@record
class Vacated:
    """There is no process, or not any longer: forget this slot."""


Outcome: TypeAlias = ev.Action | BecameReady | Lost | Vacated
