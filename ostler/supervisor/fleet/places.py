"""A numbered place for a worker: who holds it, who shall take it over, and how often that failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ostler.supervisor.fleet.slot import Slot, State

STABLE_RUN = 10.0
"""Seconds of serving after which a worker is respawned at once when it dies."""
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 30.0


def backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: doubling from half a second up to 30."""
    return float(min(BACKOFF_FIRST * 2 ** min(failures - 1, 10), BACKOFF_MOST))


@dataclass
class Place:
    """One of the fleet's N. It always has a tenant: serving, on its way, or waiting for its next try."""

    number: int
    tenant: Slot
    successor: Slot | None = None
    crashes: int = 0
    """Tenants that died in a row, none after a healthy run."""
    misses: int = 0
    """Successors that failed in a row while the tenant served on."""
    retry_at: float = 0.0
    """No successor is spawned before this."""

    def rank(self) -> tuple[int, int]:
        """Sort first what serves nobody."""
        return ({State.BACKOFF: 0, State.BOOTING: 1}.get(self.tenant.state, 2), self.number)

    def promote(self, now: float) -> Slot:
        """Let the successor take over, and return the tenant that it follows."""
        assert self.successor is not None, f"place {self.number} has no successor"
        old, self.tenant, self.successor, self.misses = self.tenant, self.successor, None, 0
        if old.served(now) >= STABLE_RUN:
            self.crashes = 0
        return old

    def slots(self) -> list[Slot]:
        """Return who is there."""
        return [self.tenant] if self.successor is None else [self.tenant, self.successor]
