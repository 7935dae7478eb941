"""Plan a run of fault injection from a seed, and judge which failed requests the faults explain.

Pure: the same seed always gives the same plan.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TypeAlias

MAX_WORKERS = 4
"""The most workers of a run: more would only take longer to start."""


@dataclass(frozen=True)
class Kill:
    """Send a signal that ends a worker; `pick` (0 to 1) chooses one of those that live."""

    pick: float
    signal: str


@dataclass(frozen=True)
class Suspend:
    """Suspend the worker chosen by `pick`, or the arbiter if that is None, for so many seconds (SIGSTOP)."""

    seconds: float
    pick: float | None


@dataclass(frozen=True)
class Send:
    """Send these signals to the arbiter, one right after the other."""

    signals: tuple[str, ...]


@dataclass(frozen=True)
class Deploy:
    """Write this kind of code (a key of `chaos_project.CODE_VARIANTS`), and send `rolls` times SIGHUP."""

    code: str
    rolls: int = 1


@dataclass(frozen=True)
class Block:
    """Let a request block its worker's event loop for `seconds`.

    It is `fatal` if the worker is then killed, because `seconds` exceeds the time-out of the healthcheck.
    """

    seconds: float
    fatal: bool


@dataclass(frozen=True)
class Configure:
    """Write so many workers into the configuration, and send SIGHUP."""

    workers: int


Action: TypeAlias = Kill | Suspend | Send | Deploy | Block | Configure
Plan: TypeAlias = "list[tuple[float, Action]]"

BROKEN_CODE = ("syntax", "raises", "lifespan", "hangs", "crashes")
_WEIGHTS = {
    "kill": 4,
    "drain": 2,
    "stop": 4,
    "stop arbiter": 2,
    "roll": 3,
    "scale": 4,
    "break": 3,
    "block": 3,
    "block for good": 1,
    "configure": 2,
    "nudge": 1,
}


def plan(seed: int, minutes: float) -> Plan:
    """Return the actions for a run of so many minutes, each with the seconds to wait before it.

    To add an action, add a class above, a row in `_WEIGHTS`, a case in `_action` and one in
    `chaos.PlanRunner`.
    """
    rng = random.Random(seed)
    left, broken = minutes * 60, False
    steps: Plan = []
    while left > 0:
        delay = round(rng.choice((0.0, rng.uniform(0.05, 0.5), rng.uniform(0.3, 2.5))), 2)
        name = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        action = _action(name, rng)
        if broken and rng.random() < 0.4:
            action = Deploy("good", rng.randint(0, 2))
        if isinstance(action, Deploy):
            broken = action.code != "good"
        steps.append((delay, action))
        left -= max(delay, 0.3)
    return steps


def _action(name: str, rng: random.Random) -> Action:
    pick = rng.randrange(1000) / 1000
    match name:
        case "kill":
            return Kill(pick, rng.choice(("SIGKILL", "SIGKILL", "SIGABRT", "SIGSEGV")))
        case "drain":
            return Kill(pick, "SIGTERM")
        case "stop":
            return Suspend(round(rng.uniform(0.1, 2.0), 2), pick)
        case "stop arbiter":
            return Suspend(round(rng.uniform(0.1, 2.5), 2), None)
        case "roll":
            return Send(("SIGHUP",) * rng.randint(1, 4))
        case "scale":
            return Send(tuple(rng.choice(("SIGTTIN", "SIGTTOU")) for _ in range(rng.randint(1, 3))))
        case "break":
            return Deploy(rng.choice(BROKEN_CODE), rng.randint(0, 2))
        case "block":
            return Block(round(rng.uniform(0.1, 2.0), 2), fatal=False)
        case "block for good":
            return Block(600.0, fatal=True)
        case "configure":
            return Configure(rng.randint(1, MAX_WORKERS))
        case _:
            return Send(rng.choice((("SIGUSR1",), ("SIGUSR1", "SIGHUP", "SIGUSR1"))))


@dataclass(frozen=True)
class ForcedEnd:
    """The end of a worker by force: the monotonic time, and the ports of the clients that it served then."""

    at: float
    cause: str
    ports: frozenset[int]


@dataclass(frozen=True)
class Failure:
    """A request that did not get the right answer."""

    what: str
    request: str
    port: int
    """The port of the client, which identifies the connection; 0 if there was none."""
    opened: float
    at: float
    excuse: str = ""
    """The fault that explains the failure; empty if none does."""

    @property
    def is_mixed_up(self) -> bool:
        """Whether the answer belongs to another request; no fault excuses that."""
        return self.what.startswith("mixed")


def judge(failures: list[Failure], forced_ends: list[ForcedEnd]) -> tuple[list[Failure], list[Failure]]:
    """Return the failures that a forced end excuses, with the excuse, and those that none does.

    A failure is excused if the worker that was ended by force held its connection: the connection was opened
    before the end, and failed after it. The port alone does not identify a connection: ports are reused.
    """
    allowed, lost = [], []
    for failure in failures:
        excuse = failure.excuse or next(
            (
                forced_end.cause
                for forced_end in forced_ends
                if failure.port in forced_end.ports and failure.opened <= forced_end.at <= failure.at
            ),
            "",
        )
        if excuse and not failure.is_mixed_up:
            allowed.append(replace(failure, excuse=excuse))
        else:
            lost.append(failure)
    return allowed, lost
