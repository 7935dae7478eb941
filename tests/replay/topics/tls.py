"""TLS: certificates, versions, clients' certificates, and what a client in clear gets."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from tests.replay.behaviours import command
from tests.replay.servers import Running

TLS = ("--ssl-certfile", "DIR/cert.pem", "--ssl-keyfile", "DIR/key.pem")


def tls(name: str, *args: str, do: Callable[[Running], Any], see: Sequence[str] = ("result",)) -> None:
    """Add a behaviour: serve over TLS, and `do` something."""

    def listening(running: Running) -> Any:
        running.errors.wait_for("startup complete")
        running.errors.wait_for("unning on")
        return do(running)

    command(
        f"TLS/{name}", "main:app", "--port", "0", *args, do=listening, ready=False, stop="SIGINT", see=see
    )


def shakes_hands(**settings: Any) -> Callable[[Running], Any]:
    """Return what does a handshake with these settings of the client's context, and says what was agreed."""

    def do(running: Running) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if "maximum" in settings:
            context.maximum_version = settings["maximum"]
        if "alpn" in settings:
            context.set_alpn_protocols(settings["alpn"])
        try:
            with (
                socket.create_connection(("127.0.0.1", running.port), 10) as raw,
                context.wrap_socket(raw) as sock,
            ):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                data = b"".join(iter(lambda: sock.recv(65536), b""))
                if not data:
                    return "refused"  # whether the alert or the end is seen depends on OpenSSL's version
                return [sock.version(), sock.selected_alpn_protocol(), data.split(b"\r\n")[0].decode()]
        except (ssl.SSLError, ConnectionError):
            return "refused"

    return do


def in_clear(running: Running) -> Any:
    """Return the answer to plain HTTP."""
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", running.port), 10) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        return sock.recv(65536).split(b"\r\n")[0].decode()
    return ""


def answers(running: Running) -> Any:
    """Return status and body."""
    status, _, body = running.request("/")
    return [status, body]


tls("a certificate and a key", *TLS, do=answers)
tls("with workers", *TLS, "--workers", "2", do=answers)
tls("certificate and key in one file", "--ssl-certfile", "DIR/both.pem", do=answers)
tls("the newest version is TLS 1.3", *TLS, do=shakes_hands())
tls("TLS 1.2", *TLS, do=shakes_hands(maximum=ssl.TLSVersion.TLSv1_2))
tls("ALPN http/1.1", *TLS, do=shakes_hands(alpn=["http/1.1"]))
tls("ALPN h2", *TLS, do=shakes_hands(alpn=["h2"]))
tls("ALPN h2 or http/1.1", *TLS, do=shakes_hands(alpn=["h2", "http/1.1"]))
tls(
    "a client without the certificate that is wanted",
    *TLS,
    "--ssl-cert-reqs",
    "2",
    "--ssl-ca-certs",
    "DIR/ca.pem",
    do=shakes_hands(),
)
tls(
    "a client without the certificate that is optional",
    *TLS,
    "--ssl-cert-reqs",
    "1",
    "--ssl-ca-certs",
    "DIR/ca.pem",
    do=shakes_hands(),
)
tls(
    "ciphers",
    *TLS,
    "--ssl-ciphers",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    do=shakes_hands(maximum=ssl.TLSVersion.TLSv1_2),
)
tls("plain HTTP", *TLS, do=in_clear)
tls("--ssl-version 17", *TLS, "--ssl-version", "17", do=answers)
command(
    "TLS/a key that does not fit",
    "main:app",
    "--port",
    "0",
    "--ssl-certfile",
    "DIR/cert.pem",
    "--ssl-keyfile",
    "DIR/ca.pem",
    see=("exit",),
)
command("TLS/unknown ciphers", "main:app", "--port", "0", *TLS, "--ssl-ciphers", "nonsense", see=("exit",))
command(
    "TLS/a certificate that is no certificate",
    "main:app",
    "--port",
    "0",
    "--ssl-certfile",
    "main.py",
    "--ssl-keyfile",
    "main.py",
    see=("exit",),
)
