"""All worker processes of the arbiter: spawns them, reads their pipes, signals and reaps them."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ostler.ipc.assignment import Assignment
from ostler.ipc.contract import HURRY_SIGNAL, STACK_SIGNAL, WITHDRAW, WITHDRAW_AND_END
from ostler.ipc.messages import Beat, Blocked, Ready
from ostler.settings.sources import Configuration
from ostler.supervisor.event_loop import EventLoop, Timer
from ostler.supervisor.fleet.events import (
    Abort,
    AllowImport,
    Drain,
    Event,
    Exited,
    Hurry,
    Inspect,
    Kill,
    MessageReceived,
    Quit,
    ReportWithPlace,
    ShowStack,
    Spawn,
    SpawnFailed,
    Started,
)
from ostler.supervisor.processes import proc_info, stacks
from ostler.supervisor.processes.child import Child, reap_orphans
from ostler.supervisor.processes.spawn import start_worker
from ostler.system.sockets import Listener

if TYPE_CHECKING:
    from ostler.supervisor.balancing.queues import Queues
    from ostler.supervisor.reload.terminal import Terminal

logger = logging.getLogger("ostler.error.supervisor")

# Seconds between two reads of the heartbeats of workers that are ready. To be woken by each heartbeat would
# cost an idle arbiter several times the CPU. A silence is noticed this much later at the most, and that is
# before a worker counts as unresponsive (`Fleet.responsive_slots`).
_READ_INTERVAL = 1.5
# The same as a share of the time that a silence may last, where that time is short.
_READ_INTERVAL_SHARE = 1 / 12

# Seconds after the first line in which a worker writes all of its stacks: they have no end mark. If it were
# after the last line, stacks that are asked for again and again would never be logged.
_STACKS_END = 0.1
# Seconds after which a line that waits for stacks is logged without them: the process does not run at all.
_STACKS_WAIT = 1.0

ProcessAction: TypeAlias = (
    Inspect | AllowImport | Drain | Hurry | ShowStack | Quit | Abort | Kill | ReportWithPlace
)

_SIGNALS: Mapping[type[ProcessAction], signal.Signals] = {
    Drain: signal.SIGTERM,
    Hurry: HURRY_SIGNAL,
    Quit: signal.SIGQUIT,
    Abort: signal.SIGABRT,
}


class Children:
    """Every worker's process, by its pid, from its spawn until it is reaped.

    Args:
        loop: the arbiter's event loop, which waits on the workers' pipes.
        entry: the worker's entry point.
        directory: the working directory of the workers.
        listeners: the listening sockets, for workers without queues of their own.
        queues: the queues of each slot (--reuse-port).
        terminal: the terminal to be shared with the workers, under --reload.
        handle: called with what the fleet should know: messages and exits.
        name: returns what the log calls the process with a pid.
    """

    def __init__(
        self,
        loop: EventLoop,
        *,
        entry: Callable[[Assignment], None],
        directory: str,
        listeners: Sequence[Listener],
        queues: Queues | None,
        terminal: Terminal | None,
        handle: Callable[[Event], None],
        name: Callable[[int], str],
    ) -> None:
        self._loop = loop
        self._entry = entry
        self._directory = directory
        self._listeners = listeners
        self._queues = queues
        self._terminal = terminal
        self._handle = handle
        self._name = name
        self._children: dict[int, Child] = {}
        self._ready: set[int] = set()
        """Workers whose heartbeats are read at intervals; messages of other workers are read at once."""
        self._stacks: dict[int, list[str]] = {}
        """Lines of stacks that are not logged yet, by the worker's pid."""
        self._stacks_timers: dict[int, Timer] = {}
        self._waiting_reports: dict[int, ReportWithPlace] = {}
        """Lines that are logged once the stacks of a worker have come, by its pid."""
        self._next_read = 0.0
        self._withdrawn = b""
        """What workers are told of the end of the whole instance; nothing while none is ordered."""
        self._oom_kills = proc_info.oom_kills()

    def __repr__(self) -> str:
        return f"<Children {list(self._children.values())}>"

    # --- actions ----------------------------------------------------------------------------------

    def spawn(self, action: Spawn, configuration: Configuration) -> Started | SpawnFailed:
        """Spawn a worker with the settings of its generation."""
        queues, terminal = self._queues, self._terminal
        sockets = tuple(listener.socket for listener in self._listeners)
        try:
            child = start_worker(
                self._entry,
                slot=action.slot,
                generation=action.generation,
                settings=configuration.settings,
                environment=configuration.environment,
                directory=self._directory,
                sockets=sockets if queues is None else queues.sockets(action.slot),
                shared_queues=None if queues is None else queues.shared_queues(action.slot),
                gated=terminal is not None,
                terminal=terminal is not None and terminal.present,
            )
        except Exception as exc:  # noqa: BLE001 - whatever fails, the arbiter serves on with the others
            reason = f"{exc.strerror}: {exc.filename}" if isinstance(exc, OSError) and exc.filename else exc
            return SpawnFailed(action.ticket, str(reason))
        self._children[child.pid] = child
        if self._withdrawn:
            child.withdraw(self._withdrawn)
        self._loop.add_reader(child.beats.fileno(), self._read_messages, child)
        self._loop.add_reader(child.stacks_pipe.fileno(), self._read_stacks, child)
        return Started(action.ticket, child.pid)

    def carry_out(self, action: ProcessAction) -> None:
        """Carry out an action of the fleet on one worker, unless that is gone."""
        child = self._children.get(action.pid)
        if child is None:
            return
        match action:
            case Inspect():
                self._handle(proc_info.inspect(action.pid))
            case AllowImport():
                child.allow_import()
            case Kill():
                child.note_descendants()
                child.kill()
            case ShowStack():
                child.signal(STACK_SIGNAL)
            case ReportWithPlace():
                self._waiting_reports[action.pid] = action
                self._loop.call_later(_STACKS_WAIT, partial(self._log_waiting, action.pid))
            case _:
                child.note_descendants()
                child.signal(_SIGNALS[type(action)])

    def send_all(self, number: signal.Signals) -> None:
        """Send a signal to each worker."""
        for child in self._children.values():
            child.signal(number)

    def withdraw(self, *, end_listening: bool = False) -> None:
        """Tell all workers, also those to be spawned, that the whole instance is going to stop.

        `end_listening`: they are about to drain, and no other process serves from the listening sockets.
        """
        self._withdrawn = WITHDRAW_AND_END if end_listening else WITHDRAW
        for child in self._children.values():
            child.withdraw(self._withdrawn)

    def release(self, seconds: float) -> None:
        """Let the workers that are left drain by themselves; wait `seconds` for the end of each."""
        for child in self._children.values():
            child.close_lifeline()
        for child in self._children.values():
            child.wait(seconds)

    # --- messages and exits -----------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return the monotonic time at which to call `read_all`; None: no worker is ready."""
        return self._next_read if self._ready else None

    def read_all(self, longest_silence: float) -> None:
        """Read all pending messages of all workers.

        Args:
            longest_silence: the setting `timeout_worker_healthcheck`, in seconds.
        """
        interval = min(_READ_INTERVAL, longest_silence * _READ_INTERVAL_SHARE)
        self._next_read = time.monotonic() + interval
        for child in list(self._children.values()):
            self._read_messages(child)

    def reap(self) -> None:
        """SIGCHLD: collect every worker that has ended; as PID 1 also orphans of other processes."""
        for child in list(self._children.values()):
            status = child.exit_status()
            if status is not None:
                self._remove(child, status)
        if os.getpid() == 1:
            reap_orphans(self._children)

    def _read_messages(self, child: Child) -> None:
        """Read a worker's pending messages; end-of-file means that its process ends."""
        try:
            messages = child.messages()
        except EOFError:
            self._stop_reading(child)
            return
        except ValueError as exc:
            logger.error("Worker with pid %d: heartbeat pipe garbled (%s), not read any more", child.pid, exc)
            self._stop_reading(child)
            return
        for message, following in zip(messages, [*messages, None][1:], strict=True):
            if isinstance(message, Ready):
                self._loop.remove_reader(child.beats.fileno())
                self._ready.add(child.pid)
            # Of heartbeats that came together only the last one counts: each holds all figures.
            if not (isinstance(message, Beat) and isinstance(following, Beat)):
                self._handle(MessageReceived(child.pid, message))

    def _stop_reading(self, child: Child) -> None:
        self._loop.remove_reader(child.beats.fileno())
        self._ready.discard(child.pid)

    def _read_stacks(self, child: Child) -> None:
        """Collect the stacks that a worker's faulthandler writes, and log them when all are there.

        An empty line is also from the worker itself: it asks for its message to be read at once.
        """
        try:
            lines = child.stacks()
        except EOFError:
            self._loop.remove_reader(child.stacks_pipe.fileno())
            return
        written = [line for line in lines if line]
        if written:
            self._stacks.setdefault(child.pid, []).extend(written)
            if child.pid not in self._stacks_timers:
                log = partial(self._log_stacks, child.pid)
                self._stacks_timers[child.pid] = self._loop.call_later(_STACKS_END, log)
        if "" in lines:
            self._read_messages(child)

    def _log_stacks(self, pid: int) -> None:
        """Log a worker's stacks, line by line under its name, and let the fleet know where its loop is."""
        timer = self._stacks_timers.pop(pid, None)
        if timer is not None:
            timer.cancel()
        lines = self._stacks.pop(pid, [])
        where = stacks.place(lines, self._directory)
        self._log_waiting(pid, where)
        for line in stacks.loop_thread_first(lines):
            logger.warning("%s | %s", self._name(pid), line)
        if where is not None:
            self._handle(MessageReceived(pid, Blocked(where)))

    def _log_waiting(self, pid: int, where: str | None = None) -> None:
        """Log the line about a worker that waits for its stacks, if there is one."""
        report = self._waiting_reports.pop(pid, None)
        if report is not None:
            place = "" if where is None else f", blocked in {where}"
            logger.warning("%s%s: %s", report.cause, place, report.consequence)

    def _remove(self, child: Child, status: int) -> None:
        self._read_messages(child)
        self._read_stacks(child)
        self._log_stacks(child.pid)
        how, name = proc_info.describe_exit(status)
        child.kill_group()
        if self._terminal is not None and status != 0:
            self._terminal.restore()  # it may have been killed at a debugger's prompt
        self._stop_reading(child)
        self._loop.remove_reader(child.stacks_pipe.fileno())
        del self._children[child.pid]
        child.reap()
        self._handle(Exited(child.pid, how, name, self._hint(name)))

    def _hint(self, signal_name: str | None) -> str:
        """Return the probable cause of an exit by this signal, where the kernel tells; else nothing."""
        before, self._oom_kills = self._oom_kills, proc_info.oom_kills()
        if signal_name == "SIGKILL" and before is not None and self._oom_kills is not None:
            return "probably the kernel's OOM killer" if self._oom_kills > before else ""
        return ""
