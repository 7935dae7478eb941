"""Listening sockets: how they are bound, adopted and unlinked."""

import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from ostler.errors import BindError
from ostler.settings.declarations import Settings
from ostler.system import sockets


def test_port_zero_becomes_a_free_port_that_is_the_same_on_every_host() -> None:
    bound = sockets.bind_tcp(["127.0.0.1", "::1"], 0, 16)
    try:
        ports = {sock.getsockname()[1] for sock in bound}
        assert len(bound) == 2
        assert len(ports) == 1
        assert 0 not in ports
        for sock in bound:
            with socket.create_connection(sock.getsockname()[:2], timeout=5):
                pass
    finally:
        for sock in bound:
            sock.close()


def test_both_wildcards_can_be_given_together() -> None:
    bound = sockets.bind_tcp(["0.0.0.0", "::"], 0, 16)
    for sock in bound:
        sock.close()
    assert len(bound) == 2


def test_the_ipv6_wildcard_alone_serves_ipv4_too() -> None:
    [sock] = sockets.bind_tcp(["::"], 0, 16)
    with sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=5):
        pass


def test_a_port_in_use_is_refused_in_one_line_with_advice() -> None:
    [sock] = sockets.bind_tcp(["127.0.0.1"], 0, 16)
    port = sock.getsockname()[1]
    with sock, pytest.raises(BindError, match=f"127.0.0.1:{port}.*in use.*--port") as caught:
        sockets.bind_tcp(["127.0.0.1"], port, 16)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a" * 300])
def test_a_host_of_another_machine_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(BindError, match="cannot listen on"):
        sockets.bind_tcp([host], 0, 16)


def test_if_one_host_fails_the_other_sockets_are_closed() -> None:
    [probe] = sockets.bind_tcp(["127.0.0.1"], 0, 16)
    port = probe.getsockname()[1]
    probe.close()
    with pytest.raises(BindError):
        sockets.bind_tcp(["127.0.0.1", "192.0.2.1"], port, 16)
    [again] = sockets.bind_tcp(["127.0.0.1"], port, 16)
    again.close()


def test_a_unix_socket_has_its_mode_and_is_unlinked_by_close(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listener = sockets.bind_unix(str(path), 0o660, 16)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert listener.address == f"unix socket {path}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert os.listdir(tmp_path) == ["app.sock"]
    listener.close()
    assert os.listdir(tmp_path) == []


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    left_behind = sockets.bind_unix(path, 0o600, 16)
    with pytest.raises(BindError, match="another server listens there"):
        sockets.bind_unix(path, 0o600, 16)
    left_behind.socket.close()  # as a killed run does: the path stays
    listener = sockets.bind_unix(path, 0o600, 16)
    left_behind.close()  # must not take the new one's path away
    assert os.path.exists(path)
    listener.close()
    assert not os.path.exists(path)


def test_a_live_unix_socket_with_a_full_backlog_is_live(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    listener = sockets.bind_unix(path, 0o600, 0)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    try:
        for client in clients:
            client.setblocking(False)
            client.connect_ex(path)
        with pytest.raises(BindError, match="another server listens there"):
            sockets.bind_unix(path, 0o600, 16)
    finally:
        for client in clients:
            client.close()
        listener.close()


def test_a_file_at_the_path_of_a_unix_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(BindError, match="no socket lies there"):
        sockets.bind_unix(str(path), 0o600, 16)
    assert path.read_text() == "data"


@pytest.mark.parametrize("path", ["missing/app.sock", "x" * 200])
def test_an_impossible_unix_path_is_refused_in_one_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(BindError, match="cannot listen on unix socket"):
        sockets.bind_unix(str(tmp_path / path), 0o600, 16)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_an_inherited_descriptor_is_adopted_whatever_its_family(family: int, tmp_path: Path) -> None:
    address = str(tmp_path / "s") if family == socket.AF_UNIX else ("", 0)
    with socket.socket(family) as inherited:
        inherited.bind(address)
        adopted = sockets.adopt(inherited.fileno(), 16)
        with adopted:
            assert adopted.family == family
            assert adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_descriptor_that_is_no_listening_socket_is_refused_in_one_line(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file, pytest.raises(BindError, match="is not a socket"):
        sockets.adopt(file.fileno(), 16)
    with socket.socket(type=socket.SOCK_DGRAM) as udp, pytest.raises(BindError, match="not a stream"):
        sockets.adopt(udp.fileno(), 16)
    with pytest.raises(BindError, match="is not open"):
        sockets.adopt(987, 16)
    one, other = socket.socketpair()
    with one, other, pytest.raises(BindError, match="cannot listen"):
        sockets.adopt(one.fileno(), 16)


def test_the_settings_choose_between_descriptor_path_and_hosts(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    [unix] = sockets.open_listeners(Settings(uds=path))
    unix.close()
    [tcp] = sockets.open_listeners(Settings(port=0))
    assert tcp.address.startswith("http://127.0.0.1:")
    [adopted] = sockets.open_listeners(Settings(fd=tcp.socket.fileno()))
    assert adopted.address == tcp.address
    adopted.close()
    tcp.close()


@pytest.mark.parametrize("kind", ["tcp", "tcp on two hosts", "adopted"])
def test_the_kernel_has_the_backlog_of_the_settings(kind: str) -> None:
    if kind == "adopted":
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            opened = [sockets.adopt(bound.fileno(), 7)]
    else:
        opened = sockets.bind_tcp(["127.0.0.1", "::1"] if "two" in kind else ["127.0.0.1"], 0, 7)
    for sock in opened:
        with sock:
            # struct tcp_info (linux/tcp.h): of a listening socket, tcpi_sacked is how long its queue may be.
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            assert struct.unpack_from("I", info, 28)[0] == 7


def test_the_kernel_has_the_backlog_of_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    listener = sockets.bind_unix(path, 0o600, 7)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(12)]
    try:
        for client in clients:
            client.setblocking(False)
        # One more than the backlog are taken (unix(7), net/unix/af_unix.c: the queue is full *above* it).
        assert [client.connect_ex(path) == 0 for client in clients].count(True) == 8
    finally:
        for client in clients:
            client.close()
        listener.close()


def test_a_socket_that_already_listens_keeps_its_backlog() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=9) as given, sockets.adopt(given.fileno(), 7) as sock:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    assert struct.unpack_from("I", info, 28)[0] == 9


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    [sock] = sockets.bind_tcp(["::1"], 0, 16)
    with sock:
        assert sockets.describe(sock) == f"http://[::1]:{sock.getsockname()[1]}"
