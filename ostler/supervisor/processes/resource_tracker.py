"""multiprocessing's resource tracker, started when there is something to track.

It looks after the shared memory and semaphores of a whole tree of processes, and each spawn starts it: a
process of 6 MB, and as much CPU as a worker's interpreter needs, which hardly any application ever tells
anything. Whoever does writes into a pipe. So workers are given that pipe's end, as ever, and the arbiter
waits at the other: at the first word the tracker is started, which reads it there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import resource_tracker, spawn, util
from typing import Any

from ostler.supervisor.event_loop import EventLoop

# What multiprocessing.resource_tracker has blocked while it starts the process, which ignores them.
_IGNORED = (signal.SIGINT, signal.SIGTERM)


class LateTracker:
    """Stands in for the tracker of this process, and of all that it spawns, until somebody needs it.

    Where a tracker runs already, it stays as it is. `start` and `close` are for the main thread.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        # What has to be known of multiprocessing's inside: the same that its own spawn hands to a child.
        self._tracker: Any = resource_tracker._resource_tracker
        self._reader = -1

    def start(self) -> None:
        """Wait for somebody who has something to be tracked."""
        if getattr(self._tracker, "_fd", 0) is not None:
            return
        self._reader, self._tracker._fd = os.pipe()
        # Its own way to make sure is a word into the pipe.
        self._tracker.ensure_running = _nothing
        self._loop.add_reader(self._reader, self._needed)

    def close(self) -> None:
        """Put things back: whatever comes after in this process starts a tracker of its own."""
        if self._reader < 0:
            return
        self._end_waiting()
        if self._tracker._fd is not None:
            os.close(self._tracker._fd)
        self._tracker._fd = None

    def _needed(self) -> None:
        """Start what reads the pipe from here on, as multiprocessing would have started it."""
        interpreter_flags: Callable[[], list[str]] = getattr(util, "_args_from_interpreter_flags")  # noqa: B009
        code = f"from multiprocessing.resource_tracker import main;main({self._reader})"
        program = os.fsdecode(spawn.get_executable())
        command = [program, *interpreter_flags(), "-c", code]
        descriptors = [self._reader]
        with contextlib.suppress(AttributeError, OSError, ValueError):
            descriptors.append(sys.stderr.fileno())
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            self._tracker._pid = util.spawnv_passfds(os.fsencode(program), command, descriptors)
        except OSError:
            pass  # there is none then: whoever writes finds the pipe broken, and starts one for itself
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._end_waiting()

    def _end_waiting(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        self._reader = -1
        with contextlib.suppress(AttributeError):
            del self._tracker.ensure_running


def _nothing() -> None:
    pass
