"""The arbiter's shell: signals, pipes and timers in; the fleet's actions out. It decides nothing itself."""

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
from ostler.logging import setup as log_setup
from ostler.settings.sources import Configuration
from ostler.supervisor.balancing.queues import Queues
from ostler.supervisor.event_loop import EventLoop, Timer
from ostler.supervisor.fleet.events import (
    Abort,
    Action,
    AllowImport,
    Drain,
    Event,
    Finish,
    Hurry,
    Inspect,
    Kill,
    Quit,
    Reload,
    Report,
    Resize,
    Roll,
    ShowStack,
    Spawn,
    Stop,
    StopNow,
    StopSoon,
    Tick,
    Timings,
)
from ostler.supervisor.fleet.fleet import Fleet
from ostler.supervisor.generations import Generations
from ostler.supervisor.processes import proc_info
from ostler.supervisor.processes.child import STACK_SIGNAL
from ostler.supervisor.processes.children import Children
from ostler.supervisor.processes.resource_tracker import LateTracker
from ostler.supervisor.systemd_notifier import Herald
from ostler.supervisor.upgrade.command import Command
from ostler.supervisor.upgrade.handover import Inherited
from ostler.supervisor.upgrade.old_arbiter import Takeover, Upgrade
from ostler.system import privileges
from ostler.system.cpus import worker_count
from ostler.system.sd_notify import Notifier
from ostler.system.signals import HURRY_SIGNAL
from ostler.system.sockets import Listener

if TYPE_CHECKING:
    from ostler.supervisor.reload.reloader import Reloader
    from ostler.system.pid_file import PidFile

logger = logging.getLogger("ostler.error")

# After a defect: how much longer than its grace a worker has to end by itself.
_MARGIN = 5.0


class Arbiter:
    """Owns the listening sockets, spawns the workers and carries out what the fleet decides.

    `run()` returns the outcome once every worker is gone. `entry` is the worker's entry point, given from
    above: the arbiter imports nothing of the worker. `command` starts another arbiter in its place;
    `inherited` is from the one whose place it takes.
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
        self._listeners = listeners
        self._queues = queues
        self._herald = Herald(notifier)
        self._generations = Generations(configuration, load, hurried=reloader is None)
        self._fleet = Fleet(size, self._generations.timings, reloads=reloader is not None)
        self._events: deque[Event] = deque()
        self._handling = False
        self._alarm: Timer | None = None
        self._outcome: Finish | None = None
        self._withdrawn = False
        self._interrupted = False
        self._loop = EventLoop()
        self._tracker = LateTracker(self._loop)
        self._children = Children(
            self._loop,
            entry=entry,
            directory=directory,
            listeners=listeners,
            queues=queues,
            terminal=None if reloader is None else reloader.terminal,
            feed=self._feed,
            name=self._name,
        )
        self._upgrade = Upgrade(self._loop, command, listeners, configuration.settings, self._hand_over)
        self._takeover = Takeover(self._loop, inherited, listeners, pid_file, self._take_place)
        later = self._upgrade.postponing
        self.handlers: Mapping[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._interrupt,
            signal.SIGQUIT: self._stop_now,
            signal.SIGHUP: later(signal.SIGHUP, self._roll),
            signal.SIGTTIN: later(signal.SIGTTIN, lambda: self._feed(Resize(+1))),
            signal.SIGTTOU: later(signal.SIGTTOU, lambda: self._feed(Resize(-1))),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._replace,
            signal.SIGCHLD: self._children.reap,
        }
        """What is done on each signal (`ostler.system.signals` has it in words)."""
        self._served = False

    def run(self) -> Finish:
        """Look after the fleet until it is stopped, and return how that ended.

        Raises:
            OstlerError: a defect in ostler; the workers drain by themselves.
        """
        for number, handler in self.handlers.items():
            self._loop.add_signal_handler(number, handler)
        # Whoever started us may have had them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.handlers)
        if self._reloader is None:
            logger.info("Started arbiter process [%d]", os.getpid())
        else:
            logger.info("Started reloader process [%d] using WatchFiles", os.getpid())
        self._tracker.start()
        self._loop.defect = self._defect
        try:
            self._loop.call_soon(self._begin)
            self._loop.run_forever()
        finally:
            self._heed_no_more()
            self.close()
        if self._outcome is None:
            raise OstlerError("internal error in the arbiter (see above): its workers have drained")
        kind = "arbiter" if self._reloader is None else "reloader"
        logger.info("Stopping %s process [%d]", kind, os.getpid())
        return self._outcome

    def _begin(self) -> None:
        if self._reloader is not None:
            self._reloader.start(self._loop, self._reload, lambda: self._fleet.absorbs_changes)
        self._takeover.start()
        self._carry_out(self._fleet.start(time.monotonic()))
        self._drain_events()

    # --- events in ---

    def _stop(self) -> None:
        """Let load balancers know, and drain after the delay, or when asked once more."""
        self._upgrade.stop(signal.SIGTERM)
        self._herald.stop_asked(self._fleet)
        first, self._withdrawn = not self._withdrawn, True
        delay = self._generations.settings.drain_delay
        self._children.withdraw()
        if first and delay and self._fleet.ready:
            logger.info("Draining in %g s: until then, health checks say 503 and requests are served", delay)
            self._loop.call_later(delay, self._drain)
            self._set_alarm()
        else:
            self._drain()

    def _drain(self) -> None:
        self._feed(Stop())
        self._close_listeners()

    def _stop_now(self) -> None:
        self._upgrade.stop(signal.SIGQUIT)
        self._feed(StopNow())
        self._close_listeners()

    def _stop_soon(self) -> None:
        self._feed(StopSoon())
        self._close_listeners()
        self._herald.stop_asked(self._fleet)

    def _interrupt(self) -> None:
        """Ctrl+C: the first stops gracefully, the second at once."""
        if self._interrupted:
            self._stop_now()
        elif self._reloader is not None:  # in development, nobody is to wait for anybody
            self._interrupted = True
            self._stop_soon()
        else:
            self._stop()
            self._interrupted = self._fleet.stopping

    def _roll(self) -> None:
        """SIGHUP: read and check the settings first; a bad file changes nothing."""
        if self._reloader is not None and self._reloader.terminal.gone:
            self._stop_soon()  # this SIGHUP came from the kernel: nobody is there any more
            return
        self._herald.reload_asked()
        try:
            configuration = self._generations.read()
        except SettingsError as exc:
            logger.error("SIGHUP: no rolling restart, the workers serve on: %s", exc)
            self._herald.reload_refused(str(exc), self._fleet)
            return
        self._herald.reload_begins(self._generations.newest + 1)
        self._renew(configuration, "SIGHUP", lambda timings: Roll(self._generations.newest, timings))

    def _reload(self, why: str, settings_too: bool) -> None:
        """Files have changed: start the code anew, with the old settings where the new ones are wrong."""
        configuration = self._generations.configuration
        if settings_too:
            try:
                configuration = self._generations.read()
            except SettingsError as exc:
                logger.error("Reload: the settings stay as they are: %s", exc)
        self._renew(configuration, "Reload", lambda timings: Reload(self._generations.newest, timings, why))

    def _renew(
        self, configuration: Configuration, cause: str, order: Callable[[Timings], Roll | Reload]
    ) -> None:
        """Begin a new generation with these settings, which have been read and checked."""
        settings = configuration.settings
        before = self._generations.begin(configuration, cause)
        self._feed(order(self._generations.timings))
        size = worker_count(settings)
        if size is None:
            logger.warning("%s: workers is not set any more; a plain server takes a restart", cause)
        elif settings.workers != before.workers:
            self._feed(Resize(size - self._fleet.size))

    def _reopen_logs(self) -> None:
        log_setup.reopen()
        identity = privileges.wanted(self._generations.settings)
        if identity is not None:
            privileges.give(identity, log_setup.descriptors())
        self._upgrade.copy(signal.SIGUSR1)
        self._children.send_all(signal.SIGUSR1)

    def _replace(self) -> None:
        """SIGUSR2: start the arbiter that takes this one's place."""
        self._upgrade.ask(
            self._generations.settings,
            stopping=self._fleet.stopping or self._withdrawn,
            served=self._served,
            newcomer=not self._takeover.over,
        )
        self._set_alarm()

    def _hand_over(self, pid: int) -> None:
        """The new arbiter is ready and speaks for the service: drain, without a delay."""
        self._herald.hand_over(pid)
        if self._queues is not None:
            self._queues.hand_over()
        self._drain()

    def _take_place(self) -> None:
        """The old arbiter has handed over, or died."""
        self._herald.begin(self._fleet)
        if self._queues is not None:
            self._queues.take_over()
        self._set_alarm()

    def _name(self, pid: int) -> str:
        slot = self._fleet.find(pid)
        return f"Worker {slot.number} (pid {pid})" if slot else f"pid {pid}"

    def _ring(self) -> None:
        """A deadline has passed: read everything that is pending, and only then let the fleet judge."""
        self._alarm = None
        self._handling = True  # all at once, when all is read
        try:
            self._children.hear(self._generations.timings.healthcheck)
            self._children.reap()
        finally:
            self._handling = False
        self._upgrade.ring()
        self._drain_events()
        due = self._fleet.deadline()
        if due is not None and due <= time.monotonic():
            self._feed(Tick())

    # --- actions out ---

    def _feed(self, event: Event) -> None:
        self._events.append(event)
        self._drain_events()

    def _drain_events(self) -> None:
        """Let the fleet handle what has happened, in order; carrying out an action may add to it."""
        if self._handling or self._outcome is not None:
            return
        self._handling = True
        try:
            while self._events and self._outcome is None:
                actions = self._fleet.handle(self._events.popleft(), time.monotonic())
                if actions:
                    self._steer()  # first: nothing new comes to whoever is to go
                    self._carry_out(actions)
            self._steer()
        finally:
            self._handling = False
        self._served = self._served or self._fleet.ready > 0
        self._herald.update(self._fleet)
        self._takeover.update(self._fleet)
        self._set_alarm()

    def _steer(self) -> None:
        """Let the kernel give new connections to those who serve and have been heard of just now."""
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
                case Inspect(pid=pid):
                    self._events.append(proc_info.look(pid))
                case Finish():
                    self._outcome = action
                    self._loop.stop()
                case AllowImport(pid=pid):
                    self._children.admit(pid)
                case Drain(pid=pid):
                    self._children.send(pid, signal.SIGTERM)
                case Hurry(pid=pid):
                    self._children.send(pid, HURRY_SIGNAL)
                case ShowStack(pid=pid):
                    self._children.send(pid, STACK_SIGNAL)
                case Quit(pid=pid):
                    self._children.send(pid, signal.SIGQUIT)
                case Abort(pid=pid):
                    self._children.send(pid, signal.SIGABRT)
                case Kill(pid=pid):
                    self._children.kill(pid)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        times = (
            self._fleet.deadline(),
            self._herald.deadline(),
            self._upgrade.deadline(),
            self._children.deadline(),
        )
        wake_at = min((at for at in times if at is not None), default=None)
        if wake_at is not None and self._outcome is None:
            delay = max(0.0, wake_at - time.monotonic())
            self._alarm = self._loop.call_later(delay, self._ring)

    # --- the end ---

    def _close_listeners(self) -> None:
        """Close our copies: once the last worker has emptied the queue, clients are refused, not kept."""
        if self._queues is not None:
            self._queues.close_listeners()
        for listener in self._listeners:
            listener.close()

    def _defect(self, callback: Callable[..., object], error: Exception) -> None:
        """An exception nobody expected: say so, and let go; the workers serve what they have and exit."""
        name = getattr(callback, "__qualname__", callback)
        logger.critical("Internal error in the arbiter: Exception in callback %s", name, exc_info=error)
        self._loop.stop()

    def _heed_no_more(self) -> None:
        # All that is left is to exit: one signal too many must not look like a death. One that comes
        # meanwhile waits, and is forgotten.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.handlers)
        for number in self.handlers:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.handlers)

    def close(self) -> None:
        """Let go of the sockets and of any worker that is left, which drains; then wait for its end."""
        if self._reloader is not None:
            self._reloader.stop()
        self._close_listeners()
        grace = self._generations.settings.timeout_graceful_shutdown
        self._children.let_go(grace + _MARGIN)
        self._takeover.close()
        self._upgrade.close()
        self._tracker.close()
        self._loop.close()
