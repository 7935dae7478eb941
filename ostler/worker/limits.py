"""The limits at which a worker is replaced: time served, memory in use. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ostler.settings.declarations import Settings
from ostler.settings.kinds import Bytes

LOOKS = 3
"""How many looks in a row must find too much memory: a peak costs nothing."""
BETWEEN_LOOKS = 0.9
"""Seconds: a tick may come some milliseconds early, and is not to be missed."""
PATIENCE = 60.0
"""Seconds to serve for a worker that had too much memory from the start: its successor will have, too."""


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
    """Says when one worker should be replaced, and why. Times are monotonic seconds, `chance` is in [0, 1].

    Call `look` once a tick. Requests are counted where they are answered.
    """

    def __init__(self, settings: Settings, now: float, chance: float) -> None:
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
        """What the operator should know of these limits, once `look` has found it."""

    @property
    def watched(self) -> bool:
        """Whether there is anything to `look` at."""
        return self._end < inf or self._memory is not None

    def look(self, now: float, resident: Callable[[], int | None]) -> str | None:
        """Return why the worker should be replaced now; None if it should not."""
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
