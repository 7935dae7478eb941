"""Which part of a silence counts against the worker."""

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
    detector = HangDetector(LIMIT, 100.0)
    detector.judge(None, None, 100.0 + LIMIT / 2)  # it has been warned of
    return detector.judge(last, inspected, 100.0 + after)


@pytest.mark.parametrize(
    ("inspected", "expected"),
    [
        (None, Verdict.ABORT),
        (seen(waited=None, ran=None), Verdict.ABORT),
        (seen(waited=0), Verdict.ABORT),
        (seen(waited=20), Verdict.EXCUSED),
        # The kernel does not count throttled time as waiting, or does not count waiting at all.
        (seen(waited=1, throttled=20), Verdict.EXCUSED),
        (seen(waited=None, ran=None, throttled=20), Verdict.EXCUSED),
        # It does not want to run: asleep, or stopped.
        (seen(waited=0, throttled=None), Verdict.ABORT),
        # Both are the same time.
        (seen(waited=5, throttled=5), Verdict.ABORT),
        # Throttled time of two CPUs is longer than the silence; the time on a CPU is not excused.
        (seen(waited=0, ran=31, throttled=60), Verdict.ABORT),
        (seen(waited=0, ran=3, throttled=60), Verdict.EXCUSED),
    ],
)
def test_the_time_in_which_a_worker_waited_for_a_cpu_is_excused(
    inspected: Inspected | None, expected: Verdict
) -> None:
    assert verdict(beat(), inspected, 38.0) is expected


def test_only_time_since_the_last_beat_is_excused() -> None:
    last = beat(waited=100, ran=50, throttled=200)
    assert verdict(last, seen(waited=101, ran=50, throttled=201), 38.0) is Verdict.ABORT
    assert verdict(last, seen(waited=101, ran=51, throttled=220), 38.0) is Verdict.EXCUSED


def test_without_a_beat_throttled_time_is_no_excuse() -> None:
    assert verdict(None, seen(throttled=1000), 38.0) is Verdict.ABORT


def test_a_worker_that_spins_in_a_throttled_cgroup_is_aborted_once_it_has_run_for_the_limit() -> None:
    detector = HangDetector(LIMIT, 0.0)
    now = 0.0
    while detector.deadline() < 10_000:
        now = detector.deadline()
        # It gets a tenth of a CPU, and is throttled on two CPUs.
        if detector.judge(beat(), seen(ran=now / 10, throttled=now * 1.8), now) is Verdict.ABORT:
            break
    assert 10 * LIMIT <= now < 11 * LIMIT
