"""TLS of real servers: certificates, their renewal, wrong settings, and curl and openssl as clients."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.certificates import Authority
from tests.live.clients import curl, send_get
from tests.live.harness import Ostler, both, wait_until
from tests.live.load import Load


@pytest.fixture
def authority(project: Path) -> Authority:
    return Authority(project)


def served_certificate(port: int, authority: Authority) -> str:
    """Return the certificate that the server shows on a new connection, as PEM."""
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        authority.client().wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None
        return ssl.DER_cert_to_PEM_cert(certificate)


@both
def test_curl_is_served_over_tls_and_a_plain_request_is_answered_with_a_hint(
    project: Path, authority: Authority, mode: list[str]
) -> None:
    health = ["--health-path", "/healthz"]
    with Ostler(project, "main:app", "--port", "0", *mode, *authority.flags, *health) as ostler:
        port = ostler.port
        ostler.log.wait_for(rf"Ostler running on https://127.0.0.1:{port} ")
        trust = ["--cacert", str(project / "ca.pem"), "--http1.1"]
        resolve = ["--resolve", f"localhost:{port}:127.0.0.1"]
        assert curl(*trust, *resolve, f"https://localhost:{port}/").startswith("one ")
        assert curl(*trust, *resolve, f"https://localhost:{port}/healthz") == "ready\n"
        (project / "big").write_bytes(b"x" * 20_000_000)
        big = ["--data-binary", f"@{project}/big"]
        assert curl(*trust, *resolve, *big, f"https://localhost:{port}/").startswith("one ")
        expecting = ["-H", "Expect: 100-continue", "--data-binary", "abc"]
        assert curl(*trust, *resolve, *expecting, f"https://localhost:{port}/").startswith("one ")
        assert curl(*trust, *resolve, "--http1.0", f"https://localhost:{port}/").startswith("one ")
        with httpx.Client(verify=authority.client(), trust_env=False) as client:
            for _ in range(2):
                assert client.post(f"https://localhost:{port}/", content=b"x" * 100_000).status_code == 200
        assert "https" in curl(f"http://127.0.0.1:{port}/")
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


def test_tls_1_1_is_refused_and_1_2_and_1_3_are_served(project: Path, authority: Authority) -> None:
    with Ostler(project, "main:app", "--port", "0", *authority.flags) as ostler:
        address = f"127.0.0.1:{ostler.port}"
        ciphers = ["-cipher", "ALL:@SECLEVEL=0"]
        for version, served in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            done = subprocess.run(
                ["openssl", "s_client", "-connect", address, version, *ciphers],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ("BEGIN CERTIFICATE" in done.stdout) == served, done.stdout + done.stderr
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


@both
def test_a_new_certificate_is_served_after_sighup_without_a_lost_request(
    project: Path, authority: Authority, mode: list[str]
) -> None:
    with Ostler(project, "main:app", "--port", "0", *mode, *authority.flags) as ostler:
        port = ostler.port
        if mode:
            ostler.wait_ready(2)
        with Load(port, trust=authority.client()) as load:
            for renewals in (1, 2):
                before = served_certificate(port, authority)
                new = authority.certify()
                assert before != new
                ostler.send(signal.SIGHUP)
                wait_until(
                    lambda new=new: served_certificate(port, authority) == new,  # type: ignore[misc]
                    "the new certificate is shown",
                )
                if mode:
                    ostler.log.wait_for(r"Rolling restart to generation \d+ complete", count=renewals)
                load.wait_answers(100)
            assert all(served_certificate(port, authority) == new for _ in range(10))
        assert ostler.stop() == 0
    assert not load.failures
    assert "Traceback" not in ostler.log.text


@both
def test_a_certificate_that_is_wrong_at_sighup_changes_nothing(
    project: Path, authority: Authority, mode: list[str]
) -> None:
    with Ostler(project, "main:app", "--port", "0", *mode, *authority.flags) as ostler:
        port = ostler.port
        if mode:
            ostler.wait_ready(2)
        old, before = set(ostler.workers()), served_certificate(port, authority)
        with Load(port, trust=authority.client()) as load:
            (project / "cert.pem").write_text("half a certif")
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for(r"SIGHUP: .*serve.* on.*: ssl_certfile is .*no certificate in it")
            load.wait_answers(50)
            assert served_certificate(port, authority) == before
            assert set(ostler.workers()) == old
            new = authority.certify()
            ostler.send(signal.SIGHUP)
            wait_until(lambda: served_certificate(port, authority) == new, "the new certificate is shown")
        assert ostler.stop() == 0
    assert not load.failures


@both
@pytest.mark.parametrize("wrong", ["key", "password", "no password", "missing"])
def test_a_wrong_key_or_password_gives_one_line_of_error_and_exit_code_2(
    project: Path, authority: Authority, mode: list[str], wrong: str
) -> None:
    more = []
    if wrong == "key":
        shutil.copy(project / "key.pem", project / "old.pem")
        authority.certify()
        shutil.copy(project / "old.pem", project / "key.pem")
    elif wrong == "missing":
        (project / "key.pem").unlink()
    else:
        authority.encrypt_key(b"sesame")
        more = ["--ssl-keyfile-password", "simsim"] if wrong == "password" else []
    with Ostler(project, "main:app", "--port", "0", *mode, *authority.flags, *more) as ostler:
        assert ostler.wait() == 2
        ostler.log.wait_for("Error: ")
    [line] = ostler.log.text.splitlines()
    assert line.startswith(f"Error: ssl_keyfile is {project}/key.pem: ")
    assert "simsim" not in line


@both
def test_a_password_is_neither_in_the_process_titles_nor_in_the_output(
    project: Path, authority: Authority, mode: list[str]
) -> None:
    authority.encrypt_key(b"sesame")
    password = ["--ssl-keyfile-password", "sesame"]
    flags = [*authority.flags, *password, "--log-level", "trace"]
    with Ostler(project, "main:app", "--port", "0", *mode, *flags) as ostler:
        served_certificate(ostler.port, authority)
        titles = [" ".join(process.cmdline()) for process in ostler.family()]
        assert ostler.stop() == 0
    assert "--ssl-keyfile-password ******" in " ".join(titles)
    assert "sesame" not in " ".join(titles) + ostler.log.text + ostler.out.text

    with Ostler(project, "main:app", "--show-settings", *flags) as ostler:
        assert ostler.wait() == 0
    assert "***" in ostler.out.text
    assert "sesame" not in ostler.out.text


FACTORY = """
import os
import ssl


def tls(settings, default):
    os.write(1, f"called as {__name__}\\n".encode())  # one write, because two workers write to the same pipe
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def wrong(settings, default):
    return 1
"""


@both
def test_a_factory_makes_the_context_in_each_process_that_serves(
    project: Path, authority: Authority, mode: list[str]
) -> None:
    (project / "factory.py").write_text(FACTORY)
    flags = [*authority.flags, "--ssl-context-factory", "factory:tls"]
    with Ostler(project, "main:app", "--port", "0", *mode, *flags) as ostler:
        if mode:
            ostler.wait_ready(2)
        served_certificate(ostler.port, authority)
        old = authority.client()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(("127.0.0.1", ostler.port), 30) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            old.wrap_socket(plain, server_hostname="localhost")
        assert ostler.stop() == 0
    assert ostler.out.text.count("called as factory") == (2 if mode else 1)

    with Ostler(project, "main:app", "--port", "0", *mode, *flags[:-1], "factory:wrong") as ostler:
        assert ostler.wait() == 3
        ostler.log.wait_for("ssl_context_factory factory:wrong returned int: expected an ssl.SSLContext")


def test_a_stop_ends_though_a_client_does_not_finish_its_handshake(
    project: Path, authority: Authority
) -> None:
    with (
        Ostler(project, "main:app", "--port", "0", *authority.flags) as ostler,
        socket.create_connection(("127.0.0.1", ostler.port), 30) as client,
    ):
        client.sendall(b"\x16\x03\x01")
        served_certificate(ostler.port, authority)
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


@both
def test_tls_works_on_a_unix_socket_and_on_an_inherited_one(
    project: Path, authority: Authority, mode: list[str]
) -> None:
    trust = ["--cacert", str(project / "ca.pem")]
    with Ostler(project, "main:app", "--uds", "a.sock", *mode, *authority.flags) as ostler:
        ostler.log.wait_for("running on unix socket")
        path = str(project / "a.sock")
        assert curl(*trust, "--unix-socket", path, "https://localhost/").startswith("one ")
        assert ostler.stop() == 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        with Ostler(project, "main:app", "--fd", str(fd), *mode, *authority.flags, pass_fds=[fd]) as ostler:
            ostler.log.wait_for(rf"running on https://127.0.0.1:{port} ")
            served_certificate(port, authority)
            assert ostler.stop() == 0


@pytest.mark.c_libraries  # asyncio's TLS has a buffer of 256 KiB for each connection
def test_a_thousand_idle_tls_connections_take_less_than_150_kb_each(
    project: Path, authority: Authority
) -> None:
    with Ostler(
        project, "main:app", "--port", "0", "--timeout-keep-alive", "300", *authority.flags
    ) as ostler:
        [process] = ostler.family()
        trust, clients = authority.client(), []
        before = 0
        for number in range(1001):
            plain = socket.create_connection(("127.0.0.1", ostler.port), 30)
            sock = trust.wrap_socket(plain, server_hostname="localhost")
            send_get(sock)
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
            clients.append(sock)
            before = before or (process.memory_info().rss if number == 0 else 0)
        growth = process.memory_info().rss - before
        for sock in clients:
            sock.close()
        assert ostler.stop() == 0
    print(f"{growth / 1000:.0f} bytes for each idle connection")
    assert growth < 150_000_000
