"""Certificates for tests, by an authority of their own, and clients that trust it."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec

NAMES = ("localhost", "127.0.0.1", "::1")


class Authority:
    """An authority, with a server's certificate and key as files in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.ca.cert_pem.write_to_path(str(directory / "ca.pem"))
        self.certify()

    def certify(self) -> str:
        """Put a new certificate in place, as a renewal does, and return it."""
        issued = self.ca.issue_cert(*NAMES, key_type=trustme.KeyType.ECDSA)
        for name, data in (
            ("cert.pem", b"".join(blob.bytes() for blob in issued.cert_chain_pems)),
            ("key.pem", issued.private_key_pem.bytes()),
            ("both.pem", issued.private_key_and_cert_chain_pem.bytes()),
        ):
            # Each in one step, so that nobody reads half of it.
            (self.directory / f"{name}.new").write_bytes(data)
            (self.directory / f"{name}.new").replace(self.directory / name)
        return issued.cert_chain_pems[0].bytes().decode()

    def encrypt_key(self, password: bytes) -> None:
        """Encrypt the key in key.pem."""
        path = self.directory / "key.pem"
        key = forms.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        lock = forms.BestAvailableEncryption(password)
        path.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, lock))

    @property
    def files(self) -> dict[str, Any]:
        """Settings for the server's certificate."""
        return {
            "ssl_certfile": str(self.directory / "cert.pem"),
            "ssl_keyfile": str(self.directory / "key.pem"),
        }

    @property
    def flags(self) -> list[str]:
        """The same on the command line."""
        return [
            "--ssl-certfile", str(self.directory / "cert.pem"),
            "--ssl-keyfile", str(self.directory / "key.pem"),
        ]  # fmt: skip

    @property
    def mutual(self) -> dict[str, Any]:
        """Settings that ask clients for a certificate by this authority."""
        return {**self.files, "ssl_cert_reqs": "optional", "ssl_ca_certs": str(self.directory / "ca.pem")}

    def client(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """The context of a client that trusts this authority and no other."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context


def pem(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def unreadable(path: Path) -> bool:
    """Make a file unreadable; False where that stops nobody, as root."""
    path.chmod(0)
    with contextlib.suppress(OSError), path.open():
        return False
    return os.geteuid() != 0
