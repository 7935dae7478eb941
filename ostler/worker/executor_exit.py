"""Shuts down idle process pools (ProcessPoolExecutor) when a worker exits: without that it would hang.

A worker is a process of multiprocessing. As such a process exits, multiprocessing first joins its children
and only then calls `threading._shutdown`, whose hooks end the idle processes of a ProcessPoolExecutor (Python
3.10 to 3.12): the worker would wait for its children for ever.

Relies on `threading._shutdown`, a private function, which may be called twice. Where it is gone, nothing is
called, and a worker with an idle ProcessPoolExecutor is killed at its deadline.
tests/live/test_hostile_places.py then fails.
"""

from __future__ import annotations

import threading


def end_idle_executors() -> None:
    """Run the hooks at the end of threading now. Call it right before the process exits."""
    getattr(threading, "_shutdown", lambda: None)()
