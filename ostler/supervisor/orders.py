"""What a fleet orders its slots to do, and what they give it notice of. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ostler.supervisor import events as ev

# --- the fleet's orders ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Fill:
    """Spawn a worker at this time; at once if that is not in the future."""

    at: float


@dataclass(frozen=True)
class Leave:
    """Drain: finish what is in flight, then go."""


@dataclass(frozen=True)
class LeaveSoon:
    """Take nothing more, and be gone in a moment: for a reload, or Ctrl+C in development."""


@dataclass(frozen=True)
class LeaveNow:
    """Go at once."""


# --- notices to the fleet -------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrived:
    """The worker is READY."""


@dataclass(frozen=True)
class Lost:
    """Nobody asked for it, but this worker will not serve (any longer). Comes at most once in a life."""

    level: Literal["warning", "error"]
    cause: str
    """Who and why, in words, without the consequence: that is the fleet's to add."""
    reason: str
    """Only why."""


@dataclass(frozen=True)
class Vacated:
    """There is no process (any longer): forget this slot."""


Outcome: TypeAlias = ev.Action | Arrived | Lost | Vacated
