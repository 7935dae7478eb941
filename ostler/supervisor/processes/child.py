"""One running worker process, as the arbiter sees it: read its pipes, send it signals, reap it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Container
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, TypeAlias

from ostler.ipc.contract import PIPE_SIZE, STACK_SIGNAL
from ostler.ipc.messages import Decoder, Message
from ostler.system.pipes import PipeEnd

if TYPE_CHECKING:
    from ostler.system.processes import Process


class Child:
    """A worker's process and the arbiter's ends of its pipes (what each is for: `ostler.ipc.assignment`).

    `messages()` and `stacks()` read what is pending and never block. `exit_status()` looks whether the
    process has ended, `reap()` collects it.
    """

    def __init__(
        self,
        process: SpawnProcess,
        beats: PipeEnd,
        stacks: PipeEnd,
        lifeline: PipeEnd,
        gate: PipeEnd | None = None,
        terminal: bool = False,
    ) -> None:
        assert process.pid is not None
        self.pid: int = process.pid
        self.beats = beats
        self.stacks_pipe = stacks
        self._process = process
        self._lifeline = lifeline
        self._gate = gate
        self._terminal = terminal
        self._descendants: list[Process] = []
        self._decoder = Decoder()
        self._garbled = False
        self._unfinished_line = b""

    def __repr__(self) -> str:
        return f"<Child pid={self.pid}>"

    # --- pipes ------------------------------------------------------------------------------------

    def messages(self) -> list[Message]:
        """Return the messages that have come since the last call.

        Raises:
            EOFError: the worker has closed its end: the process is ending.
            ValueError: the bytes are not from a worker of ours; nothing is read any more.
        """
        if self._garbled:
            return []
        try:
            return self._decoder.feed(_read(self.beats))
        except ValueError:
            self._garbled = True
            raise

    def stacks(self) -> list[str]:
        """Return the whole lines that the worker's faulthandler has written since the last call.

        Raises:
            EOFError: the worker has closed its end.
        """
        # faulthandler writes word by word: the rest of the last line may still come.
        *lines, self._unfinished_line = (self._unfinished_line + _read(self.stacks_pipe)).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def allow_import(self) -> None:
        """Let the worker import the application."""
        if self._gate is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._gate.fileno(), b"\0")

    def withdraw(self, message: bytes) -> None:
        """Tell the worker that the whole instance is going to stop: its health checks say so from now on.

        `message` is one of those of `ostler.ipc.contract`.
        """
        with contextlib.suppress(BrokenPipeError):  # the worker is ending
            os.write(self._lifeline.fileno(), message)

    def close_lifeline(self) -> None:
        """Let the worker take the arbiter for gone: it drains, and exits by itself."""
        if not self._lifeline.closed:
            self._lifeline.close()

    # --- signals ----------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker's process alone.

        STACK_SIGNAL goes to another thread than the main one. A call in C that a signal interrupts may give
        up, as sleep(3) does: to ask where a worker hangs must change nothing. Each thread can show the stacks
        of all.
        """
        with contextlib.suppress(ProcessLookupError):
            if number == STACK_SIGNAL:
                signal_another_thread(self.pid, number)
            else:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL to the worker and to the processes that it has spawned into its process group."""
        self.signal(signal.SIGKILL)
        self.kill_group()

    def kill_group(self) -> None:
        """Send SIGKILL to what is left of the worker's process group.

        Only before `reap()`: until then the pid cannot be given to another group.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
        for descendant in self._descendants:
            descendant.kill()
        self._descendants = []

    def note_descendants(self) -> None:
        """Remember the processes that the worker has spawned, for `kill_group`.

        A worker that shares the terminal leads no process group by which they could be found.
        """
        if not self._terminal:
            return
        from ostler.system.processes import descendants  # under --reload only: the arbiter stays small

        self._descendants = [*{*self._descendants, *descendants(self.pid)}]

    # --- the end ----------------------------------------------------------------------------------

    def exit_status(self) -> int | None:
        """Return the exit code, or minus the signal's number, of an ended process; it stays unreaped."""
        if not hasattr(os, "waitid"):  # PyPy, and macOS before Python 3.13
            return self._exit_status_in_proc()
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return self._process.exitcode  # multiprocessing has reaped it on its own account
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _exit_status_in_proc(self) -> int | None:
        """As `exit_status`; where there is no /proc, the process is reaped."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                fields = file.read().rpartition(b") ")[2].split()
        except OSError:
            return self._process.exitcode
        # Fields 3, state, and 52, exit_code (proc_pid_stat(5)).
        return os.waitstatus_to_exitcode(int(fields[49])) if fields[0] == b"Z" else None

    def wait(self, seconds: float) -> None:
        """Wait for the process to end, and kill it if it has not within `seconds`."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()

    def reap(self) -> None:
        """Collect the process, which has ended, and close the arbiter's ends of its pipes."""
        self._process.join()
        self._process.close()
        self.beats.close()
        self.stacks_pipe.close()
        if self._gate is not None:
            self._gate.close()
        self.close_lifeline()


def thread_ids(pid: int) -> list[int]:
    """Return the ids of a process's threads, in ascending order; none where there is no /proc."""
    with contextlib.suppress(OSError):
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    return []


def _children_of(pid: int) -> list[int]:
    """Return the ids of a process's children, those that have ended included; none without /proc."""
    pids: list[int] = []
    for thread in thread_ids(pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
            pids += map(int, file.read().split())
    return pids


Tgkill: TypeAlias = Callable[[int, int, int], None]
"""tgkill(2): process id, thread id, signal."""


def find_tgkill() -> Tgkill | None:
    """Return tgkill(2), which Python does not offer; None if the C library has none (glibc before 2.30)."""
    try:
        import ctypes  # for a worker that hangs only: the arbiter stays small

        function = ctypes.CDLL(None, use_errno=True).tgkill
    except Exception:  # noqa: BLE001 - also what a Python that is being replaced raises: there is none then
        return None

    def tgkill(pid: int, thread: int, number: int) -> None:
        if function(pid, thread, number):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))  # with ESRCH this is a ProcessLookupError

    return tgkill


def signal_another_thread(
    pid: int,
    number: int,
    *,
    thread_ids: Callable[[int], list[int]] = thread_ids,
    find_tgkill: Callable[[], Tgkill | None] = find_tgkill,
) -> None:
    """Send a signal to a thread of process `pid`, a child not yet reaped, that is not its main thread.

    A thread may end at any time, and its id may then be that of another process: kill(2) would hit that one.
    tgkill(2) takes the process's id as well, and sends nothing where the two do not belong together. Without
    tgkill or another thread, the signal goes to the process, of which the kernel prefers the main thread.

    Raises:
        ProcessLookupError: there is no such process.
    """
    tgkill = find_tgkill()
    if tgkill is not None:
        for thread in thread_ids(pid):
            if thread == pid:
                continue
            with contextlib.suppress(ProcessLookupError):  # this thread has ended
                tgkill(pid, thread, number)
                return
    os.kill(pid, number)


def reap_orphans(known: Container[int]) -> None:
    """As PID 1: collect processes of this container whose parent has ended; never those in `known`."""
    if not hasattr(os, "waitid"):  # PyPy
        for pid in _children_of(os.getpid()):
            if pid not in known:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        return
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in known:
                return  # ended just now: a SIGCHLD of its own is on its way
            os.waitpid(ended.si_pid, 0)


def _read(pipe: PipeEnd) -> bytes:
    """Return all that is pending in a pipe.

    Raises:
        EOFError: nothing is pending and every write end is closed.
    """
    if pipe.closed:
        return b""
    data = b""
    while True:
        try:
            more = os.read(pipe.fileno(), PIPE_SIZE)
        except BlockingIOError:
            return data
        if not more:
            if data:
                return data
            raise EOFError
        data += more
        if len(more) < PIPE_SIZE:  # the pipe was empty then; what comes later is for the next call
            return data
