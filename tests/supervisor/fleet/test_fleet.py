"""What a fleet decides in one scenario after another, and what it logs."""

from __future__ import annotations

import pytest

from ostler.ipc.messages import Beat, BootFailed, Message, Ready, RetireAsked
from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.events import Timings
from ostler.supervisor.fleet.fleet import Fleet
from ostler.supervisor.fleet.slot import SlotState

TIMINGS = Timings(startup=20, healthcheck=30, graceful=5)


class Scene:
    """A fleet and a clock.

    A spawn is answered at once: with the pid 100 + ticket, or with a failure if `forks` is False.
    """

    def __init__(self, size: int, *, timings: Timings = TIMINGS, reloads: bool = False) -> None:
        self.fleet = Fleet(size, timings, reloads=reloads)
        self.now = 1000.0
        self.forks = True
        self.orders: list[ev.Action] = []
        self._obey(self.fleet.start(self.now))

    def do(self, event: ev.Event) -> list[ev.Action]:
        """Return the fleet's actions on this event, in order."""
        self.orders = []
        self._obey(self.fleet.handle(event, self.now))
        return self.orders

    def _obey(self, actions: list[ev.Action]) -> None:
        self.orders += actions
        for action in actions:
            if isinstance(action, ev.Spawn):
                answer = ev.Started(action.ticket, 100 + action.ticket)
                refused = ev.SpawnFailed(action.ticket, "no memory")
                self._obey(self.fleet.handle(answer if self.forks else refused, self.now))

    def told(self, pid: int, message: Message) -> list[ev.Action]:
        return self.do(ev.MessageReceived(pid, message))

    def ready(self, *pids: int) -> list[ev.Action]:
        return [action for pid in pids for action in self.told(pid, Ready())]

    def dies(self, pid: int) -> list[ev.Action]:
        return self.do(ev.Exited(pid, "was killed by SIGSEGV", "SIGSEGV"))

    def gone(self, pid: int) -> list[ev.Action]:
        return self.do(ev.Exited(pid, "exited with code 0"))

    def after(self, seconds: float) -> list[ev.Action]:
        """Let time pass while all workers beat, and tick at its end."""
        until, seen = self.now + seconds, []
        while (due := self.fleet.deadline()) is not None and due < until:
            self.now = max(due, self.now)
            seen += [*self.beat(), *self.do(ev.Tick())]
        self.now = until
        return [*seen, *self.beat(), *self.do(ev.Tick())]

    def beat(self) -> list[ev.Action]:
        message = Beat(int(self.now * 1000), 1, 0, 0, 0, 0, 0.0, False)
        pids = [s.pid for s in self.fleet.slots() if s.pid is not None and s.state is SlotState.READY]
        return [action for pid in pids for action in self.told(pid, message)]

    def roll(self, generation: int = 2, timings: Timings = TIMINGS) -> list[ev.Action]:
        return self.do(ev.Roll(generation, timings))

    def states(self) -> dict[int | None, str]:
        return {slot.pid: slot.state.value for slot in self.fleet.slots()}


def serving(size: int) -> Scene:
    """Return a fleet that has served for a minute, with the pids 101, 102, ..."""
    scene = Scene(size)
    scene.ready(*range(101, 101 + size))
    scene.after(60)
    return scene


def said(actions: list[ev.Action], level: str = "") -> list[str]:
    return [a.text for a in actions if isinstance(a, ev.Report) and level in a.level]


def done(actions: list[ev.Action]) -> list[ev.Action]:
    return [a for a in actions if not isinstance(a, ev.Report | ev.ReportWithPlace)]


# --- the first boot ---------------------------------------------------------------------------------


def test_a_fleet_spawns_all_its_workers_at_once() -> None:
    fleet = Fleet(3, TIMINGS)
    assert fleet.start(0.0) == [ev.Spawn(1, 1, 1), ev.Spawn(2, 2, 1), ev.Spawn(3, 3, 1)]
    with pytest.raises(ValueError, match="twice"):
        fleet.start(0.0)


def test_a_fleet_has_at_least_one_worker() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Fleet(0, TIMINGS)


def test_a_failed_first_boot_stops_everything_with_code_3_and_the_reason() -> None:
    scene = Scene(2)
    orders = scene.told(101, BootFailed("ImportError: no module named mian"))
    text = "Worker 1 (pid 101) could not start: ImportError: no module named mian"
    assert said(orders, "error") == [f"{text}: no worker has ever been ready, ostler stops"]
    assert done(orders) == [ev.Drain(102)]
    assert done(scene.gone(102)) == []
    assert done(scene.gone(101)) == [ev.Finish(3, "ImportError: no module named mian")]


def test_a_first_boot_that_ends_by_itself_or_takes_too_long_or_cannot_fork_stops_with_code_3_too() -> None:
    scene = Scene(1)
    reason = "Worker 1 (pid 101) was killed by SIGSEGV (not sent by ostler) before it was ready"
    assert done(scene.dies(101)) == [ev.Finish(3, reason)]
    scene = Scene(1)
    assert done(scene.after(20)) == [ev.Abort(101)]
    assert done(scene.gone(101)) == [ev.Finish(3, "Worker 1 (pid 101) was not ready after 20 s")]
    fleet = Fleet(2, TIMINGS)
    fleet.start(0.0)
    assert done(fleet.handle(ev.SpawnFailed(1, "no memory"), 0.0)) == []
    assert done(fleet.handle(ev.SpawnFailed(2, "no memory"), 0.0)) == [
        ev.Finish(3, "Worker 1 could not be spawned: no memory"),
    ]


def test_a_stop_during_the_stop_of_a_failed_first_boot_leaves_the_code_at_3() -> None:
    for stop in (ev.Stop(), ev.StopNow()):
        scene = Scene(2)
        scene.told(101, BootFailed("x"))
        scene.do(stop)
        scene.gone(102)
        assert done(scene.gone(101)) == [ev.Finish(3, "x")]


def test_once_a_worker_has_been_ready_a_failing_boot_is_tried_again() -> None:
    scene = Scene(2)
    scene.ready(101)
    assert said(scene.told(102, BootFailed("x"))) == [
        "Worker 2 (pid 102) could not start: x: next try in 0.5 s",
    ]
    assert done(scene.after(0.5)) == [ev.Spawn(3, 2, 1)]


# --- deaths and back-off ----------------------------------------------------------------------------


def test_a_worker_that_dies_after_a_stable_run_is_respawned_at_once() -> None:
    scene = serving(2)
    orders = scene.dies(102)
    text = "Worker 2 (pid 102) was killed by SIGSEGV (not sent by ostler) after serving for 60 s"
    assert said(orders, "warning") == [f"{text}: successor starts now"]
    assert done(orders) == [ev.Spawn(3, 2, 1)]


def test_the_back_off_doubles_with_each_death_in_a_row_up_to_thirty_seconds() -> None:
    scene = serving(1)
    scene.dies(101)
    pid, waits = 102, []
    for _ in range(9):
        [text] = said(scene.dies(pid))
        waits.append(text.partition("next try in ")[2])
        began = scene.now
        due = scene.fleet.deadline()
        assert due is not None
        [spawn] = done(scene.after(due - began))
        assert isinstance(spawn, ev.Spawn)
        pid = 100 + spawn.ticket
    assert waits == ["0.5 s", "1 s", "2 s", "4 s", "8 s", "16 s", "30 s", "30 s", "30 s"]


def test_a_stable_run_resets_the_back_off() -> None:
    scene = serving(1)
    scene.dies(101)
    scene.dies(102)
    scene.after(0.5)
    scene.dies(103)
    scene.after(1)
    scene.ready(104)
    scene.after(10)
    assert "successor starts now" in said(scene.dies(104))[0]
    assert "next try in 0.5 s" in said(scene.dies(105))[0]


def test_an_unexpected_exit_with_code_0_is_a_crash() -> None:
    scene = Scene(1)
    scene.ready(101)
    scene.after(3)
    assert said(scene.gone(101)) == [
        "Worker 1 (pid 101) exited with code 0 after serving for 3 s: successor starts now",
    ]
    scene.ready(102)
    scene.after(3)
    assert said(scene.gone(102)) == [
        "Worker 1 (pid 102) exited with code 0 after serving for 3 s: next try in 0.5 s",
    ]


@pytest.mark.parametrize("seconds", [0, 0.1, 9.9, 10, 1000])
def test_the_first_death_in_a_row_is_answered_at_once_whatever_the_age(seconds: float) -> None:
    scene = Scene(2)
    scene.ready(101, 102)
    scene.after(seconds)
    orders = scene.dies(102)
    assert done(orders) == [ev.Spawn(3, 2, 1)]
    assert "successor starts now" in said(orders)[-1]
    assert "next try in 0.5 s" in said(scene.dies(103))[0]


def test_the_first_death_is_answered_at_once_also_before_the_worker_was_ready() -> None:
    scene = Scene(2)
    scene.ready(101)
    assert done(scene.dies(102)) == [ev.Spawn(3, 2, 1)]
    assert done(scene.dies(103)) == []
    assert done(scene.after(0.5)) == [ev.Spawn(4, 2, 1)]


def test_the_deaths_of_one_slot_do_not_hold_up_another() -> None:
    scene = Scene(2)
    scene.ready(101, 102)
    scene.dies(102)
    scene.dies(103)
    assert done(scene.dies(101)) == [ev.Spawn(5, 1, 1)]


def test_an_application_that_cannot_be_imported_any_more_waits_before_each_try() -> None:
    scene = serving(1)
    scene.dies(101)
    waits = []
    for pid in range(102, 106):
        [text] = said(scene.told(pid, BootFailed("ImportError: x")))
        waits.append(text.partition("next try in ")[2])
        assert done(scene.gone(pid)) == []
        due = scene.fleet.deadline()
        assert due is not None
        scene.after(due - scene.now)
    assert waits == ["0.5 s", "1 s", "2 s", "4 s"]


def test_a_worker_that_hangs_as_it_starts_is_not_answered_at_once() -> None:
    scene = Scene(2)
    scene.ready(101)
    assert "next try in 0.5 s" in str(scene.after(20))


def test_a_successor_of_a_dead_worker_is_the_second_in_the_row() -> None:
    scene = serving(1)
    scene.told(101, RetireAsked("age"))
    scene.dies(101)
    assert "next try in 0.5 s" in said(scene.dies(102))[0]


def test_a_spawn_that_fails_is_tried_again() -> None:
    scene = serving(1)
    scene.forks = False
    orders = scene.dies(101)
    assert said(orders)[-1] == "Worker 1 could not be spawned: no memory: next try in 0.5 s"
    scene.forks = True
    assert done(scene.after(0.5)) == [ev.Spawn(3, 1, 1)]


def test_a_hung_worker_is_replaced_before_it_has_exited() -> None:
    scene = serving(1)
    scene.now += 15
    scene.do(ev.Tick())
    scene.do(ev.Inspected(101, None, "state S"))
    scene.now += 15
    scene.do(ev.Tick())
    orders = scene.do(ev.Inspected(101, None, "state S, in futex_wait"))
    assert done(orders) == [ev.Abort(101), ev.Spawn(2, 1, 1)]
    [text] = said(orders, "error")
    assert text.startswith("Worker 1 (pid 101) silent for 30 s (")
    assert text.endswith("; state S, in futex_wait): aborted: successor starts now")
    scene.now += 2
    assert done(scene.do(ev.Tick())) == [ev.Kill(101)]


def test_an_arbiter_that_was_suspended_does_not_count_that_time_against_workers() -> None:
    scene = serving(2)
    scene.roll()
    assert scene.states()[103] == "booting"
    scene.now += 500
    # What is pending in the pipes is read first. The tick comes after that.
    scene.beat()
    assert done(scene.do(ev.Tick())) == []
    assert scene.states() == {101: "ready", 102: "ready", 103: "booting"}


def test_lateness_of_the_arbiter_is_excused_once_however_many_events_follow() -> None:
    scene = serving(2)
    scene.do(ev.Resize(-1))
    scene.now += 3
    due = scene.fleet.deadline()
    assert due is not None
    late = due + 4
    for _ in range(3):
        scene.now = late
        scene.told(102, Beat(1, 1, 0, 0, 0, 0, 0.0, True))
    slot = scene.fleet.find(101)
    assert slot is not None
    assert slot.deadline() == 1060.0 + 15 + 4


def test_lateness_of_the_arbiter_does_not_extend_a_drain() -> None:
    scene = serving(1)
    scene.do(ev.Stop())
    scene.now += 100
    assert done(scene.do(ev.Tick())) == [ev.Abort(101)]


# --- rolling ----------------------------------------------------------------------------------------


def test_a_roll_replaces_slot_by_slot_with_the_successor_first() -> None:
    scene = serving(2)
    orders = scene.roll()
    assert said(orders) == ["Rolling restart to generation 2 begins: 2 workers, one by one"]
    assert done(orders) == [ev.Spawn(3, 1, 2)]
    assert done(scene.ready(103)) == []
    orders = scene.after(1)
    assert done(orders) == [ev.Drain(101), ev.Spawn(4, 2, 2)]
    assert scene.fleet.generation == 2
    assert scene.states() == {103: "ready", 102: "ready", 104: "booting", 101: "draining"}
    orders = scene.ready(104)
    assert done(orders) == [ev.Drain(102)]
    assert said(orders)[-1] == "Rolling restart to generation 2 complete: 2 workers of generation 2 serve"
    assert said(scene.gone(101)) == ["Worker 1 (pid 101) exited with code 0 after serving for 61 s"]


def test_the_first_of_a_generation_must_stay_ready_before_its_predecessor_is_drained() -> None:
    scene = serving(1)
    scene.roll()
    scene.ready(102)
    assert done(scene.after(0.9)) == []
    assert scene.fleet.deadline() == scene.now + 0.1
    assert done(scene.after(0.1)) == [ev.Drain(101)]


def fails_to_start(scene: Scene) -> list[ev.Action]:
    return scene.told(105, BootFailed("app.py, line 3: SyntaxError: invalid syntax"))


def hangs_while_it_starts(scene: Scene) -> list[ev.Action]:
    return scene.after(20)


def dies_as_it_starts(scene: Scene) -> list[ev.Action]:
    return scene.dies(105)


def dies_within_its_first_second(scene: Scene) -> list[ev.Action]:
    scene.ready(105)
    scene.after(0.5)
    return scene.dies(105)


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (fails_to_start, "could not start: app.py, line 3: SyntaxError: invalid syntax"),
        (hangs_while_it_starts, "not ready after 20 s, aborted"),
        (dies_as_it_starts, "was killed by SIGSEGV (not sent by ostler) before it was ready"),
        (
            dies_within_its_first_second,
            "was killed by SIGSEGV (not sent by ostler) after serving for 0.5 s",
        ),
    ],
)
def test_a_failed_generation_leaves_the_old_workers_serving(failure: object, why: str) -> None:
    scene = serving(4)
    scene.roll()
    assert callable(failure)
    orders = failure(scene)
    assert said(orders, "error") == [
        f"Rolling restart to generation 2 given up: worker 1 (pid 105) {why}; "
        "4 workers of generation 1 serve on"
    ]
    assert not [a for a in orders if isinstance(a, ev.Drain | ev.Spawn)]
    assert scene.fleet.generation == 1
    assert scene.fleet.ready == 4
    assert not scene.fleet.rolling


def test_a_generation_that_cannot_be_spawned_is_given_up() -> None:
    scene = serving(1)
    scene.forks = False
    assert said(scene.roll())[-1] == (
        "Rolling restart to generation 2 given up: worker 1 could not be spawned: no memory; "
        "1 worker of generation 1 serves on"
    )


def test_a_failed_successor_of_a_proven_generation_is_tried_again() -> None:
    scene = serving(2)
    scene.roll()
    scene.ready(103)
    scene.after(1)
    assert said(scene.told(104, BootFailed("port taken"))) == [
        "Worker 2 (pid 104) could not start: port taken: next try in 0.5 s, "
        "worker 2 (pid 102) stays until then"
    ]
    assert scene.states()[102] == "ready"
    assert done(scene.after(0.5)) == [ev.Spawn(5, 2, 2)]
    assert "next try in 1 s" in said(scene.told(105, BootFailed("port taken")))[0]
    assert done(scene.after(1)) == [ev.Spawn(6, 2, 2)]
    assert done(scene.ready(106)) == [ev.Drain(102)]
    assert not scene.fleet.rolling


def test_several_rolls_ordered_during_a_roll_become_one() -> None:
    scene = serving(1)
    scene.roll(2)
    assert said(scene.roll(3)) == ["Rolling restart to generation 3 follows after the one to generation 2"]
    scene.roll(4)
    scene.ready(102)
    orders = scene.after(1)
    assert done(orders) == [ev.Drain(101), ev.Spawn(3, 1, 4)]
    scene.ready(103)
    scene.after(1)
    assert scene.fleet.generation == 4
    assert not scene.fleet.rolling


def test_a_roll_that_waits_begins_even_if_the_one_before_was_given_up() -> None:
    scene = serving(1)
    scene.roll(2)
    scene.roll(3)
    assert done(scene.told(102, BootFailed("x"))) == [ev.Spawn(3, 1, 3)]


def test_a_roll_that_waits_does_not_wait_for_back_off() -> None:
    scene = serving(2)
    scene.roll(2)
    scene.ready(103)
    scene.after(1)
    scene.roll(3)
    orders = scene.told(104, BootFailed("x"))
    assert "Rolling restart to generation 2 ends incomplete for a newer one" in said(orders)
    assert done(orders) == [ev.Spawn(5, 1, 3)]


def test_what_an_incomplete_roll_left_behind_is_replaced_when_the_newer_one_was_given_up() -> None:
    scene = serving(2)
    scene.roll(2)
    scene.ready(103)
    scene.after(1)
    scene.roll(3)
    scene.told(104, BootFailed("x"))
    orders = scene.told(105, BootFailed("y"))
    assert "2 workers of generation 1 and 2 serve on" in said(orders)[-1]
    assert done(orders) == [ev.Spawn(6, 2, 2)]
    assert done(scene.ready(106)) == [ev.Drain(102)]


def test_a_roll_during_the_first_boot_comes_after_it() -> None:
    scene = Scene(2)
    scene.ready(101)
    assert said(scene.roll()) == ["Rolling restart to generation 2 follows after the first boot"]
    assert done(scene.ready(102)) == [ev.Spawn(3, 1, 2)]


def test_a_roll_while_stopping_is_ignored_with_a_log_line() -> None:
    scene = serving(1)
    scene.do(ev.Stop())
    assert scene.roll() == [
        ev.Report("warning", "Rolling restart to generation 2 ignored: ostler stops"),
    ]


def test_a_roll_needs_a_generation_newer_than_any_before() -> None:
    scene = serving(1)
    scene.roll(2)
    with pytest.raises(ValueError, match="not newer"):
        scene.roll(2)


def test_a_place_without_a_serving_worker_is_rolled_first_and_at_once() -> None:
    scene = Scene(2)
    scene.ready(101, 102)
    scene.after(5)
    scene.dies(102)
    scene.dies(103)
    scene.after(0.5)
    scene.dies(104)
    assert scene.states() == {101: "ready", None: "backoff"}
    assert done(scene.roll()) == [ev.Spawn(6, 2, 2)]
    scene.ready(106)
    orders = scene.after(0.9)
    assert done(orders) == []
    orders = scene.after(0.1)  # the old generation's next try was due at this time
    assert done(orders) == [ev.Spawn(7, 1, 2)]
    assert scene.states() == {101: "ready", 106: "ready", 107: "booting"}


def test_other_places_in_back_off_are_filled_as_soon_as_a_generation_has_proved_itself() -> None:
    scene = Scene(3)
    scene.ready(101, 102, 103)
    for pid in (102, 103):
        scene.dies(pid)
    scene.after(0.5)
    for pid in (104, 105):
        scene.dies(pid)
    scene.after(1)
    for pid in (106, 107):
        scene.dies(pid)
    scene.roll()
    scene.ready(110)
    assert done(scene.after(1)) == [ev.Spawn(11, 3, 2), ev.Spawn(12, 1, 2)]


def test_a_worker_that_dies_in_a_roll_is_respawned_in_the_newest_proven_generation() -> None:
    scene = serving(3)
    scene.roll()
    assert done(scene.dies(103)) == [ev.Spawn(5, 3, 1)]
    scene.ready(105)
    scene.ready(104)
    scene.after(1)
    assert done(scene.dies(105)) == []
    assert done(scene.after(0.5)) == [ev.Spawn(7, 3, 2)]


def test_a_worker_that_dies_while_its_successor_boots_needs_no_other() -> None:
    scene = serving(2)
    scene.roll()
    scene.ready(103)
    scene.after(1)
    orders = scene.dies(102)
    assert said(orders)[0].endswith(": its successor starts already")
    assert done(orders) == []
    assert scene.states() == {103: "ready", 104: "booting", 101: "draining"}


def test_a_worker_that_dies_while_an_unproven_successor_boots_is_respawned_in_its_own_generation() -> None:
    scene = serving(2)
    scene.roll()
    assert done(scene.dies(101)) == [ev.Spawn(4, 1, 1)]
    assert scene.states() == {104: "booting", 103: "booting", 102: "ready"}
    scene.dies(103)
    assert scene.fleet.generation == 1


def test_the_timings_of_a_generation_apply_to_its_workers() -> None:
    scene = serving(1)
    scene.roll(2, Timings(startup=7, healthcheck=30, graceful=50))
    assert scene.fleet.deadline() == scene.now + 7
    scene.ready(102)
    scene.after(1)
    scene.do(ev.Stop())
    newer, older = scene.fleet.find(102), scene.fleet.find(101)
    assert newer is not None
    assert older is not None
    assert newer.deadline() == scene.now + 51
    assert older.deadline() == scene.now + 6


# --- retiring ---------------------------------------------------------------------------------------


def test_a_worker_that_asks_for_a_successor_serves_on_until_that_is_ready() -> None:
    scene = serving(2)
    assert done(scene.told(102, RetireAsked("1000 requests"))) == [ev.Spawn(3, 2, 1)]
    assert scene.states() == {101: "ready", 102: "ready", 103: "booting"}
    assert done(scene.ready(103)) == [ev.Drain(102)]


def test_workers_are_recycled_one_at_a_time() -> None:
    scene = serving(3)
    assert done(scene.told(101, RetireAsked("x"))) == [ev.Spawn(4, 1, 1)]
    assert done(scene.told(103, RetireAsked("x"))) == []
    assert done(scene.told(102, RetireAsked("x"))) == []
    assert done(scene.ready(104)) == [ev.Drain(101), ev.Spawn(5, 2, 1)]
    assert done(scene.ready(105)) == [ev.Drain(102), ev.Spawn(6, 3, 1)]
    assert done(scene.ready(106)) == [ev.Drain(103)]


def test_a_successor_that_fails_is_tried_again_while_the_worker_serves_on() -> None:
    scene = serving(1)
    scene.told(101, RetireAsked("x"))
    assert "next try in 0.5 s, worker 1 (pid 101) stays until then" in said(scene.dies(102))[0]
    assert done(scene.after(0.5)) == [ev.Spawn(3, 1, 1)]
    assert scene.states()[101] == "ready"


def test_a_roll_replaces_a_worker_that_asked_for_a_successor_and_drops_the_one_under_way() -> None:
    scene = serving(2)
    scene.told(102, RetireAsked("x"))
    orders = scene.roll()
    assert done(orders) == [ev.Drain(103), ev.Spawn(4, 1, 2)]
    scene.told(101, RetireAsked("x"))
    scene.ready(104)
    assert done(scene.after(1)) == [ev.Drain(101), ev.Spawn(5, 2, 2)]
    assert done(scene.ready(105)) == [ev.Drain(102)]
    for pid in (101, 102, 103):
        scene.gone(pid)
    assert done(scene.after(60)) == []
    assert scene.states() == {104: "ready", 105: "ready"}


# --- scaling ----------------------------------------------------------------------------------------


def test_scaling_up_fills_the_lowest_free_places_at_once() -> None:
    scene = serving(2)
    orders = scene.do(ev.Resize(2))
    assert said(orders) == ["Scaled from 2 workers to 4"]
    assert done(orders) == [ev.Spawn(3, 3, 1), ev.Spawn(4, 4, 1)]
    scene.dies(102)  # a place in back-off is not free
    assert done(scene.do(ev.Resize(1))) == [ev.Spawn(6, 5, 1)]


def test_scaling_down_drains_the_highest_number() -> None:
    scene = serving(3)
    orders = scene.do(ev.Resize(-1))
    assert said(orders) == ["Scaled from 3 workers to 2"]
    assert done(orders) == [ev.Drain(103)]
    assert done(scene.gone(103)) == []
    assert scene.fleet.size == 2


def test_scaling_down_prefers_a_place_without_a_serving_worker() -> None:
    scene = serving(3)
    scene.dies(101)  # 104 boots in its place
    scene.dies(102)
    scene.dies(105)  # and place 2 waits
    assert scene.states() == {104: "booting", None: "backoff", 103: "ready"}
    assert done(scene.do(ev.Resize(-1))) == []
    assert scene.states() == {104: "booting", 103: "ready"}
    assert done(scene.do(ev.Resize(-1))) == [ev.Drain(104)]
    assert scene.states() == {103: "ready", 104: "draining"}


def test_scaling_down_takes_the_successor_under_way_along() -> None:
    scene = serving(2)
    scene.told(102, RetireAsked("x"))
    assert done(scene.do(ev.Resize(-1))) == [ev.Drain(102), ev.Drain(103)]


def test_scaling_never_goes_below_one() -> None:
    scene = serving(2)
    orders = scene.do(ev.Resize(-5))
    assert said(orders) == ["Scaled from 2 workers to 1: never below one"]
    assert done(orders) == [ev.Drain(102)]
    assert scene.do(ev.Resize(-1)) == [ev.Report("info", "Not scaled: never below one")]
    assert scene.do(ev.Resize(0)) == []


def test_scaling_while_stopping_is_ignored_with_a_log_line() -> None:
    scene = serving(1)
    scene.do(ev.Stop())
    assert scene.do(ev.Resize(1)) == [ev.Report("warning", "Scaling ignored: ostler stops")]


def test_a_place_added_during_a_roll_is_of_the_proven_generation_and_rolled_like_the_others() -> None:
    scene = serving(1)
    scene.roll()
    assert done(scene.do(ev.Resize(1))) == [ev.Spawn(3, 2, 1)]
    scene.ready(103)
    scene.ready(102)
    assert done(scene.after(1)) == [ev.Drain(101), ev.Spawn(4, 2, 2)]


# --- stopping ---------------------------------------------------------------------------------------


def test_a_stop_drains_everything_and_finishes_when_all_are_gone() -> None:
    scene = serving(2)
    scene.roll()
    orders = scene.do(ev.Stop())
    assert said(orders) == ["Stopping: 3 workers to drain"]
    assert done(orders) == [ev.Drain(101), ev.Drain(103), ev.Drain(102)]
    assert scene.fleet.stopping
    assert done(scene.gone(101)) == []
    assert done(scene.gone(103)) == []
    assert done(scene.gone(102)) == [ev.Finish(0)]
    assert scene.do(ev.Stop()) == []
    assert scene.fleet.deadline() is None


def test_a_stop_without_any_process_finishes_at_once() -> None:
    scene = Scene(1)
    scene.ready(101)
    scene.dies(101)
    scene.dies(102)
    assert done(scene.do(ev.Stop())) == [ev.Finish(0)]


def test_a_second_stop_changes_nothing() -> None:
    scene = serving(1)
    scene.do(ev.Stop())
    assert scene.do(ev.Stop()) == []


def test_a_stop_at_once_quits_all_and_kills_a_second_later() -> None:
    scene = serving(2)
    orders = scene.do(ev.StopNow())
    assert said(orders) == ["Stopping: 2 workers to quit at once"]
    assert done(orders) == [ev.Quit(101), ev.Quit(102)]
    scene.gone(102)
    assert done(scene.after(1)) == [ev.Kill(101)]
    killed = ev.Exited(101, "was killed by SIGKILL", "SIGKILL")
    orders = scene.do(killed)
    assert said(orders) == [
        "Worker 1 (pid 101) was killed by SIGKILL (sent by ostler) after serving for 61 s",
    ]
    assert done(orders) == [ev.Finish(0)]


def test_a_stop_at_once_hurries_a_stop_under_way() -> None:
    scene = serving(2)
    scene.do(ev.Stop())
    scene.after(2)
    assert done(scene.do(ev.StopNow())) == [ev.Quit(101), ev.Quit(102)]


def test_a_worker_whose_spawn_was_under_way_at_the_stop_is_drained_too() -> None:
    fleet = Fleet(1, TIMINGS)
    fleet.start(0.0)
    assert done(fleet.handle(ev.Stop(), 0.0)) == []
    assert done(fleet.handle(ev.Started(1, 101), 0.1)) == [ev.Drain(101)]


# --- unexpected events ------------------------------------------------------------------------------


def test_a_message_of_an_unknown_pid_is_ignored() -> None:
    scene = serving(1)
    assert scene.told(999, Ready()) == []
    assert scene.do(ev.Inspected(999, None, "gone")) == []


def test_an_event_that_cannot_happen_raises() -> None:
    scene = serving(1)
    for event in (ev.Exited(999, "x"), ev.Started(77, 5), ev.SpawnFailed(1, "x")):
        with pytest.raises(ValueError, match=r"pid 999|awaited"):
            scene.do(event)


def test_a_message_out_of_place_from_a_worker_or_its_fork_is_ignored() -> None:
    scene = serving(1)
    assert scene.ready(101) == []
    assert scene.told(101, BootFailed("said by a copy")) == []
    assert scene.fleet.ready == 1


def test_two_workers_cannot_have_one_pid() -> None:
    fleet = Fleet(2, TIMINGS)
    fleet.start(0.0)
    fleet.handle(ev.Started(1, 101), 0.0)
    with pytest.raises(ValueError, match="already"):
        fleet.handle(ev.Started(2, 101), 0.0)


def test_the_repr_of_a_fleet_and_its_slots_shows_their_state() -> None:
    scene = serving(2)
    scene.roll()
    assert repr(scene.fleet) == "<Fleet size=2 ready=2 generation=1, rolling to generation 2>"
    assert repr(scene.fleet.find(102)) == "<Slot 2 pid=102 generation=1 ready>"
    scene.do(ev.Stop())
    assert repr(scene.fleet) == "<Fleet size=2 ready=0 stopping>"
    for pid in (101, 102, 103):
        scene.gone(pid)
    assert repr(scene.fleet) == "<Fleet size=2 ready=0 finished>"


# --- reloading --------------------------------------------------------------------------------------


def developing(size: int) -> Scene:
    return Scene(size, reloads=True)


def changed(generation: int) -> ev.Reload:
    return ev.Reload(generation, TIMINGS, "Files have changed")


def test_new_code_is_tried_by_one_worker_and_the_others_follow() -> None:
    scene = developing(3)
    assert scene.orders == [ev.Spawn(1, 1, 1), ev.AllowImport(101)]
    assert scene.ready(101)[1:] == [
        ev.Spawn(2, 2, 1),
        ev.Spawn(3, 3, 1),
        ev.AllowImport(102),
        ev.AllowImport(103),
    ]


def test_a_reload_hurries_all_workers_before_it_is_logged_and_allows_imports_once_they_have_exited() -> None:
    scene = developing(2)
    scene.ready(101, 102)
    orders = scene.do(changed(2))
    told = ev.Report("warning", "Files have changed")
    assert orders == [ev.Hurry(101), ev.Hurry(102), told, ev.Spawn(3, 1, 2)]
    assert scene.fleet.absorbs_changes
    scene.gone(101)
    assert scene.gone(102)[-1] == ev.AllowImport(103)
    assert not scene.fleet.absorbs_changes


def test_a_hurried_worker_that_does_not_exit_is_killed() -> None:
    scene = developing(1)
    scene.ready(101)
    scene.do(changed(2))
    assert ev.Kill(101) not in scene.after(1.2)
    assert ev.Kill(101) in scene.after(0.1)


def test_a_fleet_that_reloads_waits_for_a_change_when_the_first_start_fails() -> None:
    scene = developing(2)
    [report] = scene.told(101, BootFailed("SyntaxError: x"))
    assert report == ev.Report(
        "error", "Worker 1 (pid 101) could not start: SyntaxError: x: waiting for a change of its files"
    )
    scene.gone(101)
    assert scene.fleet.deadline() is None
    assert ev.Spawn(4, 1, 2) in scene.do(changed(2)) or scene.fleet.absorbs_changes


def test_a_sighup_while_no_code_starts_is_a_reload() -> None:
    scene = developing(1)
    scene.told(101, BootFailed("SyntaxError: x"))
    scene.gone(101)
    assert [a for a in scene.do(ev.Roll(2, TIMINGS)) if isinstance(a, ev.Spawn | ev.AllowImport)]


def test_a_worker_that_dies_while_it_serves_is_started_again_with_back_off() -> None:
    scene = developing(1)
    scene.ready(101)
    assert "successor starts now" in str(scene.dies(101))
    assert "next try in 0.5 s" in str(scene.dies(102))


def test_ctrl_c_hurries_all_workers_and_ends_the_fleet() -> None:
    scene = developing(2)
    scene.ready(101, 102)
    assert scene.do(ev.StopSoon())[1:] == [ev.Hurry(101), ev.Hurry(102)]
    scene.gone(101)
    assert scene.gone(102)[-1] == ev.Finish(0)


def test_ctrl_c_with_no_worker_at_all_ends_the_fleet_at_once() -> None:
    scene = developing(2)
    scene.told(101, BootFailed("SyntaxError: x"))
    scene.gone(101)
    assert scene.do(ev.StopSoon())[-1] == ev.Finish(0)
