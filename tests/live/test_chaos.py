"""A short run of the fault injection of tests/chaos.py; `make chaos` is the long one."""

import random
from pathlib import Path

import pytest

from tests.chaos import run
from tests.chaos_plan import BROKEN_CODE, Deploy, Failure, ForcedEnd, judge, plan

ANY = random.SystemRandom().randrange(10**6)
"""A seed that differs in every run; the output of a failure names it."""


# Parametrised by a name and not by the seed: pytest-xdist needs the same test names in every process.
@pytest.mark.parametrize("which", ["known", "random"])
def test_after_random_faults_the_fleet_converges_and_only_requests_of_killed_workers_are_lost(
    which: str, tmp_path: Path
) -> None:
    print(run(7 if which == "known" else ANY, 0.1, tmp_path))


def test_a_seed_always_gives_the_same_plan() -> None:
    assert plan(3, 2) == plan(3, 2) != plan(4, 2)
    codes = [step.code for _, step in plan(3, 20) if isinstance(step, Deploy)]
    assert set(codes) == {"good", *BROKEN_CODE}


def failure(
    what: str = "ConnectionResetError", *, port: int = 1, opened: float = 5.0, at: float = 9.0
) -> Failure:
    return Failure(what, "/?1", port, opened, at)


KILLED = ForcedEnd(7.0, "SIGKILL to 4", frozenset({1, 2}))


def test_a_request_on_a_connection_that_a_killed_worker_held_may_fail() -> None:
    allowed, lost = judge([failure()], [KILLED])
    assert [each.excuse for each in allowed] == ["SIGKILL to 4"]
    assert not lost


@pytest.mark.parametrize(
    "other",
    [
        failure(port=3),  # held by another worker
        failure(opened=8.0),  # the same port, used again after the kill
        failure(at=6.0),  # failed before the kill
        failure("mixed up: b'2'"),  # the answer to another request
    ],
)
def test_no_other_request_may_fail(other: Failure) -> None:
    assert judge([other], [KILLED]) == ([], [other])
