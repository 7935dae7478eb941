"""What each signal means to the arbiter, a worker and a plain server (docs/signals.md follows from here).

Also `forgive_full_wakeup`, against a deadlock in a flood of signals.
"""

from __future__ import annotations

import signal

from ostler.records import record


def forgive_full_wakeup() -> None:
    """Turn off the interpreter's warning that a flood of signals has filled the loop's wake-up descriptor.

    Call it after the loop's signal handlers are added: asyncio turns the warning on with each of them
    (signal.set_wakeup_fd, `warn_on_full_buffer`). The interpreter queues that warning from within its C
    handler, behind a lock. If the next signal of the flood comes in that moment, the process waits for itself
    for ever (seen with CPython 3.11).
    """
    signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)


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
        "drain, from Ctrl+C with 1.25 s for streams; a second one stops at once",
    ),
    Meaning("SIGQUIT", "stop at once", "stop at once", "stop at once"),
    Meaning(
        "SIGHUP",
        "rolling restart: new code, new configuration file, new certificates; settings that are wrong change "
        "nothing. If ostler runs in the foreground of a terminal that was closed: stop gracefully",
        _IGNORED,
        "with TLS, read certificates and keys again; without, refused with a warning: it takes an arbiter. "
        "If it runs in the foreground of a terminal that was closed: drain",
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
