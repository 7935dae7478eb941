"""Hides secrets of the command line from ps(1), as far as the kernel lets a process do so."""

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
