"""Events, which the arbiter passes to the fleet, and actions, which the fleet returns. Pure data."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ostler.ipc.messages import Message
from ostler.records import record


@record
class Timings:
    """How long each phase of a worker's life may take, in seconds."""

    startup: float = 300.0
    """From spawn to ready (`--timeout-worker-startup`); infinite: no deadline."""
    healthcheck: float = 30.0
    """How long the event loop of a ready worker may be silent until the worker is aborted
    (`--timeout-worker-healthcheck`); infinite: no deadline."""
    graceful: float = 30.0
    """From SIGTERM until the worker cancels what is left (`--timeout-graceful-shutdown`)."""


# --- events: from a worker's process -------------------------------------------------------------


@record
class Started:
    """`Spawn` with this ticket was carried out, and gave this process."""

    ticket: int
    pid: int


@record
class SpawnFailed:
    """`Spawn` with this ticket gave no process (fork refused, out of memory)."""

    ticket: int
    reason: str


@record
class MessageReceived:
    """A worker has sent this message through its heartbeat pipe."""

    pid: int
    message: Message


@record
class Inspected:
    """The answer to `Inspect(pid)`: what the operating system knows of a silent worker."""

    pid: int
    waited: int | None
    """Nanoseconds for which the thread of its event loop has waited for a CPU so far; None if not known."""
    evidence: str
    """State, wait channel, CPU and waiting time, and memory, for the log."""
    ran: int | None = None
    """Nanoseconds for which the thread of its event loop has been on a CPU so far; None if not known."""
    throttled: int | None = None
    """Nanoseconds for which the CPU quota of its cgroups has throttled it so far; None if not known, or if it
    does not want to run."""


@record
class Exited:
    """A worker's process has ended and has been reaped."""

    pid: int
    how: str
    """For the log: `exited with code 1`, `was killed by SIGKILL`."""
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
    """Rolling restart: replace every worker, one at a time, by one of this generation (SIGHUP).

    The configuration of the generation has been read and checked.
    """

    generation: int
    timings: Timings


@record
class Reload:
    """The code has changed (--reload): no request is answered by the old code any more."""

    generation: int
    timings: Timings
    why: str
    """What has changed: a line for the log."""


@record
class Resize:
    """Scale by this many workers; fewer if negative, but never below one worker."""

    by: int


@record
class Stop:
    """Drain every worker, then finish with exit code 0."""


@record
class StopSoon:
    """End every worker as quickly as a reload does, then finish with exit code 0."""


@record
class StopNow:
    """End every worker at once, then finish with exit code 0."""


Event: TypeAlias = (
    Started
    | SpawnFailed
    | MessageReceived
    | Inspected
    | Exited
    | Tick
    | Roll
    | Reload
    | Resize
    | Stop
    | StopSoon
    | StopNow
)


# --- actions -------------------------------------------------------------------------------------


@record
class Spawn:
    """Start a worker for this slot, and answer with `Started` or `SpawnFailed` with this ticket."""

    ticket: int
    slot: int
    generation: int


@record
class Drain:
    """Tell the worker to finish what is in flight and exit (SIGTERM)."""

    pid: int


@record
class AllowImport:
    """Let the worker import the application: no process runs the old code any more (--reload only)."""

    pid: int


@record
class Hurry:
    """Tell the worker to take nothing more and to exit within a second or so (SIGURG)."""

    pid: int


@record
class Inspect:
    """Ask the operating system about this worker, and answer with `Inspected`."""

    pid: int


@record
class ShowStack:
    """Have the worker write the stacks of its threads (SIGUSR2, faulthandler)."""

    pid: int


@record
class Quit:
    """Tell the worker to exit at once (SIGQUIT)."""

    pid: int


@record
class Abort:
    """End a worker that does not react; its faulthandler writes its stacks (SIGABRT)."""

    pid: int


@record
class Kill:
    """End the worker and its process group by force (SIGKILL)."""

    pid: int


@record
class Report:
    """Log one line for the operator: the cause, then the consequence."""

    level: Literal["debug", "info", "warning", "error"]
    text: str


@record
class ReportWithPlace:
    """Log a warning once the stacks of this worker have come, which tell where its event loop is blocked."""

    pid: int
    cause: str
    consequence: str


@record
class Finish:
    """No process is left: end the arbiter with this exit code and `reason` as its last line."""

    code: int
    reason: str = ""


Action: TypeAlias = (
    Spawn
    | AllowImport
    | Inspect
    | Drain
    | Hurry
    | ShowStack
    | Quit
    | Abort
    | Kill
    | Report
    | ReportWithPlace
    | Finish
)
