"""The entry point of a worker process; the arbiter refers to it without importing a worker's modules.

It is a module of its own because a spawned worker imports the module of its entry point, and must not load
the whole command.
"""

from __future__ import annotations

from ostler.ipc.assignment import Assignment


def run_worker(assignment: Assignment) -> None:
    """Serve as one of the arbiter's workers; called in the process that was spawned for it."""
    from ostler.worker import main

    main.run_worker(assignment)
