"""A copy of a listening socket leaves the other processes' copies as they are."""

from __future__ import annotations

import multiprocessing
import os
import socket

from ostler.system.shared_sockets import from_descriptor, prepare_spawn


def test_a_socket_made_of_a_descriptor_leaves_its_copies_non_blocking() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        with from_descriptor(os.dup(listening.fileno())) as copy:
            assert copy.getsockname() == listening.getsockname()
            assert (copy.family, copy.type) == (listening.family, socket.SOCK_STREAM)
        assert not os.get_blocking(listening.fileno())
    assert socket.getdefaulttimeout() is None


def test_a_socket_that_a_spawned_process_gets_stays_non_blocking() -> None:
    prepare_spawn()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        process = multiprocessing.get_context("spawn").Process(target=socket.socket.fileno, args=(listening,))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert not os.get_blocking(listening.fileno())
