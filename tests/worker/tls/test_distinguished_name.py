"""The subject of a certificate as one string."""

from __future__ import annotations

import datetime

import pytest

from ostler.worker.tls.distinguished_name import subject

pytest.importorskip("cryptography", reason="cryptography needs Rust where it has no wheels, as on PyPy")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("2.5.4.3", "a")], "CN=a"),
        ([("2.5.4.6", "DE"), ("2.5.4.10", "Sue, Grabbit + Runn"), ("2.5.4.3", "L. Eagle")],
         "CN=L. Eagle,O=Sue\\, Grabbit \\+ Runn,C=DE"),
        ([("2.5.4.3", " # a ")], "CN=\\ # a\\ "),
        ([("2.5.4.3", "#1")], "CN=\\#1"),
        ([("2.5.4.3", ' ')], "CN=\\ "),
        ([("2.5.4.3", 'a"b\\c<d>e;f=g')], 'CN=a\\"b\\\\c\\<d\\>e\\;f=g'),
        ([("2.5.4.3", "a\0b\rc")], "CN=a\\00b\\0dc"),
        ([("2.5.4.3", "Lučić")], "CN=Lučić"),
        ([("0.9.2342.19200300.100.1.25", "net"), ("0.9.2342.19200300.100.1.1", "js")], "UID=js,DC=net"),
        ([("1.3.6.1.4.1.1466.0", "a")], "1.3.6.1.4.1.1466.0=#0c0161"),
        ([("1.2.840.113549.1.9.1", "a@b.example")], "emailAddress=a@b.example"),
        ([], ""),
    ],
)  # fmt: skip
def test_a_name_has_the_form_of_rfc_4514(parts: list[tuple[str, str]], expected: str) -> None:
    attributes = [x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in parts]
    assert subject(certificate(x509.Name(attributes))) == expected


def test_the_parts_of_one_rdn_are_joined_by_a_plus() -> None:
    both = x509.RelativeDistinguishedName(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "a"), x509.NameAttribute(x509.NameOID.USER_ID, "b")]
    )
    assert set(subject(certificate(x509.Name([both]))).split("+")) == {"CN=a", "UID=b"}


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x82", b"\x30\x02\x30\x00", b"\x02\x01\x00", b"\x30\x05\x01"]
)
def test_bytes_that_are_no_certificate_have_no_name(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        subject(data)


def certificate(name: x509.Name) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime(2024, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + datetime.timedelta(9))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
