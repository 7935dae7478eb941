"""Judges whether a ready worker hangs: how long its event loop has been silent, and why. Pure.

A worker beats about once a second. A beat has two counters: one that its event loop moves, and one that the
thread which sends the beats moves. Only the loop's counter ends a silence. The time for which the kernel kept
a worker waiting for a CPU is not counted against it.
"""

from __future__ import annotations

from enum import Enum

from ostler.ipc.messages import Beat
from ostler.supervisor.fleet.duration import format_duration
from ostler.supervisor.fleet.events import Inspected

ANSWER_GRACE = 2.0
"""Seconds after which an `Inspect` without an answer is judged by the silence alone."""
RECHECK = 0.25
"""Seconds at least between two inspections of an excused worker: what remains of its time may shrink
geometrically."""
NEGLIGIBLE = 0.1
"""Seconds of waiting for a CPU that excuse nothing: any process waits for some microseconds."""


class Verdict(Enum):
    """What follows from an inspection of a silent worker."""

    EXCUSED = "excused"
    WARN = "warn"
    ABORT = "abort"


class HangDetector:
    """Watches the silence of one worker's event loop.

    When half of the limit has passed, and again at the whole of it, `deadline()` is due: call `ask`, have the
    operating system asked, and call `judge` with the answer.

    Args:
        limit: seconds of silence after which the worker is aborted; infinite: never.
        now: when the worker became READY.
    """

    def __init__(self, limit: float, now: float) -> None:
        self._limit = limit
        self._heard = now
        """When the loop counter last moved."""
        self._thread_heard = now
        """When the thread counter last moved."""
        self._excused = 0.0
        """Seconds of this silence in which the worker waited for a CPU: not counted."""
        self._warned = False
        self._asked: float | None = None
        """When the question was asked that has no answer yet."""
        self._not_before = 0.0

    def __repr__(self) -> str:
        warned = " warned" if self._warned else ""
        return f"<HangDetector limit={self._limit:g} heard={self._heard:.1f}{warned}>"

    def lasts(self, now: float) -> float:
        """Return the seconds since the loop counter last moved."""
        return now - self._heard

    def deadline(self) -> float:
        """When to ask or to judge, if nothing is heard before."""
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

    def beat_received(self, last: Beat | None, beat: Beat, now: float) -> bool:
        """Compare a beat with the last one; return True if it ends a silence that was warned of."""
        if last is None or beat.thread != last.thread:
            self._thread_heard = now
        if last is not None and beat.loop == last.loop:
            return False
        warned = self._warned
        self._heard, self._excused, self._warned, self._asked = now, 0.0, False, None
        return warned

    @property
    def asked(self) -> bool:
        """Whether an answer of the operating system is awaited."""
        return self._asked is not None

    def ask(self, now: float) -> None:
        """Note that the operating system is asked now."""
        self._asked = now

    def judge(self, last: Beat | None, seen: Inspected | None, now: float) -> Verdict:
        """Judge the silence.

        Args:
            last: the last beat.
            seen: the answer of the operating system; None if there was none.
            now: the time.
        """
        self._asked = None
        if seen is not None:
            self.excuse(last, seen, now)
        # Compared with the very sum that deadline() returns: with another one, a rounding error could make
        # the deadline due again and again.
        if now >= self._due(1.0):
            return Verdict.ABORT
        if not self._warned and now >= self._due(0.5):
            self._warned = True
            return Verdict.WARN
        self._not_before = now + RECHECK
        return Verdict.EXCUSED

    def excuse(self, last: Beat | None, seen: Inspected, now: float) -> None:
        """Excuse the part of this silence in which the worker waited for a CPU, without judging it.

        Whether the run-queue wait includes the time in which the cgroup was throttled depends on the version
        of the kernel. So the longer of the two counts, never their sum. Throttled time is summed over CPUs,
        and so may be longer than the silence. Time on a CPU is never excused: otherwise a worker that spins
        could spin for ever.
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
        """Whether the silence has lasted for half of the limit, without the excused time."""
        return now >= self._due(0.5)

    def left(self, now: float) -> float:
        """Return the seconds until the worker is aborted, if it stays silent."""
        return self._due(1.0) - now

    def describe(self, evidence: str, now: float) -> str:
        """Return how long the worker has been silent and why, for the log."""
        # The worker beats once a second, so in a short silence its last beat may be well back. A thread that
        # stopped together with the loop was heard with it, or at most one beat later.
        if self._thread_heard - self._heard >= self.lasts(now) / 4:
            symptom = "its event loop is blocked, its thread still beats"
        else:
            symptom = "the whole process does not run: stopped, starved or its GIL held"
        excuse = f", {format_duration(self._excused)} of it waiting for a CPU" if self._excused else ""
        return f"silent for {format_duration(self.lasts(now))}{excuse} ({symptom}; {evidence})"

    def _due(self, share: float) -> float:
        return self._heard + self._excused + self._limit * share
