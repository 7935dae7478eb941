"""Replacing the arbiter itself, in effect: the old one's side (`Upgrade`) and the new one's (`Takeover`)."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings
from ostler.supervisor.event_loop import EventLoop
from ostler.supervisor.fleet.events import Report
from ostler.supervisor.upgrade import handover
from ostler.supervisor.upgrade.command import Command
from ostler.supervisor.upgrade.decision import (
    Action,
    HandOver,
    Launch,
    Preconditions,
    RunPostponed,
    SendSignal,
    State,
    UpgradeDecision,
)
from ostler.supervisor.upgrade.handover import Inherited
from ostler.system.sockets import Listener

if TYPE_CHECKING:
    from ostler.supervisor.fleet.fleet import Fleet
    from ostler.system.pid_file import PidFile

logger = logging.getLogger("ostler.error")

_PIPE_SIZE = 65536
# How much longer than its workers' grace an arbiter has to stop.
_MARGIN = 5.0


class Upgrade:
    """Starts the new arbiter, listens to it, and tells `hand_over` when it is ready.

    `settings` are those that the sockets were opened with.
    """

    def __init__(
        self,
        loop: EventLoop,
        command: Command | None,
        listeners: Sequence[Listener],
        settings: Settings,
        hand_over: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._command = command
        self._listeners = listeners
        self._settings = settings
        self._hand_over = hand_over
        self._postponed: dict[signal.Signals, Callable[[], None]] = {}
        self._succession = UpgradeDecision()
        self._stderr: int | None = None
        self._line: socket.socket | None = None
        self._heard = b""
        self._unfinished = b""
        self._put_off: list[signal.Signals] = []

    @property
    def obstacle(self) -> str:
        """Why this process can never be replaced in place; empty where it can."""
        if self._settings.reload:
            return "as there is none under --reload: stop it and start it again"
        if os.getpid() == 1:
            return (
                "as this is PID 1, with which its container would end: start a new container, or send SIGHUP"
            )
        if self._command is None:
            return "as it is not known how ostler was started"
        return self._command.refusal and f"as {self._command.refusal}"

    def ask(self, settings: Settings, *, stopping: bool, served: bool, newcomer: bool) -> None:
        """SIGUSR2: `settings` are the current ones, for their time-outs."""
        grace = settings.timeout_graceful_shutdown + _MARGIN
        given = Preconditions(
            self.obstacle, stopping, served, newcomer, settings.timeout_worker_startup, grace
        )
        self._carry_out(self._succession.requested(given, time.monotonic()))

    def postponing(self, number: signal.Signals, action: Callable[[], None]) -> Callable[[], None]:
        """Return what to do on a signal that has to wait, in an upgrade, until there is one arbiter again."""

        def act() -> None:
            if not self._succession.under_way:
                action()
                return
            self._put_off.append(number)
            logger.info("%s: waits until the upgrade is over", number.name)

        self._postponed[number] = action
        return act

    def copy(self, number: signal.Signals) -> None:
        """Let the new arbiter have a signal as well, once it can take it."""
        if self._succession.under_way:
            self._put_off.append(number)

    def stop(self, number: signal.Signals) -> None:
        """Everything stops: the new arbiter, too."""
        name = "SIGQUIT" if number == signal.SIGQUIT else "SIGTERM"
        self._carry_out(self._succession.stop(name, time.monotonic()))  # type: ignore[arg-type]

    def deadline(self) -> float | None:
        """When to call `ring`, if nothing happens before. None: not at all."""
        return self._succession.deadline()

    def ring(self) -> None:
        """Read all that is pending, and act on a deadline that has passed."""
        self._listen()
        self._carry_out(self._succession.tick(time.monotonic()))

    def close(self) -> None:
        """The end of this arbiter: an arbiter that is told to go is waited for."""
        pid = self._succession.pid
        if self._succession.state is State.STOPPING and self._line is not None and pid is not None:
            grace = (self._succession.deadline() or 0.0) - time.monotonic()
            end = time.monotonic() + max(0.0, grace)
            while self._line is not None and (left := end - time.monotonic()) > 0:
                select.select([self._line], [], [], left)
                self._listen()
            if self._line is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._let_go()

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Report(level=level, text=text):
                    logger.log(logging.getLevelName(level.upper()), "%s", text)
                case Launch():
                    self._launch()
                case SendSignal(pid=pid, signal=name):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.Signals[name])
                case HandOver(pid=pid):
                    for listener in self._listeners:
                        listener.owned = False
                    self._hand_over(pid)
                    assert self._line is not None
                    with contextlib.suppress(OSError):
                        self._line.sendall(handover.GO + b"\n")
                    for number in self._put_off:
                        os.kill(pid, number)
                    self._put_off.clear()
                case RunPostponed():
                    put_off, self._put_off[:] = list(self._put_off), []
                    for number in put_off:
                        if number in self._postponed:  # the others were heeded at once
                            self._postponed[number]()

    def _launch(self) -> None:
        assert self._command is not None
        ours, theirs = socket.socketpair()
        stderr = os.dup(2)
        try:
            text = handover.offer(self._listeners, self._settings, line=theirs.fileno(), stderr=stderr)
            sockets = [
                sock.fileno() for listener in self._listeners for sock in (listener.socket, *listener.further)
            ]
            descriptors = (*sockets, theirs.fileno(), stderr)
            pid, self._stderr = self._command.start({handover.VARIABLE: text}, descriptors)
        except OSError as error:
            ours.close()
            where = f": {error.filename}" if error.filename else ""
            self._carry_out(self._succession.launch_failed(f"{error.strerror}{where}"))
            return
        finally:
            theirs.close()
            os.close(stderr)
        ours.setblocking(False)
        os.set_blocking(self._stderr, False)
        self._line, self._heard, self._unfinished = ours, b"", b""
        self._loop.add_reader(ours, self._listen)
        self._loop.add_reader(self._stderr, self._relay)
        self._carry_out(self._succession.launched(pid))

    def _listen(self) -> None:
        """Hear what the new arbiter says over the line, whose other end is closed when it ends."""
        if self._line is None:
            return
        ended = False
        try:
            while data := self._line.recv(_PIPE_SIZE):
                self._heard += data
            ended = True
        except BlockingIOError:
            pass
        except OSError:
            ended = True
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            if line == handover.READY:
                self._carry_out(self._succession.ready())
            elif line.startswith(handover.FAILED):
                self._succession.message_received(line[len(handover.FAILED) :].decode("utf-8", "replace"))
        if ended:
            self._relay()
            if self._unfinished:
                self._log(self._unfinished)
            self._let_go()
            self._carry_out(self._succession.exited())

    def _relay(self) -> None:
        """Log what comes from the new process before it has our stderr: a broken installation, as a rule."""
        if self._stderr is None:
            return
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._stderr, _PIPE_SIZE):
                self._unfinished += data
            self._loop.remove_reader(self._stderr)
        *lines, self._unfinished = self._unfinished.split(b"\n")
        for line in lines:
            self._log(line)

    def _log(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._succession.message_received(text)
            logger.warning("New arbiter process [%s] | %s", self._succession.pid, text)

    def _let_go(self) -> None:
        if self._stderr is not None:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
        if self._line is not None:
            self._loop.remove_reader(self._line)
            self._line.close()
        self._stderr = self._line = None


class Takeover:
    """The new arbiter's side: it says when it is ready, and has the place once it is told, or is left alone.

    `enter` is called then. An arbiter that takes over from nobody has its place from the start.
    """

    def __init__(
        self,
        loop: EventLoop,
        inherited: Inherited | None,
        listeners: Sequence[Listener],
        pid_file: PidFile | None,
        enter: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._pid_file = pid_file
        self._inherited = inherited
        self._enter = enter
        self._announced = False
        self._alone = False
        """Whether the old arbiter has died without a word."""
        self.over = inherited is None

    def start(self) -> None:
        """Listen to the old arbiter."""
        if self._inherited is not None:
            self._inherited.line.setblocking(False)
            self._loop.add_reader(self._inherited.line, self._listen)

    def update(self, fleet: Fleet) -> None:
        """Say that all workers are ready, when they are."""
        if self.over or self._announced or self._inherited is None:
            return
        if fleet.ready >= fleet.size and not fleet.stopping:
            self._announced = True
            self._inherited.say(handover.READY)
            if self._alone:
                self._begin()

    def close(self) -> None:
        """Close the line."""
        if self._inherited is not None and not self.over:
            self._loop.remove_reader(self._inherited.line)

    def _listen(self) -> None:
        assert self._inherited is not None
        try:
            data = self._inherited.line.recv(_PIPE_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data.startswith(handover.GO):
            self._begin()
            return
        self._loop.remove_reader(self._inherited.line)
        self._alone = True
        logger.warning("The old arbiter process [%d] has gone before its time", self._inherited.pid)
        if self._announced:
            self._begin()

    def _begin(self) -> None:
        assert self._inherited is not None
        self.over = True
        self._loop.remove_reader(self._inherited.line)
        self._inherited.line.close()
        for listener in self._listeners:
            listener.owned = True
        if self._pid_file is not None:
            try:
                self._pid_file.write()
            except SettingsError as error:
                logger.error("%s", error)
        self._enter()
        logger.info(
            "Upgrade complete: arbiter process [%d] has taken over from [%d]",
            os.getpid(),
            self._inherited.pid,
        )
