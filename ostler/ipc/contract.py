"""Constants that the arbiter and its workers must agree on: signals between them, pipe sizes, grace margins.

Each stands once: signals and sizes here, seconds in `ostler.ipc.grace`, which is pure. What only one side
needs to know stands on that side.
"""

from __future__ import annotations

import signal

from ostler.ipc.grace import (
    HURRY_CANCEL,
    HURRY_FINISH,
    HURRY_GRACE,
    HURRY_LINGER,
    QUIT_GRACE,
    WORKER_EXIT_MARGIN,
)

__all__ = [
    "BLOCKED_ACROSS_SPAWN",
    "HURRY_CANCEL",
    "HURRY_FINISH",
    "HURRY_GRACE",
    "HURRY_LINGER",
    "HURRY_SIGNAL",
    "IGNORED_BY_WORKERS",
    "PIPE_SIZE",
    "QUIT_GRACE",
    "STACK_SIGNAL",
    "STOP_SIGNALS",
    "WORKER_EXIT_MARGIN",
]

STACK_SIGNAL = signal.SIGUSR2
"""From the arbiter to a worker: write the stacks of all threads. The worker registers faulthandler on it."""

HURRY_SIGNAL = signal.SIGURG
"""From the arbiter to a worker, never from an operator: the code has changed, take nothing more and exit.
Nothing else sends it unasked (signal(7)), and it takes effect before the worker's next line of Python."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGQUIT)
"""From the arbiter to a worker: drain; stop at once."""

IGNORED_BY_WORKERS = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
"""Signals that a terminal or an operator may send to the whole process group: the arbiter decides on them."""

BLOCKED_ACROSS_SPAWN = (*STOP_SIGNALS, *IGNORED_BY_WORKERS, signal.SIGUSR1, STACK_SIGNAL, HURRY_SIGNAL)
"""Signals that a worker handles or ignores: the arbiter blocks them while it spawns, and the worker unblocks
them once its handlers stand."""

PIPE_SIZE = 65536
"""Bytes: the capacity of a pipe (pipe(7)). One read of this size takes all that can be pending."""
