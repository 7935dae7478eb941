"""What a run of faults will do, and what may fail by it. Pure: the same seed is the same plan."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TypeAlias

MOST = 4
"""Workers at most: more only take longer to start."""


@dataclass(frozen=True)
class Kill:
    """End a worker by a signal; `pick` (0 to 1) chooses among those that live."""

    pick: float
    signal: str


@dataclass(frozen=True)
class Stop:
    """SIGSTOP for so many seconds: the worker chosen by `pick`, or the arbiter if that is None."""

    seconds: float
    pick: float | None


@dataclass(frozen=True)
class Order:
    """Signals to the arbiter, one right after the other."""

    signals: tuple[str, ...]


@dataclass(frozen=True)
class Deploy:
    """Write this kind of code (a name in `chaos_project.FAULTS`) and order so many rolls at once."""

    code: str
    rolls: int = 1


@dataclass(frozen=True)
class Block:
    """Let one request block its worker's event loop; past the healthcheck's limit that is fatal."""

    seconds: float
    fatal: bool


@dataclass(frozen=True)
class Configure:
    """Write so many workers into the configuration, and order a roll."""

    workers: int


Action: TypeAlias = Kill | Stop | Order | Deploy | Block | Configure
Plan: TypeAlias = "list[tuple[float, Action]]"

BROKEN = ("syntax", "raises", "lifespan", "hangs", "crashes")
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
    """Return what to do, each with the seconds to wait before it.

    To add an action: a class above, a row in `_WEIGHTS`, a case in `_action`, and one in `chaos.Player`.
    """
    dice = random.Random(seed)
    left, broken = minutes * 60, False
    steps: Plan = []
    while left > 0:
        delay = round(dice.choice((0.0, dice.uniform(0.05, 0.5), dice.uniform(0.3, 2.5))), 2)
        name = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        action = _action(name, dice)
        if broken and dice.random() < 0.4:
            action = Deploy("good", dice.randint(0, 2))
        if isinstance(action, Deploy):
            broken = action.code != "good"
        steps.append((delay, action))
        left -= max(delay, 0.3)
    return steps


def _action(name: str, dice: random.Random) -> Action:
    pick = dice.randrange(1000) / 1000
    match name:
        case "kill":
            return Kill(pick, dice.choice(("SIGKILL", "SIGKILL", "SIGABRT", "SIGSEGV")))
        case "drain":
            return Kill(pick, "SIGTERM")
        case "stop":
            return Stop(round(dice.uniform(0.1, 2.0), 2), pick)
        case "stop arbiter":
            return Stop(round(dice.uniform(0.1, 2.5), 2), None)
        case "roll":
            return Order(("SIGHUP",) * dice.randint(1, 4))
        case "scale":
            return Order(tuple(dice.choice(("SIGTTIN", "SIGTTOU")) for _ in range(dice.randint(1, 3))))
        case "break":
            return Deploy(dice.choice(BROKEN), dice.randint(0, 2))
        case "block":
            return Block(round(dice.uniform(0.1, 2.0), 2), fatal=False)
        case "block for good":
            return Block(600.0, fatal=True)
        case "configure":
            return Configure(dice.randint(1, MOST))
        case _:
            return Order(dice.choice((("SIGUSR1",), ("SIGUSR1", "SIGHUP", "SIGUSR1"))))


@dataclass(frozen=True)
class Doom:
    """A worker about to end by force, at a monotonic time, and the client ports that it held then."""

    at: float
    cause: str
    ports: frozenset[int]


@dataclass(frozen=True)
class Failure:
    """One request that was not answered as it ought to be."""

    what: str
    request: str
    port: int
    """The client's, which names the connection; 0 if there was none."""
    opened: float
    at: float
    excuse: str = ""

    @property
    def mixed_up(self) -> bool:
        """Whether an answer came that was never this request's: nothing excuses that."""
        return self.what.startswith("mixed")


def judge(failures: list[Failure], dooms: list[Doom]) -> tuple[list[Failure], list[Failure]]:
    """Return those that were allowed to fail, with the excuse, and those that were not.

    Only who was held by a worker when that was ended by force is excused: the connection was open by then,
    and failed afterwards. A port alone does not name a connection, for ports are used again.
    """
    allowed, lost = [], []
    for failure in failures:
        excuse = failure.excuse or next(
            (
                doom.cause
                for doom in dooms
                if failure.port in doom.ports and failure.opened <= doom.at <= failure.at
            ),
            "",
        )
        if excuse and not failure.mixed_up:
            allowed.append(replace(failure, excuse=excuse))
        else:
            lost.append(failure)
    return allowed, lost
