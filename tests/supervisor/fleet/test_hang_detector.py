"""What of a silence is the worker's own fault."""

from __future__ import annotations

import pytest

from ostler.ipc.messages import Beat
from ostler.supervisor.fleet.events import Inspected
from ostler.supervisor.fleet.hang_detector import HangDetector, Verdict

LIMIT = 30.0


def beat(*, waited: float = 0, ran: float = 0, throttled: float = 0) -> Beat:
    times = [round(x * 1e9) for x in (waited, ran, throttled)]
    return Beat(1, 1, times[0], 0, 0, 0, 0.0, False, ran=times[1], throttled=times[2])


def seen(*, waited: float | None = 0, ran: float | None = 0, throttled: float | None = None) -> Inspected:
    waits, runs, throttles = (None if x is None else round(x * 1e9) for x in (waited, ran, throttled))
    return Inspected(814, waits, "running", runs, throttles)


def verdict(last: Beat | None, inspected: Inspected | None, after: float) -> Verdict:
    silence = HangDetector(LIMIT, 100.0)
    silence.judge(None, None, 100.0 + LIMIT / 2)  # it has been warned of
    return silence.judge(last, inspected, 100.0 + after)


@pytest.mark.parametrize(
    ("inspected", "expected"),
    [
        (None, Verdict.ABORT),
        (seen(waited=None, ran=None), Verdict.ABORT),
        (seen(waited=0), Verdict.ABORT),
        (seen(waited=20), Verdict.EXCUSED),
        # The kernel does not count what is throttled as waiting, or nobody counts the waiting.
        (seen(waited=1, throttled=20), Verdict.EXCUSED),
        (seen(waited=None, ran=None, throttled=20), Verdict.EXCUSED),
        # It does not want to run: asleep, or stopped.
        (seen(waited=0, throttled=None), Verdict.ABORT),
        # Both tell of the same time.
        (seen(waited=5, throttled=5), Verdict.ABORT),
        # On two CPUs more is throttled than has passed; what it ran for is its own.
        (seen(waited=0, ran=31, throttled=60), Verdict.ABORT),
        (seen(waited=0, ran=3, throttled=60), Verdict.EXCUSED),
    ],
)
def test_a_worker_is_excused_for_what_it_was_kept_from_its_cpu(
    inspected: Inspected | None, expected: Verdict
) -> None:
    assert verdict(beat(), inspected, 38.0) is expected


def test_only_what_came_since_the_last_beat_counts() -> None:
    last = beat(waited=100, ran=50, throttled=200)
    assert verdict(last, seen(waited=101, ran=50, throttled=201), 38.0) is Verdict.ABORT
    assert verdict(last, seen(waited=101, ran=51, throttled=220), 38.0) is Verdict.EXCUSED


def test_without_a_beat_nobody_knows_what_was_throttled_since() -> None:
    assert verdict(None, seen(throttled=1000), 38.0) is Verdict.ABORT


def test_a_worker_that_spins_in_a_throttled_group_is_found_once_it_has_run_for_long_enough() -> None:
    silence = HangDetector(LIMIT, 0.0)
    now = 0.0
    while silence.deadline() < 10_000:
        now = silence.deadline()
        # A tenth of a CPU, throttled on two of them.
        if silence.judge(beat(), seen(ran=now / 10, throttled=now * 1.8), now) is Verdict.ABORT:
            break
    assert 10 * LIMIT <= now < 11 * LIMIT
