"""One queue per slot for each address, kept by the arbiter: a worker's death or stop strands nothing.

Each address has its sockets in one SO_REUSEPORT group, a few more than there are slots: those wait for a
scale-up, and get no connections until then. A slot's next worker inherits its queue, and the neighbours have
it, too.
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

logger = logging.getLogger("ostler.error")

_SO_ATTACH_REUSEPORT_CBPF = 51  # <asm-generic/socket.h>; Python has no name for it


def wanted(settings: Settings, size: int) -> bool:
    """Return whether so many workers should have queues of their own.

    With --reload, whoever serves is to be the newest code and nobody minds how evenly.
    """
    if settings.reuse_port == "auto":
        return size > 1 and not settings.reload
    return settings.reuse_port == "on"


def spares(size: int) -> int:
    """Return how many queues are kept for workers that may be added.

    Workers that run cannot be given the queue of one that comes later; what is beyond these shares a queue.
    """
    return 4 + size // 4


def open_queues(listeners: Sequence[Listener], settings: Settings, size: int) -> Queues | None:
    """Return the queues of what `listeners` listen on, or None where there is to be one for all workers.

    What another arbiter has handed over stays as it was: connections may wait in each of its queues.

    Raises:
        BindError: they are asked for with `reuse_port = "on"`, and this system cannot.
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
                else _multiply(listener.socket, count, settings.backlog, opened)
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


def _multiply(
    first: socket.socket, count: int, backlog: int, opened: contextlib.ExitStack
) -> list[socket.socket]:
    """Give a listening socket its SO_REUSEPORT group, it being the first of `count`.

    It was bound, and has listened, without that option: a port that anybody has was an error then.
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
    """Give new connections of this socket's group to the queues with these numbers alone.

    Raises:
        OSError: the kernel is older than 4.6, or not Linux's.
    """
    code = array.array("B", bpf.encode(bpf.program(queues)))
    address, length = code.buffer_info()
    # struct sock_fprog: a count, and where the instructions are; the kernel copies them.
    option = struct.pack("HP", length // 8, address)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, option)


class Queues:
    """The queues of every slot, and what the workers need to help each other out.

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
        """Return the number of a slot's queues."""
        return (slot - 1) % self._count

    def sockets(self, slot: int) -> tuple[socket.socket, ...]:
        """Return what a slot's worker listens on: what all share, and its own queues."""
        return (*self._shared, *(group[self.number(slot)] for group in self._groups))

    def shared_queues(self, slot: int) -> SharedQueues:
        """Return what a slot's worker needs to look after the others' queues."""
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
        """Let new connections come to these slots alone; to whom they went before, if these are none.

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
        """Leave the steering to the arbiter that takes this one's place."""
        self._closed = True

    def take_over(self) -> None:
        """Steer anew: the arbiter whose place this is may have steered until now."""
        live, self._steered = self._steered, ()
        self.steer(number + 1 for number in live)

    def close_listeners(self) -> None:
        """Close our copies of the queues, as all ends; the workers have theirs."""
        self._closed = True
        for group in self._groups:
            for sock in group:
                sock.close()

    def close(self) -> None:
        """Close everything."""
        self._closed = True
        for group in self._groups:
            for sock in group[1:]:  # the first is its listener's
                sock.close()
        for ends in self._pipes:
            for end in ends:
                end.close()
        self._board.close()
