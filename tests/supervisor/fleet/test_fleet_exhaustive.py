"""Explores every order of events for fleets of one to three, up to a depth, and checks the invariants.

Time is abstract: it passes only from one deadline of the fleet to the next. A state that has been seen before
(the same fleet and the same processes, all times relative to now) is not explored again. The number of faults
and orders on one path is bounded; every order of them, and of all other events, is tried.

`OSTLER_EXPLORE=N` explores N events deeper than the everyday run.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace

import pytest

from ostler.supervisor.fleet.slot import SlotState
from tests.supervisor.fleet.fleet_model import Process, World

DEEPER = int(os.environ.get("OSTLER_EXPLORE", "0"))


@dataclass(frozen=True)
class Budget:
    """How many events may still happen on a path that the fleet did not cause."""

    faults: int = 0
    rolls: int = 0
    resizes: int = 0
    retires: int = 0
    stops: int = 0
    reloads: int = 0
    """With some, the fleet is one that reloads."""


Move = tuple[str, Budget, Callable[[World], None]]


def moves(world: World, budget: Budget) -> Iterator[Move]:
    """Yield everything that can happen next. A spawn is answered before all else, as the arbiter does it."""
    if world.pending:
        yield "started", budget, lambda w: w.spawned(w.pending[0], well=True)
        if budget.faults:
            less = replace(budget, faults=budget.faults - 1)
            yield "spawn failed", less, lambda w: w.spawned(w.pending[0], well=False)
        return
    for pid, process in world.processes.items():
        yield from moves_of(pid, process, budget)
    if world.fleet.deadline() is not None:
        yield "wait", budget, World.wait
    if budget.stops:
        less = replace(budget, stops=budget.stops - 1)
        yield "stop", less, World.stop
        yield "stop now", less, lambda w: w.stop(now=True)
        if world.reloads:
            yield "stop soon", less, lambda w: w.stop(soon=True)
    if world.stopping:
        return
    if budget.reloads:
        yield "reload", replace(budget, reloads=budget.reloads - 1), World.reload
    if budget.rolls:
        yield "roll", replace(budget, rolls=budget.rolls - 1), World.roll
    if budget.resizes:
        less = replace(budget, resizes=budget.resizes - 1)
        yield "one more", less, lambda w: w.resize(1)
        yield "one fewer", less, lambda w: w.resize(-1)


def moves_of(pid: int, process: Process, budget: Budget) -> Iterator[Move]:
    def on(act: Callable[[World, Process], None]) -> Callable[[World], None]:
        return lambda world: act(world, world.processes[pid])

    gone = process.role == "gone"
    worse = replace(budget, faults=budget.faults - 1)
    if gone:
        yield f"{pid} gone", budget, on(World.exited)
    elif budget.faults:
        yield f"{pid} dies", worse, on(World.exited)
    if process.ready_since is None and process.failed is None and process.may_import:
        yield f"{pid} ready", budget, on(World.ready)
        if budget.faults:
            yield f"{pid} cannot start", worse, on(World.boot_failed)
    if process.ready_since is not None and not gone:
        if process.hangs:
            yield f"{pid} recovers", budget, on(recover)
        elif budget.faults:
            yield f"{pid} hangs", worse, on(hang)
        if budget.retires and not process.retiring:
            yield f"{pid} retires", replace(budget, retires=budget.retires - 1), on(World.retire)


def hang(world: World, process: Process) -> None:
    process.hangs = "loop"


def recover(world: World, process: Process) -> None:
    process.hangs = ""


def snapshot(world: World, budget: Budget) -> Hashable:
    """Return all that the future depends on, with times relative to now."""
    now, fleet = world.now, world.fleet

    def ago(time: float | None, most: float = 1e9) -> float | None:
        return None if time is None else min(round(now - time, 3), most)

    slots = sorted(fleet.slots(), key=lambda slot: slot.ticket)
    workers = {p.ticket: p for p in (*world.pending, *world.processes.values())}
    lives = []
    for slot in slots:
        p = workers.get(slot.ticket)
        left = ago(slot.deadline())
        served = ago(slot.ready_since, 10.0) if slot.state is SlotState.READY else slot.ready_since is None
        life: tuple[object, ...] = (
            slot.number,
            slot.generation,
            slot.state.value,
            left,
            served,
            slot.retiring and sum(s.retiring_since < slot.retiring_since for s in slots if s.retiring),
            (slot.may_import, slot.hurried),
        )
        if p is not None:
            times = (ago(p.failed), ago(p.drained), ago(p.ended), p.role == "gone" or ago(p.heard))
            warned = slot._hang_detector is not None and slot._hang_detector._warned
            life += (
                p.may_import,
                p.hurried,
                p.old,
                p.role,
                p.killed,
                p.hangs,
                p.pid == 0,
                p.ready_since is None,
                *times,
                warned,
            )
        lives.append(life)
    first = fleet._places._first_tickets
    places = tuple(
        (p.number, p.crashes, p.misses, max(p.retry_at - now, 0.0), p.tenant.ticket <= first)
        for p in fleet._places
    )
    roll, following = fleet._roll.current, fleet._roll.following
    mind = (fleet.size, fleet.generation, roll and roll.generation, following and following.generation)
    rest: tuple[object, ...] = (
        fleet._reload._scout,
        world.trying,
        world.held,
        fleet._finish,
        fleet._finished,
        fleet._ever_ready,
        fleet._newest,
        world.calm,
    )
    books = (tuple(sorted(world.crashes.items())), tuple(sorted(world.failed_generations)))
    return (tuple(lives), places, mind, rest, books, budget)


@dataclass
class Explored:
    """What an exploration has covered."""

    states: int = 0
    steps: int = 0
    rests: int = 0
    exhausted: bool = False


def explore(size: int, budget: Budget, depth: int, *, booted: bool, rest_every: int = 100) -> Explored:
    """Try every order of events, breadth first; let some states run on to rest, and to the end."""
    world = World(size, punctual=True, reloads=bool(budget.reloads))
    if booted:
        world.rest()
        world.wait()  # they have served long enough for a healthy run
    explored = Explored()
    seen = {snapshot(world, budget)}
    frontier: list[tuple[World, Budget, tuple[str, ...]]] = [(world, budget, ())]
    for _ in range(depth + DEEPER):
        reached: list[tuple[World, Budget, tuple[str, ...]]] = []
        for here, left, path in frontier:
            for name, less, act in moves(here, left):
                there, way = here.clone(), (*path, name)
                explored.steps += 1
                attempt(there, act, way)
                key = snapshot(there, less)
                if key in seen:
                    continue
                seen.add(key)
                reached.append((there, less, way))
                if len(seen) % rest_every == 0:
                    explored.rests += 1
                    attempt(there.clone(), World.end, (*way, "stopped"))
                    attempt(there.clone(), in_peace, (*way, "in peace"))
        frontier = reached
    explored.states, explored.exhausted = len(seen), not frontier
    return explored


def attempt(world: World, act: Callable[[World], None], way: tuple[str, ...]) -> None:
    try:
        act(world)
    except Exception as error:
        raise AssertionError(f"{error} (after {', '.join(way)})") from error


def in_peace(world: World) -> None:
    world.rest()
    world.end()


CASES = {
    # name: (workers, budget, booted, depth, states to find at least)
    "a pair boots, is rolled, scaled and stopped": (2, Budget(2, 1, 1, 0, 2), False, 9, 32_000),
    "three boot, are rolled, scaled and stopped": (3, Budget(1, 1, 1, 0, 1), False, 9, 22_000),
    "a pair with two faults in two rolls": (2, Budget(2, 2, 0, 0, 0), True, 10, 30_000),
    "a pair with everything": (2, Budget(1, 1, 1, 1, 1), True, 8, 46_000),
    "three with a fault in a roll": (3, Budget(1, 1, 0, 0, 0), True, 13, 20_000),
    "three with everything": (3, Budget(1, 1, 1, 1, 1), True, 7, 30_000),
    "a pair retires twice each amid faults": (2, Budget(2, 0, 0, 4, 0), True, 7, 5_000),
    "a pair retires while it is rolled, scaled and stopped": (2, Budget(0, 2, 1, 3, 1), True, 7, 5_000),
    "three retire at once, with a fault, in a roll": (3, Budget(1, 1, 0, 3, 0), True, 6, 3_000),
    "a pair retires amid reloads": (2, Budget(1, 0, 1, 3, 1, 1), True, 6, 5_000),
    "one boots and reloads": (1, Budget(2, 1, 0, 1, 1, 3), False, 10, 10_000),
    "a pair boots, reloads and is scaled": (2, Budget(1, 0, 1, 0, 0, 2), False, 10, 10_000),
    "a pair reloads amid everything": (2, Budget(1, 1, 1, 1, 1, 1), True, 7, 10_000),
    "three reload with a fault": (3, Budget(1, 0, 0, 0, 1, 2), True, 8, 6_500),
    "three with a fault in a stop": (3, Budget(1, 0, 0, 0, 2), True, 12, 8_000),
}


@pytest.mark.parametrize("case", CASES)
def test_no_order_of_events_breaks_an_invariant(case: str) -> None:
    size, budget, booted, depth, states = CASES[case]
    gc.disable()  # hundreds of thousands of small objects, none in a cycle
    try:
        explored = explore(size, budget, depth, booted=booted)
    finally:
        gc.enable()
    print(f"{case}: {explored}")
    assert explored.states >= states, "explores less than it did"
