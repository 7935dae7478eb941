"""Whether a process is in the foreground of its terminal, and whether that has gone, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

SCRIPT = """
import fcntl, os, signal, sys, termios

kind = sys.argv[1]
if kind != "no terminal":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if kind == "background":
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    if os.fork():
        os.wait()
        sys.exit()
    os.setpgid(0, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN if kind == "nohup" else signal.SIG_DFL)
from ostler.system.controlling_terminal import ControllingTerminal, in_foreground

either, foreground = ControllingTerminal(background=True), ControllingTerminal()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
told = os.fdopen(3, "w")
print(in_foreground(), foreground.gone, either.gone, file=told, flush=True)
os.read(4, 1)
print(in_foreground(), foreground.gone, either.gone, file=told, flush=True)
"""


def run(kind: str, between: Callable[[int], None]) -> list[str]:
    """Return what a process says before and after `between`, which is called with the terminal's master."""
    master, slave = os.openpty()
    told, tells = os.pipe()
    goes_on, go_on = os.pipe()

    def descriptors() -> None:
        os.setsid()
        os.dup2(os.dup(tells), 3)
        os.dup2(os.dup(goes_on), 4)

    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, kind], stdin=slave, preexec_fn=descriptors, close_fds=False
    )
    os.close(slave)
    os.close(tells)
    os.close(goes_on)
    try:
        with os.fdopen(told) as lines:
            first = lines.readline()
            between(master)
            os.write(go_on, b"x")
            return [first.strip(), lines.readline().strip()]
    finally:
        os.close(go_on)
        process.wait(30)


def stay(master: int) -> None:
    pass


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("foreground", "True False False", "False True True"),
        ("background", "False False False", "False False True"),
        ("nohup", "True False False", "False False False"),
        ("no terminal", "False False False", "False False False"),
    ],
)
def test_a_terminal_that_is_closed_is_gone_for_what_was_started_at_it(
    kind: str, before: str, after: str
) -> None:
    assert run(kind, os.close) == [before, after]


def test_a_terminal_that_is_there_is_not_gone() -> None:
    master = -1

    def keep(number: int) -> None:
        nonlocal master
        master = number

    assert run("foreground", keep) == ["True False False"] * 2
    os.close(master)
