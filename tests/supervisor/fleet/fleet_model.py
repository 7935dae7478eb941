"""A simulated world of processes that obeys a fleet, and checks the fleet's invariants after every event.

The world keeps its own account (which places are served, what may be spawned when, which generation has
proved itself), from the events and actions alone. So it disagrees with a fleet that breaks one of the rules:

- At most N + 1 workers are READY or BOOTING, and there is at most one successor in the whole fleet.
- A place that is served stays served, unless its worker died or hung by itself or the operator closed the
  place. So at least N workers are READY while a roll is under way and nothing crashes. That is also checked
  directly: from the moment when all N are READY in a roll, until a place is lost or the fleet is scaled or
  stopped.
- Workers that ask for a successor get it in the order of asking, and after all that a roll has to replace.
- A spawn does not come before its place's back-off is over, except for the first of a newer generation, which
  the operator has ordered.
- A generation that fails before it has proved itself is never spawned again.
- A worker that serves is drained for a newer generation only when that one has been READY for `min_ready`.
- No worker is aborted before its own deadline, or killed without having been told to leave before.
- There is one `Finish`, when no process is left, and nothing after it.

With `reloads`, as in development:

- A reload (or Ctrl+C) tells all workers to leave before it is logged. No worker serves from then on.
- One worker alone tries new code, and the others are spawned when it is READY.
- No worker imports the application while old code runs. Every worker may import it in the end.
- When the code fails, nothing is spawned until the next reload. It never ends the fleet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from ostler.ipc.messages import Beat, BootFailed, Ready, RetireAsked
from ostler.supervisor.fleet import events as ev
from ostler.supervisor.fleet.events import Timings
from ostler.supervisor.fleet.fleet import Fleet
from ostler.supervisor.fleet.hang_detector import NEGLIGIBLE
from ostler.supervisor.fleet.slot import Slot, SlotState

MIN_READY = 1.0
TIMINGS = Timings(startup=20.0, healthcheck=30.0, graceful=5.0)
ALMOST = 1e-6  # floats

T = TypeVar("T")


@dataclass
class Process:
    """What the world knows of one worker that was spawned, or will be."""

    ticket: int
    number: int
    generation: int
    role: str
    """`tenant`, `successor`, or `gone`: told to leave, failed, or lost."""
    pid: int = 0
    started: float = 0.0
    ready_since: float | None = None
    failed: float | None = None
    drained: float | None = None
    ended: float | None = None  # SIGQUIT or SIGABRT
    killed: bool = False
    heard: float = 0.0
    excuse: float = 0.0
    hangs: str = ""  # "loop": its thread still beats; "process": nothing does
    loop: int = 0
    thread: int = 0
    retiring: bool = False
    asked: float = 0.0  # for a successor
    may_import: bool = False
    hurried: bool = False
    old: bool = False  # it runs code that has changed

    @property
    def serves(self) -> bool:
        return self.ready_since is not None and self.role != "gone"

    @property
    def ordered(self) -> bool:
        return self.drained is not None or self.ended is not None or self.killed


class World:
    """Runs one fleet.

    Args:
        size: how many workers.
        punctual: whether the arbiter never wakes late, so that deadlines can be checked.
        reloads: whether the fleet reloads.
    """

    def __init__(self, size: int, *, punctual: bool, reloads: bool = False) -> None:
        self.fleet = Fleet(size, TIMINGS, min_ready=MIN_READY, reloads=reloads)
        self.reloads = reloads
        self.trying = reloads
        """Whether new code is being tried, and no worker has become ready with it."""
        self.held = False
        """Whether new code has failed: nothing is spawned until the next reload."""
        self.punctual = punctual
        self.now = 100.0
        self.pending: list[Process] = []
        self.processes: dict[int, Process] = {}
        self.inspected: list[int] = []
        self.proven: dict[int, float] = {1: 0.0}
        self.failed_generations: set[int] = set()
        self.newest_asked = 1
        self.newest_spawned = 1
        self.crashes: defaultdict[int, int] = defaultdict(int)
        self.misses: defaultdict[int, int] = defaultdict(int)
        self.not_before: defaultdict[int, float] = defaultdict(float)
        self.retry_at: defaultdict[int, float] = defaultdict(float)
        self.ever_ready = False
        self.stopping = False
        self.code = 0
        self.calm = False  # all N were READY in this roll, and nothing was lost or ordered since
        self.finishes: list[ev.Finish] = []
        self.reports: list[str] = []
        self.broken = False  # an invariant did not hold: further checks mean nothing
        self._lost: set[int] = set()  # places whose serving worker was lost in this step
        self._released = False  # whether this step is an order to serve fewer
        self._obey(self.fleet.start(self.now))
        self.check()

    def clone(self) -> World:
        """Return an independent copy (much cheaper than deepcopy)."""
        new = shallow_copy(self)
        new.fleet = clone_fleet(self.fleet)
        new.pending = [shallow_copy(p) for p in self.pending]
        new.processes = {pid: shallow_copy(p) for pid, p in self.processes.items()}
        for name in ("inspected", "proven", "failed_generations", "crashes", "misses", "not_before"):
            setattr(new, name, getattr(self, name).copy())
        new.retry_at = self.retry_at.copy()
        new.finishes = self.finishes.copy()
        new.reports = []
        return new

    # --- what can happen --------------------------------------------------------------------------

    def spawned(self, process: Process, *, well: bool) -> None:
        """Answer a spawn."""
        self.pending.remove(process)
        if well:
            process.pid = 1000 + process.ticket
            process.started = self.now
            self.processes[process.pid] = process
            self.step(ev.Started(process.ticket, process.pid))
        else:
            if process.role != "gone":
                self._lose(process, failed_start=True)
            self.step(ev.SpawnFailed(process.ticket, "no memory"))

    def ready(self, process: Process) -> None:
        """The worker says that it is ready, perhaps too late."""
        process.ready_since = self.now
        process.heard = self.now
        if process.role != "gone":
            self.ever_ready = True
            self.trying = False
            if process.role == "successor" and process.generation in self.proven:
                self._promote(process)
        self.step(ev.MessageReceived(process.pid, Ready()))

    def boot_failed(self, process: Process) -> None:
        """The worker says why it cannot serve."""
        process.failed = self.now
        if process.role != "gone":
            self._lose(process, failed_start=True)
        self.step(ev.MessageReceived(process.pid, BootFailed("ImportError: x")))

    def exited(self, process: Process) -> None:
        """The process has ended, as ordered or by itself."""
        del self.processes[process.pid]
        if process.role != "gone":
            self._lose(process)
        self.step(ev.Exited(process.pid, "exited with code 0"))

    def retire(self, process: Process) -> None:
        """The worker asks for a successor."""
        if not process.retiring:
            process.retiring, process.asked = True, self.now
        self.step(ev.MessageReceived(process.pid, RetireAsked("it served 1000 requests")))

    def beats(self) -> None:
        """All workers beat, except those that hang."""
        for process in list(self.processes.values()):
            if process.hangs == "process":
                continue
            process.thread += 1
            if not process.hangs and process.ready_since is not None:
                process.loop += 1
                process.heard, process.excuse = self.now, 0.0
            told = Beat(process.loop, process.thread, 0, 0, 0, 0, 0.0, process.drained is not None)
            self.step(ev.MessageReceived(process.pid, told))

    def answer(self, pid: int, excuse: float | None) -> None:
        """The operating system says how long the worker has waited for a CPU in this silence."""
        self.inspected.remove(pid)
        if excuse is not None and pid in self.processes:
            self.processes[pid].excuse = min(excuse, self.now - self.processes[pid].heard)
        waited = None if excuse is None else int(excuse * 1e9)
        self.step(ev.Inspected(pid, waited, "state S, 0.0 s on a CPU"))

    def tick(self) -> None:
        """Let the fleet judge; it must come to rest without time passing (no busy loop)."""
        for _ in range(6):
            self._prove()
            self.step(ev.Tick())
            for pid in list(self.inspected) if self.punctual else ():
                self.answer(pid, None)
            due = self.fleet.deadline()
            if due is None or due > self.now:
                break
        else:
            raise AssertionError(f"{self.fleet!r} is never satisfied at {self.now}: {self.reports[-6:]}")
        if self.punctual:
            self._check_patience()

    def wait(self) -> None:
        """Sleep until the fleet's deadline; healthy workers have beaten meanwhile."""
        due = self.fleet.deadline()
        if due is not None:
            self.now = max(self.now, due)
        self.beats()
        self.tick()

    def roll(self) -> None:
        self.newest_asked += 1
        if self.trying or self.held:  # no worker serves: a roll is a reload
            self._anew(self.newest_asked)
        self.step(ev.Roll(self.newest_asked, TIMINGS))

    def reload(self) -> None:
        """The files have changed."""
        self.newest_asked += 1
        self._anew(self.newest_asked)
        self.step(ev.Reload(self.newest_asked, TIMINGS, "Files have changed"))
        if not self.stopping:
            assert not self.served(), "still served by old code"

    def _anew(self, generation: int) -> None:
        """All workers have to leave: the account starts anew."""
        if self.stopping:
            return
        self.calm, self._released, self.trying, self.held = False, True, True, False
        self.proven[generation] = self.now
        for process in self._workers():
            process.old = True
        for book in (self.crashes, self.misses, self.not_before, self.retry_at):
            book.clear()

    def resize(self, by: int) -> None:
        self.calm, self._released = False, True
        self.step(ev.Resize(by))
        places = {place.number for place in self.fleet._places}
        for number in set(self.crashes) | set(self.misses) | set(self.not_before) | set(self.retry_at):
            if number not in places:
                for book in (self.crashes, self.misses, self.not_before, self.retry_at):
                    book.pop(number, None)

    def stop(self, *, now: bool = False, soon: bool = False) -> None:
        self.calm, self._released, self.stopping = False, True, True
        self.step(ev.StopNow() if now else ev.StopSoon() if soon else ev.Stop())

    # --- carrying out -----------------------------------------------------------------------------

    def step(self, event: ev.Event) -> None:
        """Pass an event to the fleet, carry out its actions, and check the invariants."""
        before, self.broken = self.served(), True
        self._obey(self.fleet.handle(event, self.now))
        left = before - self.served() - self._lost
        assert not left or self._released, f"place {left} is served no longer after {event}"
        self._lost, self._released = set(), False
        self.check()
        self.broken = False

    def served(self) -> set[int]:
        return {p.number for p in self.processes.values() if p.serves}

    def _obey(self, actions: Iterable[ev.Action]) -> None:
        for action in actions:
            assert not self.finishes, f"{action} after the end"
            match action:
                case ev.Spawn():
                    self._spawn(action)
                case ev.Drain(pid=pid):
                    self._drain(self.processes[pid])
                case ev.AllowImport(pid=pid):
                    self._allow_import(self.processes[pid])
                case ev.Hurry(pid=pid):
                    process = self.processes[pid]
                    assert self.reloads or self.stopping, "hurried without a reload"
                    assert not process.hurried, "hurried twice"
                    assert process.ended is None, "hurried, but it was told to end"
                    process.hurried, process.ended, process.role = True, self.now, "gone"
                case ev.Quit(pid=pid):
                    late = self.processes[pid].role == "gone"  # its spawn was answered after the reload
                    assert self.stopping or (self.reloads and late), "quit without a stop"
                    self.processes[pid].ended, self.processes[pid].role = self.now, "gone"
                case ev.Abort(pid=pid):
                    self._abort(self.processes[pid])
                case ev.Kill(pid=pid):
                    self._kill(self.processes[pid])
                case ev.Inspect(pid=pid):
                    assert self.processes[pid].serves, "inspected, but not listened to"
                    self.inspected.append(pid)
                case ev.ShowStack(pid=pid):
                    assert pid in self.processes
                case ev.ReportWithPlace(pid=pid, cause=cause):
                    assert pid in self.processes
                    self.reports.append(cause)
                case ev.Report(text=text):
                    assert text[0].isupper(), text
                    self.reports.append(text)
                case ev.Finish():
                    assert not self.processes, "finished before its children"
                    assert not self.pending
                    assert action.code == self.code
                    self.finishes.append(action)

    def _workers(self) -> list[Process]:
        return [*self.pending, *self.processes.values()]

    def _spawn(self, order: ev.Spawn) -> None:
        assert not self.stopping, "spawned while stopping"
        assert not self.held, "spawned, but the code has not changed"
        self._see_dropped()
        number, generation = order.slot, order.generation
        assert generation not in self.failed_generations, f"generation {generation} was given up"
        others = [p for p in self._workers() if p.number == number and p.role == "tenant"]
        successor = bool(others) or generation not in self.proven
        if generation > self.newest_spawned:
            self.newest_spawned = generation
            self.misses.clear()
            self.retry_at.clear()
        if successor:
            assert not [p for p in self._workers() if p.role == "successor"], "two successors at once"
            assert self.now >= self.retry_at[number], f"successor for {number} before its back-off"
            if others and others[0].retiring and others[0].generation == generation:
                self._check_turn(others[0])
        else:
            ordered = self.proven[generation] == self.now
            assert ordered or self.now >= self.not_before[number], f"{number} respawned before its back-off"
            assert generation == max(self.proven), "respawned in an old generation"
            alone = all(p.role == "gone" for p in self._workers())
            assert alone or not self.trying, "more than one tries new code"
        role = "successor" if successor else "tenant"
        self.pending.append(Process(order.ticket, number, generation, role, may_import=not self.reloads))

    def _check_turn(self, process: Process) -> None:
        """Every worker that asked for a successor earlier has got one, or waits for its next try."""
        for other in self._workers():
            earlier = other.role == "tenant" and other.retiring and other.asked < process.asked
            assert not earlier or self.now < self.retry_at[other.number], f"{other} asked before {process}"

    def _allow_import(self, process: Process) -> None:
        assert self.reloads, "allowed to import, but no worker waits for that"
        assert not process.may_import, "allowed to import twice"
        assert process.role != "gone", "allowed to import after its order to leave"
        assert not any(p.old for p in self._workers()), "allowed to import beside old code"
        process.may_import = True

    def _drain(self, process: Process) -> None:
        assert not process.ordered, "drained after another order"
        if process.serves and not self._released and not self.stopping:
            peers = [
                p for p in self._workers() if p.number == process.number and p.role == "tenant" and p.serves
            ]
            assert peers, f"{process} drained before its successor is ready"
            assert peers[0].generation in self.proven, "drained for an unproven generation"
        process.drained, process.role = self.now, "gone"

    def _abort(self, process: Process) -> None:
        assert process.ended is None, "aborted twice"
        if process.drained is not None:
            assert self.now - process.drained >= TIMINGS.graceful + 1 - ALMOST, "aborted while it may drain"
        elif process.failed is not None:
            raise AssertionError("aborted, but it said that it exits")
        elif process.ready_since is not None:
            silence = self.now - process.heard - process.excuse
            assert silence >= TIMINGS.healthcheck - NEGLIGIBLE - ALMOST, (
                f"aborted after {silence} s of silence"
            )
            self._lose(process)
        else:
            assert self.now - process.started >= TIMINGS.startup - ALMOST, "aborted while it may boot"
            self._lose(process, failed_start=True)
        process.ended = self.now

    def _kill(self, process: Process) -> None:
        assert not process.killed, "killed twice"
        asked = process.ended if process.ended is not None else process.failed
        assert asked is not None, "killed without having been asked"
        assert self.now - asked >= 1 - ALMOST, "killed without time to go"
        process.killed = True

    # --- the world's own account ------------------------------------------------------------------

    def _see_dropped(self) -> None:
        """Ask the fleet which spawns that are not answered yet it has given up: they have no pid to drain."""
        booting = {slot.ticket for slot in self.fleet.slots() if slot.state is SlotState.BOOTING}
        placed = {s.ticket for place in self.fleet._places for s in place.slots()}
        for process in self.pending:
            if process.ticket not in booting and process.ticket not in placed:
                process.role = "gone"

    def _promote(self, process: Process) -> None:
        for old in self._workers():
            if old.number == process.number and old.role == "tenant":
                old.role = "old"  # still counted until its Drain comes, in this very step
                if old.ready_since is not None and self.now - old.ready_since >= 10:
                    self.crashes[process.number] = 0
        process.role = "tenant"
        self.misses[process.number] = 0

    def _prove(self) -> None:
        for process in self.processes.values():
            if process.role == "successor" and process.generation not in self.proven and process.serves:
                assert process.ready_since is not None
                if self.now >= process.ready_since + MIN_READY:
                    self.proven[process.generation] = self.now
                    self._promote(process)

    def _lose(self, process: Process, *, failed_start: bool = False) -> None:
        number, role, process.role = process.number, process.role, "gone"
        self._lost.add(number)
        if number not in self.served():
            self.calm = False
        if self.trying and process.pid:
            assert role == "tenant"
            self.trying, self.held = False, True
        elif not self.ever_ready and not self.reloads:
            self.stopping, self._released, self.code = True, True, 3
        elif role == "successor" and process.generation in self.proven:
            self.misses[number] += 1
            self.retry_at[number] = self.now + min(0.5 * 2 ** (self.misses[number] - 1), 30)
        elif role == "successor":
            self.failed_generations.add(process.generation)
        else:
            healthy = process.ready_since is not None and self.now - process.ready_since >= 10
            before = 0 if healthy else self.crashes[number]
            if failed_start and before == 0:
                before = 1
            self.crashes[number] = before + 1
            self.not_before[number] = self.now + (min(0.5 * 2 ** (before - 1), 30) if before else 0.0)
            for heir in self._workers():
                if heir.number == number and heir.role == "successor" and heir.generation in self.proven:
                    self._promote(heir)

    # --- invariants -------------------------------------------------------------------------------

    def check(self) -> None:
        fleet = self.fleet
        self._see_dropped()
        active = sum(slot.state in (SlotState.BOOTING, SlotState.READY) for slot in fleet.slots())
        assert active <= fleet.size + 1, f"{active} workers for {fleet.size}"
        alive = sum(p.role != "gone" for p in self._workers())
        assert alive == active, f"{alive} are meant to serve, the fleet counts {active}"
        assert all(p.role != "old" for p in self.processes.values()), (
            "a successor took over, but its predecessor was not drained"
        )
        ready = sum(p.serves for p in self.processes.values())
        assert fleet.ready == ready
        assert fleet.generation == max(self.proven)
        assert fleet.stopping == self.stopping
        assert len(self.finishes) <= 1
        assert bool(self.finishes) == (self.stopping and not self._workers()), (
            "not finished when all are gone"
        )
        if self.reloads and not self.stopping:
            waits = [p for p in self.processes.values() if p.role != "gone" and not p.may_import]
            assert not waits or any(p.old for p in self._workers()), f"{waits} may not import"
            assert self.trying == (fleet._reload._scout is not None)
            assert self.held == (fleet._reload.unproven and not self.trying)
        if fleet._roll.current is None:
            self.calm = False
        elif len(self.served()) >= fleet.size:
            self.calm = True
        assert ready >= fleet.size or not self.calm, "fewer than N ready in a roll"

    def _check_patience(self) -> None:
        """Everything ends within graceful + 3 s: a process that has not ended by then has been killed."""
        for process in self.processes.values():
            if process.drained is not None and self.now >= process.drained + TIMINGS.graceful + 2:
                assert process.killed, f"{process} not killed"
            if process.ended is not None and self.now >= process.ended + 2:
                assert process.killed, f"{process} not killed"

    # --- fairness ---------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take one step of a world in which nothing fails any more; only what hangs is ended by force."""
        if self.pending:
            self.spawned(self.pending[0], well=True)
            return
        if self.inspected:
            self.answer(self.inspected[0], None)
            return
        for process in list(self.processes.values()):
            if process.role == "gone" and (process.killed or not process.hangs or process.failed is not None):
                self.exited(process)
                return
            waits = process.ready_since is None and process.may_import
            if process.role != "gone" and waits and not process.hangs:
                self.ready(process)
                return
        self.wait()

    def rest(self) -> None:
        """Run on without crashes: N workers READY, all of the newest generation that proved itself."""
        if self.held:
            self.reload()
        for _ in range(600):
            if self.stopping:  # the first boot has failed: there is nothing to come to rest
                return
            slots = list(self.fleet.slots())
            hung = any(p.hangs for p in self.processes.values())
            retiring = any(slot.retiring is not None for slot in slots)
            if len(slots) == self.fleet.ready == self.fleet.size and not (
                self.fleet.rolling or hung or retiring
            ):
                break
            self._go_on()
        else:
            raise AssertionError(f"no rest: {self.fleet!r}, {list(self.fleet.slots())}")
        assert {slot.generation for slot in slots} == {self.fleet.generation}
        if self.newest_asked not in self.failed_generations:
            assert self.fleet.generation == self.newest_asked, "the roll last asked for was forgotten"

    def end(self) -> None:
        """Stop, and run on until no process is left."""
        if not self.stopping:
            self.stop()
        for _ in range(600):
            if self.finishes:
                break
            self._go_on()
        assert len(self.finishes) == 1, f"no end: {self.fleet!r}, {list(self.fleet.slots())}"
        assert self.fleet.handle(ev.Stop(), self.now) == []


def shallow_copy(one: T) -> T:
    """Return a shallow copy, cheaper than copy.copy: most of an exploration's time is spent on copying."""
    other = object.__new__(type(one))
    other.__dict__.update(one.__dict__)
    return other


def clone_fleet(fleet: Fleet) -> Fleet:
    new = shallow_copy(fleet)
    new._places = shallow_copy(fleet._places)
    new._reload = shallow_copy(fleet._reload)
    new._roll = shallow_copy(fleet._roll)
    new._reload._places = new._roll._places = new._places
    slots: dict[int, Slot] = {}
    for slot in fleet.slots():
        other = slots[slot.ticket] = shallow_copy(slot)
        other._sent = slot._sent.copy()
        other._hang_detector = slot._hang_detector and shallow_copy(slot._hang_detector)
    new._places.leaving = [slots[slot.ticket] for slot in fleet._places.leaving]
    new._places._places = {}
    for place in fleet._places:
        here = new._places._places[place.number] = shallow_copy(place)
        here.tenant = slots[place.tenant.ticket]
        if place.successor is not None:
            here.successor = slots[place.successor.ticket]
    return new
