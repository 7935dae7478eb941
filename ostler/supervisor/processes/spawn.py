"""Starts a worker process: its pipes, its environment, and the signals that are blocked meanwhile."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from socket import socket
from types import ModuleType

from ostler.ipc import contract
from ostler.ipc.assignment import ARBITERS_OWN, GENERATION_VARIABLE, SLOT_VARIABLE, Assignment
from ostler.ipc.load_board import SharedQueues
from ostler.settings.declarations import Settings
from ostler.supervisor.processes.child import Child
from ostler.system import pipes, shared_sockets
from ostler.system.pipes import PipeEnd

_spawn = multiprocessing.get_context("spawn")


def start_worker(
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
    """Spawn a worker process and return it.

    Args:
        entry: what the new process calls with its assignment.
        environment: variables to add to the arbiter's own.
        directory: the working directory, symbolic links kept; looked up anew for each worker.
        gated: the worker waits for `Child.allow_import` before it imports the application.
        terminal: the worker shares the arbiter's terminal, and so its process group.

    The other arguments are the fields of `Assignment`.

    Raises:
        OSError: there is no process, memory or descriptor to be had, or `directory` is gone.
    """
    # A deploy may have replaced the directory behind the same path, and the child starts in ours.
    os.chdir(directory)
    if not os.access(sys.executable, os.X_OK):
        raise FileNotFoundError(errno.ENOENT, "the Python that ostler was started with", sys.executable)
    # `opened` closes both ends of each pipe if the spawn fails, `theirs` the worker's ends in any case.
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
        # Not a daemon: multiprocessing forbids daemons to have child processes, and an application may.
        process = _spawn.Process(target=entry, args=(assignment,), name=f"worker {slot}", daemon=False)
        shared_sockets.prepare_spawn()
        place = {SLOT_VARIABLE: str(slot), GENERATION_VARIABLE: str(generation)}
        with _signals_blocked(), _main_module_hidden(), _environment({**environment, **place}):
            process.start()
        for end in (beats, stacks):
            os.set_blocking(end.fileno(), False)
        opened.pop_all()
    return Child(process, beats, stacks, lifeline, gate, terminal)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block what a worker handles or ignores; it inherits the mask, and unblocks once its handlers stand."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, contract.BLOCKED_ACROSS_SPAWN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """Let a child inherit our environment with `added`, and without the variables that only we are to see.

    Inherited, not sent: multiprocessing writes what it sends into a pipe before it can notice that the child
    has died, so all of that must fit into the pipe.
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
def _main_module_hidden() -> Iterator[None]:
    """Hide `__main__` from multiprocessing, which would run that script again in every child.

    A worker finds the application by its import string. It needs neither ostler's own command in its memory,
    nor a user's script that calls ostler.run() without a guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
