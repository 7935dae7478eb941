"""The SSLContext that settings make: safe by default, and each mistake in a file is one line."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings
from ostler.tls import context as tls_context
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def make(authority: Authority, **settings: Any) -> ssl.SSLContext:
    return tls_context.make_context(Settings(**{**authority.files, **settings}), str(authority.directory))


def refusal(authority: Authority, **settings: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        make(authority, **settings)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_the_defaults_are_safe(authority: Authority) -> None:
    context = make(authority)

    assert context.protocol == ssl.PROTOCOL_TLS_SERVER
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE
    for option in (ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION, ssl.OP_CIPHER_SERVER_PREFERENCE):
        assert context.options & option
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert not [name for name in names if any(weak in name for weak in ("RC4", "3DES", "NULL", "EXP", "MD5"))]


def test_the_context_has_what_the_settings_say(authority: Authority) -> None:
    context = make(
        authority,
        ssl_version="TLSv1.3",
        ssl_cert_reqs="required",
        ssl_ca_certs="ca.pem",
        ssl_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256",
    )

    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    old = [c["name"] for c in context.get_ciphers() if not c["name"].startswith("TLS_")]
    assert old == ["ECDHE-ECDSA-AES128-GCM-SHA256"]


def test_a_key_may_be_in_the_file_of_the_certificate(authority: Authority) -> None:
    context = make(authority, ssl_certfile="both.pem", ssl_keyfile=None)

    assert isinstance(context, tls_context.ServerContext)
    assert context.certificate is not None
    assert context.certificate in (authority.directory / "cert.pem").read_text()


def test_an_encrypted_key_is_decrypted_with_its_password(authority: Authority) -> None:
    authority.encrypt_key(b"sesame")

    make(authority, ssl_keyfile_password="sesame")


@pytest.mark.parametrize("name", ["ssl_certfile", "ssl_keyfile", "ssl_ca_certs"])
def test_a_file_that_is_not_there_is_one_line(authority: Authority, name: str) -> None:
    line = refusal(authority, **{name: "gone.pem"})

    assert line == f"{name} is {authority.directory}/gone.pem: No such file or directory"


@pytest.mark.parametrize("name", ["ssl_certfile", "ssl_keyfile", "ssl_ca_certs"])
def test_a_file_that_is_not_pem_is_one_line(authority: Authority, name: str) -> None:
    (authority.directory / "der").write_bytes(b"\x30\x82\xff\0")

    what = "private key" if name == "ssl_keyfile" else "certificate"
    expected = f"{name} is {authority.directory}/der: there is no {what} in it in PEM form"
    assert refusal(authority, **{name: "der"}) == expected


@pytest.mark.parametrize("name", ["ssl_certfile", "ssl_keyfile", "ssl_ca_certs"])
def test_damaged_pem_is_one_line(authority: Authority, name: str) -> None:
    kind = "PRIVATE KEY" if name == "ssl_keyfile" else "CERTIFICATE"
    text = f"-----BEGIN {kind}-----\nMIIBroken\n-----END {kind}-----\n"
    (authority.directory / "bad.pem").write_text(text)

    assert "bad.pem" in refusal(authority, **{name: "bad.pem"})


def test_a_directory_in_place_of_a_file_is_one_line(authority: Authority) -> None:
    assert refusal(authority, ssl_certfile=".").endswith("it is no regular file")


def test_a_certificate_without_a_key_is_one_line(authority: Authority) -> None:
    line = refusal(authority, ssl_keyfile=None)

    assert "no private key" in line
    assert "--ssl-keyfile" in line


def test_a_key_of_another_certificate_is_one_line(authority: Authority) -> None:
    (authority.directory / "old.pem").write_bytes((authority.directory / "key.pem").read_bytes())
    authority.certify()

    assert "does not belong to the certificate" in refusal(authority, ssl_keyfile="old.pem")


def test_an_encrypted_key_without_a_password_is_one_line_and_no_prompt(authority: Authority) -> None:
    authority.encrypt_key(b"sesame")

    assert refusal(authority).endswith("the key is encrypted: give its password by ssl_keyfile_password")


@pytest.mark.parametrize("password", ["simsim", "x" * 5000])
def test_a_wrong_password_is_one_line_that_does_not_show_it(authority: Authority, password: str) -> None:
    authority.encrypt_key(b"sesame")

    line = refusal(authority, ssl_keyfile_password=password)

    assert line.startswith(f"ssl_keyfile is {authority.directory}/key.pem: ")
    assert password not in line


def test_ciphers_that_do_not_exist_are_one_line(authority: Authority) -> None:
    assert refusal(authority, ssl_ciphers="ROT13").startswith("ssl_ciphers is 'ROT13': ")


def test_with_two_certificate_chains_there_is_no_single_certificate(authority: Authority) -> None:
    context = make(authority)
    assert isinstance(context, tls_context.ServerContext)

    context.load_cert_chain(authority.directory / "both.pem")

    assert context.certificate is None
