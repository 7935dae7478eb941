"""Replacing the arbiter, as it is decided: every order of what can happen has one end."""

from __future__ import annotations

import dataclasses

import pytest

from ostler.supervisor.fleet.events import Report
from ostler.supervisor.upgrade.decision import Circumstances, End, HandOver, Launch, Resume, State, Succession

GIVEN = Circumstances(obstacle="", stopping=False, served=True, newcomer=False, startup=300.0, grace=35.0)


def started() -> Succession:
    succession = Succession()
    assert succession.ask(GIVEN, 0.0) == [Launch()]
    succession.launched(7)
    return succession


def text(actions: list[object]) -> str:
    return " ".join(action.text for action in actions if isinstance(action, Report))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"obstacle": "as this is PID 1"}, "no upgrade, as this is PID 1"),
        ({"stopping": True, "obstacle": "as this is PID 1"}, "ostler stops"),
        ({"served": False}, "no worker has been ready yet"),
        ({"newcomer": True}, "this arbiter is the new one"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(change: dict[str, object], why: str) -> None:
    succession = Succession()
    [report] = succession.ask(dataclasses.replace(GIVEN, **change), 0.0)  # type: ignore[arg-type]
    assert why in text([report])
    assert succession.state is State.IDLE
    assert succession.deadline() is None


def test_the_place_is_handed_over_once_the_new_arbiter_is_ready() -> None:
    succession = started()
    *_, last = succession.ready()
    assert last == HandOver(7)
    assert succession.deadline() is None
    assert succession.ready() == []
    assert "ostler stops" in text([*succession.ask(GIVEN, 1.0)])


def test_only_one_upgrade_at_a_time() -> None:
    succession = started()
    assert "one is under way already: new arbiter process [7]" in text([*succession.ask(GIVEN, 1.0)])


def test_a_failure_is_told_with_the_last_words_and_what_was_put_off_is_resumed() -> None:
    succession = started()
    succession.said("port is 'x'")
    report, resume = succession.ended()
    assert "[7]: it has ended: port is 'x'" in text([report])
    assert resume == Resume()
    assert succession.ask(GIVEN, 1.0) == [Launch()]


def test_one_that_could_not_be_started_is_a_failure() -> None:
    succession = Succession()
    succession.ask(GIVEN, 0.0)
    report, resume = succession.unlaunched("No such file or directory: inn")
    assert "could not be started (No such file or directory: inn)" in text([report])
    assert resume == Resume()


def test_one_that_is_late_is_told_to_go_then_killed_and_its_readiness_comes_too_late() -> None:
    succession = started()
    assert succession.deadline() == 310.0
    assert succession.tick(309.9) == []
    assert succession.tick(310.0) == [End(7, "SIGTERM")]
    assert succession.ready() == []
    assert succession.tick(345.0) == [End(7, "SIGKILL")]
    assert succession.deadline() is None
    assert "not ready after 310 s" in text([*succession.ended()])


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGQUIT"])
def test_a_stop_ends_the_new_arbiter_as_well(signal: str) -> None:
    succession = started()
    assert succession.stop(signal, 5.0) == [End(7, signal)]  # type: ignore[arg-type]
    assert succession.ready() == []
    assert [*map(type, succession.ended())] == [Report]


def test_a_stop_without_an_upgrade_or_after_it_concerns_nobody_else() -> None:
    assert Succession().stop("SIGTERM", 0.0) == []
    done = started()
    done.ready()
    assert done.stop("SIGTERM", 0.0) == []
    assert done.ended() == []
