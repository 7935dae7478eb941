"""Writes over a process's own arguments: a worker's title in ps(1), and asterisks for secrets.

Relies on Linux keeping the arguments in the process's own memory (proc(5): /proc/self/stat, fields 48 and 49)
and on /proc/self/mem being writable. Where either is missing, nothing is changed and nothing is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable


def conceal(flags: Iterable[str]) -> None:
    """Overwrite what these flags were given, in what others see of this process's arguments (proc(5)).

    Until then anybody on the machine can have read it: a variable or a file is the better place.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/cmdline", "rb") as file:
            arguments = file.read()
        hidden = masked(arguments, [flag.encode() for flag in flags])
        if hidden == arguments:
            return
        with open("/proc/self/stat") as stat:
            # Fields are counted after the name, which may hold spaces: the arguments begin at the 48th.
            start = int(stat.read().rpartition(")")[2].split()[45])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(hidden)


def masked(arguments: bytes, flags: list[bytes]) -> bytes:
    """Return NUL-separated arguments, as long as before, with asterisks for the values of `flags`."""
    parts = arguments.split(b"\0")
    for index, part in enumerate(parts):
        name, equals, value = part.partition(b"=")
        if name not in flags:
            continue
        if equals:
            parts[index] = name + equals + b"*" * len(value)
        elif index + 1 < len(parts):
            parts[index + 1] = b"*" * len(parts[index + 1])
    return b"\0".join(parts)


def set_title(title: str) -> None:
    """Show `title` in ps(1) and top(1): Linux keeps a process's arguments in its own memory (proc(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/comm", "w") as comm:
            comm.write("ostler worker")
        with open("/proc/self/stat") as stat:
            # Fields are counted after the name, which may hold spaces: 48 and 49 of the line.
            fields = stat.read().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        room = end - start - 1
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(title.encode()[:room].ljust(room + 1, b"\0"))
