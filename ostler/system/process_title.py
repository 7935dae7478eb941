"""Overwrites this process's arguments: a worker's title for ps(1), and asterisks in place of secrets.

Relies on Linux: a process's arguments are in its own memory, at the addresses in fields 48 and 49 of
/proc/self/stat (proc_pid_stat(5)), and /proc/self/mem is writable. Where one of these is missing (another
system, /proc not mounted, a kernel that forbids the write), reading or writing fails with an OSError,
ValueError or IndexError. Then nothing is changed and nothing is logged: a title is a convenience, and
arguments that hold secrets have been visible from the start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

_UNSUPPORTED = (OSError, ValueError, IndexError)


def set_title(title: str) -> None:
    """Show `title` as this process's arguments in ps(1) and top(1), cut off where the arguments ended."""
    with contextlib.suppress(*_UNSUPPORTED):
        with open("/proc/self/comm", "w") as comm:
            # Without a space: before they warn of a fork, Python 3.12 and newer ask /proc/self/stat for the
            # number of threads. They expect no space in the name, and take the niceness for that number.
            comm.write("ostler-worker")
        start, end = _argument_area()
        room = end - start - 1
        _overwrite(start, title.encode()[:room].ljust(room + 1, b"\0"))


def conceal(flags: Iterable[str]) -> None:
    """Replace the values of these flags by asterisks in this process's arguments.

    Before this call every user of the machine can read them: a variable or a file is the better place.
    """
    with contextlib.suppress(*_UNSUPPORTED):
        with open("/proc/self/cmdline", "rb") as file:
            arguments = file.read()
        hidden = masked(arguments, [flag.encode() for flag in flags])
        if hidden != arguments:
            start, _ = _argument_area()
            _overwrite(start, hidden)


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


def _argument_area() -> tuple[int, int]:
    """Return the addresses at which the arguments of this process begin and end."""
    with open("/proc/self/stat") as stat:
        # Split after the second field, the name in parentheses, which may contain spaces.
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[48 - 3]), int(fields[49 - 3])


def _overwrite(address: int, data: bytes) -> None:
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(data)
