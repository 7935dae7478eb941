"""Returns what the ASGI TLS extension, version 0.2, tells an application of its connection."""

from __future__ import annotations

import ssl
from types import MappingProxyType
from typing import Any

from ostler.tls.context import ServerContext
from ostler.worker.tls.distinguished_name import subject

# ProtocolVersion (RFC 8446, section 4.2.1; RFC 5246, appendix A.1 and its predecessors).
_VERSIONS = MappingProxyType({"TLSv1.3": 0x0304, "TLSv1.2": 0x0303, "TLSv1.1": 0x0302, "TLSv1": 0x0301})


def tls_facts(connection: ssl.SSLObject) -> dict[str, Any]:
    """Return the value of `scope["extensions"]["tls"]` for a connection after its handshake.

    `server_cert` is None where a factory has made the context, and where there are several certificates. A
    client with a certificate that cannot be verified gets no connection, so `client_cert_error` is always
    None.
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
    """Return the client's certificate, and those it sent that lead from it to a trusted authority.

    Before Python 3.13, and when a session is resumed, only the client's certificate is available.
    """
    chain = [certificate]
    if hasattr(connection, "get_verified_chain"):
        sent = set(connection.get_unverified_chain() or ())
        # In the verified chain, each certificate signs the one before; of unverified ones that is not known.
        # The root may be only the server's: the client need not send it.
        chain += [each for each in (connection.get_verified_chain() or ())[1:] if each in sent]
    return tuple(ssl.DER_cert_to_PEM_cert(each) for each in chain)


def _name(certificate: bytes) -> str | None:
    try:
        return subject(certificate)
    except ValueError:
        return None


def _suite(context: ssl.SSLContext, name: str) -> int | None:
    """Return the number of a cipher suite: the lower two bytes of OpenSSL's (SSL_CIPHER_get_id(3))."""
    if not isinstance(context, ServerContext):
        return _numbers(context).get(name)
    if not context.suites:
        context.suites = _numbers(context)
    return context.suites.get(name)


def _numbers(context: ssl.SSLContext) -> dict[str, int]:
    return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}
