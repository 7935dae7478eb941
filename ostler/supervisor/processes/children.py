"""The fleet's processes, all together: spawned, heard, sent signals, buried. Decides nothing."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ostler.ipc.assignment import Assignment
from ostler.ipc.messages import Beat, Ready
from ostler.settings.sources import Configuration
from ostler.supervisor.balancing.queues import Queues
from ostler.supervisor.event_loop import EventLoop
from ostler.supervisor.fleet.events import Event, Exited, MessageReceived, Spawn, SpawnFailed, Started
from ostler.supervisor.processes import proc_info
from ostler.supervisor.processes.child import STACK_SIGNAL, Child, reap_strangers
from ostler.system.sockets import Listener

if TYPE_CHECKING:
    from ostler.supervisor.reload.terminal import Terminal

logger = logging.getLogger("ostler.error")

# Seconds between two looks at the beats of workers that are ready: to be woken by each of them would cost an
# idle arbiter several times the CPU. A silence is noticed later by this much at the most, and before a worker
# counts as unresponsive (`ostler.supervisor.fleet.places`).
_LOOK = 1.5
# What part of the time that a silence may last, where that is short.
_LOOK_SHARE = 1 / 12


class Children:
    """Every worker's process, by its pid, from its spawn until it is buried.

    What they say and how they end goes to `feed`. `entry` is the worker's entry point, `terminal` the one to
    be shared under --reload, and `name` what the log calls the process with a pid.
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
        feed: Callable[[Event], None],
        name: Callable[[int], str],
    ) -> None:
        self._loop = loop
        self._entry = entry
        self._directory = directory
        self._listeners = listeners
        self._queues = queues
        self._terminal = terminal
        self._feed = feed
        self._name = name
        self._children: dict[int, Child] = {}
        self._ready: set[int] = set()
        """Whose beats are looked at from time to time; what anybody else says is read at once."""
        self._next_look = 0.0
        self._withdrawn = False
        self._oom_kills = proc_info.oom_kills()

    def __repr__(self) -> str:
        return f"<Children {list(self._children.values())}>"

    # --- orders -----------------------------------------------------------------------------------

    def spawn(self, order: Spawn, configuration: Configuration) -> Started | SpawnFailed:
        """Spawn a worker with the settings of its generation."""
        queues, terminal = self._queues, self._terminal
        sockets = tuple(listener.socket for listener in self._listeners)
        try:
            child = Child.start(
                self._entry,
                slot=order.slot,
                generation=order.generation,
                settings=configuration.settings,
                environment=configuration.environment,
                directory=self._directory,
                sockets=sockets if queues is None else queues.sockets(order.slot),
                shared_queues=None if queues is None else queues.shared_queues(order.slot),
                gated=terminal is not None,
                terminal=terminal is not None and terminal.present,
            )
        except Exception as exc:  # noqa: BLE001 - whatever fails in there, the arbiter looks after the others
            reason = f"{exc.strerror}: {exc.filename}" if isinstance(exc, OSError) and exc.filename else exc
            return SpawnFailed(order.ticket, str(reason))
        self._children[child.pid] = child
        if self._withdrawn:
            child.withdraw()
        self._loop.add_reader(child.beats.fileno(), self._hear, child)
        self._loop.add_reader(child.stacks_pipe.fileno(), self._show, child)
        return Started(order.ticket, child.pid)

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to one of them, unless it is gone."""
        if pid in self._children:
            if number != STACK_SIGNAL:
                self._children[pid].note_relatives()
            self._children[pid].signal(number)

    def send_all(self, number: signal.Signals) -> None:
        """Send a signal to each of them."""
        for child in self._children.values():
            child.signal(number)

    def admit(self, pid: int) -> None:
        """Let one of them import the application."""
        if pid in self._children:
            self._children[pid].admit()

    def kill(self, pid: int) -> None:
        """End one of them by force, with whatever it has spawned."""
        if pid in self._children:
            self._children[pid].note_relatives()
            self._children[pid].kill()

    def withdraw(self) -> None:
        """Tell them, and all that are spawned from now on, that the whole instance is going to stop."""
        self._withdrawn = True
        for child in self._children.values():
            child.withdraw()

    def let_go(self, seconds: float) -> None:
        """Let whoever is left drain by itself; wait for its end, for so many seconds each."""
        for child in self._children.values():
            child.let_go()
        for child in self._children.values():
            child.wait(seconds)

    # --- what they say, and how they end ----------------------------------------------------------

    def deadline(self) -> float | None:
        """When to call `hear`, if nothing happens before. None: not at all."""
        return self._next_look if self._ready else None

    def hear(self, patience: float) -> None:
        """Read everything that any of them has said; a silence may last for `patience` seconds."""
        self._next_look = time.monotonic() + min(_LOOK, patience * _LOOK_SHARE)
        for child in list(self._children.values()):
            self._hear(child)

    def reap(self) -> None:
        """SIGCHLD: collect every process that has ended; as PID 1 also those that are nobody's."""
        for child in list(self._children.values()):
            status = child.exit_status()
            if status is not None:
                self._bury(child, status)
        if os.getpid() == 1:
            reap_strangers(self._children)

    def _hear(self, child: Child) -> None:
        """Read all that a worker has said; its end of the pipe closes when its process ends."""
        try:
            messages = child.messages()
        except EOFError:
            self._turn_from(child)
            return
        except ValueError as exc:
            logger.error("Worker with pid %d: heartbeat pipe garbled (%s), not read any more", child.pid, exc)
            self._turn_from(child)
            return
        for message, following in zip(messages, [*messages, None][1:], strict=True):
            if isinstance(message, Ready):
                self._loop.remove_reader(child.beats.fileno())
                self._ready.add(child.pid)
            # Of beats that came together, the last one tells it all.
            if not (isinstance(message, Beat) and isinstance(following, Beat)):
                self._feed(MessageReceived(child.pid, message))

    def _turn_from(self, child: Child) -> None:
        self._loop.remove_reader(child.beats.fileno())
        self._ready.discard(child.pid)

    def _show(self, child: Child) -> None:
        """Log the stacks that a worker's faulthandler has written, line by line under the worker's name.

        An empty line is the worker's own: what it has said should be read at once.
        """
        try:
            lines = child.stacks()
        except EOFError:
            self._loop.remove_reader(child.stacks_pipe.fileno())
            return
        for line in lines:
            if line:
                logger.warning("%s | %s", self._name(child.pid), line)
        if "" in lines:
            self._hear(child)

    def _bury(self, child: Child, status: int) -> None:
        self._hear(child)
        self._show(child)
        how, name = proc_info.describe_exit(status)
        child.kill_group()
        if self._terminal is not None and status != 0:
            self._terminal.restore()  # killed at a debugger's prompt, perhaps
        self._turn_from(child)
        self._loop.remove_reader(child.stacks_pipe.fileno())
        del self._children[child.pid]
        child.reap()
        self._feed(Exited(child.pid, how, name, self._hint(name)))

    def _hint(self, signal_name: str | None) -> str:
        before, self._oom_kills = self._oom_kills, proc_info.oom_kills()
        if signal_name == "SIGKILL" and before is not None and self._oom_kills is not None:
            return "probably the kernel's OOM killer" if self._oom_kills > before else ""
        return ""
