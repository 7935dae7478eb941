"""An upgrade in every order of events: one new arbiter at a time, and one outcome for each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from ostler.supervisor.fleet.events import Report
from ostler.supervisor.upgrade.decision import (
    Action,
    HandOver,
    Launch,
    Preconditions,
    RunPostponed,
    SendSignal,
    UpgradeDecision,
    UpgradeState,
)

GIVEN = Preconditions(obstacle="", stopping=False, served=True, is_new=False, startup=300.0, grace=35.0)
DEPTH = 9
EVENTS = ("ask", "ready", "said", "ended", "stop", "tick")


@dataclass
class World:
    """The old arbiter, and the new ones that it started."""

    decision: UpgradeDecision = field(default_factory=UpgradeDecision)
    now: float = 0.0
    launched: int = 0
    living: int | None = None
    """The new arbiter that runs, if one does."""
    handed_over: int = 0
    stopping: bool = False
    told: list[str] = field(default_factory=list)
    """The signals that the living one was sent."""

    def key(self) -> tuple[object, ...]:
        """Return what distinguishes this world from another, however long it took to get there."""
        waits = self.decision.deadline() is not None
        facts = (self.living is not None, self.handed_over, self.stopping, frozenset(self.told), waits)
        return (self.decision.state, *facts)

    def do(self, event: str) -> None:
        """Let an event happen, if it can, and check the actions that follow."""
        decision = self.decision
        before = decision.state
        if event == "ask":
            given = Preconditions(**{**vars(GIVEN), "stopping": self.stopping})
            self.carry_out(decision.requested(given, self.now))
        elif event == "stop":
            self.stopping = True
            self.carry_out(decision.stop("SIGTERM", self.now))
        elif event == "tick":
            if (deadline := decision.deadline()) is not None:
                self.now = deadline
                self.carry_out(decision.tick(self.now))
        elif self.living is not None:
            if event == "ended":
                self.living = None
                actions = decision.exited()
                if before is UpgradeState.DONE:
                    assert actions == []
                else:
                    assert decision.state is UpgradeState.IDLE
                    assert RunPostponed() in actions or self.stopping, "postponed signals are forgotten"
                self.carry_out(actions)
            elif event == "ready":
                self.carry_out(decision.ready())
            else:
                decision.message_received("something")
        assert decision.under_way == (self.living is not None and decision.state is not UpgradeState.DONE)

    def carry_out(self, actions: Sequence[Action]) -> None:
        """Carry out actions, as far as a world without processes can."""
        for action in actions:
            match action:
                case Launch():
                    assert self.living is None, "two new arbiters at a time"
                    assert not self.stopping, "a new arbiter for a service that stops"
                    assert not self.handed_over
                    self.launched += 1
                    self.living, self.told = self.launched, []
                    self.carry_out(self.decision.launched(self.launched))
                case HandOver(pid=pid):
                    assert pid == self.living
                    assert self.told == [], "the place for an arbiter that was told to stop"
                    self.handed_over += 1
                    assert self.handed_over == 1
                case SendSignal(pid=pid, signal=signal):
                    assert pid == self.living, "a signal for an arbiter that has exited"
                    self.told.append(signal)
                case RunPostponed():
                    assert self.living is None
                case Report():
                    pass


def test_every_order_of_events_leaves_one_arbiter() -> None:
    frontier = [World()]
    seen = {frontier[0].key()}
    steps = 0
    for _ in range(DEPTH):
        following = []
        for world in frontier:
            for event in EVENTS:
                after = copy.deepcopy(world)
                after.do(event)
                steps += 1
                if after.key() not in seen:
                    seen.add(after.key())
                    following.append(after)
        frontier = following
    assert frontier == [], "there is more to explore than DEPTH"
    assert steps > 50


def test_an_upgrade_ends_in_every_state_by_time_alone() -> None:
    """A new arbiter that neither speaks nor exits is told to stop, then killed: a deadline is always set."""
    for path in (("ask",), ("ask", "stop"), ("ask", "said", "stop")):
        world = World()
        for event in path:
            world.do(event)
        for _ in range(3):
            world.do("tick")
        assert world.told[-1] == "SIGKILL"
        world.do("ended")
        assert world.decision.state is UpgradeState.IDLE
