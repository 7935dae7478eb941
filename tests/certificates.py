"""Certificates for tests, issued by a new authority, and TLS clients that trust it."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import trustme
    from cryptography import x509

NAMES = ("localhost", "127.0.0.1", "::1")


class Authority:
    """A certificate authority, with a server's certificate and key as files in `directory`.

    ca.pem is the authority's certificate, cert.pem the server's, key.pem its key, both.pem both of these.
    """

    def __init__(self, directory: Path) -> None:
        module = pytest.importorskip("trustme", reason="trustme needs Rust where it has no wheels: PyPy")
        self.directory = directory
        self.key_type = module.KeyType.ECDSA
        self.ca: trustme.CA = module.CA(key_type=self.key_type)
        self.ca.cert_pem.write_to_path(str(directory / "ca.pem"))
        self.certify()

    def certify(self) -> str:
        """Replace certificate and key by new ones, as a renewal does, and return the certificate as PEM."""
        issued = self.ca.issue_cert(*NAMES, key_type=self.key_type)
        for name, data in (
            ("cert.pem", b"".join(blob.bytes() for blob in issued.cert_chain_pems)),
            ("key.pem", issued.private_key_pem.bytes()),
            ("both.pem", issued.private_key_and_cert_chain_pem.bytes()),
        ):
            # Replaced by a rename, so that no process reads half a file.
            (self.directory / f"{name}.new").write_bytes(data)
            (self.directory / f"{name}.new").replace(self.directory / name)
        return str(issued.cert_chain_pems[0].bytes(), "ascii")

    def encrypt_key(self, password: bytes) -> None:
        """Encrypt the key in key.pem."""
        from cryptography.hazmat.primitives import serialization as forms
        from cryptography.hazmat.primitives.asymmetric import ec

        path = self.directory / "key.pem"
        key = forms.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        encryption = forms.BestAvailableEncryption(password)
        path.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, encryption))

    @property
    def files(self) -> dict[str, Any]:
        """The settings for the server's certificate, by name."""
        return {
            "ssl_certfile": str(self.directory / "cert.pem"),
            "ssl_keyfile": str(self.directory / "key.pem"),
        }

    @property
    def flags(self) -> list[str]:
        """The same settings as flags of the command line."""
        return [
            "--ssl-certfile", str(self.directory / "cert.pem"),
            "--ssl-keyfile", str(self.directory / "key.pem"),
        ]  # fmt: skip

    @property
    def mutual(self) -> dict[str, Any]:
        """Settings that also ask clients for a certificate of this authority."""
        return {**self.files, "ssl_cert_reqs": "optional", "ssl_ca_certs": str(self.directory / "ca.pem")}

    def client(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts this authority, and shows `certificate` if given."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context


def pem(text: str) -> x509.Certificate:
    """Parse a certificate from PEM."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(text.encode())


def unreadable(path: Path) -> bool:
    """Make a file unreadable, and return whether it is; root can still read it."""
    path.chmod(0)
    with contextlib.suppress(OSError), path.open():
        return False
    return os.geteuid() != 0
