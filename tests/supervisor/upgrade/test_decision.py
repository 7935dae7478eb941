"""What the old arbiter decides in an upgrade."""

from __future__ import annotations

import dataclasses

import pytest

from ostler.supervisor.fleet.events import Report
from ostler.supervisor.upgrade.decision import (
    HandOver,
    Launch,
    Preconditions,
    RunPostponed,
    SendSignal,
    UpgradeDecision,
    UpgradeState,
)

GIVEN = Preconditions(obstacle="", stopping=False, served=True, is_new=False, startup=300.0, grace=35.0)


def started() -> UpgradeDecision:
    decision = UpgradeDecision()
    assert decision.requested(GIVEN, 0.0) == [Launch()]
    decision.launched(7)
    return decision


def text(actions: list[object]) -> str:
    return " ".join(action.text for action in actions if isinstance(action, Report))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"obstacle": "as this is PID 1"}, "no upgrade, as this is PID 1"),
        ({"stopping": True, "obstacle": "as this is PID 1"}, "ostler stops"),
        ({"served": False}, "no worker has been ready yet"),
        ({"is_new": True}, "this arbiter is the new one"),
    ],
)
def test_an_upgrade_that_is_not_possible_is_refused_with_the_reason(
    change: dict[str, object], why: str
) -> None:
    decision = UpgradeDecision()
    [report] = decision.requested(dataclasses.replace(GIVEN, **change), 0.0)  # type: ignore[arg-type]
    assert why in text([report])
    assert decision.state is UpgradeState.IDLE
    assert decision.deadline() is None


def test_the_old_arbiter_hands_over_once_the_new_one_is_ready() -> None:
    decision = started()
    *_, last = decision.ready()
    assert last == HandOver(7)
    assert decision.deadline() is None
    assert decision.ready() == []
    assert "ostler stops" in text([*decision.requested(GIVEN, 1.0)])


def test_only_one_upgrade_at_a_time() -> None:
    decision = started()
    assert "one is under way already: new arbiter process [7]" in text([*decision.requested(GIVEN, 1.0)])


def test_a_failure_is_logged_with_the_last_message_and_postponed_signals_are_carried_out() -> None:
    decision = started()
    decision.message_received("port is 'x'")
    report, postponed = decision.exited()
    assert "[7]: it has ended: port is 'x'" in text([report])
    assert postponed == RunPostponed()
    assert decision.requested(GIVEN, 1.0) == [Launch()]


def test_an_arbiter_that_could_not_be_started_is_a_failure() -> None:
    decision = UpgradeDecision()
    decision.requested(GIVEN, 0.0)
    report, postponed = decision.launch_failed("No such file or directory: inn")
    assert "could not be started (No such file or directory: inn)" in text([report])
    assert postponed == RunPostponed()


def test_an_arbiter_that_is_late_is_told_to_stop_then_killed_and_cannot_take_over_any_more() -> None:
    decision = started()
    assert decision.deadline() == 310.0
    assert decision.tick(309.9) == []
    assert decision.tick(310.0) == [SendSignal(7, "SIGTERM")]
    assert decision.ready() == []
    assert decision.tick(345.0) == [SendSignal(7, "SIGKILL")]
    assert decision.deadline() is None
    assert "not ready after 310 s" in text([*decision.exited()])


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGQUIT"])
def test_a_stop_ends_the_new_arbiter_as_well(signal: str) -> None:
    decision = started()
    assert decision.stop(signal, 5.0) == [SendSignal(7, signal)]  # type: ignore[arg-type]
    assert decision.ready() == []
    assert [*map(type, decision.exited())] == [Report]


def test_a_stop_without_an_upgrade_or_after_it_sends_nothing() -> None:
    assert UpgradeDecision().stop("SIGTERM", 0.0) == []
    done = started()
    done.ready()
    assert done.stop("SIGTERM", 0.0) == []
    assert done.exited() == []
