"""A worker's heartbeat to the arbiter, and the pipe (lifeline) that tells it when the arbiter has died.

One thread does both. About once a second it sends a beat, which says how often the event loop and the thread
itself have run. So the arbiter can tell a blocked loop (only the thread's count moves) from a process that
does not run at all. The thread also waits on the lifeline: a byte there means that the whole instance is
going to stop; end-of-file means that the arbiter is gone, even by SIGKILL.

The thread ends before each fork of the application, and starts again after it. A fork beside other threads
gives the child a copy of each lock that they hold, and nobody releases it: Python 3.12 and newer warn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time

from ostler.ipc import messages
from ostler.ipc.assignment import Assignment
from ostler.ipc.contract import WITHDRAW_AND_END, WORKER_EXIT_MARGIN
from ostler.ipc.messages import Beat, Blocked, BootFailed, Message, Ready, RetireAsked
from ostler.logging import setup as log_setup
from ostler.system.cgroups import Throttling
from ostler.worker import blocking_call
from ostler.worker.server import tick_seconds
from ostler.worker.server_state import ServerState
from ostler.worker.signal_handlers import SignalHandlers

logger = logging.getLogger("ostler.error.worker")

_PAUSE = 1.0
"""Seconds that a fork waits for the thread to end: it takes less than a thousandth."""
_LAST_RESORT = 1.0
"""Seconds after which faulthandler ends the process if not even the heartbeat's thread can run."""


class Heartbeat:
    """Sends the messages of one worker on its heartbeat pipe; a `server.Watcher`."""

    def __init__(self, assignment: Assignment, signal_handlers: SignalHandlers) -> None:
        self._signal_handlers = signal_handlers
        self._pid = os.getpid()
        self._pipe = assignment.beats.fileno()
        self._stacks = assignment.stacks.fileno()
        self._lifeline = assignment.lifeline.fileno()
        self._period = tick_seconds(assignment.settings)
        self._grace = assignment.settings.timeout_graceful_shutdown
        self._server_state: ServerState | None = None
        self._withdrawn = False
        self._ends_listening = False
        # Each thread that polls needs an object of its own; this one is used with the lock held.
        self._lifeline_poll = select.poll()
        self._lifeline_poll.register(self._lifeline, select.POLLIN)
        self._lifeline_lock = threading.Lock()
        self._loop_count = 0
        self._seen = -1
        """The count of the loop at the thread's last beat."""
        self._thread_count = 0
        self._waited = 0
        self._ran = 0
        self._throttled = 0
        self._retirement: RetireAsked | None = None
        """The request for a successor, until it is sent: the pipe may be full."""
        self._throttling = Throttling()
        self._lag = 0.0
        self._directory = assignment.directory
        self._blocked_in: str | None = None
        """Where the event loop was blocked when the arbiter was last told; None if it has run since."""
        self._locator: threading.Thread | None = None
        self._schedstat = _open_schedstat()
        self._due = 0.0
        self._arbiter_gone = False
        self._thread = threading.Thread()
        self._runs = False
        self._pausing = False
        # Both can be taken again by their thread: a signal handler may fork while its thread does.
        self._forks = threading.RLock()
        self._pause_lock = threading.RLock()
        self._pause_reader, self._pause_writer = os.pipe()
        os.set_blocking(self._pause_reader, False)
        os.set_blocking(self._pause_writer, False)
        # The arbiter may be busy: a beat that finds the pipe full is dropped, never waited for (pipe(7)).
        os.set_blocking(self._pipe, False)

    def start(self) -> None:
        """Watch the lifeline from now on, and send beats once the server is ready."""
        self._due = time.monotonic() + self._period
        self._start_thread()
        os.register_at_fork(before=self._pause, after_in_parent=self._resume)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="ostler-heartbeat", daemon=True)
        thread.start()
        self._thread = thread
        self._runs = True

    def _pause(self) -> None:
        """Before a fork: end the thread. One that cannot end, because it waits for the forking one, stays."""
        if not self._is_worker():
            return
        self._forks.acquire()  # until `_resume`: two threads of the application may fork at once
        self._pausing = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._pause_writer, b"\0")
        if not self._arbiter_gone and not sys.is_finalizing():  # then no daemon thread ends any more
            deadline = time.monotonic() + _PAUSE
            self._thread.join(_PAUSE)
            # The kernel, which Python asks, counts a thread for some microseconds more.
            task = f"/proc/self/task/{self._thread.native_id}"
            while os.path.exists(task) and time.monotonic() < deadline:
                time.sleep(0.0001)

    def _resume(self) -> None:
        """After a fork, in the worker: start the thread again."""
        if not self._is_worker():
            return
        with self._pause_lock:
            self._pausing = False
            with contextlib.suppress(BlockingIOError):
                os.read(self._pause_reader, 64)
            self._ensure_thread()
        self._forks.release()

    def _ensure_thread(self) -> bool:
        """Start the thread again if it has ended for a fork that is over; return whether there is one."""
        with self._pause_lock:
            if not self._runs and not self._pausing:
                # The interpreter ends, or a limit allows no thread (RLIMIT_NPROC, pids.max): then the next
                # tick of the event loop tries again.
                with contextlib.suppress(RuntimeError):
                    self._start_thread()
            return self._runs

    def _ends_for_a_fork(self) -> bool:
        with self._pause_lock:
            if self._pausing:
                self._runs = False
            return not self._runs

    def _is_worker(self) -> bool:
        """Whether this is the worker, and not a copy of it that the application has forked."""
        return os.getpid() == self._pid

    def ready(self, server_state: ServerState) -> None:
        """Tell the arbiter that this worker accepts connections."""
        self._server_state = server_state
        server_state.supervised = not self._arbiter_gone
        # The thread sets `_withdrawn` before it looks for the state; it is read here after the state is set.
        # So one of the two withdraws.
        if self._withdrawn:
            server_state.ends_listening = self._ends_listening
            server_state.withdraw()
        self._send(Ready())

    def failed(self, reason: str) -> None:
        """Tell the arbiter why this worker will not get ready."""
        self._send(BootFailed(reason))

    def stopping(self) -> None:
        """Note, before this worker drains, whether the whole instance stops: the lifeline says so first."""
        if not self._read_lifeline() and self._server_state is not None:
            self._server_state.supervised = False
        if self._withdrawn and self._server_state is not None:
            self._server_state.ends_listening = self._ends_listening
            self._server_state.withdraw()

    def retire(self, reason: str) -> None:
        """Ask the arbiter for a successor; this worker serves on until it is drained."""
        self._retirement = RetireAsked(reason)
        self._ask_to_retire()

    def _ask_to_retire(self) -> None:
        if self._retirement is not None and self._send(self._retirement):
            self._retirement = None
            # The arbiter reads beats only from time to time. An empty line on the pipe of stacks, which no
            # stack has, wakes it.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._stacks, b"\n")

    def ticked(self, lag: float) -> None:
        """Note that the event loop has run the server's tick."""
        self._lag = lag
        self._ran, self._waited = self._read_schedstat()
        self._throttled = self._throttling.read()
        self._loop_count += 1
        self._ask_to_retire()
        if not self._runs and not self._ensure_thread():
            self._beat_once()  # in place of the thread

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._lifeline, select.POLLIN)
        poll.register(self._pause_reader, select.POLLIN)
        while True:
            ready = [number for number, _ in poll.poll(max(0.0, self._due - time.monotonic()) * 1000)]
            if self._lifeline in ready:
                if not self._read_lifeline():
                    break
                self._withdraw()
            if time.monotonic() >= self._due or self._lifeline in ready:
                self._due = time.monotonic() + self._period
                self._beat_once()
            if self._pause_reader in ready and self._ends_for_a_fork():
                return
        self._arbiter_gone = True
        self._on_arbiter_gone()

    def _beat_once(self) -> None:
        self._thread_count += 1
        if self._server_state is not None:
            self._send(self._beat(self._server_state))
            if self._loop_count == self._seen:
                # The loop is blocked. What it has served should be in the log before it is killed.
                log_setup.flush()
                self._locate()
            else:
                self._blocked_in = None
            self._seen = self._loop_count

    def _read_lifeline(self) -> bool:
        """Take in what the lifeline says, in either thread; False if the arbiter is gone."""
        with self._lifeline_lock:
            if not self._lifeline_poll.poll(0):
                return True  # the other thread has read it
            said = os.read(self._lifeline, 64)
            if said:
                self._ends_listening = WITHDRAW_AND_END in said
                self._withdrawn = True
        return bool(said)

    def _locate(self) -> None:
        """Tell the arbiter where the event loop is blocked. In a thread: a read of source files may block."""
        if self._locator is None or not self._locator.is_alive():
            self._locator = threading.Thread(target=self._tell_where, name="ostler-locator", daemon=True)
            self._locator.start()

    def _tell_where(self) -> None:
        main = threading.main_thread().ident
        where = None if main is None else blocking_call.describe(main, self._directory)
        if where is not None and where != self._blocked_in and self._send(Blocked(where)):
            self._blocked_in = where

    def _withdraw(self) -> None:
        self._withdrawn = True
        if self._server_state is not None:
            self._server_state.ends_listening = self._ends_listening
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has drained already
                self._server_state.loop.call_soon_threadsafe(self._server_state.withdraw)

    def _beat(self, server_state: ServerState) -> Beat:
        return Beat(
            loop=self._loop_count,
            thread=self._thread_count,
            waited=self._waited,
            served=server_state.served,
            in_flight=server_state.in_flight,
            connections=len(server_state.connections),
            lag=self._lag,
            draining=server_state.draining,
            ran=self._ran,
            throttled=self._throttled,
        )

    def _send(self, message: Message) -> bool:
        """Write the message, whole or not at all; False if the arbiter has to read first."""
        if not self._is_worker():
            return True  # a copy does not speak for its worker
        try:
            os.write(self._pipe, messages.encode(message))  # a frame is shorter than PIPE_BUF
        except BlockingIOError:
            return False
        except BrokenPipeError:
            pass  # the arbiter is gone
        return True

    def _read_schedstat(self) -> tuple[int, int]:
        """Return the nanoseconds that the loop's thread has run on a CPU and has waited for one."""
        if self._schedstat is None:
            return 0, 0
        # "on-cpu waiting timeslices", in nanoseconds, of the main thread, which runs the loop
        # (Linux, Documentation/scheduler/sched-stats.rst).
        ran, waited = os.pread(self._schedstat, 64, 0).split()[:2]
        return int(ran), int(waited)

    def _on_arbiter_gone(self) -> None:
        """Drain, and kill this worker after the grace."""
        # The reader of the log may be gone, too: nothing may wait for it before the end is certain. So the
        # deadline comes first, and a thread of its own logs.
        grace = self._grace + WORKER_EXIT_MARGIN
        self._signal_handlers.set_deadline(grace + _LAST_RESORT)
        self._withdraw()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=logger.warning, args=("The arbiter is gone: draining",), daemon=True).start()
        threading.Event().wait(grace)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)  # along with what the application has spawned
        os._exit(1)


def _open_schedstat() -> int | None:
    try:
        return os.open("/proc/self/schedstat", os.O_RDONLY)
    except OSError:
        return None
