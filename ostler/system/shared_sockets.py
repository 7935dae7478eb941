"""Copies of a listening socket that other processes have, too: to make one changes nothing for the others.

Whether a socket blocks is a property of its open file description, which all its copies share (dup(2)).
CPython leaves that as it is. PyPy (seen in 8.0.1) makes a socket blocking when it makes one of a descriptor:
then a worker that another was quicker than would wait in accept(2), with its event loop.
"""

from __future__ import annotations

import socket
import sys
from typing import Any


def from_descriptor(fd: int) -> socket.socket:
    """Return a socket of the descriptor `fd`, which it owns.

    Raises:
        OSError: `fd` is not open, or not a socket.
    """
    if sys.implementation.name != "pypy":
        return socket.socket(fileno=fd)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0)
    try:
        return socket.socket(fileno=fd)
    finally:
        socket.setdefaulttimeout(before)


def prepare_spawn() -> None:
    """Let a process that multiprocessing spawns make its sockets by `from_descriptor`, where that matters."""
    if sys.implementation.name == "pypy":
        from multiprocessing.reduction import register

        register(socket.socket, _reduce)


def _reduce(sock: socket.socket) -> tuple[Any, ...]:
    from multiprocessing.reduction import DupFd

    return _from_copy, (DupFd(sock.fileno()),)


def _from_copy(copy: Any) -> socket.socket:
    return from_descriptor(copy.detach())
