"""Starts multiprocessing's resource tracker only when a process of the tree has something to be tracked.

The tracker looks after the shared memory and the semaphores of a whole tree of processes. multiprocessing
starts it with the first spawn: a process of 6 MB, and as much CPU as a worker's interpreter needs, and hardly
any application ever uses it. A process uses it by writing into a pipe, whose write end every spawned process
inherits. Here that pipe exists from the start, and the arbiter waits at its read end: with the first message,
it starts the tracker, which reads the message there.

This relies on private names of CPython, the same from 3.10 to 3.13: `resource_tracker._resource_tracker` with
`_fd` and `_pid`, whose `getfd()` calls `ensure_running()` before a spawn; `util.spawnv_passfds` and
`util._args_from_interpreter_flags`. `_supported` checks that they are there. Where one is missing, nothing is
changed, and multiprocessing starts its tracker with the first worker as usual.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from multiprocessing import resource_tracker, spawn, util
from typing import Any

from ostler.supervisor.event_loop import EventLoop

# Signals that the tracker ignores: multiprocessing.resource_tracker blocks them while it starts it.
_IGNORED = (signal.SIGINT, signal.SIGTERM)

_TRACKER: Any = getattr(resource_tracker, "_resource_tracker", None)


def _supported(tracker: Any, utilities: Any) -> bool:
    """Return whether multiprocessing has the private names that this module relies on.

    Args:
        tracker: `resource_tracker._resource_tracker`, or None if there is no such name.
        utilities: the module `multiprocessing.util`.
    """
    methods = (getattr(tracker, "ensure_running", None), getattr(tracker, "getfd", None))
    functions = (
        getattr(utilities, "_args_from_interpreter_flags", None),
        getattr(utilities, "spawnv_passfds", None),
    )
    return all(map(callable, (*methods, *functions))) and all(hasattr(tracker, n) for n in ("_fd", "_pid"))


class LazyResourceTracker:
    """Stands in for the tracker of this process, and of all that it spawns, until it is needed.

    A tracker that runs already stays as it is. `start` and `close` are for the main thread.
    """

    def __init__(
        self,
        loop: EventLoop,
        tracker: Any = _TRACKER,
        utilities: Any = util,
    ) -> None:
        self._loop = loop
        self._tracker = tracker
        self._utilities = utilities
        self._reader = -1

    def start(self) -> None:
        """Wait for the first message to the tracker."""
        if not _supported(self._tracker, self._utilities) or self._tracker._fd is not None:
            return
        self._reader, self._tracker._fd = os.pipe()
        # multiprocessing's own check whether the tracker runs is a message into the pipe.
        self._tracker.ensure_running = _do_nothing
        self._loop.add_reader(self._reader, self._start_tracker)

    def close(self) -> None:
        """Put multiprocessing's state back: what comes later in this process starts a tracker of its own."""
        if self._reader < 0:
            return
        self._stop_waiting()
        if self._tracker._fd is not None:
            os.close(self._tracker._fd)
        self._tracker._fd = None

    def _start_tracker(self) -> None:
        """Start the process that reads the pipe from now on, as multiprocessing would have started it."""
        code = f"from multiprocessing.resource_tracker import main;main({self._reader})"
        program = os.fsdecode(spawn.get_executable())
        command = [program, *self._utilities._args_from_interpreter_flags(), "-c", code]
        descriptors = [self._reader]
        with contextlib.suppress(AttributeError, OSError, ValueError):
            descriptors.append(sys.stderr.fileno())
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            pid = self._utilities.spawnv_passfds(os.fsencode(program), command, descriptors)
            self._tracker._pid = pid
        except OSError:
            pass  # there is no tracker then: the next to write finds the pipe broken, and starts its own
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        self._reader = -1
        with contextlib.suppress(AttributeError):
            del self._tracker.ensure_running


def _do_nothing() -> None:
    pass
