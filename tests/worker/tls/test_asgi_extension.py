"""The ASGI TLS extension in the scope."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import TlsClient, Way, get, respond

WAYS = (Way("httptools", "uvloop"), Way("h11", "asyncio"))


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Scopes:
    """Keeps the scopes that it is called with."""

    def __init__(self) -> None:
        self.seen: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        await respond(send, repr((scope["client"], scope["scheme"])).encode())


def test_the_extension_is_made_once_for_each_connection(serve: Serve, authority: Authority) -> None:
    app = Scopes()
    server = serve(app, trust=authority.client(), **authority.files)
    client = server.connect()
    assert isinstance(client, TlsClient)
    client.ask(get())
    client.ask(get())

    first, second = app.seen
    assert first["scheme"] == "https"
    assert first["extensions"]["tls"] == {
        "server_cert": client.shown,
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": {"TLS_AES_256_GCM_SHA384": 0x1302, "TLS_AES_128_GCM_SHA256": 0x1301}[
            client.socket.cipher()[0]  # type: ignore[attr-defined]
        ],
    }
    assert second["extensions"]["tls"] is first["extensions"]["tls"]
    assert second["extensions"] is not first["extensions"]


def test_without_tls_there_is_no_such_extension(serve: Serve) -> None:
    app = Scopes()
    serve(app).ask(get())
    assert "tls" not in app.seen[0]["extensions"]


def test_tls_1_2_and_its_cipher_have_their_numbers(serve: Serve, authority: Authority) -> None:
    app = Scopes()
    trust = authority.client()
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    trust.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    serve(app, trust=trust, **authority.files).ask(get())

    told = app.seen[0]["extensions"]["tls"]
    assert (told["tls_version"], told["cipher_suite"]) == (0x0303, 0xC02B)  # RFC 5289, section 3.2


def test_a_clients_certificate_is_in_the_extension(serve: Serve, authority: Authority) -> None:
    app = Scopes()
    certificate = authority.ca.issue_cert("client.example", common_name="Löwe, the #1")
    serve(app, trust=authority.client(certificate), **authority.mutual).ask(get())

    told = app.seen[0]["extensions"]["tls"]
    sent = certificate.cert_chain_pems[0].bytes()
    # Clients also send the authority that they trust themselves; Python 3.13 and newer give it.
    chain = (sent.decode(), authority.ca.cert_pem.bytes().decode())
    assert told["client_cert_chain"] == (chain if sys.version_info >= (3, 13) else chain[:1])
    assert told["client_cert_name"].startswith("CN=Löwe\\, the #1,OU=")
    assert told["client_cert_error"] is None


def test_an_optional_certificate_may_be_missing(serve: Serve, authority: Authority) -> None:
    app = Scopes()
    serve(app, trust=authority.client(), **authority.mutual).ask(get())

    told = app.seen[0]["extensions"]["tls"]
    assert (told["client_cert_chain"], told["client_cert_name"]) == ((), None)
