"""The old arbiter's side of an upgrade (SIGUSR2): it starts the new one, and hands over when that is ready.

`ostler.supervisor.upgrade.decision` decides; this module carries it out. The arbiter imports both when it
starts, though they are seldom used: by the time of the signal, the files on disk are another release's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from math import ceil

from ostler.ipc.contract import PIPE_SIZE
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
    UpgradeDecision,
    UpgradeState,
)
from ostler.system.sockets import Listener

logger = logging.getLogger("ostler.error.supervisor")

# Seconds past its workers' grace that an arbiter has to stop.
_MARGIN = 5.0


class OldArbiter:
    """What an arbiter does to be replaced: start the new one, listen to it, hand over when it is ready.

    Args:
        loop: the arbiter's event loop.
        command: what starts the new arbiter; None where it is not known how this one was started.
        listeners: the listening sockets.
        settings: those that the sockets were opened with.
        hand_over: called with the new arbiter's pid when that has the place.
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
        self._decision = UpgradeDecision()
        self._channel: socket.socket | None = None
        """Our end of the socket pair to the new arbiter; None: there is no new arbiter."""
        self._stderr: int | None = None
        """Read end of the pipe that is the new arbiter's stderr until it has the arbiter's own."""
        self._unfinished_word = b""
        self._unfinished_line = b""
        self._signal_actions: dict[signal.Signals, Callable[[], None]] = {}
        self._postponed: list[signal.Signals] = []

    def __repr__(self) -> str:
        return f"<OldArbiter {self._decision!r}>"

    @property
    def may_take_over(self) -> bool:
        """Whether there is a new arbiter that may still take the place: it was not told to stop."""
        return self._decision.state is UpgradeState.STARTING

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

    # --- signals ----------------------------------------------------------------------------------

    def upgrade(self, settings: Settings, *, stopping: bool, served: bool, newcomer: bool) -> None:
        """SIGUSR2: start the new arbiter, unless something speaks against it.

        Args:
            settings: the current ones, for their time-outs.
            stopping: whether an order to stop has come.
            served: whether a worker has ever been ready.
            newcomer: whether this arbiter is itself the new one of an upgrade that is under way.
        """
        grace = settings.timeout_graceful_shutdown + _MARGIN
        startup = settings.timeout_worker_startup
        given = Preconditions(self.obstacle, stopping, served, newcomer, startup, grace)
        self._carry_out(self._decision.requested(given, time.monotonic()))

    def postponing(self, number: signal.Signals, action: Callable[[], None]) -> Callable[[], None]:
        """Return a handler that does `action` on a signal, but in an upgrade only when that is over.

        If the upgrade succeeds, the new arbiter gets the signal instead.
        """

        def handle() -> None:
            if not self._decision.under_way:
                action()
                return
            self._postponed.append(number)
            logger.info("%s: waits until the upgrade is over", number.name)

        self._signal_actions[number] = action
        return handle

    def forward(self, number: signal.Signals) -> None:
        """In an upgrade: send the new arbiter this signal too, once it has the place."""
        if self._decision.under_way:
            self._postponed.append(number)

    def stop(self, number: signal.Signals) -> None:
        """Stop the new arbiter, as this one is told to stop."""
        name = "SIGQUIT" if number == signal.SIGQUIT else "SIGTERM"
        self._carry_out(self._decision.stop(name, time.monotonic()))  # type: ignore[arg-type]

    # --- time -------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return the monotonic time at which to call `tick`; None: no deadline is set."""
        return self._decision.deadline()

    def tick(self) -> None:
        """Read all that is pending, and act on a deadline that has passed."""
        self._read_channel()
        self._carry_out(self._decision.tick(time.monotonic()))

    def close(self) -> None:
        """At the end of this arbiter: wait for a new arbiter that has been told to go."""
        pid = self._decision.pid
        if self._decision.state is UpgradeState.STOPPING and self._channel is not None and pid is not None:
            end = max(self._decision.deadline() or 0.0, time.monotonic())
            # Not select(2): it cannot wait for descriptors over 1023.
            poll = select.poll()
            poll.register(self._channel, select.POLLIN)
            while self._channel is not None and (left := end - time.monotonic()) > 0:
                poll.poll(ceil(left * 1000))
                self._read_channel()
            if self._channel is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._close_pipes()

    # --- actions ----------------------------------------------------------------------------------

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
                    self._give_place(pid)
                case RunPostponed():
                    postponed, self._postponed = self._postponed, []
                    for number in postponed:
                        if number in self._signal_actions:  # the others were handled when they came
                            self._signal_actions[number]()

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        stderr = os.dup(2)
        try:
            pid, self._stderr = self._start_process(theirs.fileno(), stderr)
        except Exception as error:  # noqa: BLE001 - whatever half an installation raises, this arbiter serves on
            ours.close()
            self._carry_out(self._decision.launch_failed(_reason(error)))
            return
        finally:
            theirs.close()
            os.close(stderr)
        ours.setblocking(False)
        os.set_blocking(self._stderr, False)
        self._channel, self._unfinished_word, self._unfinished_line = ours, b"", b""
        self._loop.add_reader(ours, self._read_channel)
        self._loop.add_reader(self._stderr, self._log_stderr)
        self._carry_out(self._decision.launched(pid))

    def _start_process(self, channel: int, stderr: int) -> tuple[int, int]:
        """Start the new arbiter; return its pid and the read end of the pipe that is its stderr."""
        assert self._command is not None
        text = handover.offer(self._listeners, self._settings, channel=channel, stderr=stderr)
        sockets = [sock.fileno() for item in self._listeners for sock in (item.socket, *item.further)]
        return self._command.start({handover.VARIABLE: text}, (*sockets, channel, stderr))

    def _give_place(self, pid: int) -> None:
        for listener in self._listeners:
            listener.owned = False
        self._hand_over(pid)
        assert self._channel is not None
        with contextlib.suppress(OSError):
            self._channel.sendall(handover.GO + b"\n")
        for number in self._postponed:
            os.kill(pid, number)
        self._postponed.clear()

    # --- what the new arbiter says ----------------------------------------------------------------

    def _read_channel(self) -> None:
        """Read what the new arbiter says; end-of-file means that it has ended, or has closed the channel."""
        if self._channel is None:
            return
        ended = False
        try:
            while data := self._channel.recv(PIPE_SIZE):
                self._unfinished_word += data
            ended = True
        except BlockingIOError:
            pass
        except OSError:
            ended = True
        *words, self._unfinished_word = self._unfinished_word.split(b"\n")
        for word in words:
            if word == handover.READY:
                self._carry_out(self._decision.ready())
            elif word.startswith(handover.FAILED):
                self._decision.message_received(word[len(handover.FAILED) :].decode("utf-8", "replace"))
        if ended:
            self._log_stderr()
            if self._unfinished_line:
                self._log_line(self._unfinished_line)
            self._close_pipes()
            self._carry_out(self._decision.exited())

    def _log_stderr(self) -> None:
        """Log what the new process writes before it has our stderr: most often of a broken installation."""
        if self._stderr is None:
            return
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._stderr, PIPE_SIZE):
                self._unfinished_line += data
            self._loop.remove_reader(self._stderr)
        *lines, self._unfinished_line = self._unfinished_line.split(b"\n")
        for line in lines:
            self._log_line(line)

    def _log_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._decision.message_received(text)
            logger.warning("New arbiter process [%s] | %s", self._decision.pid, text)

    def _close_pipes(self) -> None:
        if self._stderr is not None:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
        if self._channel is not None:
            self._loop.remove_reader(self._channel)
            self._channel.close()
        self._stderr = self._channel = None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return f"{type(error).__name__}: {error}"
