"""What happens to a fleet (events) and what it wants done (actions). Pure data."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ostler.ipc.messages import Message
from ostler.records import record


@record
class Timings:
    """How long each phase of a worker's life may take, in seconds. One deadline for each phase."""

    startup: float = 300.0
    """From spawn to ready (`--timeout-worker-startup`); infinite: no matter how long."""
    healthcheck: float = 30.0
    """Silence of the event loop after which a ready worker is aborted (`--timeout-worker-healthcheck`);
    infinite: never."""
    graceful: float = 30.0
    """From the order to drain until the worker cancels what is left (`--timeout-graceful-shutdown`)."""


# --- events: from a worker's process -------------------------------------------------------------


@record
class Started:
    """The spawn asked for by `Spawn(ticket=...)` gave this process."""

    ticket: int
    pid: int


@record
class SpawnFailed:
    """The spawn asked for by `Spawn(ticket=...)` gave no process (fork refused, out of memory)."""

    ticket: int
    reason: str


@record
class MessageReceived:
    """A worker's message, as it came through its pipe."""

    pid: int
    message: Message


@record
class Inspected:
    """The answer to `Inspect(pid)`: what the operating system says of a silent worker."""

    pid: int
    waited: int | None
    """Nanoseconds that its loop's thread has waited for a CPU so far; None where nobody counts that."""
    evidence: str
    """State, wait channel, CPU and waiting time, memory: in words, for the log."""
    ran: int | None = None
    """Nanoseconds that its loop's thread has been on a CPU so far."""
    throttled: int | None = None
    """Nanoseconds for which the quota of its cgroups has kept CPUs from it so far; None for one that does not
    want to run."""


@record
class Exited:
    """A worker's process is gone and has been reaped."""

    pid: int
    how: str
    """In words: `exited with code 1`, `was killed by SIGKILL`."""
    signal: str | None = None
    """The name of the signal that killed it, such as `SIGKILL`."""
    hint: str = ""
    """What else is known, such as `probably the kernel's OOM killer`."""


# --- events: time and the operator ---------------------------------------------------------------


@record
class Tick:
    """A deadline may have passed."""


@record
class Roll:
    """Replace every worker by one of this generation; its configuration has been read and checked."""

    generation: int
    timings: Timings


@record
class Reload:
    """The code has changed: nobody may be answered by the old one any more, everybody waits for the new."""

    generation: int
    timings: Timings
    why: str
    """What has changed, as the log has it."""


@record
class Resize:
    """Have this many workers more (or fewer, when negative); never below one."""

    by: int


@record
class Stop:
    """Drain everything, then finish with exit code 0."""


@record
class StopSoon:
    """End everything as for a reload, then finish with exit code 0."""


@record
class StopNow:
    """End everything at once, then finish with exit code 0."""


Orders: TypeAlias = Roll | Reload | Resize | Stop | StopSoon | StopNow
Event: TypeAlias = Started | SpawnFailed | MessageReceived | Inspected | Exited | Tick | Orders


# --- actions -------------------------------------------------------------------------------------


@record
class Spawn:
    """Start a worker for this slot, and answer with `Started` or `SpawnFailed` under this ticket."""

    ticket: int
    slot: int
    generation: int


@record
class Drain:
    """Ask the worker to finish what it has and go (SIGTERM)."""

    pid: int


@record
class AllowImport:
    """Let the worker import the application: the old code has gone (--reload only)."""

    pid: int


@record
class Hurry:
    """Ask the worker to take nothing more, and to be gone within a second or so (SIGURG)."""

    pid: int


@record
class Inspect:
    """Look at what the operating system says of this worker, and answer with `Inspected`."""

    pid: int


@record
class ShowStack:
    """Ask the worker for the stacks of its threads (faulthandler)."""

    pid: int


@record
class Quit:
    """Ask the worker to stop at once (SIGQUIT)."""

    pid: int


@record
class Abort:
    """End a worker that does not answer, leaving its stacks in the log (SIGABRT)."""

    pid: int


@record
class Kill:
    """End the worker and its process group by force (SIGKILL)."""

    pid: int


@record
class Report:
    """Tell the operator: cause and consequence, in one line."""

    level: Literal["debug", "info", "warning", "error"]
    text: str


@record
class Finish:
    """Every child is gone: end the arbiter with this exit code, `reason` as its last line."""

    code: int
    reason: str = ""


Signal: TypeAlias = Drain | Hurry | ShowStack | Quit | Abort | Kill
Action: TypeAlias = Spawn | AllowImport | Inspect | Signal | Report | Finish
