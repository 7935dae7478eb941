"""The state machine of one worker, row by row of its table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ostler.ipc.messages import Beat, Blocked, BootFailed, Ready, RetireAsked
from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.events import Exited, Inspected, SpawnFailed, Started, Tick, Timings
from ostler.supervisor.fleet.slot import TABLE, Slot, SlotState, UnlistedEvent
from ostler.supervisor.fleet.slot_events import (
    BecameReady,
    Leave,
    LeaveNow,
    LeaveSoon,
    Lost,
    Outcome,
    SpawnAt,
    Vacated,
)

TIMINGS = Timings(startup=20, healthcheck=30, graceful=5)


def beat(loop: int, thread: int = 0, waited: int = 0) -> Beat:
    return Beat(loop, thread, waited, 0, 0, 0, 0.0, False)


def empty() -> Slot:
    return Slot(2, 1, TIMINGS, ticket=7)


def waiting() -> Slot:
    slot = empty()
    assert slot.handle(SpawnAt(104.0), 100.0) == []
    return slot


def spawned() -> Slot:
    slot = empty()
    assert slot.handle(SpawnAt(100.0), 100.0) == [ev.Spawn(7, 2, 1)]
    return slot


def booting() -> Slot:
    slot = spawned()
    assert slot.handle(Started(7, 814), 100.0) == []
    return slot


def ready() -> Slot:
    slot = booting()
    slot.handle(beat(1, 1), 100.5)
    slot.handle(Ready(), 101.0)
    return slot


def draining() -> Slot:
    slot = ready()
    assert slot.handle(Leave(), 110.0) == [ev.Drain(814)]
    return slot


def failed() -> Slot:
    slot = booting()
    slot.handle(BootFailed("ImportError: x"), 101.0)
    return slot


def aborted() -> Slot:
    slot = booting()
    slot.handle(Tick(), 120.0)
    return slot


def vacated() -> Slot:
    slot = booting()
    slot.handle(Exited(814, "exited with code 1"), 101.0)
    return slot


MAKERS: dict[SlotState, Callable[[], Slot]] = {
    SlotState.EMPTY: empty,
    SlotState.BACKOFF: waiting,
    SlotState.BOOTING: booting,
    SlotState.READY: ready,
    SlotState.DRAINING: draining,
    SlotState.ABORTED: aborted,
    SlotState.FAILED: failed,
    SlotState.VACATED: vacated,
}

EVENTS = [
    SpawnAt(100.0),
    Leave(),
    LeaveSoon(),
    LeaveNow(),
    Started(7, 814),
    SpawnFailed(7, "no memory"),
    Ready(),
    BootFailed("ImportError: x"),
    RetireAsked("1000 requests"),
    Blocked("main.py:4 app()"),
    beat(1),
    Inspected(814, None, "state S"),
    Exited(814, "exited with code 0"),
    Tick(),
]


def texts(outcomes: list[Outcome]) -> list[str]:
    found = []
    for outcome in outcomes:
        match outcome:
            case ev.Report(text=text):
                found.append(text)
            case ev.ReportWithPlace(cause=cause, consequence=consequence):
                found.append(f"{cause}: {consequence}")
            case Lost(cause=cause):
                found.append(cause)
    return found


def kinds(outcomes: list[Outcome]) -> list[type]:
    return [type(o) for o in outcomes]


# --- the table itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", list(SlotState), ids=lambda state: state.value)
def test_a_listed_pair_leads_to_a_listed_state_and_any_other_raises(state: SlotState, event: object) -> None:
    slot = MAKERS[state]()
    assert slot.state is state
    if isinstance(event, Started | SpawnFailed) and state in (
        SlotState.BOOTING,
        SlotState.DRAINING,
        SlotState.ABORTED,
    ):
        slot = spawned()
        if state is not SlotState.BOOTING:
            slot.handle(Leave() if state is SlotState.DRAINING else LeaveNow(), 100.0)
    row = TABLE.get((state, type(event)))
    if row is None:
        with pytest.raises(UnlistedEvent):
            slot.handle(event, 200.0)
        assert slot.state is state
    else:
        slot.handle(event, 200.0)
        assert slot.state in row.next


def test_these_tests_use_every_event_of_the_table() -> None:
    assert {kind for _, kind in TABLE} == {type(event) for event in EVENTS}


def test_every_state_can_be_left_but_vacated_and_entered_but_empty() -> None:
    assert {state for state, _ in TABLE} == set(SlotState) - {SlotState.VACATED}
    assert {state for row in TABLE.values() for state in row.next} == set(SlotState) - {SlotState.EMPTY}


def test_an_event_that_a_slot_does_not_know_raises() -> None:
    with pytest.raises(UnlistedEvent, match=r"str for <Slot 2 pid=814 generation=1 ready>"):
        ready().handle("hello", 101.0)


def test_a_spawn_is_answered_once() -> None:
    with pytest.raises(UnlistedEvent, match="twice"):
        booting().handle(Started(7, 815), 100.0)


# --- from empty to ready ----------------------------------------------------------------------------


def test_a_slot_in_back_off_spawns_at_its_time() -> None:
    slot = waiting()
    assert slot.deadline() == 104.0
    assert slot.handle(Tick(), 104.0) == [ev.Spawn(7, 2, 1)]
    assert slot.state is SlotState.BOOTING


def test_a_slot_in_back_off_that_is_told_to_leave_is_vacated_without_a_process() -> None:
    assert waiting().handle(Leave(), 101.0) == [Vacated()]
    assert waiting().handle(LeaveNow(), 101.0) == [Vacated()]


def test_the_boot_deadline_counts_from_the_start() -> None:
    assert spawned().deadline() is None
    assert booting().deadline() == 120.0


def test_a_worker_that_is_ready_notifies_its_fleet() -> None:
    slot = booting()
    outcomes = slot.handle(Ready(), 101.5)
    assert outcomes == [ev.Report("info", "Worker 2 (pid 814) is ready after 1.5 s"), BecameReady()]
    assert slot.served(110.0) == 8.5


def test_a_worker_that_is_not_ready_in_time_is_aborted() -> None:
    slot = booting()
    outcomes = slot.handle(Tick(), 120.0)
    assert outcomes[:1] == [ev.Abort(814)]
    assert texts(outcomes) == ["Worker 2 (pid 814) not ready after 20 s, aborted"]
    assert slot.deadline() == 122.0


def test_a_worker_that_cannot_start_is_left_to_exit_by_itself_for_five_seconds() -> None:
    slot = booting()
    cause = "Worker 2 (pid 814) could not start: ImportError: x"
    lost = Lost("error", cause, "ImportError: x", failed_start=True)
    assert slot.handle(BootFailed("ImportError: x"), 101.0) == [lost]
    assert slot.deadline() == 106.0
    outcomes = slot.handle(Tick(), 106.0)
    assert texts(outcomes) == ["Worker 2 (pid 814) did not exit within 5 s of its failed start: killed"]
    assert outcomes[-1] == ev.Kill(814)
    assert slot.deadline() is None


def test_a_spawn_that_fails_says_why() -> None:
    outcomes = spawned().handle(SpawnFailed(7, "no memory"), 100.0)
    assert texts(outcomes) == ["Worker 2 could not be spawned: no memory"]
    assert outcomes[-1] == Vacated()


# --- silence ----------------------------------------------------------------------------------------


def test_only_a_loop_counter_that_moves_ends_the_silence() -> None:
    slot = ready()
    assert slot.deadline() == 116.0
    slot.handle(beat(1, 2), 110.0)
    assert slot.deadline() == 116.0
    slot.handle(beat(2, 3), 112.0)
    assert slot.deadline() == 127.0


def test_half_of_the_silence_shows_the_stack_and_warns_with_the_evidence() -> None:
    slot = ready()
    slot.handle(beat(2, 2, waited=5_000), 102.0)
    slot.handle(beat(2, 9, waited=5_000), 116.0)
    assert slot.handle(Tick(), 117.0) == [ev.Inspect(814)]
    outcomes = slot.handle(Inspected(814, 9_000, "state S, in hrtimer_nanosleep"), 117.0)
    assert outcomes == [
        ev.ShowStack(814),
        ev.ReportWithPlace(
            814,
            "Worker 2 (pid 814) silent for 15 s (its event loop is blocked, its thread still beats; "
            "state S, in hrtimer_nanosleep)",
            "its stacks follow, abort in 15 s",
        ),
    ]
    assert slot.deadline() == 132.0


def test_each_line_about_a_silence_says_where_the_loop_is_blocked() -> None:
    slot = ready()
    slot.handle(beat(2, 9), 102.0)
    assert slot.handle(Blocked("main.py:4 app(), time.sleep"), 104.0) == []
    slot.handle(Blocked("main.py:4 app()"), 105.0)  # from the stacks, which tell less
    slot.handle(Tick(), 117.0)
    [text] = texts(slot.handle(Inspected(814, None, "state S"), 117.0))
    assert text.endswith(
        "; state S), blocked in main.py:4 app(), time.sleep: its stacks follow, abort in 15 s"
    )
    slot.handle(Blocked("main.py:9 other()"), 118.0)
    slot.handle(Tick(), 132.0)
    [text] = texts(slot.handle(Inspected(814, None, "state S"), 132.0))
    assert text.endswith("), blocked in main.py:9 other(): aborted")


def test_where_the_loop_was_blocked_is_forgotten_once_it_runs() -> None:
    slot = ready()
    slot.handle(beat(2, 2), 102.0)
    slot.handle(Blocked("main.py:4 app()"), 104.0)
    slot.handle(beat(2, 3), 105.0)
    assert slot.blocked_in == "main.py:4 app()"
    slot.handle(beat(3, 4), 106.0)
    assert slot.blocked_in is None


def test_a_drain_that_takes_too_long_says_where_the_loop_is_blocked() -> None:
    slot = draining()
    slot.handle(Blocked("main.py:4 app()"), 111.0)
    [text] = texts(slot.handle(Tick(), 116.0))
    assert text.endswith("6 s after SIGTERM, blocked in main.py:4 app(): its stacks follow, aborted")


def test_a_worker_whose_thread_is_silent_too_does_not_run_at_all() -> None:
    slot = ready()
    slot.handle(beat(2, 2), 102.0)
    slot.handle(Tick(), 117.0)
    [text] = texts(slot.handle(Inspected(814, None, "state T"), 117.0))
    assert "(the whole process does not run: stopped, starved or its GIL held; state T)" in text


def test_the_whole_of_the_silence_aborts_with_one_line_of_evidence_and_kills_two_seconds_later() -> None:
    slot = ready()
    slot.handle(beat(2, 2), 102.0)
    slot.handle(Tick(), 117.0)
    slot.handle(Inspected(814, None, "state T"), 117.0)
    assert slot.handle(Tick(), 132.0) == [ev.Inspect(814)]
    outcomes = slot.handle(Inspected(814, None, "state T"), 132.0)
    assert outcomes[:1] == [ev.Abort(814)]
    [text] = texts(outcomes)
    assert text.startswith("Worker 2 (pid 814) silent for 30 s (the whole process does not run")
    assert text.endswith("; state T): aborted")
    assert "\n" not in text
    assert slot.deadline() == 134.0
    outcomes = slot.handle(Tick(), 134.0)
    assert texts(outcomes) == ["Worker 2 (pid 814) did not end within 2 s of SIGABRT: killed"]
    assert outcomes[-1] == ev.Kill(814)
    assert slot.deadline() is None


def test_time_spent_waiting_for_a_cpu_is_not_counted() -> None:
    slot = ready()
    slot.handle(beat(2, 2, waited=1_000_000_000), 102.0)
    slot.handle(Tick(), 117.0)
    outcomes = slot.handle(Inspected(814, 13_000_000_000, "state R"), 117.0)  # 12 s of these 15
    assert kinds(outcomes) == [ev.Report]
    assert isinstance(outcomes[0], ev.Report)
    assert outcomes[0].level == "debug"
    assert slot.deadline() == 129.0
    slot.handle(Tick(), 129.0)
    [text] = texts(slot.handle(Inspected(814, 13_000_000_000, "state R"), 129.0))
    assert text.startswith("Worker 2 (pid 814) silent for 27 s, 12 s of it waiting for a CPU (")
    assert slot.deadline() == 144.0


def test_a_worker_starved_all_the_time_is_not_aborted_and_seldom_looked_at() -> None:
    slot = ready()
    slot.handle(beat(2, 2, waited=0), 102.0)
    looks = 0
    while (now := slot.deadline() or 0.0) < 600.0:  # by then it has had 15 s of CPU, and did not beat
        slot.handle(Tick(), now)
        outcomes = slot.handle(Inspected(814, int((now - 102.0) * 0.97e9), "state R"), now)
        assert ev.Abort not in kinds(outcomes)
        looks += 1
    assert looks < 200


def test_shrinking_excuses_do_not_make_a_busy_loop() -> None:
    slot = ready()
    slot.handle(beat(2, 2, waited=0), 102.0)
    slot.handle(Tick(), 117.0)
    slot.handle(Inspected(814, 100_000_000, "state R"), 117.0)
    assert slot.deadline() == 117.25


def test_microseconds_of_waiting_are_no_excuse() -> None:
    slot = ready()
    slot.handle(beat(2, 2, waited=0), 102.0)
    slot.handle(Tick(), 117.0)
    assert ev.ShowStack(814) in slot.handle(Inspected(814, 5_000, "state S"), 117.0)


def test_an_inspection_without_an_answer_is_judged_by_the_silence_alone() -> None:
    slot = ready()
    slot.handle(Tick(), 116.0)
    assert slot.deadline() == 118.0
    outcomes = slot.handle(Tick(), 118.0)
    assert kinds(outcomes) == [ev.ShowStack, ev.ReportWithPlace]
    assert "no evidence to be had" in texts(outcomes)[0]


def test_an_answer_that_comes_after_a_beat_has_no_effect() -> None:
    slot = ready()
    slot.handle(Tick(), 116.0)
    slot.handle(beat(2, 2), 116.5)
    assert slot.handle(Inspected(814, None, "state S"), 117.0) == []
    assert slot.deadline() == 131.5


def test_an_answer_that_comes_too_late_to_judge_by_excuses_all_the_same() -> None:
    slot = ready()
    slot.handle(Tick(), 116.0)
    slot.handle(Tick(), 118.0)
    assert slot.deadline() == 131.0
    assert slot.handle(Inspected(814, 6_000_000_000, "state R"), 119.0) == []
    assert slot.deadline() == 137.0


def test_a_worker_that_answers_again_after_the_warning_says_how_long_it_was_silent() -> None:
    slot = ready()
    slot.handle(Tick(), 116.0)
    slot.handle(Inspected(814, None, "state S"), 116.0)
    outcomes = slot.handle(beat(2, 2), 121.0)
    assert outcomes == [ev.Report("info", "Worker 2 (pid 814) answers again, it was silent for 20 s")]
    assert slot.deadline() == 136.0
    assert slot.handle(beat(3, 3), 122.0) == []


def test_the_arbiters_lateness_extends_boot_and_silence_but_no_deadline_of_a_worker_that_leaves() -> None:
    for make, later in ((booting, 7.0), (ready, 7.0), (draining, 0.0), (failed, 0.0), (aborted, 0.0)):
        slot = make()
        before = slot.deadline()
        assert before is not None
        slot.extend(7.0)
        assert slot.deadline() == before + later


# --- leaving ----------------------------------------------------------------------------------------


def test_a_drain_ends_within_the_graceful_time_and_three_seconds() -> None:
    slot = draining()
    assert slot.deadline() == 116.0
    outcomes = slot.handle(Tick(), 116.0)
    assert kinds(outcomes) == [ev.ReportWithPlace, ev.Abort]
    assert texts(outcomes) == [
        "Worker 2 (pid 814) still drains 6 s after SIGTERM: its stacks follow, aborted",
    ]
    assert slot.deadline() == 117.0
    outcomes = slot.handle(Tick(), 117.0)
    assert texts(outcomes) == ["Worker 2 (pid 814) did not end within 1 s of SIGABRT: killed"]
    assert outcomes[-1] == ev.Kill(814)


def test_a_worker_told_to_leave_at_once_is_killed_a_second_later() -> None:
    for make in (booting, ready, draining, failed):
        slot = make()
        assert slot.handle(LeaveNow(), 111.0) == [ev.Quit(814)]
        assert slot.deadline() == 112.0
        outcomes = slot.handle(Tick(), 112.0)
        assert texts(outcomes) == ["Worker 2 (pid 814) did not end within 1 s of SIGQUIT: killed"]


def test_an_aborted_worker_told_to_leave_at_once_has_a_second_at_most() -> None:
    slot = aborted()
    assert slot.handle(LeaveNow(), 120.0) == []
    assert slot.deadline() == 121.0


def test_a_killed_worker_is_waited_for_without_a_deadline() -> None:
    slot = aborted()
    slot.handle(Tick(), 122.0)
    assert slot.handle(LeaveNow(), 123.0) == []
    assert slot.deadline() is None
    assert kinds(slot.handle(Exited(814, "was killed by SIGKILL", "SIGKILL"), 999.0)) == [ev.Report, Vacated]


def test_an_order_to_leave_during_the_spawn_is_carried_out_as_soon_as_there_is_a_pid() -> None:
    slot = spawned()
    assert slot.handle(Leave(), 100.0) == []
    assert slot.handle(Started(7, 814), 100.5) == [ev.Drain(814)]
    assert slot.deadline() == 106.5
    slot = spawned()
    assert slot.handle(LeaveNow(), 100.0) == []
    assert slot.handle(Started(7, 814), 100.5) == [ev.Quit(814)]
    assert slot.deadline() == 101.5


def test_a_spawn_that_fails_after_an_order_to_leave_is_no_loss() -> None:
    slot = spawned()
    slot.handle(Leave(), 100.0)
    assert slot.handle(SpawnFailed(7, "no memory"), 100.0) == [Vacated()]


@pytest.mark.parametrize("message", [Ready(), BootFailed("x"), RetireAsked("x"), Blocked("x"), beat(5)])
def test_messages_of_a_worker_that_leaves_are_ignored(message: object) -> None:
    for make in (draining, aborted):
        slot = make()
        before = (slot.state, slot.deadline())
        assert slot.handle(message, 111.0) == []
        assert (slot.state, slot.deadline()) == before


def test_beats_are_kept_for_the_log_while_a_worker_drains() -> None:
    slot = draining()
    slot.handle(beat(9), 111.0)
    assert slot.beat == beat(9)


def test_a_worker_asks_for_its_successor_once() -> None:
    slot = ready()
    text = "Worker 2 (pid 814) asks for a successor: 1000 requests; it serves on until then"
    assert texts(slot.handle(RetireAsked("1000 requests"), 102.0)) == [text]
    assert slot.handle(RetireAsked("again"), 103.0) == []
    assert slot.retiring == "1000 requests"


# --- what the log says of an exit --------------------------------------------------------------------


def test_the_log_of_a_death_says_how_and_by_whom_and_how_long_it_had_served() -> None:
    gone = Exited(814, "was killed by SIGKILL", "SIGKILL", "probably the kernel's OOM killer")
    [lost, vacated] = ready().handle(gone, 201.0)
    text = (
        "Worker 2 (pid 814) was killed by SIGKILL (not sent by ostler) after serving for 100 s, "
        "probably the kernel's OOM killer"
    )
    assert isinstance(lost, Lost)
    assert lost.cause == text
    assert vacated == Vacated()


def test_a_death_before_ready_says_so() -> None:
    [text] = texts(booting().handle(Exited(814, "exited with code 1"), 101.0))
    assert text == "Worker 2 (pid 814) exited with code 1 before it was ready"


def test_an_unexpected_exit_is_a_loss_even_with_code_0() -> None:
    assert kinds(ready().handle(Exited(814, "exited with code 0"), 200.0)) == [Lost, Vacated]


def test_an_exit_after_a_drain_is_no_warning() -> None:
    outcomes = draining().handle(Exited(814, "exited with code 0"), 111.0)
    text = "Worker 2 (pid 814) exited with code 0 after serving for 10 s"
    assert outcomes == [ev.Report("info", text), Vacated()]


def test_an_exit_by_a_signal_that_ostler_sent_says_so() -> None:
    [text] = texts(aborted().handle(Exited(814, "was killed by SIGABRT", "SIGABRT"), 121.0))
    assert text == "Worker 2 (pid 814) was killed by SIGABRT (sent by ostler) before it was ready"


def test_a_draining_worker_killed_by_another_process_is_a_warning() -> None:
    [report, _] = draining().handle(Exited(814, "was killed by SIGKILL", "SIGKILL"), 111.0)
    assert isinstance(report, ev.Report)
    assert report.level == "warning"
    assert "not sent by ostler" in report.text
