"""Which sockets a service manager has passed, and how they are adopted."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler.errors import BindError
from ostler.system import socket_activation
from ostler.system.socket_activation import PassedSockets


def environ(**changed: str) -> dict[str, str]:
    return {"LISTEN_PID": "7", "LISTEN_FDS": "2", **changed}


def test_the_variables_give_the_number_and_the_names() -> None:
    assert socket_activation.read(environ(), 7) == PassedSockets(2)
    assert socket_activation.read(environ(LISTEN_FDNAMES="web:admin"), 7) == PassedSockets(
        2, ("web", "admin")
    )
    assert list(PassedSockets(2).descriptors()) == [3, 4]


def test_without_variables_nothing_is_passed() -> None:
    assert socket_activation.read({}, 7) == PassedSockets()
    assert socket_activation.read({"LISTEN_PID": "7"}, 7) == PassedSockets()


def test_sockets_for_another_process_are_ignored() -> None:
    assert socket_activation.read(environ(LISTEN_PID="8"), 7).count == 0
    assert (
        "LISTEN_PID is 8 and this process is 7"
        in socket_activation.read(environ(LISTEN_PID="8"), 7).ignored_because
    )
    assert socket_activation.read({"LISTEN_FDS": "1"}, 7) == PassedSockets(
        ignored_because="LISTEN_PID is not set"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"LISTEN_FDS": "two"},
        {"LISTEN_FDS": "-1"},
        {"LISTEN_FDS": ""},
        {"LISTEN_FDS": "²"},
        {"LISTEN_FDS": "9" * 30},
        {"LISTEN_FDS": "9" * 5000},
        {"LISTEN_PID": "9" * 5000},
        {"LISTEN_PID": "me"},
        {"LISTEN_FDNAMES": "only-one"},
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_its_variable(wrong: dict[str, str]) -> None:
    [name] = wrong
    with pytest.raises(BindError, match=f"^{name} is '[^\n]*$"):
        socket_activation.read(environ(**wrong), 7)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A descriptor number, used as the first that is passed; the numbers after it are free."""
    monkeypatch.setattr(socket_activation, "FIRST", 700)
    yield 700
    for fd in range(700, 710):
        try:
            os.close(fd)
        except OSError:
            continue


def test_passed_sockets_are_adopted_and_the_inherited_descriptors_closed(at: int, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        os.dup2(tcp.fileno(), at)
        os.dup2(unix.fileno(), at + 1)
        adopted = socket_activation.listeners(PassedSockets(2, ("web", "admin")), 16)
    addresses = [(listener.address, listener.origin) for listener in adopted]
    assert addresses == [
        (f"http://127.0.0.1:{port}", "systemd (web)"),
        (f"unix socket {path}", "systemd (admin)"),
    ]
    for fd in (at, at + 1):
        with pytest.raises(OSError, match="Bad file descriptor"):
            fcntl.fcntl(fd, fcntl.F_GETFD)
    assert not any(listener.socket.get_inheritable() for listener in adopted)
    for listener in adopted:
        listener.close()
    assert path.exists()  # the service manager owns it


def test_a_closed_descriptor_or_other_socket_is_refused_in_one_line(at: int) -> None:
    with pytest.raises(BindError, match=r"LISTEN_FDS=1: descriptor 700 is not open"):
        socket_activation.listeners(PassedSockets(1), 16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        os.dup2(udp.fileno(), at)
    with pytest.raises(BindError, match=r"LISTEN_FDS=1: descriptor 700 is not a stream socket"):
        socket_activation.listeners(PassedSockets(1), 16)


def test_a_connection_instead_of_a_listening_socket_is_refused_with_advice(at: int) -> None:
    one, other = socket.socketpair()
    with one, other:
        os.dup2(one.fileno(), at)
        with pytest.raises(BindError, match=r"LISTEN_FDS=1: descriptor 700 is a connection.*Accept=no"):
            socket_activation.listeners(PassedSockets(1), 16)
