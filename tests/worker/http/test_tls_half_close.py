"""A TLS client whose request, close_notify and end of TCP arrive together with the end of its handshake."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import get, hello


def test_a_client_that_sends_everything_at_once_gets_its_answer(serve: Serve, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = serve(hello, trust=authority.client(), **authority.files)
    for _ in range(10):
        assert b"200 OK" in ask_at_once(server.connect().socket.getpeername(), authority.client())


def ask_at_once(address: tuple[str, int], context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(address, 10) as tcp:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                tcp.sendall(outgoing.read())
                incoming.write(tcp.recv(65536))
        tls.write(get())
        try:
            tls.unwrap()
        except ssl.SSLWantReadError:
            tcp.sendall(outgoing.read())
        tcp.shutdown(socket.SHUT_WR)
        while data := tcp.recv(65536):
            incoming.write(data)
    try:
        return tls.read(65536)
    except ssl.SSLError:
        return b""
