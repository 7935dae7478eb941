"""One spawned process, seen from the arbiter: start, hear, signal, reap."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from multiprocessing.context import SpawnProcess
from socket import socket
from types import ModuleType
from typing import TYPE_CHECKING

from ostler.ipc.assignment import ARBITERS_OWN, GENERATION_VARIABLE, SLOT_VARIABLE, Assignment
from ostler.ipc.load_board import SharedQueues
from ostler.ipc.messages import Decoder, Message
from ostler.settings.declarations import Settings
from ostler.system import pipes
from ostler.system.pipes import PipeEnd
from ostler.system.signals import HURRY_SIGNAL

if TYPE_CHECKING:
    import psutil

_spawn = multiprocessing.get_context("spawn")

# What a worker handles or ignores: blocked across the spawn; the child lets them through.
_BLOCKED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    HURRY_SIGNAL,
)

# A pipe's capacity (pipe(7)): one read takes all that can be pending.
_PIPE_SIZE = 65536

# What Child.show_stack() sends; a worker registers faulthandler on it.
STACK_SIGNAL = signal.SIGUSR2


class Child:
    """A worker's process and the arbiter's ends of its pipes.

    `messages()` and `stacks()` read what is pending and never block; `has_exited()` looks, `reap()` collects.
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
        self._relatives: list[psutil.Process] = []
        self._decoder = Decoder()
        self._garbled = False
        self._unfinished = b""

    def __repr__(self) -> str:
        return f"<Child pid={self.pid}>"

    @classmethod
    def start(
        cls,
        entry: Callable[[Assignment], None],
        *,
        slot: int,
        generation: int,
        settings: Settings,
        environment: Mapping[str, str],
        directory: str,
        sockets: tuple[socket, ...],
        shared_queues: SharedQueues | None = None,
        gated: bool = False,
        terminal: bool = False,
    ) -> Child:
        """Spawn a worker; if `gated`, it imports the application once `admit` is called.

        Raises:
            OSError: there is no process, memory or descriptor to be had, or `directory` is gone.
        """
        # A deploy may have replaced the directory behind the same path, and the child starts where we are.
        os.chdir(directory)
        if not os.access(sys.executable, os.X_OK):
            raise FileNotFoundError(errno.ENOENT, "the Python that ostler was started with", sys.executable)
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as theirs:

            def pipe() -> tuple[PipeEnd, PipeEnd]:
                reader, writer = pipes.pipe()
                opened.callback(reader.close)
                opened.callback(writer.close)
                return reader, writer

            beats, beats_writer = pipe()
            stacks, stacks_writer = pipe()
            lifeline_reader, lifeline = pipe()
            gate_reader, gate = pipe() if gated else (None, None)
            for end in (beats_writer, stacks_writer, lifeline_reader, gate_reader):
                if end is not None:
                    theirs.callback(end.close)
            assignment = Assignment(
                slot=slot,
                generation=generation,
                settings=settings,
                directory=directory,
                sockets=sockets,
                shared_queues=shared_queues,
                beats=beats_writer,
                stacks=stacks_writer,
                lifeline=lifeline_reader,
                gate=gate_reader,
                terminal=terminal,
            )
            # Not a daemon: an application may have processes of its own (multiprocessing forbids them those).
            process = _spawn.Process(target=entry, args=(assignment,), name=f"worker {slot}", daemon=False)
            place = {SLOT_VARIABLE: str(slot), GENERATION_VARIABLE: str(generation)}
            with _signals_blocked(), _without_main(), _environment({**environment, **place}):
                process.start()
            for end in (beats, stacks):
                os.set_blocking(end.fileno(), False)
            opened.pop_all()
        return cls(process, beats, stacks, lifeline, gate, terminal)

    def messages(self) -> list[Message]:
        """Return what the worker has said since the last call.

        Raises:
            EOFError: it has closed its end: the process is ending.
            ValueError: what came is not from a worker of ours; nothing is read any more.
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
        # faulthandler writes word by word, so that a line may still be on its way.
        *lines, self._unfinished = (self._unfinished + _read(self.stacks_pipe)).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker's process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._bystander() if number == STACK_SIGNAL else self.pid, number)

    def _bystander(self) -> int:
        """Return a thread of the worker that is not its main one, to be interrupted by a signal instead.

        A call in C that a signal interrupts may give up, as sleep(3) does: to ask where it hangs must change
        nothing. Linux lets the thread that is named by kill(2) take a signal, if it can. The first thread is
        the pulse; each can show the stacks of all.
        """
        with contextlib.suppress(OSError):
            others = sorted(int(name) for name in os.listdir(f"/proc/{self.pid}/task"))
            return next((thread for thread in others if thread != self.pid), self.pid)
        return self.pid

    def kill(self) -> None:
        """Send SIGKILL to the worker and to whatever it has spawned into its process group."""
        self.signal(signal.SIGKILL)
        self.kill_group()

    def kill_group(self) -> None:
        """Send SIGKILL to what is left of the worker's process group.

        Only before `reap()`: until then the pid cannot be given to another group.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
        for relative in self._relatives:
            if relative.is_running():
                relative.kill()
        self._relatives = []

    def note_relatives(self) -> None:
        """Remember what the worker has spawned, for `kill_group`: one at a terminal leads no group."""
        if not self._terminal:
            return
        import psutil  # the arbiter does without it else

        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self.pid).children(recursive=True)
            self._relatives = [*{*self._relatives, *found}]

    def admit(self) -> None:
        """Let the worker import the application."""
        if self._gate is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._gate.fileno(), b"\0")

    def exit_status(self) -> int | None:
        """Return the exit code, or minus the signal's number, of an ended process; it stays unreaped."""
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.exitcode
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return self._process.exitcode  # multiprocessing has reaped it on its own account
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def reap(self) -> None:
        """Collect the process, which has ended, and close the arbiter's ends of its pipes."""
        self._process.join()
        self._process.close()
        self.beats.close()
        self.stacks_pipe.close()
        if self._gate is not None:
            self._gate.close()
        self.let_go()

    def withdraw(self) -> None:
        """Tell the worker that the whole instance is going to stop: its health checks say so from now on."""
        with contextlib.suppress(BrokenPipeError):  # it is ending
            os.write(self._lifeline.fileno(), b"\0")

    def wait(self, seconds: float) -> None:
        """Wait for the process to end, and kill it when it has not within `seconds`."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()

    def let_go(self) -> None:
        """Close the lifeline: the worker takes the arbiter for gone, drains, and exits by itself."""
        if not self._lifeline.closed:
            self._lifeline.close()


def reap_strangers(known: Container[int]) -> None:
    """Collect orphans of whatever ran in this container, which fall to PID 1; never judge them."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in known:
                return  # ended just now: a SIGCHLD of its own is on its way
            os.waitpid(ended.si_pid, 0)


def _read(pipe: PipeEnd) -> bytes:
    """Return all that is pending in a pipe.

    Raises:
        EOFError: nothing is pending and nobody can write any more.
    """
    if pipe.closed:
        return b""
    data = b""
    while True:
        try:
            more = os.read(pipe.fileno(), _PIPE_SIZE)
        except BlockingIOError:
            return data
        if not more:
            if data:
                return data
            raise EOFError
        data += more
        if len(more) < _PIPE_SIZE:  # that was all, or what comes next is for the next time
            return data


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """Let a child inherit our environment with `added`, and without what is meant for us alone.

    By inheritance, because what multiprocessing itself hands over must fit into a pipe: it writes that before
    it can notice that the child has died.
    """
    before = dict(os.environ)
    for name in ARBITERS_OWN:
        os.environ.pop(name, None)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide `__main__` from multiprocessing, which would run that script again in every child.

    A worker finds the application by its import string: it needs neither ostler's own command in its
    memory, nor a user's script that calls ostler.run() without a guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
