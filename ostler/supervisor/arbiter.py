"""The arbiter: feeds signals, worker messages and time to the fleet, and carries out the fleet's actions.

It decides nothing itself. `Fleet` decides about workers, `ostler.supervisor.upgrade.decision` about upgrades,
`ostler.supervisor.systemd_status` about messages to systemd; all three are pure.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ostler.errors import OstlerError, SettingsError
from ostler.ipc.assignment import Assignment
from ostler.ipc.drain_delay import NOTICE, DrainDelay, StopStep
from ostler.settings.declarations import Settings
from ostler.settings.sources import Configuration
from ostler.supervisor.event_loop import EventLoop, Timer
from ostler.supervisor.fleet.events import (
    Action,
    Event,
    Finish,
    Reload,
    Report,
    Resize,
    Roll,
    Spawn,
    Stop,
    StopNow,
    StopSoon,
    Tick,
)
from ostler.supervisor.fleet.fleet import Fleet
from ostler.supervisor.generations import Generations
from ostler.supervisor.processes.children import Children
from ostler.supervisor.processes.resource_tracker import LazyResourceTracker
from ostler.supervisor.systemd_notifier import SystemdNotifier
from ostler.supervisor.upgrade.command import Command
from ostler.supervisor.upgrade.old_arbiter import OldArbiter
from ostler.system.controlling_terminal import ControllingTerminal
from ostler.system.sd_notify import Notifier
from ostler.system.sockets import Listener

if TYPE_CHECKING:
    from ostler.supervisor.balancing.queues import Queues
    from ostler.supervisor.reload.reloader import Reloader
    from ostler.supervisor.upgrade.handover import Inherited
    from ostler.supervisor.upgrade.new_arbiter import NewArbiter
    from ostler.system.pid_file import PidFile

logger = logging.getLogger("ostler.error.supervisor")

# After an internal error: seconds past its grace that a worker has to end by itself.
_MARGIN = 5.0


class Arbiter:
    """Owns the listening sockets, spawns the workers and carries out what the fleet decides.

    `run()` returns the outcome once every worker is gone.

    Args:
        configuration: the settings of the first generation.
        size: the number of workers.
        load: reads the settings anew; raises SettingsError if they are wrong.
        listeners: the listening sockets.
        queues: the queues of each slot; None if all workers share one.
        entry: the worker's entry point, passed in so that the arbiter imports nothing of the worker.
        directory: the working directory, symbolic links kept.
        notifier: sends to the service manager.
        reloader: watches files, under --reload.
        command: starts the arbiter that takes this one's place (SIGUSR2).
        inherited: what the arbiter hands over whose place this one takes.
        pid_file: the file to write once this arbiter has that place.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        size: int,
        load: Callable[[], Configuration],
        listeners: Sequence[Listener],
        queues: Queues | None = None,
        entry: Callable[[Assignment], None],
        directory: str,
        notifier: Notifier,
        reloader: Reloader | None = None,
        command: Command | None = None,
        inherited: Inherited | None = None,
        pid_file: PidFile | None = None,
    ) -> None:
        self._reloader = reloader
        self._terminal = ControllingTerminal(background=reloader is not None)
        self._listeners = listeners
        self._queues = queues
        self._systemd = SystemdNotifier(notifier)
        self._generations = Generations(configuration, load, timeouts=reloader is None)
        self._fleet = Fleet(size, self._generations.timings, reloads=reloader is not None)
        self._events: deque[Event] = deque()
        self._handling = False
        self._timer: Timer | None = None
        self._outcome: Finish | None = None
        self._drain_delay = DrainDelay()
        self._interrupted = False
        self._served = False
        """Whether a worker has ever been ready."""
        self._loop = EventLoop()
        self._tracker = LazyResourceTracker(self._loop)
        self._children = Children(
            self._loop,
            entry=entry,
            directory=directory,
            listeners=listeners,
            queues=queues,
            terminal=None if reloader is None else reloader.terminal,
            handle=self._handle,
            name=self._name,
        )
        self._upgrade = OldArbiter(self._loop, command, listeners, configuration.settings, self._hand_over)
        self._takeover: NewArbiter | None = None
        if inherited is not None:
            # Imported for an upgrade only: the arbiter stays small.
            from ostler.supervisor.upgrade.new_arbiter import NewArbiter

            self._takeover = NewArbiter(self._loop, inherited, listeners, pid_file, self._take_place)
        postponing = self._upgrade.postponing
        self._postponing_roll = postponing(signal.SIGHUP, self._roll)
        self.handlers: Mapping[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._interrupt,
            signal.SIGQUIT: self._stop_now,
            signal.SIGHUP: self._hang_up,
            signal.SIGTTIN: postponing(signal.SIGTTIN, lambda: self._handle(Resize(+1))),
            signal.SIGTTOU: postponing(signal.SIGTTOU, lambda: self._handle(Resize(-1))),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._replace,
            signal.SIGCHLD: self._children.reap,
        }
        """What is done on each signal (`ostler.system.signals` has it in words)."""

    def run(self) -> Finish:
        """Run the fleet until it is stopped, and return how that ended.

        Raises:
            OstlerError: a defect in ostler; the workers drain by themselves.
        """
        for number, handler in self.handlers.items():
            self._loop.add_signal_handler(number, handler)
        # The program that started us may have had them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.handlers)
        if self._reloader is None:
            logger.info("Started arbiter process [%d]", os.getpid())
        else:
            logger.info("Started reloader process [%d] using %s", os.getpid(), self._reloader.method)
        self._tracker.start()
        self._loop.exception_handler = self._on_internal_error
        try:
            self._loop.call_soon(self._start)
            self._loop.run_forever()
        finally:
            self._ignore_signals()
            self.close()
        if self._outcome is None:
            raise OstlerError("internal error in the arbiter (see above): its workers have drained")
        kind = "arbiter" if self._reloader is None else "reloader"
        logger.info("Stopping %s process [%d]", kind, os.getpid())
        return self._outcome

    def _start(self) -> None:
        if self._reloader is not None:
            self._reloader.start(self._loop, self._reload, lambda: self._fleet.absorbs_changes)
        if self._takeover is not None:
            self._takeover.start()
        self._carry_out(self._fleet.start(time.monotonic()))
        self._handle_events()

    # --- signals ----------------------------------------------------------------------------------

    def _stop(self) -> None:
        """SIGTERM: let load balancers know, and drain after the delay, or at the next SIGTERM."""
        self._upgrade.stop(signal.SIGTERM)
        self._systemd.stop_asked(self._fleet)
        delay = self._generations.settings.drain_delay
        step = self._drain_delay.stop(delay, serving=self._fleet.ready > 0)
        if step is StopStep.WITHDRAW:
            self._children.withdraw()
            logger.info(NOTICE, delay)
            self._loop.call_later(delay, self._drain_all)
            self._set_timer()
        else:
            self._drain_all()

    def _drain_all(self) -> None:
        self._children.withdraw(end_listening=self._ends_listening())
        self._drain()

    def _drain(self) -> None:
        self._handle(Stop())
        self._leave_listeners()

    def _stop_now(self) -> None:
        self._upgrade.stop(signal.SIGQUIT)
        self._handle(StopNow())
        self._leave_listeners()

    def _stop_soon(self) -> None:
        self._handle(StopSoon())
        self._leave_listeners()
        self._systemd.stop_asked(self._fleet)

    def _interrupt(self) -> None:
        """Ctrl+C: the first stops gracefully, the second at once."""
        if self._interrupted:
            self._stop_now()
        elif self._reloader is not None:  # in development, Ctrl+C should not take long
            self._interrupted = True
            self._stop_soon()
        else:
            self._stop()
            self._interrupted = self._fleet.stopping

    def _hang_up(self) -> None:
        """SIGHUP: roll; but where it comes because the terminal has gone that we were started at, stop."""
        if not self._terminal.gone:
            self._postponing_roll()
        elif self._reloader is not None:
            self._stop_soon()
        else:
            self._stop()

    def _roll(self) -> None:
        """SIGHUP: read and check the settings first; a bad file changes nothing."""
        self._systemd.reload_asked()
        try:
            configuration = self._generations.read()
        except SettingsError as exc:
            logger.error("SIGHUP: no rolling restart, the workers serve on: %s", exc)
            self._systemd.reload_refused(str(exc), self._fleet)
            return
        self._systemd.reload_begins(self._generations.newest + 1)
        before = self._generations.begin(configuration, "SIGHUP")
        self._handle(Roll(self._generations.newest, self._generations.timings))
        self._resize(before, "SIGHUP")

    def _reload(self, why: str, settings_too: bool) -> None:
        """Files have changed: reload the code; if the new settings are wrong, the old ones stay."""
        configuration = self._generations.configuration
        if settings_too:
            try:
                configuration = self._generations.read()
            except SettingsError as exc:
                logger.error("Reload: the settings stay as they are: %s", exc)
        before = self._generations.begin(configuration, "Reload")
        self._handle(Reload(self._generations.newest, self._generations.timings, why))
        self._resize(before, "Reload")

    def _resize(self, before: Settings, cause: str) -> None:
        """Add or remove workers, if the setting `workers` has changed."""
        size = self._generations.new_size(before, cause)
        if size is not None:
            self._handle(Resize(size - self._fleet.size))

    def _reopen_logs(self) -> None:
        self._generations.reopen_logs()
        self._upgrade.forward(signal.SIGUSR1)
        self._children.send_all(signal.SIGUSR1)

    def _replace(self) -> None:
        """SIGUSR2: start the arbiter that takes this one's place."""
        self._upgrade.upgrade(
            self._generations.settings,
            stopping=self._fleet.stopping or self._drain_delay.withdrawn,
            served=self._served,
            newcomer=self._takeover is not None and not self._takeover.over,
        )
        self._set_timer()

    def _hand_over(self, pid: int) -> None:
        """The new arbiter is ready and reports to systemd: drain, without a delay."""
        self._systemd.hand_over(pid)
        if self._queues is not None:
            self._queues.hand_over()
        self._drain()

    def _take_place(self) -> None:
        """The old arbiter has handed over, or has died: this one reports to systemd from now on."""
        self._systemd.take_over(self._fleet)
        if self._queues is not None:
            self._queues.take_over()
        self._set_timer()

    # --- events and actions -----------------------------------------------------------------------

    def _name(self, pid: int) -> str:
        """Return what the log calls a process."""
        slot = self._fleet.find(pid)
        return f"Worker {slot.number} (pid {pid})" if slot else f"pid {pid}"

    def _on_timer(self) -> None:
        """A deadline has passed: read everything that is pending, and only then let the fleet judge."""
        self._timer = None
        self._handling = True  # the fleet handles the events together, when all are read
        try:
            self._children.read_all(self._generations.timings.healthcheck)
            self._children.reap()
        finally:
            self._handling = False
        self._upgrade.tick()
        self._handle_events()
        due = self._fleet.deadline()
        if due is not None and due <= time.monotonic():
            self._handle(Tick())

    def _handle(self, event: Event) -> None:
        self._events.append(event)
        self._handle_events()

    def _handle_events(self) -> None:
        """Let the fleet handle the events, in order. Carrying out an action may add events."""
        if self._handling or self._outcome is not None:
            return
        self._handling = True
        try:
            while self._events and self._outcome is None:
                actions = self._fleet.handle(self._events.popleft(), time.monotonic())
                if actions:
                    self._steer()  # first: a worker that is told to go gets no new connections
                    self._carry_out(actions)
            self._steer()
        finally:
            self._handling = False
        self._served = self._served or self._fleet.ready > 0
        self._systemd.update(self._fleet)
        if self._takeover is not None:
            self._takeover.update(self._fleet)
        self._set_timer()

    def _steer(self) -> None:
        """Let the kernel give new connections to the workers that serve and whose heartbeat is recent."""
        if self._queues is not None:
            self._queues.steer(self._fleet.responsive_slots(time.monotonic()))

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Spawn():
                    configuration = self._generations[action.generation]
                    self._events.append(self._children.spawn(action, configuration))
                case Report(level=level, text=text):
                    logger.log(logging.getLevelName(level.upper()), "%s", text)
                case Finish():
                    self._outcome = action
                    self._loop.stop()
                case _:
                    self._children.carry_out(action)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = (
            self._fleet.deadline(),
            self._systemd.deadline(),
            self._upgrade.deadline(),
            self._children.deadline(),
        )
        wake_at = min((at for at in times if at is not None), default=None)
        if wake_at is not None and self._outcome is None:
            delay = max(0.0, wake_at - time.monotonic())
            self._timer = self._loop.call_later(delay, self._on_timer)

    # --- the end ----------------------------------------------------------------------------------

    def _ends_listening(self) -> bool:
        """Whether no other process serves from the listening sockets after this arbiter and its workers."""
        return not self._upgrade.may_take_over and all(item.ends_with_us for item in self._listeners)

    def _leave_listeners(self) -> None:
        """Close our copies of what others may serve from: the last worker's end then refuses new clients.

        Our own are kept until the end. The first worker that has emptied the queues shuts them down, and new
        clients are refused; what workers that were killed have left of them ends with this arbiter.
        """
        if not self._ends_listening():
            self._close_listeners()
            return
        if self._queues is not None:
            self._queues.hand_over()  # steer no more
        for listener in self._listeners:
            listener.unlink()

    def _close_listeners(self) -> None:
        if self._queues is not None:
            self._queues.close_listeners()
        for listener in self._listeners:
            listener.close()

    def _on_internal_error(self, callback: Callable[..., object], error: Exception) -> None:
        """Log an exception, which is a defect of ostler, and stop: the workers drain and exit."""
        name = getattr(callback, "__qualname__", callback)
        logger.critical("Internal error in the arbiter: Exception in callback %s", name, exc_info=error)
        self._loop.stop()

    def _ignore_signals(self) -> None:
        # Only the exit is left: a signal that comes now must not look like the cause of death. One that comes
        # while the handlers change is blocked, and then ignored.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.handlers)
        for number in self.handlers:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.handlers)

    def close(self) -> None:
        """Close the sockets, and let workers that are left drain; then wait for their end."""
        if self._reloader is not None:
            self._reloader.stop()
        if self._outcome is None:  # after an internal error: the workers are to drain what waits
            self._close_listeners()
        grace = self._generations.settings.timeout_graceful_shutdown
        self._children.release(grace + _MARGIN)
        if self._takeover is not None:
            self._takeover.close()
        self._upgrade.close()
        if self._ends_listening():
            for listener in self._listeners:
                listener.end()
        self._close_listeners()
        self._tracker.close()
        self._loop.close()
