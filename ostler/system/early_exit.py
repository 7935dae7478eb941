"""Ends a process from a signal handler, before it serves, and still calls what `atexit` has to call.

An exception that a signal handler raises, such as SystemExit, could be swallowed by the code that it
interrupts: most often an import of the application. os._exit() alone would skip the exit hooks, with which
coverage and profilers write what they have found.

Relies on `atexit._run_exitfuncs`, a private function. Where it is gone, no hook is called.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn


def exit_with_hooks(owner: int) -> NoReturn:
    """Call the exit hooks and end this process with exit code 0.

    A process that the application has forked has the handler, too: it ends without the hooks, which are those
    of process `owner`.
    """
    if os.getpid() == owner:
        with contextlib.suppress(BaseException):  # a hook's exception was printed
            getattr(atexit, "_run_exitfuncs", lambda: None)()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    os._exit(0)
