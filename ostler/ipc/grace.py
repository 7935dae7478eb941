"""Grace margins, in seconds, that the arbiter and its workers must agree on. Each stands here once. Pure.

Import them from `ostler.ipc.contract`, except in a module that must be pure.
"""

from __future__ import annotations

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
