"""Makes the server's SSLContext from the settings: the arbiter checks them with it, a worker serves with it.

Every mistake in keys and certificates becomes one line that names the setting and the file. Nothing here
imports the application or asks for a password on the terminal.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings

ALPN = ("http/1.1",)
"""The protocols that the server offers to clients that negotiate one (RFC 7301)."""

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_CERTIFICATE_END = "-----END CERTIFICATE-----"
_CERTIFICATES = (_CERTIFICATE, "-----BEGIN X509 CERTIFICATE-----", "-----BEGIN TRUSTED CERTIFICATE-----")
_KEY = "PRIVATE KEY-----"

# OpenSSL's reasons for a key that does not belong to the certificate. The last one is for an RSA key with an
# EC certificate.
_MISMATCH = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")

_VERSIONS = MappingProxyType({"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3})
_DEMANDS = MappingProxyType(
    {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
)


class ServerContext(ssl.SSLContext):
    """An SSLContext that remembers the certificate it serves, which the ssl module does not expose."""

    certificate: str | None = None
    """The certificate as PEM; None if there are several to choose from."""
    suites: Mapping[str, int] = MappingProxyType({})
    """Cipher suite numbers by OpenSSL's names; `ostler.worker.tls.asgi_extension` fills it on first use."""
    _loaded = False

    def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        """Load a certificate chain as the base class does, and remember the first certificate of the file."""
        super().load_cert_chain(certfile, keyfile, password)
        # A second chain does not replace the first if its key type differs (SSL_CTX_use_certificate(3)).
        self.certificate = None if self._loaded else _first_certificate(_read("ssl_certfile", certfile))
        self._loaded = True


def make_context(settings: Settings, directory: str) -> ssl.SSLContext:
    """Return the context that the settings ask for.

    Args:
        settings: the settings; `ssl_certfile` must be given.
        directory: what relative paths in them are relative to.

    Raises:
        SettingsError: a file cannot be used, or a setting is wrong; the line names both.
    """
    if settings.ssl_certfile is None:
        raise SettingsError("ssl_certfile is not given: there is no certificate to make a context with")
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.ssl_version]
    # Compression reveals secrets (CRIME). HTTP/1.1 does not need renegotiation, by which one client can use
    # up the server's CPU. Newer versions of Python have most of this as defaults; older ones do not.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(list(ALPN))
    if settings.ssl_ciphers is not None:
        try:
            context.set_ciphers(settings.ssl_ciphers)
        except ssl.SSLError:
            raise SettingsError(
                f"ssl_ciphers is {settings.ssl_ciphers!r}: OpenSSL has no such cipher; expected a list "
                "such as ECDHE+AESGCM:ECDHE+CHACHA20 (openssl-ciphers(1))"
            ) from None
    _load_identity(context, settings, directory)
    if settings.ssl_ca_certs is not None:
        _load_authorities(context, os.path.join(directory, settings.ssl_ca_certs))
    context.verify_mode = _DEMANDS[settings.ssl_cert_reqs]
    return context


class _PasswordNeeded(Exception):
    """Raised by the password callback, in whose place OpenSSL would ask on the terminal."""


def _load_identity(context: ssl.SSLContext, settings: Settings, directory: str) -> None:
    """Load certificate and key."""
    assert settings.ssl_certfile is not None
    certificate = os.path.join(directory, settings.ssl_certfile)
    key = certificate if settings.ssl_keyfile is None else os.path.join(directory, settings.ssl_keyfile)
    what = "ssl_certfile" if settings.ssl_keyfile is None else "ssl_keyfile"
    if not any(mark in _read("ssl_certfile", certificate) for mark in _CERTIFICATES):
        raise _wrong("ssl_certfile", certificate, "there is no certificate in it in PEM form")
    if _KEY not in _read(what, key):
        hint = "" if settings.ssl_keyfile else "; name the file of the key with --ssl-keyfile"
        raise _wrong(what, key, f"there is no private key in it in PEM form{hint}")
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        if settings.ssl_keyfile_password is None:
            raise _PasswordNeeded
        return settings.ssl_keyfile_password

    try:
        context.load_cert_chain(certificate, key, password)
    except _PasswordNeeded:
        raise _wrong(what, key, "the key is encrypted: give its password by ssl_keyfile_password") from None
    except ssl.SSLError as error:
        reason = error.reason or ""
        if reason in _MISMATCH:
            raise _wrong(what, key, f"the key does not belong to the certificate in {certificate}") from None
        if asked:
            why = "ssl_keyfile_password does not decrypt the key, or the key is damaged"
            raise _wrong(what, key, why) from None
        place = f" or {key}" if key != certificate else ""
        raise _wrong(
            "ssl_certfile", certificate + place, f"OpenSSL cannot use it ({_words(error)})"
        ) from None
    except (OSError, ValueError) as error:  # removed since it was read; a password too long for OpenSSL
        raise _wrong(what, key, getattr(error, "strerror", None) or str(error)) from None


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    if not any(mark in _read("ssl_ca_certs", path) for mark in _CERTIFICATES):
        raise _wrong("ssl_ca_certs", path, "there is no certificate in it in PEM form")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise _wrong("ssl_ca_certs", path, f"OpenSSL cannot use it ({_words(error)})") from None
    except OSError as error:
        raise _wrong("ssl_ca_certs", path, error.strerror or str(error)) from None


def _read(name: str, path: str) -> str:
    try:
        # Reading a pipe would block, and it could not be read a second time.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise _wrong(name, path, "it is no regular file")
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        hint = " to the user that ostler runs as" if isinstance(error, PermissionError) else ""
        raise _wrong(name, path, f"{error.strerror}{hint}") from None
    except ValueError:
        raise _wrong(name, path, "no file can have that name") from None


def _first_certificate(text: str) -> str | None:
    _, begin, rest = text.partition(_CERTIFICATE)
    body, end, _ = rest.partition(_CERTIFICATE_END)
    if not end:
        return None
    return "\n".join([begin, *body.split(), end, ""])


def _words(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason, such as EE_KEY_TOO_SMALL or PEM lib, as words."""
    return (error.reason or error.strerror or "no reason given").replace("_", " ").lower()


def _wrong(name: str, path: str, why: str) -> SettingsError:
    return SettingsError(f"{name} is {path}: {why}")
