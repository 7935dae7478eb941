"""Fault injection: random signals, kills, suspensions and broken code against an arbiter under load.

`make chaos MINUTES=10 SEED=7`, or `python -m tests.chaos --minutes 10 --seed 7`. A seed always gives the same
plan, which `--plan` prints. The timing on the machine differs, so a failure may take several runs to repeat.
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
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.chaos_clients import Clients
from tests.chaos_plan import (
    MAX_WORKERS,
    Action,
    Block,
    Configure,
    Deploy,
    Failure,
    ForcedEnd,
    Kill,
    Plan,
    Send,
    Suspend,
    judge,
    plan,
)
from tests.chaos_project import Project, client_ports
from tests.live.harness import Ostler, wait_until

WORKERS = 3
CONVERGENCE_TIMEOUT = 120.0
"""Seconds until a fleet must have converged: a back-off may last 30 s, twice, and a boot 12 s."""
PROVEN_AFTER = 5.0
"""Seconds of answers after which a worker's generation counts as proven, even if it was suspended."""

_SCALED = r"Scaled from |Not scaled|Scaling ignored"
_ROLLING = re.compile(r"Rolling restart to generation (\d+) (begins|complete|given up|ends incomplete)")


class PlanRunner:
    """Carries out a plan, and keeps the number of workers that must live after it."""

    def __init__(self, ostler: Ostler, project: Project, clients: Clients) -> None:
        self.size = WORKERS
        self.forced_ends: list[ForcedEnd] = []
        self.done: Counter[str] = Counter()
        self._configured = WORKERS
        self._ostler, self._project, self._clients = ostler, project, clients
        self._suspended: dict[int, float] = {}
        """By pid of each suspended process: the monotonic time when it is continued."""

    def run(self, steps: Plan) -> None:
        """Carry out all steps, each after its delay."""
        for delay, action in steps:
            self._wait(delay)
            if self._ostler.poll() is not None:
                raise AssertionError(f"the arbiter has ended with exit code {self._ostler.poll()}")
            result = self._do(action)
            self.done[type(action).__name__] += 1
            print(f"{time.monotonic():.2f} {action}: {result}", flush=True)
        self._wait(max([0.0, *(until - time.monotonic() for until in self._suspended.values())]))

    def resume(self) -> None:
        """Continue every suspended process at once: a suspended process does not end at SIGTERM."""
        self._suspended = dict.fromkeys(self._suspended, 0.0)
        self._wait(0.0)

    def _wait(self, seconds: float) -> None:
        """Let so many seconds pass, and continue each suspended process at its time."""
        end = time.monotonic() + seconds
        pause = threading.Event()
        while True:
            now = time.monotonic()
            for pid in [pid for pid, until in self._suspended.items() if until <= now]:
                del self._suspended[pid]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            if now >= end:
                return
            pause.wait(min([end - now, *(until - now for until in self._suspended.values())]))

    def _do(self, action: Action) -> str:
        match action:
            case Kill(pick=pick, signal=name):
                return self._kill(pick, signal.Signals[name])
            case Suspend(seconds=seconds, pick=pick):
                return self._suspend(seconds, pick)
            case Send(signals=names):
                for name in names:
                    self.send(signal.Signals[name])
                return f"{self.size} workers"
            case Deploy(code=code, rolls=rolls):
                self._project.deploy(code)
                for _ in range(rolls):
                    self.send(signal.SIGHUP)
                return ""
            case Block(seconds=seconds):
                self._clients.block(seconds)
                return ""
            case Configure(workers=count):
                return self._configure(count)

    def send(self, number: signal.Signals) -> None:
        if number in (signal.SIGTTIN, signal.SIGTTOU):
            by = 1 if number == signal.SIGTTIN else -1
            if self.size + by > MAX_WORKERS:
                return
            self._send_and_wait(
                number, _SCALED
            )  # one at a time: equal pending signals are merged (signal(7))
            self.size = max(1, self.size + by)
            return
        if number == signal.SIGHUP:
            self._project.next_token()
        self._ostler.send(number)

    def _log_count(self, pattern: str) -> int:
        return len(re.findall(pattern, self._ostler.log.text))

    def _send_and_wait(self, number: signal.Signals, pattern: str, before: int | None = None) -> None:
        """Send a signal, and wait for its line in the log, also if the arbiter is still suspended."""
        until = self._suspended.get(self._ostler.pid, 0.0)
        if number in (signal.SIGTTIN, signal.SIGTTOU):
            # If these two are pending, the kernel discards them when the process is continued (POSIX).
            self._wait(until - time.monotonic())
        before = self._log_count(pattern) if before is None else before
        self._ostler.send(number)
        deadline = time.monotonic() + 30.0
        while self._log_count(pattern) <= before:
            assert time.monotonic() < deadline, f"{number.name} was not handled within 30 s"
            self._wait(0.05)

    def _configure(self, count: int) -> str:
        """Scale by the configuration; a changed number there overrides earlier SIGTTIN and SIGTTOU."""
        # Counted first, because an earlier SIGHUP that is still pending may already read the new file.
        before = self._log_count(_SCALED)
        self._project.configure(count)
        if count == self._configured:
            self.send(signal.SIGHUP)
        elif count == self.size:
            # The arbiter logs no line for this SIGHUP, but one for the next signal, which it handles later.
            # If both were pending at once, the handler of the later signal would run first (Linux).
            self.send(signal.SIGHUP)
            while _pending(self._ostler.pid, signal.SIGHUP):
                self._wait(0.01)
            self._send_and_wait(signal.SIGTTIN, _SCALED)
            self._send_and_wait(signal.SIGTTOU, _SCALED)
        else:
            self._project.next_token()
            self._send_and_wait(signal.SIGHUP, _SCALED, before)
        if count != self._configured:
            self._configured = self.size = count
        return f"{self.size} workers"

    def _victim(self, pick: float) -> int | None:
        """Return the pid of the worker that `pick` chooses; None if none lives."""
        pids = sorted(self._ostler.workers())
        return pids[int(pick * len(pids))] if pids else None  # pick is below 1

    def _kill(self, pick: float, number: signal.Signals) -> str:
        """End a worker. It is suspended first, so that its connections are known and it accepts no more."""
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
            wait_until(lambda: process.status() in ("stopped", "zombie"), f"{pid} is suspended")
            ports = client_ports(pid)
            self.forced_ends.append(ForcedEnd(time.monotonic(), f"{number.name} to {pid}", ports))
            self._suspended.pop(pid, None)
            # Before SIGCONT, and to the main thread: it could accept while another thread runs a handler.
            if ctypes.CDLL(None, use_errno=True).tgkill(pid, pid, number):
                raise ProcessLookupError(ctypes.get_errno(), f"no thread {pid}")
            os.kill(pid, signal.SIGCONT)
        return f"pid {pid}, {len(ports)} connections"

    def _suspend(self, seconds: float, pick: float | None) -> str:
        pid = self._ostler.pid if pick is None else self._victim(pick)
        if pid is None or pid in self._suspended:  # a longer suspension would exceed the healthcheck
            return "no process"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._suspended[pid] = time.monotonic() + seconds
        return f"pid {pid}"


def _pending(pid: int, number: signal.Signals) -> bool:
    """Whether the signal is pending for the process (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return any(
        int(mask, 16) >> (number - 1) & 1 for mask in re.findall(r"^(?:Sig|Shd)Pnd:\s*(\w+)", status, re.M)
    )


class ResourceCounts:
    """The resources of an arbiter: they must be the same before and after the faults."""

    def __init__(self, ostler: Ostler) -> None:
        self._arbiter = psutil.Process(ostler.pid)
        self.before = self.count()

    def count(self) -> tuple[int, int, int]:
        """Return the numbers of the arbiter's descriptors, of its descendants, and of zombies among these."""
        children = self._arbiter.children(recursive=True)
        zombies = 0
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                zombies += child.status() == psutil.STATUS_ZOMBIE
        return self._arbiter.num_fds(), len(children), zombies


def check_convergence(
    ostler: Ostler, project: Project, runner: PlanRunner, clients: Clients, resources: ResourceCounts
) -> None:
    """Check that the fleet converges after the faults, to the right state. Raises AssertionError."""
    project.deploy("good")
    _wait(
        lambda: len(ostler.workers()) == runner.size and not _rolling(ostler),
        ostler,
        f"{runner.size} workers",
    )
    tokens = _one_generation(ostler, clients)
    lasting = [a.token for first, last, a in list(clients.seen.values()) if last - first > PROVEN_AFTER]
    assert max(tokens) >= max(lasting, default=0), f"generation {tokens} serves, a newer one had got ready"
    token = project.next_token()
    ostler.send(signal.SIGHUP)
    _wait(lambda: _serving(ostler, clients) == {token}, ostler, f"a last roll to {token}")
    for _ in range(runner.size, WORKERS):
        runner.send(signal.SIGTTIN)
    for _ in range(WORKERS, runner.size):
        runner.send(signal.SIGTTOU)
    _wait(lambda: _serving(ostler, clients) == {token}, ostler, f"{WORKERS} workers that answer")
    with contextlib.suppress(AssertionError):  # the assertion below shows the numbers
        wait_until(lambda: resources.count() == resources.before, "the resources are as before", 30.0)
    assert resources.count() == resources.before, (
        f"descriptors, children, zombies: {resources.count()}, not {resources.before}"
    )
    assert sorted(ostler.workers().values()) == sorted(set(ostler.workers().values()))
    for word in ("Internal error", "UnlistedEvent", "garbled"):
        assert word not in ostler.log.text, word


def _wait(condition: Callable[[], bool], ostler: Ostler, what: str) -> None:
    """Wait until the condition is true; fail if the arbiter has ended."""
    assert ostler.poll() is None
    wait_until(condition, what, CONVERGENCE_TIMEOUT)


def _rolling(ostler: Ostler) -> bool:
    """Whether the log shows a roll that has begun and not ended, or that another roll follows."""
    state = _ROLLING.findall(ostler.log.text)
    return bool(state) and state[-1][1] in ("begins", "ends incomplete")


def _serving(ostler: Ostler, clients: Clients) -> set[int]:
    """Return the tokens of the workers that live; an empty set if one of them has never answered."""
    pids, seen = ostler.workers(), clients.seen
    if any(pid not in seen for pid in pids):
        return set()
    return {seen[pid][2].token for pid in pids}


def _one_generation(ostler: Ostler, clients: Clients) -> set[int]:
    wait_until(lambda: len(_serving(ostler, clients)) == 1, "one generation", CONVERGENCE_TIMEOUT)
    return _serving(ostler, clients)


def run(seed: int, minutes: float, directory: Path) -> str:
    """Run a seed's plan and check the outcome.

    Returns a summary. Raises AssertionError with the command that repeats the run.
    """
    steps = plan(seed, minutes)
    print(f"seed {seed}, {minutes:g} minutes, {len(steps)} steps", flush=True)
    project = Project(directory, WORKERS)
    args = ("main:app", "--port", "0", "--config", "ostler.toml", "--env-file", "chaos.env")
    with Ostler(directory, *args) as ostler:
        ostler.wait_ready(WORKERS)
        resources = ResourceCounts(ostler)
        clients = Clients(ostler.port)
        runner = PlanRunner(ostler, project, clients)
        try:
            with clients:
                runner.run(steps)
                check_convergence(ostler, project, runner, clients, resources)
            assert ostler.stop() == 0
        finally:
            runner.resume()
            allowed, lost = judge(clients.failures, [*runner.forced_ends, *project.forced_ends()])
            summary = _summary(seed, clients, runner, allowed, lost)
            print(summary, flush=True)
        replay = f"make chaos SEED={seed} MINUTES={minutes:g}"
        assert not lost, "\n".join(
            [f"{len(lost)} requests lost that nothing excuses; again: {replay}", *map(str, lost)]
        )
    return summary


def _summary(
    seed: int, clients: Clients, runner: PlanRunner, allowed: list[Failure], lost: list[Failure]
) -> str:
    excuses = Counter(re.sub(r" to \d+", "", failure.excuse) for failure in allowed)
    return (
        f"seed {seed}: {clients.asked} requests, {clients.answered} answered, "
        f"{clients.messages} WebSocket messages; "
        f"{len(allowed)} allowed to fail {dict(excuses)}, {len(lost)} not; done {dict(runner.done)}"
    )


def main() -> int:
    """Parse the command line, run a plan, and return the exit code."""
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
