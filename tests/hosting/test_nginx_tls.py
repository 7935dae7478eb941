"""ostler behind a real nginx that terminates TLS, with the file that docs/deployment/tls.md shows."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosting.nginx import APP, Nginx, nginx_directory
from tests.live.harness import Ostler
from tests.live.load import Load


@pytest.fixture
def here() -> Iterator[Path]:
    with nginx_directory() as directory:
        (directory / "main.py").write_text(APP)
        challenges = directory / ".well-known" / "acme-challenge"
        challenges.mkdir(parents=True)
        (challenges / "token").write_text("answer")
        certify(directory)
        yield directory


def certify(here: Path) -> ssl.SSLContext:
    """Write a new certificate, as certbot does, and return a client context that trusts only this one."""
    certificate, key = here / "fullchain.pem", here / "privkey.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-days", "2", "-subj", "/CN=example.com", "-addext", "subjectAltName=DNS:example.com"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, text=True
    )
    key.chmod(0o644)  # nginx's master process is not root in these tests
    return ssl.create_default_context(cafile=str(certificate))


@contextlib.contextmanager
def served(here: Path) -> Iterator[tuple[Ostler, Nginx]]:
    with Ostler(here, "main:app", "--port", "0") as ostler:
        nginx = Nginx(
            here,
            "ostler-tls.conf",
            f"127.0.0.1:{ostler.port}",
            root=f"{here};",
            certificate=f"{here}/fullchain.pem;",
            key=f"{here}/privkey.pem;",
        )
        with nginx:
            yield ostler, nginx


def ask(nginx: Nginx, trust: ssl.SSLContext) -> Any:
    """Send a request over TLS, and return what the application reports about it.

    Fails if `trust` does not trust nginx's certificate.
    """
    with nginx.connect("127.0.0.5") as plain, trust.wrap_socket(plain, server_hostname="example.com") as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 200
        assert answer.getheader("strict-transport-security")
        return json.loads(answer.read())


def test_the_scope_has_scheme_https_for_a_client_over_tls(here: Path) -> None:
    trust = certify(here)
    with served(here) as (_, nginx):
        reported = ask(nginx, trust)

        assert (reported["scheme"], reported["client"]) == ("https", ["127.0.0.5", 0])
        assert reported["headers"]["host"] == "example.com"
        assert not nginx.complaints()


def test_an_acme_challenge_is_answered_without_tls_and_other_requests_are_redirected_to_tls(
    here: Path,
) -> None:
    with served(here) as (_, nginx), contextlib.closing(nginx.client()) as client:
        client.request("GET", "/.well-known/acme-challenge/token")
        assert client.getresponse().read() == b"answer"
        client.request("GET", "/a?b", headers={"Host": "example.com"})
        answer = client.getresponse()
        answer.read()
        assert (answer.status, answer.getheader("location")) == (308, "https://example.com/a?b")


def test_a_renewed_certificate_is_served_after_a_reload_of_nginx_without_a_restart_of_ostler(
    here: Path,
) -> None:
    before = certify(here)
    with served(here) as (ostler, nginx):
        assert ask(nginx, before)
        after = certify(here)
        assert ask(nginx, before)

        # Load with one request per connection, because nginx closes idle connections when it reloads.
        with Load(nginx.port, path="/.well-known/acme-challenge/token", kept=0, fresh=4) as load:
            nginx.reload()
            load.wait_answers(50)

        assert ask(nginx, after)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(nginx, before)
        assert not load.failures
        assert ostler.log.text.count("Started server process") == 1
