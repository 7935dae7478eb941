"""Constants that the arbiter and its workers must agree on: signals between them, pipe sizes, grace margins.

Each stands here once. What only one side needs to know stands on that side. Pure: of `signal` it takes the
numbers alone.
"""

from __future__ import annotations

import signal

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

WITHDRAW = b"\0"
"""On a worker's lifeline: the whole instance is going to stop, and health checks should say so."""

WITHDRAW_AND_END = b"\1"
"""The same, right before every worker is told to drain; and no other process serves from the listening
sockets. So the first worker that has emptied their queues shuts them down."""

# Grace margins, in seconds.

WORKER_EXIT_MARGIN = 3.0
"""What a worker has past its grace to cancel requests, to shut the application down, and to exit.

It is the last resort, for when nobody else ends the worker: its arbiter is gone, or it is a plain server.
An arbiter that lives aborts the worker earlier, 1 s past the grace (`DRAIN_GRACE` of
`ostler.supervisor.fleet.slot`), so that the log says why and has the stacks under the worker's name."""

QUIT_GRACE = 1.0
"""From SIGQUIT until a worker has to be gone: its own deadline, and the arbiter's SIGKILL."""

HURRY_LINGER = 0.1
"""After HURRY_SIGNAL: how long a client that has just connected has to send a request, and streams to end."""
HURRY_FINISH = 0.5
"""After HURRY_SIGNAL: how long a request in flight may go on before it is cancelled."""
HURRY_CANCEL = 0.2
"""How long a request that was cancelled then has to clean up."""
HURRY_GRACE = 1.25
"""From HURRY_SIGNAL until the arbiter's SIGKILL: longer than HURRY_FINISH and HURRY_CANCEL together, so that
a lifespan shutdown has time."""
