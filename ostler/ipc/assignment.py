"""What the arbiter gives a worker at its birth; pickled by multiprocessing, descriptors included."""

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
"""Variables for the arbiter alone: a worker that saw them would answer in its name (sd_listen_fds(3))."""


@record
class Assignment:
    """One worker's place and means. It owns the descriptors: the pipes' ends and the sockets."""

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
    """Read end of a pipe whose other end only the arbiter holds. A byte means that the whole instance is
    going to stop, and load balancers should know; end-of-file means that the arbiter is gone."""
    shared_queues: SharedQueues | None = None
    """The other workers' queues, where each has its own (--reuse-port)."""
    gate: PipeEnd | None = None
    """Under --reload: read end of a pipe on which a byte says that the old code has gone, so that the
    application may be imported."""
    terminal: bool = False
    """Whether the worker shares the arbiter's terminal, for a debugger, and so its process group."""
