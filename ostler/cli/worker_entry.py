"""The worker's entry point: a name that the arbiter hands on without importing what it stands for.

In a module of its own, as a worker imports the module that it finds the name in: not all of the command.
"""

from __future__ import annotations

from ostler.ipc.assignment import Assignment


def run_worker(assignment: Assignment) -> None:
    """Serve as one of the arbiter's workers, in the process that was spawned for it."""
    from ostler.worker import main

    main.run_worker(assignment)
