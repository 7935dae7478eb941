"""One listening queue per slot for each address (SO_REUSEPORT), kept by the arbiter, and steered by BPF.

With one queue for all workers, the first worker to wake accepts the connection: the load is uneven. With
SO_REUSEPORT alone, a queue dies with its worker, and with it the connections that wait there. So:

- **Groups.** The arbiter opens all queues before the first worker starts, and keeps them until the end. The
  queues of one address are one SO_REUSEPORT group. The kernel knows a queue by its index in its group, in the
  order in which the sockets began to listen. All groups have the same number of queues.
- **A slot's queues.** The queue with the same number in each group belongs to one slot (`number`). The slot's
  next worker inherits them: what waits there when a worker dies or stops is served by its successor.
- **Steering.** A BPF program in the kernel picks the queue of each new connection, at random among the queues
  of the workers that serve (`steer`). The arbiter replaces it whenever a worker becomes ready, drains, dies
  or falls silent, and always before a worker is told to go. A handshake that is under way stays with the
  queue that got its SYN; all later ones go elsewhere. If no worker serves, the last program stays.
- **Helping out.** Each worker also has the other workers' queues, and empties those that are not read
  (`ostler.worker.balancing`). A shared memory, the load board, has each worker's number of connections: a
  worker with many leaves the next connection in its queue and calls the one with the fewest by a pipe. No
  connection is ever handed from process to process: it is in a queue or it is accepted.
- **Spares.** A running worker cannot be given another descriptor, so queues for workers that may be added are
  opened at the start too (`spares`). No connection is steered to a spare queue before its slot has a worker.
  Slots beyond the spare queues share the queues of other slots.
- **Handing over.** In an upgrade the new arbiter gets every socket of each group, in the group's order, and
  steers from `take_over` on. The old one has stopped steering with `hand_over` before.

What must never happen: that a connection is in a queue which no process will read.
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from ostler.errors import BindError
from ostler.ipc.load_board import ABSENT, MOST_QUEUES, LoadBoard, SharedQueues
from ostler.settings.declarations import Settings
from ostler.supervisor.balancing import bpf
from ostler.system.pipes import PipeEnd, pipe
from ostler.system.sockets import Listener

logger = logging.getLogger("ostler.error.supervisor")

_SO_ATTACH_REUSEPORT_CBPF = 51  # <asm-generic/socket.h>; Python has no name for it


def wanted(settings: Settings, size: int) -> bool:
    """Return whether `size` workers should have queues of their own (`reuse_port`).

    Not with --reload: there, an even load matters less than that the newest code serves.
    """
    if settings.reuse_port == "auto":
        return size > 1 and not settings.reload
    return settings.reuse_port == "on"


def spares(size: int) -> int:
    """Return how many queues to open for workers that may be added to `size`."""
    return 4 + size // 4


def open_queues(listeners: Sequence[Listener], settings: Settings, size: int) -> Queues | None:
    """Return the queues for the addresses of `listeners`; None if all workers are to share one queue.

    Queues that another arbiter has handed over stay as they were: connections may wait in each of them.

    Raises:
        BindError: `reuse_port = "on"` asks for queues, and this system cannot have them.
    """
    inherited = settings.fd is not None
    ours = [item for item in listeners if not inherited and not item.origin and item.path is None]
    handed_over = [item for item in ours if item.further]
    if not handed_over and not wanted(settings, size):
        return None
    if settings.reuse_port == "on":
        for listener in listeners:
            if listener not in ours:
                logger.warning("--reuse-port: %s has one queue, which all workers share", listener.address)
    if not ours:
        return None
    count = 1 + len(handed_over[0].further) if handed_over else min(size + spares(size), MOST_QUEUES)
    opened = contextlib.ExitStack()
    with opened:
        try:
            groups = [
                [listener.socket, *listener.further]
                if listener.further
                else _open_group(listener.socket, count, settings.backlog, opened)
                for listener in ours
            ]
            queues = Queues(groups, [item.socket for item in listeners if item not in ours], size)
        except OSError as exc:
            if settings.reuse_port == "on":
                text = f"cannot open a queue for each worker: {exc.strerror}; --reuse-port auto does without"
                raise BindError(text) from exc
            logger.debug("All workers share one queue: %s", exc)
            return None
        opened.pop_all()
    for listener, group in zip(ours, groups, strict=True):
        listener.further = tuple(group[1:])
    return queues


def _open_group(
    first: socket.socket, count: int, backlog: int, opened: contextlib.ExitStack
) -> list[socket.socket]:
    """Return a SO_REUSEPORT group of `count` sockets, of which a listening socket is the first.

    That one was bound, and listens, without the option: so a port that another process has was an error.

    Args:
        first: the listening socket.
        count: how many sockets the group has.
        backlog: of each of them.
        opened: closes the new sockets, and resets the option, if a later step fails.

    Raises:
        OSError: this system cannot.
    """
    if not hasattr(socket, "SO_REUSEPORT") or not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "only Linux can")
    _share_port(first, True)
    opened.callback(_share_port, first, False)
    group = [first]
    for _ in range(count - 1):
        sock = socket.socket(first.family, first.type)
        opened.callback(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _share_port(sock, True)
        if first.family == socket.AF_INET6:
            only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(first.getsockname())
        sock.listen(backlog)
        group.append(sock)
    return group


def _share_port(sock: socket.socket, value: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, value)


def attach(sock: socket.socket, queues: Sequence[int]) -> None:
    """Let the kernel give new connections of a socket's group to the queues with these numbers only.

    Raises:
        OSError: the kernel is older than 4.6, or not Linux's.
    """
    code = array.array("B", bpf.encode(bpf.program(queues)))
    address, length = code.buffer_info()
    # struct sock_fprog: how many instructions, and their address; the kernel copies them.
    option = struct.pack("HP", length // 8, address)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, option)


class Queues:
    """The queues of every slot, the load board and the pipes by which workers call each other.

    Args:
        groups: for each address, the sockets of its group.
        shared: listening sockets that all workers share, such as Unix sockets.
        size: the number of workers; connections are steered to their slots at first.

    Raises:
        OSError: this system cannot steer connections, or lacks memory or descriptors.
    """

    def __init__(
        self, groups: Sequence[list[socket.socket]], shared: Sequence[socket.socket], size: int
    ) -> None:
        self._groups = groups
        self._shared = tuple(shared)
        self._count = len(groups[0])
        self._steered: tuple[int, ...] = ()
        self._closed = False
        self._pipes: list[tuple[PipeEnd, PipeEnd]] = []
        self._board = LoadBoard(self._count)
        try:
            for _ in range(self._count):
                self._pipes.append(pipe())
            self.steer(range(1, size + 1))
        except BaseException:
            self.close()
            raise
        for number in range(self._count):
            self._board.cells[number] = ABSENT

    def __repr__(self) -> str:
        return f"<Queues {self._count} for each of {len(self._groups)} addresses, steered to {self._steered}>"

    def number(self, slot: int) -> int:
        """Return the index of a slot's queues in their groups."""
        return (slot - 1) % self._count

    def sockets(self, slot: int) -> tuple[socket.socket, ...]:
        """Return a slot's listening sockets: those that all workers share, and its own queues."""
        return (*self._shared, *(group[self.number(slot)] for group in self._groups))

    def shared_queues(self, slot: int) -> SharedQueues:
        """Return what a slot's worker needs to empty the other workers' queues."""
        own = self.number(slot)
        numbers = range(self._count)
        return SharedQueues(
            own=own,
            queues=tuple(() if n == own else tuple(group[n] for group in self._groups) for n in numbers),
            board=self._board,
            call_reader=self._pipes[own][0],
            call_writers=tuple(writer for _, writer in self._pipes),
        )

    def steer(self, slots: Iterable[int]) -> None:
        """Let the kernel give new connections to these slots only; without slots, all stays as it was.

        Raises:
            OSError: this system cannot.
        """
        live = tuple(sorted({self.number(slot) for slot in slots}))
        if self._closed or live == self._steered:
            return
        for number in set(self._steered) - set(live):
            self._board.cells[number] = ABSENT
        if live:
            for group in self._groups:
                attach(group[0], live)
            self._steered = live

    def hand_over(self) -> None:
        """Steer no more: the arbiter that takes this one's place does."""
        self._closed = True

    def take_over(self) -> None:
        """Steer anew: until now the old arbiter may have done so."""
        live, self._steered = self._steered, ()
        self.steer(number + 1 for number in live)

    def close_listeners(self) -> None:
        """Close the arbiter's copies of the queues, as it stops; the workers have their own."""
        self._closed = True
        for group in self._groups:
            for sock in group:
                sock.close()

    def close(self) -> None:
        """Close the queues, the pipes and the load board; each group's first socket is its listener's."""
        self._closed = True
        for group in self._groups:
            for sock in group[1:]:
                sock.close()
        for ends in self._pipes:
            for end in ends:
                end.close()
        self._board.close()
