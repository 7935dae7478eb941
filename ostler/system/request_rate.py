"""Computes the requests per second that the service manager's status shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping

PAUSE = 5.0
"""Seconds over which requests are counted."""


class RequestRate:
    """Counts the requests that all workers together have served, and computes their rate."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._served = 0
        self._since = 0.0
        self._rate = "0 req/s"

    def read(self, served: Mapping[int, int]) -> None:
        """Count the new requests.

        Args:
            served: by the pid of each worker that runs, how many requests it has served in all.
        """
        self._served += sum(max(0, count - self._seen.get(pid, 0)) for pid, count in served.items())
        self._seen = dict(served)

    def restart(self, now: float) -> None:
        """Count from now on."""
        self._served, self._since = 0, now

    def rate(self, now: float) -> str:
        """Return a text such as "15 req/s": the rate since the last result; within `PAUSE`, that result."""
        if now >= self._since + PAUSE:
            self._rate = _rate(self._served / (now - self._since))
            self.restart(now)
        return self._rate


def _rate(per_second: float) -> str:
    """Return a rate with two significant digits: each change of the status is sent to the manager."""
    rounded = per_second if per_second < 10 else float(f"{per_second:.1e}")
    return f"{rounded:.0f} req/s"
