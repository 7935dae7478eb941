"""Runs a fleet through long random orders of events, delays and failures, and checks its invariants.

`fleet_model.World` checks them after every step. At the end of each run the crashes stop, and the fleet must
come to rest. Then it is told to stop, and must end.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.supervisor.fleet.fleet_model import Process, World

any_index = st.integers(0, 1000)


def unready(p: Process) -> bool:
    return p.ready_since is None and p.failed is None and p.may_import


def serving(p: Process) -> bool:
    return p.ready_since is not None


def leaving(p: Process) -> bool:
    return p.role == "gone"


class FleetMachine(RuleBasedStateMachine):
    """Events happen in any order; `which` picks one of the processes to which an event can happen."""

    world: World

    @initialize(
        size=st.integers(1, 4), booted=st.sampled_from([True, True, True, False]), reloads=st.booleans()
    )
    def begin(self, size: int, booted: bool, reloads: bool) -> None:
        self.world = World(size, punctual=False, reloads=reloads)
        if booted:
            self.all_that_boot_are_ready()

    def pick(self, which: int, can: Callable[[Process], bool]) -> Process | None:
        able = [p for p in self.world.processes.values() if can(p)]
        return able[which % len(able)] if able else None

    # --- the machine and its processes ------------------------------------------------------------

    @precondition(lambda self: self.world.pending)
    @rule(which=any_index, well=st.sampled_from([True, True, True, False]))
    def a_spawn_is_answered(self, which: int, well: bool) -> None:
        self.world.spawned(self.world.pending[which % len(self.world.pending)], well=well)

    @rule(which=any_index)
    def one_is_ready(self, which: int) -> None:
        if process := self.pick(which, unready):
            self.world.ready(process)

    @rule()
    def all_that_boot_are_ready(self) -> None:
        while self.world.pending:
            self.world.spawned(self.world.pending[0], well=True)
        while process := self.pick(0, lambda p: unready(p) and not leaving(p)):
            self.world.ready(process)

    @rule(which=any_index)
    def one_cannot_start(self, which: int) -> None:
        if process := self.pick(which, unready):
            self.world.boot_failed(process)

    @rule(which=any_index)
    def one_that_shall_go_is_gone(self, which: int) -> None:
        if process := self.pick(which, leaving):
            self.world.exited(process)

    @rule(which=any_index)
    def one_dies(self, which: int) -> None:
        if process := self.pick(which, lambda p: True):
            self.world.exited(process)

    @rule(which=any_index, how=st.sampled_from(["", "loop", "process"]))
    def one_hangs_or_recovers(self, which: int, how: str) -> None:
        if process := self.pick(which, serving):
            process.hangs = how

    @rule(which=any_index)
    def one_asks_for_a_successor(self, which: int) -> None:
        if process := self.pick(which, serving):
            self.world.retire(process)

    @rule()
    def they_beat(self) -> None:
        self.world.beats()

    @precondition(lambda self: self.world.inspected)
    @rule(which=any_index, excuse=st.none() | st.floats(0, 60))
    def the_system_tells_of_one(self, which: int, excuse: float | None) -> None:
        self.world.answer(self.world.inspected[which % len(self.world.inspected)], excuse)

    # --- time -------------------------------------------------------------------------------------

    @rule()
    def time_passes_to_the_deadline(self) -> None:
        self.world.wait()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 3.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        due = self.world.fleet.deadline()
        self.world.now = self.world.now + seconds if due is None else min(self.world.now + seconds, due)
        self.world.tick()

    @rule(seconds=st.floats(0.1, 40), told=st.booleans())
    def the_arbiter_comes_late(self, seconds: float, told: bool) -> None:
        self.world.now = max(self.world.now, self.world.fleet.deadline() or 0.0) + seconds
        if told:
            self.world.beats()
        self.world.tick()

    # --- the operator -----------------------------------------------------------------------------

    @precondition(lambda self: not self.world.stopping)
    @rule()
    def a_roll_is_asked_for(self) -> None:
        self.world.roll()

    @precondition(lambda self: self.world.reloads)
    @rule()
    def the_files_change(self) -> None:
        self.world.reload()

    @precondition(lambda self: not self.world.stopping)
    @rule(by=st.sampled_from([-3, -1, 0, 1, 2]))
    def the_fleet_is_scaled(self, by: int) -> None:
        if self.world.fleet.size + by <= 6:
            self.world.resize(by)

    @rule(how=st.sampled_from(["", "now", "soon"]), really=st.sampled_from([False] * 9 + [True]))
    def it_is_told_to_stop(self, how: str, really: bool) -> None:
        if really:
            self.world.stop(now=how == "now", soon=how == "soon")

    def teardown(self) -> None:
        if hasattr(self, "world") and not self.world.broken:
            self.world.rest()
            self.world.end()


TestFleetUnderHypothesis = FleetMachine.TestCase
TestFleetUnderHypothesis.settings = settings(
    max_examples=400,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
