"""What the arbiter gives a worker as it spawns it: settings, sockets, pipes. multiprocessing pickles it."""

from __future__ import annotations

from socket import socket

from ostler.ipc.load_board import SharedQueues
from ostler.records import record
from ostler.settings.declarations import Settings
from ostler.system.pipes import PipeEnd

SLOT_VARIABLE = "OSTLER_SLOT"
"""The variable that tells an application which slot's worker it runs in."""

GENERATION_VARIABLE = "OSTLER_GENERATION"
"""The variable that tells an application how many rolls and reloads its worker is from the first start."""

ARBITERS_OWN = (
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)
"""Variables that only the arbiter may see: a worker with them would take the arbiter's sockets for its own,
and speak to systemd in its place (sd_listen_fds(3), sd_notify(3))."""


@record
class Assignment:
    """One worker's slot and all that it needs. It owns the descriptors: the pipes' ends and the sockets."""

    slot: int
    generation: int
    settings: Settings
    directory: str
    """The working directory that the arbiter was started in, symbolic links kept."""
    sockets: tuple[socket, ...]
    """The listening sockets."""
    beats: PipeEnd
    """Write end of the heartbeat pipe (`ostler.ipc.messages`)."""
    stacks: PipeEnd
    """Write end of the pipe for faulthandler's stacks."""
    lifeline: PipeEnd
    """Read end of a pipe whose write end only the arbiter holds. A byte means that the whole instance is
    going to stop (`WITHDRAW` and `WITHDRAW_AND_END` in `ostler.ipc.contract`). End-of-file means that the
    arbiter is gone."""
    shared_queues: SharedQueues | None = None
    """The other workers' queues, where each has its own (--reuse-port)."""
    gate: PipeEnd | None = None
    """Under --reload: read end of a pipe on which a byte says that the old code has gone, so that the
    application may be imported."""
    terminal: bool = False
    """Whether the worker shares the arbiter's terminal, for a debugger, and so its process group."""
