"""The limits at which a worker is replaced, and their log lines: requests, lifetime, memory in use. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ostler.settings.declarations import Settings
from ostler.settings.kinds import Bytes

LOOKS = 3
"""How many looks in a row have to find too much memory, so that a peak does not count."""
BETWEEN_LOOKS = 0.9
"""Seconds between two looks at the least: less than a tick, which may come some milliseconds early."""
PATIENCE = 60.0
"""Seconds that a worker serves that had too much memory from the start: its successor will have it, too."""

TERMINATING = "%s Terminating process."
"""The log line, in uvicorn's words, where a server stops at a limit because it has no arbiter; to be filled
with the reason."""


def request_limit(settings: Settings, choose: Callable[[int, int], int]) -> int | None:
    """Return how many requests a worker answers before it is replaced, jitter included; None for no limit.

    `choose` returns a random number between two numbers, both included (random.randint).
    """
    if settings.limit_max_requests is None:
        return None
    return settings.limit_max_requests + choose(0, settings.limit_max_requests_jitter)


def requests_exceeded(limit: int) -> str:
    """Return why a worker is replaced that has answered `limit` requests, in uvicorn's words."""
    return f"Maximum request limit of {limit} exceeded."


class Limits:
    """Says when one worker should be replaced for its lifetime or its memory. Call `look` once a tick."""

    def __init__(self, settings: Settings, now: float, chance: float) -> None:
        """`now` is in monotonic seconds; `chance`, from 0 to 1, is the share of the jitter that is added."""
        self._lifetime = settings.limit_worker_lifetime
        self._end = inf
        if self._lifetime is not None:
            self._end = now + self._lifetime + chance * settings.limit_worker_lifetime_jitter
        self._memory = settings.limit_worker_rss
        self._next_look = now
        self._looked = False
        self._too_much = 0
        self._not_before = now
        self.warning: str | None = None
        """A log line for the operator that `look` has found; to be reset once it is logged."""

    @property
    def watched(self) -> bool:
        """Whether there is anything to `look` at."""
        return self._end < inf or self._memory is not None

    def look(self, now: float, resident: Callable[[], int | None]) -> str | None:
        """Return why the worker should be replaced now; None if it should not.

        `resident` returns the bytes of memory in use, or None where that is not known.
        """
        if now >= self._end:
            return f"Lifetime limit of {self._lifetime:.12g} s exceeded."
        if self._memory is None or now < self._next_look:
            return None
        self._next_look = now + BETWEEN_LOOKS
        used = resident()
        if used is None:
            return None
        limit, shown = Bytes().show(self._memory), f"{used / 2**20:.0f} MiB"
        first, self._looked = not self._looked, True
        self._too_much = self._too_much + 1 if used > self._memory else 0
        if first and self._too_much:
            self._not_before = now + PATIENCE
            self.warning = (
                f"limit_worker_rss of {limit} is less than a worker has in use once it is ready ({shown}): "
                f"none is replaced for it in its first {PATIENCE:g} s"
            )
        if self._too_much < LOOKS or now < self._not_before:
            return None
        return f"Memory limit of {limit} exceeded ({shown} resident)."
