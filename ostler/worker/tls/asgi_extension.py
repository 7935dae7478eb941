"""What an application is told of a connection's TLS: the ASGI TLS extension, version 0.2."""

from __future__ import annotations

import ssl
from types import MappingProxyType
from typing import Any

from ostler.tls.context import ServerContext
from ostler.worker.tls.distinguished_name import subject

# ProtocolVersion (RFC 8446, section 4.2.1; RFC 5246, appendix A.1 and its predecessors).
_VERSIONS = MappingProxyType({"TLSv1.3": 0x0304, "TLSv1.2": 0x0303, "TLSv1.1": 0x0302, "TLSv1": 0x0301})


def tls_facts(connection: ssl.SSLObject) -> dict[str, Any]:
    """Return the value of `scope["extensions"]["tls"]` for a connection whose handshake is done.

    `server_cert` is None where a factory made a context of its own, and where there are several. A client
    whose certificate is not verified has no connection, so `client_cert_error` is always None.
    """
    context = connection.context
    certificate = connection.getpeercert(binary_form=True) if context.verify_mode != ssl.CERT_NONE else None
    cipher = connection.cipher()
    return {
        "server_cert": context.certificate if isinstance(context, ServerContext) else None,
        "client_cert_chain": () if certificate is None else _chain(connection, certificate),
        "client_cert_name": None if certificate is None else _name(certificate),
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(connection.version() or ""),
        "cipher_suite": None if cipher is None else _suite(context, cipher[0]),
    }


def _chain(connection: Any, certificate: bytes) -> tuple[str, ...]:
    """The client's certificate, and what it sent of those that lead from it to a trusted authority.

    Before Python 3.13 only the first can be had, and so it is when a session is resumed.
    """
    chain = [certificate]
    if hasattr(connection, "get_verified_chain"):
        sent = set(connection.get_unverified_chain() or ())
        # Each signs the one before, which of unverified ones nobody knows; the root may be only ours.
        chain += [each for each in (connection.get_verified_chain() or ())[1:] if each in sent]
    return tuple(ssl.DER_cert_to_PEM_cert(each) for each in chain)


def _name(certificate: bytes) -> str | None:
    try:
        return subject(certificate)
    except ValueError:
        return None


def _suite(context: ssl.SSLContext, name: str) -> int | None:
    """The number of a cipher suite: the lower two bytes of OpenSSL's own (SSL_CIPHER_get_id(3))."""
    if not isinstance(context, ServerContext):
        return _numbers(context).get(name)
    if not context.suites:
        context.suites = _numbers(context)
    return context.suites.get(name)


def _numbers(context: ssl.SSLContext) -> dict[str, int]:
    return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}
