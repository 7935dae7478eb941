"""What the settings of TLS accept, in uvicorn's notation too, and what they keep secret."""

from __future__ import annotations

import pickle
import ssl
from typing import Any

import pytest

from ostler.settings.declarations import Settings
from tests.settings.test_sources import load


@pytest.mark.parametrize("given", [17, 5, 2, "17", "TLSv1.2", "tlsv1.2", ssl.PROTOCOL_TLS_SERVER])
def test_a_version_in_uvicorns_notation_is_accepted(given: object) -> None:
    assert load(values={"ssl_certfile": "c", "ssl_version": given}).settings.ssl_version == "TLSv1.2"


@pytest.mark.parametrize("given", [2, "2", "required", ssl.CERT_REQUIRED])
def test_cert_reqs_in_uvicorns_notation_is_accepted(given: object) -> None:
    settings = load(values={"ssl_certfile": "c", "ssl_ca_certs": "a", "ssl_cert_reqs": given}).settings
    assert settings.ssl_cert_reqs == "required"


def test_a_password_is_not_in_the_repr() -> None:
    assert "s3cret" not in repr(load(values={"ssl_certfile": "c", "ssl_keyfile_password": "s3cret"}).settings)


def a_factory(settings: Settings, default: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = default()
    return context


def test_a_function_of_a_module_is_stored_as_its_import_string() -> None:
    settings = load(values={"ssl_context_factory": a_factory, "workers": 2}).settings

    assert settings.ssl_context_factory == "tests.settings.test_tls_kinds:a_factory"
    assert pickle.loads(pickle.dumps(settings)) == settings
