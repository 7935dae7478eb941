"""What each signal means to the arbiter, a worker and a plain server (docs/signals.md follows from here).

Also how to signal one thread of a process, and how to survive a flood of signals.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from ostler.records import record

HURRY_SIGNAL = signal.SIGURG
"""From the arbiter to a worker, never from an operator: the code has changed, leave. Nothing else sends it
unasked (signal(7)), and like any signal it takes effect before the worker's next line of Python."""


def forgive_full_wakeup() -> None:
    """Turn off the interpreter's warning that a flood of signals has filled the loop's wake-up descriptor.

    Call it after the loop's signal handlers are added: asyncio turns the warning on with each of them
    (signal.set_wakeup_fd, `warn_on_full_buffer`). The interpreter queues that warning from within its C
    handler, behind a lock. If the next signal of the flood comes in that moment, the process waits for itself
    for ever (seen with CPython 3.11).
    """
    signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)


def thread_ids(pid: int) -> list[int]:
    """Return the ids of a process's threads, in ascending order; none where there is no /proc."""
    with contextlib.suppress(OSError):
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    return []


def signal_another_thread(
    pid: int,
    number: int,
    *,
    thread_ids: Callable[[int], list[int]] = thread_ids,
    tgkill: Callable[[int, int, int], None] | None = None,
) -> None:
    """Send a signal to a thread of process `pid`, a child not yet reaped, that is not its main thread.

    A thread may end at any time, and its id may then be that of another process. tgkill(2) takes the
    process's id as well, and sends nothing where the two do not belong together. Without tgkill, or without
    another thread, the signal goes to the process: the kernel then prefers its main thread.

    Raises:
        ProcessLookupError: there is no such process.
    """
    tgkill = tgkill or _find_tgkill()
    if tgkill is not None:
        for thread in thread_ids(pid):
            if thread == pid:
                continue
            with contextlib.suppress(ProcessLookupError):  # this thread has ended
                tgkill(pid, thread, number)
                return
    os.kill(pid, number)


def _find_tgkill() -> Callable[[int, int, int], None] | None:
    """Return tgkill(2), which Python does not offer; None if the C library has none (glibc before 2.30)."""
    try:
        import ctypes  # for a worker that hangs only: the arbiter stays small

        function = ctypes.CDLL(None, use_errno=True).tgkill
    except Exception:  # noqa: BLE001 - also what a Python that is being replaced raises: there is none then
        return None

    def tgkill(pid: int, thread: int, number: int) -> None:
        if function(pid, thread, number):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))  # ESRCH makes it a ProcessLookupError

    return tgkill


@record
class Meaning:
    """One signal: what each kind of process does on it, in words."""

    name: str
    arbiter: str
    worker: str
    plain: str


_DRAIN = "drain: accept what waits in the queue, finish what is in flight, then exit"
_IGNORED = "ignored: the arbiter decides"

MEANINGS = (
    Meaning("SIGTERM", "stop gracefully: every worker drains", _DRAIN, _DRAIN),
    Meaning(
        "SIGINT",
        "stop gracefully; a second one stops at once",
        _IGNORED,
        "drain; a second one stops at once",
    ),
    Meaning("SIGQUIT", "stop at once", "stop at once", "stop at once"),
    Meaning(
        "SIGHUP",
        "rolling restart: new code, new configuration file, new certificates; settings that are wrong change "
        "nothing",
        _IGNORED,
        "with TLS, read certificates and keys again; without, refused with a warning: it takes an arbiter",
    ),
    Meaning("SIGTTIN", "one worker more", _IGNORED, "refused with a warning: it takes an arbiter"),
    Meaning(
        "SIGTTOU",
        "one worker fewer, never below one",
        _IGNORED,
        "refused with a warning: it takes an arbiter",
    ),
    Meaning(
        "SIGUSR1",
        "reopen log files, in every process",
        "reopen log files",
        "reopen log files",
    ),
    Meaning(
        "SIGUSR2",
        "replace the arbiter itself by one that is started from what is installed now, the sockets kept; "
        "where that fails, it serves on",
        "write the stacks of all threads to the arbiter's log",
        "write the stacks of all threads to stderr",
    ),
)


def arbiter_table() -> str:
    """Return the table of what the arbiter does, as README.md shows it (GitHub Flavored Markdown)."""
    rows = [f"| {meaning.name} | {meaning.arbiter} |" for meaning in MEANINGS]
    return "\n".join(["| signal | arbiter |", "| --- | --- |", *rows]) + "\n"
