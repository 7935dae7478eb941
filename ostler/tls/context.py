"""The server's SSLContext, made from settings: for the arbiter to check, and for a worker to serve with.

Everything that can be wrong with keys and certificates is found here, and said in one line. Nothing here
imports the application, and nothing asks for a password on the terminal.
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
"""The protocols that are spoken, to clients that ask (RFC 7301)."""

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_CERTIFICATE_END = "-----END CERTIFICATE-----"
_CERTIFICATES = (_CERTIFICATE, "-----BEGIN X509 CERTIFICATE-----", "-----BEGIN TRUSTED CERTIFICATE-----")
_KEY = "PRIVATE KEY-----"

# The last is what OpenSSL says of an RSA key beside an EC certificate.
_MISMATCH = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")

_VERSIONS = MappingProxyType({"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3})
_DEMANDS = MappingProxyType(
    {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
)


class ServerContext(ssl.SSLContext):
    """An SSLContext that knows which certificate it shows: the ssl module does not tell."""

    certificate: str | None = None
    """The certificate as PEM; None when there are several to choose from."""
    suites: Mapping[str, int] = MappingProxyType({})
    """Numbers of cipher suites by OpenSSL's names, once somebody has asked."""
    _loaded = False

    def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        """As the base class does, and remember the first certificate of the file."""
        super().load_cert_chain(certfile, keyfile, password)
        # A second chain stands beside the first, for clients of another kind (SSL_CTX_use_certificate(3)).
        self.certificate = None if self._loaded else _first_certificate(_read("ssl_certfile", certfile))
        self._loaded = True


def make_context(settings: Settings, directory: str) -> ssl.SSLContext:
    """Return the context that the settings ask for; relative paths are relative to `directory`.

    Raises:
        SettingsError: one line that names the setting and the file, and says what is wrong with it.
    """
    if settings.ssl_certfile is None:
        raise SettingsError("ssl_certfile is not given: there is no certificate to make a context with")
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.ssl_version]
    # Compression gives secrets away (CRIME). Renegotiation, which HTTP/1.1 has no use for, lets one client
    # burn a server's CPU. Most of this is Python's default by now, and none of it may depend on that.
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
    """Out of the callback that stands where OpenSSL would ask on the terminal."""


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
    except (OSError, ValueError) as error:  # gone since it was read; or a password longer than OpenSSL takes
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
        # A pipe would hold everything up, and could not be read a second time.
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
    """OpenSSL's reason, such as EE_KEY_TOO_SMALL or PEM lib, in words."""
    return (error.reason or error.strerror or "no reason given").replace("_", " ").lower()


def _wrong(name: str, path: str, why: str) -> SettingsError:
    return SettingsError(f"{name} is {path}: {why}")
