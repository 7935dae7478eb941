"""A fuzzer of faults: random orders, deaths, stops and broken code at a running arbiter under load.

`make chaos MINUTES=10 SEED=7`, or `python -m tests.chaos --minutes 10 --seed 7`. The plan of a seed is always
the same (`--plan` prints it); what the machine makes of it is not, so that a failure may take several runs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.chaos_clients import Clients
from tests.chaos_plan import (
    MOST,
    Action,
    Block,
    Configure,
    Deploy,
    Doom,
    Failure,
    Kill,
    Order,
    Plan,
    Stop,
    judge,
    plan,
)
from tests.chaos_project import Project, client_ports
from tests.live.harness import Ostler, wait_until

WORKERS = 3
SETTLING = 120.0
"""Seconds until a fleet has come to rest: back-off may last 30 s, twice, and a boot 12 s."""
LIVED = 5.0
"""Seconds of answers after which a worker's generation has proved itself, whatever was stopped meanwhile."""

_SCALED = r"Scaled from |Not scaled|Scaling ignored"
_ROLLING = re.compile(r"Rolling restart to generation (\d+) (begins|complete|given up|ends incomplete)")


class Player:
    """Carries out a plan, and knows what has to be true after it."""

    def __init__(self, ostler: Ostler, project: Project, clients: Clients) -> None:
        self.size = WORKERS
        self.dooms: list[Doom] = []
        self.done: Counter[str] = Counter()
        self._configured = WORKERS
        self._ostler, self._project, self._clients = ostler, project, clients
        self._stopped: dict[int, float] = {}
        """Until when each stopped process stays so, by pid."""

    def play(self, steps: Plan) -> None:
        """Do all of it, each step when its time has come."""
        for delay, action in steps:
            self._wait(delay)
            if self._ostler.poll() is not None:
                raise AssertionError(f"the arbiter has ended with exit code {self._ostler.poll()}")
            said = self._do(action)
            self.done[type(action).__name__] += 1
            print(f"{time.monotonic():.2f} {action}: {said}", flush=True)
        self._wait(max([0.0, *(until - time.monotonic() for until in self._stopped.values())]))

    def resume(self) -> None:
        """Let whoever is stopped go on, at once: nothing that is stopped can be ended."""
        self._stopped = dict.fromkeys(self._stopped, 0.0)
        self._wait(0.0)

    def _wait(self, seconds: float) -> None:
        """Let time pass, and whoever was stopped go on when their time has come."""
        end = time.monotonic() + seconds
        pause = threading.Event()
        while True:
            now = time.monotonic()
            for pid in [pid for pid, until in self._stopped.items() if until <= now]:
                del self._stopped[pid]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            if now >= end:
                return
            pause.wait(min([end - now, *(until - now for until in self._stopped.values())]))

    def _do(self, action: Action) -> str:
        match action:
            case Kill(pick=pick, signal=name):
                return self._kill(pick, signal.Signals[name])
            case Stop(seconds=seconds, pick=pick):
                return self._stop(seconds, pick)
            case Order(signals=names):
                for name in names:
                    self.order(signal.Signals[name])
                return f"{self.size} workers"
            case Deploy(code=code, rolls=rolls):
                self._project.deploy(code)
                for _ in range(rolls):
                    self.order(signal.SIGHUP)
                return ""
            case Block(seconds=seconds):
                self._clients.block(seconds)
                return ""
            case Configure(workers=count):
                return self._configure(count)

    def order(self, number: signal.Signals) -> None:
        if number in (signal.SIGTTIN, signal.SIGTTOU):
            by = 1 if number == signal.SIGTTIN else -1
            if self.size + by > MOST:
                return
            self._heeded(number, _SCALED)  # one at a time: equal signals that are pending are one (signal(7))
            self.size = max(1, self.size + by)
            return
        if number == signal.SIGHUP:
            self._project.next_token()
        self._ostler.send(number)

    def _said(self, pattern: str) -> int:
        return len(re.findall(pattern, self._ostler.log.text))

    def _heeded(self, number: signal.Signals, pattern: str, before: int | None = None) -> None:
        """Send a signal, and wait for its line in the log, also from an arbiter that is stopped yet."""
        until = self._stopped.get(self._ostler.pid, 0.0)
        if number in (signal.SIGTTIN, signal.SIGTTOU):
            # The kernel discards these two, if they are pending, when the process is continued (POSIX).
            self._wait(until - time.monotonic())
        before = self._said(pattern) if before is None else before
        self._ostler.send(number)
        deadline = time.monotonic() + 30.0
        while self._said(pattern) <= before:
            assert time.monotonic() < deadline, f"{number.name} was not heeded within 30 s"
            self._wait(0.05)

    def _configure(self, count: int) -> str:
        """Scale by the configuration: where that has changed, it overrides what was ordered since."""
        before = self._said(_SCALED)  # an earlier SIGHUP that is pending yet may read the new file already
        self._project.configure(count)
        if count == self._configured:
            self.order(signal.SIGHUP)
        elif count == self.size:
            # No line tells that it was heeded, but the next that does came after it; unless both are pending
            # at once, for the handler of the last one that Linux delivers runs first.
            self.order(signal.SIGHUP)
            while _pending(self._ostler.pid, signal.SIGHUP):
                self._wait(0.01)
            self._heeded(signal.SIGTTIN, _SCALED)
            self._heeded(signal.SIGTTOU, _SCALED)
        else:
            self._project.next_token()
            self._heeded(signal.SIGHUP, _SCALED, before)
        if count != self._configured:
            self._configured = self.size = count
        return f"{self.size} workers"

    def _victim(self, pick: float) -> int | None:
        pids = sorted(self._ostler.workers())
        return pids[int(pick * len(pids))] if pids else None  # pick is below 1

    def _kill(self, pick: float, number: signal.Signals) -> str:
        """End a worker. It is stopped first: so what it holds is known, and nothing can be added."""
        pid = self._victim(pick)
        if pid is None:
            return "no worker"
        if number == signal.SIGTERM:
            os.kill(pid, number)
            return f"pid {pid}"
        ports: frozenset[int] = frozenset()
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, psutil.NoSuchProcess):
            os.kill(pid, signal.SIGSTOP)
            process = psutil.Process(pid)
            wait_until(lambda: process.status() in ("stopped", "zombie"), f"{pid} is stopped")
            ports = client_ports(pid)
            self.dooms.append(Doom(time.monotonic(), f"{number.name} to {pid}", ports))
            self._stopped.pop(pid, None)
            # Before it goes on; to its main thread, which would accept while another one runs a handler.
            if ctypes.CDLL(None, use_errno=True).tgkill(pid, pid, number):
                raise ProcessLookupError(ctypes.get_errno(), f"no thread {pid}")
            os.kill(pid, signal.SIGCONT)
        return f"pid {pid}, {len(ports)} connections"

    def _stop(self, seconds: float, pick: float | None) -> str:
        pid = self._ostler.pid if pick is None else self._victim(pick)
        if pid is None or pid in self._stopped:  # a longer stop would be a death by its healthcheck
            return "nobody"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._stopped[pid] = time.monotonic() + seconds
        return f"pid {pid}"


def _pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process has yet to be given that signal (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return any(
        int(mask, 16) >> (number - 1) & 1 for mask in re.findall(r"^(?:Sig|Shd)Pnd:\s*(\w+)", status, re.M)
    )


class Rest:
    """What an arbiter at rest has: compared before and after."""

    def __init__(self, ostler: Ostler) -> None:
        self._ostler = ostler
        self._arbiter = psutil.Process(ostler.pid)
        self.before = self.taken()

    def taken(self) -> tuple[int, int, int]:
        """Return descriptors of the arbiter, its children, and the zombies among those."""
        children = self._arbiter.children(recursive=True)
        zombies = 0
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                zombies += child.status() == psutil.STATUS_ZOMBIE
        return self._arbiter.num_fds(), len(children), zombies


def settle(ostler: Ostler, project: Project, player: Player, clients: Clients, rest: Rest) -> None:
    """With the faults over, check all that has to be true. Raises AssertionError."""
    project.deploy("good")
    _wait(
        lambda: len(ostler.workers()) == player.size and not _rolling(ostler),
        ostler,
        f"{player.size} workers",
    )
    tokens = _one_generation(ostler, clients)
    lasting = [a.token for first, last, a in list(clients.seen.values()) if last - first > LIVED]
    assert max(tokens) >= max(lasting, default=0), f"generation {tokens} serves, a newer one had got ready"
    token = project.next_token()
    ostler.send(signal.SIGHUP)
    _wait(lambda: _serving(ostler, clients) == {token}, ostler, f"a last roll to {token}")
    for _ in range(player.size, WORKERS):
        player.order(signal.SIGTTIN)
    for _ in range(WORKERS, player.size):
        player.order(signal.SIGTTOU)
    _wait(lambda: _serving(ostler, clients) == {token}, ostler, f"{WORKERS} workers that answer")
    with contextlib.suppress(AssertionError):  # which could not say what was there in the end
        wait_until(lambda: rest.taken() == rest.before, "at rest as before", 30.0)
    assert rest.taken() == rest.before, f"descriptors, children, zombies: {rest.taken()}, not {rest.before}"
    assert sorted(ostler.workers().values()) == sorted(set(ostler.workers().values()))
    for word in ("Internal error", "UnlistedEvent", "garbled"):
        assert word not in ostler.log.text, word


def _wait(condition: object, ostler: Ostler, what: str) -> None:
    assert callable(condition)
    assert ostler.poll() is None
    wait_until(condition, what, SETTLING)


def _rolling(ostler: Ostler) -> bool:
    """Whether the log tells of a roll that has begun, or is to follow, and has not ended."""
    state = _ROLLING.findall(ostler.log.text)
    return bool(state) and state[-1][1] in ("begins", "ends incomplete")


def _serving(ostler: Ostler, clients: Clients) -> set[int]:
    """Return the tokens of the workers that live, or nothing if one of those has never answered."""
    pids, seen = ostler.workers(), clients.seen
    if any(pid not in seen for pid in pids):
        return set()
    return {seen[pid][2].token for pid in pids}


def _one_generation(ostler: Ostler, clients: Clients) -> set[int]:
    wait_until(lambda: len(_serving(ostler, clients)) == 1, "one generation", SETTLING)
    return _serving(ostler, clients)


def run(seed: int, minutes: float, directory: Path) -> str:
    """Play a seed's plan and check what is left. Returns a summary; raises AssertionError with the replay."""
    steps = plan(seed, minutes)
    print(f"seed {seed}, {minutes:g} minutes, {len(steps)} steps", flush=True)
    project = Project(directory, WORKERS)
    args = ("main:app", "--port", "0", "--config", "ostler.toml", "--env-file", "chaos.env")
    with Ostler(directory, *args) as ostler:
        ostler.wait_ready(WORKERS)
        rest = Rest(ostler)
        clients = Clients(ostler.port)
        player = Player(ostler, project, clients)
        try:
            with clients:
                player.play(steps)
                settle(ostler, project, player, clients, rest)
            assert ostler.stop() == 0
        finally:
            player.resume()
            allowed, lost = judge(clients.failures, [*player.dooms, *project.dooms()])
            summary = _summary(seed, clients, player, allowed, lost)
            print(summary, flush=True)
        replay = f"make chaos SEED={seed} MINUTES={minutes:g}"
        assert not lost, "\n".join(
            [f"{len(lost)} requests lost that nothing excuses; again: {replay}", *map(str, lost)]
        )
    return summary


def _summary(seed: int, clients: Clients, player: Player, allowed: list[Failure], lost: list[Failure]) -> str:
    excuses = Counter(re.sub(r" to \d+", "", failure.excuse) for failure in allowed)
    return (
        f"seed {seed}: {clients.asked} requests, {clients.answered} answered, "
        f"{clients.messages} WebSocket messages; "
        f"{len(allowed)} allowed to fail {dict(excuses)}, {len(lost)} not; done {dict(player.done)}"
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--plan", action="store_true", help="print the plan and do nothing")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    if options.plan:
        for step, (delay, action) in zip(itertools.count(1), plan(seed, options.minutes), strict=False):
            print(step, delay, action)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        try:
            run(seed, options.minutes, Path(directory))
        except AssertionError as exc:
            print(
                f"FAILED with seed {seed}: {exc}", *getattr(exc, "__notes__", ()), sep="\n", file=sys.stderr
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
