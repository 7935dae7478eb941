"""A short run of the fuzzer of faults; `make chaos` is the long one."""

import random
from pathlib import Path

import pytest

from tests.chaos import run
from tests.chaos_plan import BROKEN, Deploy, Doom, Failure, judge, plan

ANY = random.SystemRandom().randrange(10**6)
"""Another plan each time: a failure names it."""


# By an index, not by its seed: a test has the same name in every process that collects it.
@pytest.mark.parametrize("which", ["known", "random"])
def test_whatever_happens_at_once_the_fleet_converges_and_loses_only_what_was_killed(
    which: str, tmp_path: Path
) -> None:
    print(run(7 if which == "known" else ANY, 0.1, tmp_path))


def test_a_seed_is_a_plan() -> None:
    assert plan(3, 2) == plan(3, 2) != plan(4, 2)
    codes = [step.code for _, step in plan(3, 20) if isinstance(step, Deploy)]
    assert set(codes) == {"good", *BROKEN}


def failure(
    what: str = "ConnectionResetError", *, port: int = 1, opened: float = 5.0, at: float = 9.0
) -> Failure:
    return Failure(what, "/?1", port, opened, at)


KILLED = Doom(7.0, "SIGKILL to 4", frozenset({1, 2}))


def test_what_a_killed_worker_held_may_fail() -> None:
    allowed, lost = judge([failure()], [KILLED])
    assert [each.excuse for each in allowed] == ["SIGKILL to 4"]
    assert not lost


@pytest.mark.parametrize(
    "other",
    [
        failure(port=3),  # held by another worker
        failure(opened=8.0),  # the same port, used again after the kill
        failure(at=6.0),  # failed before it
        failure("mixed up: b'2'"),  # somebody else's answer
    ],
)
def test_nothing_else_may_fail(other: Failure) -> None:
    assert judge([other], [KILLED]) == ([], [other])
