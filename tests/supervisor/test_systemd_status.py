"""What a service manager is told of a fleet, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ostler.ipc.messages import Beat, Ready
from ostler.supervisor.fleet.events import MessageReceived, Roll, Started, Stop, Timings
from ostler.supervisor.fleet.fleet import Fleet
from ostler.supervisor.systemd_status import (
    EXTENSION,
    Datagram,
    FleetSnapshot,
    Phase,
    SystemdStatus,
    snapshot,
)

BOOTING = FleetSnapshot(
    size=4, ready=0, healthy=0, booting=4, processes=4, generation=1, rolling=False, stopping=False
)
WELL = replace(BOOTING, ready=4, healthy=4, booting=0)
ROLLING = replace(WELL, rolling=True, booting=1)
EXTEND = (f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}",)


def serving(watchdog: float | None = None, now: float = 0.0) -> SystemdStatus:
    status = SystemdStatus(77, watchdog)
    status.update(WELL, now)
    assert status.phase is Phase.SERVING
    return status


def said(messages: list[Datagram]) -> list[str]:
    """Return every field but the status."""
    return [field for message in messages for field in message if not field.startswith("STATUS=")]


def statuses(messages: list[Datagram]) -> list[str]:
    return [field[7:] for message in messages for field in message if field.startswith("STATUS=")]


def test_ready_is_told_once_and_only_when_the_whole_fleet_is() -> None:
    status = SystemdStatus(77)
    assert status.update(BOOTING, 0.0) == [("STATUS=0 of 4 workers ready",), EXTEND]
    assert said(status.update(replace(BOOTING, ready=3, booting=1), 1.0)) == []
    ready = status.update(WELL, 2.0)
    assert ready == [("READY=1", "MAINPID=77", "STATUS=4 of 4 workers ready, generation 1, 0 req/s")]
    assert status.update(WELL, 3.0) == []
    assert said(status.update(replace(WELL, ready=3, booting=1), 4.0)) == []
    assert said(status.update(WELL, 5.0)) == []


def test_a_long_boot_asks_for_more_time_twice_within_each_extension() -> None:
    status = SystemdStatus(77)
    now, asked = 0.0, 0
    while now < 100:
        asked += EXTEND in status.update(BOOTING, now)
        due = status.deadline()
        assert due is not None
        assert now < due <= now + EXTENSION / 2
        now = due
    assert asked == 10
    status.update(WELL, now)
    assert status.deadline() is None


def test_a_start_that_makes_no_progress_asks_for_no_more_time() -> None:
    status = SystemdStatus(77)
    status.update(BOOTING, 0.0)
    waiting = replace(BOOTING, ready=3, healthy=3, booting=0)  # the fourth waits for its next try
    assert said(status.update(waiting, 30.0)) == []
    assert status.deadline() is None


def test_a_reload_is_told_with_its_time_and_its_end() -> None:
    status = serving()
    assert status.reload_asked(12.5) == [("RELOADING=1", "MONOTONIC_USEC=12500000")]
    status.reload_begins(2)
    assert said(status.update(ROLLING, 12.6)) == [*EXTEND]
    [end] = status.update(replace(WELL, generation=2), 14.0)
    assert end == ("READY=1", "STATUS=4 of 4 workers ready, generation 2, 0 req/s")
    assert status.phase is Phase.SERVING


def test_a_reload_that_is_refused_is_over_at_once_and_the_status_says_why() -> None:
    status = serving()
    status.reload_asked(1.0)
    status.reload_refused("port is 'x'")
    [end] = status.update(WELL, 1.0)
    assert end[0] == "READY=1"
    assert end[1].endswith("; last reload refused: port is 'x'")
    status.reload_asked(2.0)
    status.reload_begins(2)
    assert "refused" not in statuses(status.update(replace(WELL, generation=2), 3.0))[0]


def test_a_reload_that_is_given_up_is_over_and_the_status_says_so() -> None:
    status = serving()
    status.reload_asked(1.0)
    status.reload_begins(2)
    status.update(ROLLING, 1.0)
    [end] = status.update(WELL, 2.0)
    assert end[0] == "READY=1"
    assert "rolling restart to generation 2 given up" in end[1]


def test_a_reload_asked_for_while_starting_is_told_right_after_ready() -> None:
    status = SystemdStatus(77)
    status.update(BOOTING, 0.0)
    assert status.reload_asked(1.0) == []
    status.reload_begins(2)
    messages = status.update(ROLLING, 2.0)
    assert said(messages)[:4] == ["READY=1", "MAINPID=77", "RELOADING=1", "MONOTONIC_USEC=2000000"]


def test_a_second_reload_during_the_first_is_told_again_and_both_end_together() -> None:
    status = serving()
    status.reload_asked(1.0)
    status.update(ROLLING, 1.0)
    assert status.reload_asked(2.0) == [("RELOADING=1", "MONOTONIC_USEC=2000000")]
    status.update(ROLLING, 2.0)
    assert said(status.update(replace(WELL, generation=3), 9.0)) == ["READY=1"]


def test_a_stop_is_told_once_and_asks_for_time_while_it_drains() -> None:
    status = serving(watchdog=10.0)
    stopping = replace(WELL, stopping=True, ready=0, healthy=0, processes=3)
    first = status.update(stopping, 50.0)
    assert first == [("STOPPING=1", "STATUS=stopping, 3 workers left"), EXTEND]
    assert status.deadline() == 50.0 + EXTENSION / 2
    assert status.update(replace(stopping, processes=2), 51.0) == [("STATUS=stopping, 2 workers left",)]
    assert status.update(replace(stopping, processes=2), 60.0) == [EXTEND]
    assert status.reload_asked(61.0) == []


def test_a_stop_that_was_asked_for_is_told_while_the_fleet_still_serves() -> None:
    status = serving()
    status.stop_asked()
    assert said(status.update(WELL, 1.0)) == ["STOPPING=1", *EXTEND]
    assert said(status.update(replace(WELL, stopping=True), 12.0)) == [*EXTEND]


def test_the_watchdog_is_answered_at_half_its_time() -> None:
    status = serving(watchdog=10.0)
    assert status.deadline() == 5.0
    assert said(status.update(WELL, 4.9)) == []
    assert said(status.update(WELL, 5.0)) == ["WATCHDOG=1"]
    assert status.deadline() == 10.0


@pytest.mark.parametrize(
    ("size", "healthy", "answered"), [(4, 3, True), (4, 2, False), (3, 2, True), (1, 0, False)]
)
def test_the_watchdog_is_answered_only_while_more_than_half_are_healthy(
    size: int, healthy: int, answered: bool
) -> None:
    status = SystemdStatus(77, 10.0)
    fleet = replace(WELL, size=size, ready=size, healthy=size)
    status.update(fleet, 0.0)
    assert (said(status.update(replace(fleet, healthy=healthy), 5.0)) == ["WATCHDOG=1"]) is answered


def test_an_overdue_watchdog_answer_is_sent_with_the_quorum_and_sets_no_deadline_before() -> None:
    status = serving(watchdog=10.0)
    status.update(replace(WELL, healthy=1), 5.0)
    assert status.deadline() is None
    assert said(status.update(replace(WELL, healthy=2), 6.0)) == []
    assert said(status.update(replace(WELL, healthy=3), 7.0)) == ["WATCHDOG=1"]
    assert status.deadline() == 12.0


def test_workers_that_are_added_count_for_the_watchdog_only_once_they_are_ready() -> None:
    status = serving(watchdog=10.0)
    scaled = replace(WELL, size=16, booting=12)
    assert said(status.update(scaled, 5.0)) == ["WATCHDOG=1"]
    status.update(replace(scaled, ready=16, healthy=16), 6.0)
    assert said(status.update(scaled, 10.0)) == []


def test_the_status_has_the_rate_and_changes_with_it_at_most_every_few_seconds() -> None:
    status = serving()
    sent = []
    for second in range(1, 61):
        busy = replace(WELL, served={1: 700 * second, 2: 501 * second})
        sent += statuses(status.update(busy, float(second)))
    assert sent == ["4 of 4 workers ready, generation 1, 1200 req/s"]
    assert status.deadline() is None


def test_the_requests_of_a_worker_that_has_exited_still_count_for_the_rate() -> None:
    status = serving()
    status.update(replace(WELL, served={1: 300}), 1.0)
    status.update(replace(WELL, served={2: 200}), 2.0)
    assert statuses(status.update(replace(WELL, served={2: 200}), 5.0))[0].endswith("100 req/s")


def test_the_status_tells_a_lost_worker_at_once() -> None:
    status = serving()
    lost = replace(WELL, ready=3, healthy=3)
    assert statuses(status.update(lost, 0.1)) == ["3 of 4 workers ready, generation 1, 0 req/s"]


def test_a_snapshot_has_the_figures_of_the_fleet() -> None:
    fleet = Fleet(2, Timings(healthcheck=30.0))
    fleet.start(0.0)
    assert snapshot(fleet, 0.0) == replace(BOOTING, size=2, booting=2, processes=0)
    for ticket in (1, 2):
        fleet.handle(Started(ticket, ticket), 0.0)
        fleet.handle(MessageReceived(ticket, Ready()), 1.0)
    beat = Beat(loop=1, thread=1, waited=0, served=5, in_flight=0, connections=0, lag=0.0, draining=False)
    fleet.handle(MessageReceived(1, beat), 10.0)
    now = snapshot(fleet, 17.0)  # 16 s after the other one was heard, of 30
    assert (now.ready, now.healthy, now.served) == (2, 1, {1: 5})
    fleet.handle(Roll(2, Timings()), 17.0)
    assert snapshot(fleet, 17.0).rolling
    fleet.handle(Stop(), 17.0)
    assert snapshot(fleet, 17.0).stopping
