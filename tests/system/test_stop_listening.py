"""Ending a listening socket: nobody new connects, what waits is served, and no other holder listens."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler.system.stop_listening import refuse_new, shut_down

SECONDS = 0.2
"""How long a client tries to connect. The kernel answers a SYN on this machine at once."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told to ignore SYNs")


@pytest.fixture(params=["IPv4", "IPv6", "Unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    if request.param == "Unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "s"))
        sock.listen()
    elif request.param == "IPv6":
        sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
    else:
        sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    yield sock
    sock.close()


def connect(listener: socket.socket, seconds: float = 10.0) -> socket.socket:
    client = socket.socket(listener.family)
    client.settimeout(seconds)
    try:
        client.connect(listener.getsockname())
    except BaseException:
        client.close()
        raise
    return client


@linux
def test_who_has_connected_is_served_and_nobody_else_can_connect(listener: socket.socket) -> None:
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(connect(listener)) for _ in range(3)]
        refuse_new(listener)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            connect(listener, SECONDS)
        for client in clients:
            accepted = opened.enter_context(listener.accept()[0])
            accepted.settimeout(10)
            client.sendall(b"asked")
            assert accepted.recv(10) == b"asked"
            accepted.sendall(b"answered")
            assert client.recv(10) == b"answered"
        with pytest.raises(BlockingIOError):
            listener.accept()
        refuse_new(listener)  # a second call is a no-op


def test_nobody_listens_any_more_though_another_descriptor_is_open(listener: socket.socket) -> None:
    address = listener.getsockname()
    with listener.dup():
        shut_down(listener)
        shut_down(listener)
        listener.close()
        with socket.socket(listener.family) as client, pytest.raises(ConnectionRefusedError):
            client.connect(address)
        if listener.family != socket.AF_UNIX:
            with socket.create_server(address[:2], family=listener.family):
                pass


def test_a_socket_that_is_closed_is_no_error() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.close()
    refuse_new(sock)
    shut_down(sock)


@linux
def test_a_tcp_client_that_is_ignored_is_refused_in_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        refuse_new(listener)
        client.setblocking(False)
        assert client.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        shut_down(listener)
        poll = select.poll()
        poll.register(client, select.POLLOUT)
        assert poll.poll(10_000)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
