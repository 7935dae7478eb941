"""What a fleet orders its slots to do, and what they give it notice of. Pure data."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ostler.records import record
from ostler.supervisor.fleet import events as ev

# --- the fleet's orders ---------------------------------------------------------------------------


@record
class SpawnAt:
    """Spawn a worker at this time; at once if that is not in the future."""

    at: float


@record
class Leave:
    """Drain: finish what is in flight, then go."""


@record
class LeaveSoon:
    """Take nothing more, and be gone in a moment: for a reload, or Ctrl+C in development."""


@record
class LeaveNow:
    """Go at once."""


# --- notices to the fleet -------------------------------------------------------------------------


@record
class BecameReady:
    """The worker is READY."""


@record
class Lost:
    """Nobody asked for it, but this worker will not serve (any longer). Comes at most once in a life."""

    level: Literal["warning", "error"]
    cause: str
    """Who and why, in words, without the consequence: that is the fleet's to add."""
    reason: str
    """Only why."""


@record
class Vacated:
    """There is no process (any longer): forget this slot."""


Outcome: TypeAlias = ev.Action | BecameReady | Lost | Vacated
