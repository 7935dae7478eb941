"""How long a ready worker's event loop has said nothing, and whether that is its own fault. Pure."""

from __future__ import annotations

from enum import Enum

from ostler.ipc.messages import Beat
from ostler.supervisor.fleet.duration import format_duration
from ostler.supervisor.fleet.events import Inspected

ANSWER_GRACE = 2.0
"""Seconds after which an `Inspect` that nobody answered is judged by silence alone."""
GLANCE = 0.25
"""Seconds at least between two looks at an excused worker: its excuses may shrink geometrically."""
NEGLIGIBLE = 0.1
"""Seconds waited for a CPU that excuse nothing: any process waits for some microseconds."""


class Verdict(Enum):
    """What follows from a look at a silent worker."""

    EXCUSED = "excused"
    WARN = "warn"
    ABORT = "abort"


class HangDetector:
    """Listens to one worker. Only its loop counter ends a silence; `limit` is in seconds.

    At half the limit and at the whole of it `deadline` falls due: call `ask`, and `judge` with the answer.
    """

    def __init__(self, limit: float, now: float) -> None:
        self._limit = limit
        self._heard = now
        self._thread_heard = now
        self._excused = 0.0
        """Seconds of this silence in which the worker waited for a CPU: not counted."""
        self._warned = False
        self._asked: float | None = None
        """When the question went out that has no answer yet."""
        self._not_before = 0.0

    def lasts(self, now: float) -> float:
        """Return the seconds since the loop counter last moved."""
        return now - self._heard

    def deadline(self) -> float:
        """When to look, if nothing is heard before."""
        if self._asked is not None:
            return self._asked + ANSWER_GRACE
        return max(self._due(1.0 if self._warned else 0.5), self._not_before)

    def extend(self, seconds: float) -> None:
        """Do not count this time, in which the arbiter itself did not run."""
        self._heard += seconds
        self._thread_heard += seconds
        self._not_before += seconds
        if self._asked is not None:
            self._asked += seconds

    def hear(self, last: Beat | None, beat: Beat, now: float) -> bool:
        """Take in a beat after `last`; True if it ends a silence that had been warned of."""
        if last is None or beat.thread != last.thread:
            self._thread_heard = now
        if last is not None and beat.loop == last.loop:
            return False
        warned = self._warned
        self._heard, self._excused, self._warned, self._asked = now, 0.0, False, None
        return warned

    @property
    def asked(self) -> bool:
        """Whether an answer is awaited."""
        return self._asked is not None

    def ask(self, now: float) -> None:
        """Note that the operating system is being asked."""
        self._asked = now

    def judge(self, last: Beat | None, seen: Inspected | None, now: float) -> Verdict:
        """Judge by what the operating system said, None if it said nothing."""
        self._asked = None
        if seen is not None:
            self.excuse(last, seen, now)
        # Compared with the very sum that deadline() gives: a rounding error must not ask for ever.
        if now >= self._due(1.0):
            return Verdict.ABORT
        if not self._warned and now >= self._due(0.5):
            self._warned = True
            return Verdict.WARN
        self._not_before = now + GLANCE
        return Verdict.EXCUSED

    def excuse(self, last: Beat | None, seen: Inspected, now: float) -> None:
        """Excuse what of this silence the worker has waited for a CPU, without judging it.

        Its run-queue wait has in it what its group was throttled, or has not, as the kernel's version is: the
        longer of the two counts, never their sum. Throttled time is summed over CPUs, and so may be more than
        has passed. What the worker was on a CPU is never excused, or one that spins could spin for ever.
        """
        excuses = [] if seen.waited is None else [seen.waited - (0 if last is None else last.waited)]
        if seen.throttled is not None and last is not None:
            excuses.append(seen.throttled - last.throttled)
        if not excuses:
            return
        ran = 0 if seen.ran is None or last is None else seen.ran - last.ran
        excused = min(max(excuses) / 1e9, self.lasts(now) - ran / 1e9)
        self._excused = excused if excused >= NEGLIGIBLE else 0.0

    def suspicious(self, now: float) -> bool:
        """Whether it has lasted for half the limit, what is excused not counted."""
        return now >= self._due(0.5)

    def left(self, now: float) -> float:
        """Return the seconds until the worker is aborted, if it stays silent."""
        return self._due(1.0) - now

    def describe(self, evidence: str, now: float) -> str:
        """Return how long, and why, in words."""
        # It beats once a second: in a short silence its last beat may lie well back. One that stopped along
        # with the loop was heard with it, or at most one beat later.
        if self._thread_heard - self._heard >= self.lasts(now) / 4:
            symptom = "its event loop is blocked, its thread still beats"
        else:
            symptom = "the whole process does not run: stopped, starved or its GIL held"
        excuse = f", {format_duration(self._excused)} of it waiting for a CPU" if self._excused else ""
        return f"silent for {format_duration(self.lasts(now))}{excuse} ({symptom}; {evidence})"

    def _due(self, share: float) -> float:
        return self._heard + self._excused + self._limit * share
