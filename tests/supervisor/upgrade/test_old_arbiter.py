"""The old arbiter's side of an upgrade, with a real process in the new arbiter's place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

from ostler.settings.declarations import Settings
from ostler.supervisor.event_loop import EventLoop
from ostler.supervisor.upgrade.command import Command
from ostler.supervisor.upgrade.old_arbiter import OldArbiter

MANY_DESCRIPTORS = """
import os, resource, signal, sys

from ostler.settings.declarations import Settings
from ostler.supervisor.event_loop import EventLoop
from ostler.supervisor.upgrade.command import Command
from ostler.supervisor.upgrade.old_arbiter import OldArbiter

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard > 0 else 4096, hard))
while os.dup(2) < 1100:
    pass
loop = EventLoop()
# It stands for a new arbiter that ends at SIGTERM.
command = Command((sys.executable, "-c", "print(input())"), os.getcwd(), dict(os.environ))
old = OldArbiter(loop, command, [], Settings(app="main:app"), print)
old.upgrade(Settings(app="main:app"), stopping=False, served=True, newcomer=False)
assert old._channel.fileno() > 1023
old.stop(signal.SIGTERM)
old.close()
assert old._channel is None
print("closed")
"""


def test_the_end_of_a_new_arbiter_is_awaited_on_a_descriptor_over_1023() -> None:
    program = [sys.executable, "-c", MANY_DESCRIPTORS]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, stdin=subprocess.PIPE)

    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


class Unstartable(Command):
    """A command whose installation is being replaced."""

    def start(self, added: Mapping[str, str], descriptors: Sequence[int]) -> tuple[int, int]:
        raise ImportError("No module named 'subprocess'")


def test_an_installation_that_is_half_replaced_ends_the_upgrade_and_not_the_arbiter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = EventLoop()
    old = OldArbiter(loop, Unstartable((), os.curdir, {}), [], Settings(app="main:app"), print)

    old.upgrade(Settings(app="main:app"), stopping=False, served=True, newcomer=False)

    assert "Upgrade given up, this arbiter serves on" in caplog.text
    assert "(ImportError: No module named 'subprocess')" in caplog.text
    assert old.deadline() is None
    old.close()
    loop.close()
