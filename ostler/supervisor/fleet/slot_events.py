"""What a fleet orders its slots to do, and what they give it notice of. Pure data."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ostler.records import frozen
from ostler.supervisor.fleet import events as ev

# --- the fleet's orders ---------------------------------------------------------------------------


@frozen
class Fill:
    """Spawn a worker at this time; at once if that is not in the future."""

    at: float


@frozen
class Leave:
    """Drain: finish what is in flight, then go."""


@frozen
class LeaveSoon:
    """Take nothing more, and be gone in a moment: for a reload, or Ctrl+C in development."""


@frozen
class LeaveNow:
    """Go at once."""


# --- notices to the fleet -------------------------------------------------------------------------


@frozen
class Arrived:
    """The worker is READY."""


@frozen
class Lost:
    """Nobody asked for it, but this worker will not serve (any longer). Comes at most once in a life."""

    level: Literal["warning", "error"]
    cause: str
    """Who and why, in words, without the consequence: that is the fleet's to add."""
    reason: str
    """Only why."""


@frozen
class Vacated:
    """There is no process (any longer): forget this slot."""


Outcome: TypeAlias = ev.Action | Arrived | Lost | Vacated
