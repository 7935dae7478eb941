"""A queue for each slot: when slots get queues of their own, and which queues get connections."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from ostler.errors import BindError
from ostler.ipc.load_board import ABSENT
from ostler.settings.declarations import Settings
from ostler.supervisor.balancing.queues import Queues, open_queues, spares, wanted
from ostler.system import sockets
from ostler.system.sockets import Listener


@contextlib.contextmanager
def opened(size: int = 2, host: str = "127.0.0.1") -> Iterator[tuple[Queues, Listener]]:
    settings = Settings(host=(host,), port=0)
    [listener] = sockets.open_listeners(settings)
    queues = open_queues([listener], settings, size)
    assert queues is not None
    try:
        yield queues, listener
    finally:
        queues.close()
        listener.close()


def met(queues: Queues, slots: range, address: tuple[str, int]) -> set[int]:
    """The slots that 60 connections are given to."""
    found = set()
    for _ in range(60):
        with socket.create_connection(address):
            for slot in slots:
                [queue] = queues.sockets(slot)
                queue.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    queue.accept()[0].close()
                    found.add(slot)
    return found


def test_auto_gives_queues_to_several_workers_without_reload() -> None:
    assert wanted(Settings(), 2)
    assert not wanted(Settings(), 1)
    assert not wanted(Settings(reload=True), 2)
    assert wanted(Settings(reuse_port="on", reload=True), 1)
    assert not wanted(Settings(reuse_port="off"), 2)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_connections_go_only_to_the_slots_that_they_are_steered_to(host: str) -> None:
    with opened(4, host) as (queues, listener):
        port = listener.socket.getsockname()[1]
        address = ("::1" if ":" in host else "127.0.0.1", port)
        everyone = range(1, 4 + spares(4) + 1)
        assert met(queues, everyone, address) == {1, 2, 3, 4}
        queues.steer({2, 3, 6})
        assert met(queues, everyone, address) == {2, 3, 6}
        queues.steer(())
        assert met(queues, everyone, address) == {2, 3, 6}


def test_a_slot_that_gets_no_more_connections_is_absent_on_the_board() -> None:
    with opened() as (queues, _):
        cells = queues.shared_queues(1).board.cells
        cells[0] = cells[1] = 7
        queues.steer({2})
        assert cells[:2].tolist() == [ABSENT, 7]


def test_a_slot_beyond_the_spare_queues_shares_one() -> None:
    with opened() as (queues, _):
        count = 2 + spares(2)
        assert queues.sockets(count + 1) == queues.sockets(1)
        assert queues.shared_queues(1).queues[0] == ()
        assert sum(len(group) for group in queues.shared_queues(1).queues) == count - 1


def test_a_port_that_is_shared_already_is_an_error() -> None:
    with opened() as (_, listener):
        port = listener.socket.getsockname()[1]
        with pytest.raises(BindError, match="another process has it"):
            sockets.open_listeners(Settings(port=port))


def test_an_inherited_socket_stays_one_queue(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(port=0, reuse_port="on")
    [listener] = sockets.open_listeners(settings)
    given = Listener(listener.socket, origin="systemd")
    with contextlib.closing(listener):
        assert open_queues([given], settings, 2) is None
    assert "has one queue, which all workers share" in caplog.text


class Foreign(socket.socket):
    """A listening socket on a system that does not know SO_REUSEPORT."""

    def setsockopt(self, *args: object) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")


def test_on_a_system_without_reuse_port_auto_does_without_and_on_is_an_error() -> None:
    with Foreign() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        assert open_queues([Listener(foreign)], Settings(), 2) is None
        with pytest.raises(BindError, match="--reuse-port auto does without"):
            open_queues([Listener(foreign)], Settings(reuse_port="on"), 2)
