"""What a service manager is told, over a real socket; and nothing, without one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from ostler.supervisor.fleet.events import Timings
from ostler.supervisor.fleet.fleet import Fleet
from ostler.supervisor.systemd_notifier import SystemdNotifier
from ostler.system.sd_notify import Notifier


def fleet() -> Fleet:
    return Fleet(1, Timings(startup=inf, healthcheck=inf, graceful=1.0))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(10)
        yield receiver


def test_without_a_service_manager_every_method_is_a_no_op() -> None:
    notifier = Notifier()
    systemd = SystemdNotifier(notifier)

    systemd.update(fleet())
    systemd.reload_asked()
    systemd.reload_begins(2)
    systemd.reload_refused("why", fleet())
    systemd.stop_asked(fleet())

    assert systemd.deadline() is None
    assert not notifier.pending


def test_an_order_to_stop_is_sent(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    systemd = SystemdNotifier(notifier)

    systemd.stop_asked(fleet())

    assert b"STOPPING=1" in manager.recv(4096)
    notifier.close()


def test_after_a_hand_over_only_the_new_arbiter_speaks(manager: socket.socket) -> None:
    old, new = Notifier(manager.getsockname()), Notifier(manager.getsockname())
    new.held = True
    before, after = SystemdNotifier(old), SystemdNotifier(new)

    after.stop_asked(fleet())  # not sent: the old one speaks
    before.hand_over(4711)
    before.stop_asked(fleet())  # not sent: the new one speaks
    after.take_over(fleet())

    assert manager.recv(4096) == b"MAINPID=4711"
    assert b"STOPPING=1" in manager.recv(4096)
    old.close()
    new.close()
