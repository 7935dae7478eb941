"""Messages to a service manager, as datagrams on a real socket; no failure there harms the server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler.errors import BindError, StartupError
from ostler.system import sd_notify
from ostler.system.sd_notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """An address for NOTIFY_SOCKET, and the socket that is bound to it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@ostler-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1))
        sock.setblocking(False)
        yield address, sock


def waits(notifier: Notifier) -> bool:
    return notifier.pending


def test_a_message_is_one_datagram_on_a_path_or_in_the_abstract_namespace(
    manager: tuple[str, socket.socket],
) -> None:
    address, sock = manager
    notifier = sd_notify.from_environment({"NOTIFY_SOCKET": address}, os.getpid())
    notifier.send("READY=1", "STATUS=two\nlines")
    notifier.close()
    assert sock.recv(1000) == b"READY=1\nSTATUS=two lines"


def test_its_socket_is_not_inherited_by_children(manager: tuple[str, socket.socket]) -> None:
    notifier = Notifier(manager[0])
    notifier.send("READY=1")
    assert notifier._socket is not None
    assert not notifier._socket.get_inheritable()
    assert not notifier._socket.getblocking()
    notifier.close()


def test_messages_for_a_busy_manager_are_sent_later_and_in_order(
    manager: tuple[str, socket.socket],
) -> None:
    address, sock = manager
    notifier = Notifier(address)
    sent = 0
    while not waits(notifier):  # until the queue is full (net.unix.max_dgram_qlen)
        notifier.send(f"STATUS={sent}")
        sent += 1
        assert sent < 10_000
    notifier.send("READY=1")
    heard = [sock.recv(1000) for _ in range(sent - 1)]
    notifier.flush()
    assert not waits(notifier)
    heard += [sock.recv(1000), sock.recv(1000)]
    assert heard == [*(f"STATUS={n}".encode() for n in range(sent)), b"READY=1"]
    notifier.close()


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-listens-here", "/" + "x" * 300])
def test_a_missing_manager_is_no_failure(address: str) -> None:
    notifier = Notifier(address)
    notifier.send("READY=1")
    assert not notifier.pending
    notifier.close()


@pytest.mark.parametrize("address", ["relative", "vsock:2:1", "@"])
def test_an_address_that_is_not_understood_is_one_warning(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = sd_notify.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}, 1)
    assert not notifier.listens
    assert notifier.watchdog is None
    assert "the service manager is told nothing" in caplog.text


def test_without_a_manager_nothing_is_sent() -> None:
    notifier = sd_notify.from_environment({}, 1)
    notifier.send("READY=1")
    assert not notifier.listens
    assert not notifier.pending


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({"WATCHDOG_USEC": "9" * 400}, None),
        ({}, None),
    ],
)
def test_the_watchdog_counts_only_for_this_process(environ: dict[str, str], seconds: float | None) -> None:
    assert sd_notify.from_environment({"NOTIFY_SOCKET": "/x", **environ}, 7).watchdog == seconds


def test_a_failure_is_sent_with_its_message_and_error_number() -> None:
    assert sd_notify.failure(StartupError("no module")) == ("STATUS=no module",)
    error = BindError("cannot listen")
    error.__cause__ = OSError(98, "Address already in use")
    assert sd_notify.failure(error) == ("STATUS=cannot listen", "ERRNO=98")
