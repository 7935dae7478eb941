"""The grammar of the host that a request names: in its Host field, or in a target of absolute form."""

from __future__ import annotations

import re
import socket

# RFC 3986, section 3.2.2: a registered name or an IPv4 address, with the underscores that people use (they
# are among its characters). A comma is allowed there, too, but not here: in a field value it joins two hosts,
# and which of them counts would depend on the reader. Userinfo is refused: RFC 9110, section 4.2.4 calls it a
# likely attack.
_HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+"
    rb"|\[(?:([0-9A-Fa-f:.]+)(?:%[A-Za-z0-9\-._~%]+)?|[Vv][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+;=:]+)\])"
    rb"(?::[0-9]*)?\Z"
)

ABSOLUTE_FORM = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*://([!-.0->@-~]+)(/[!-~]*|\?[!-~]*)?\Z")
"""A request target of absolute form: the authority, not checked, and what follows it
(RFC 9112, section 3.2.2)."""


def is_host(value: bytes) -> bool:
    """Return whether `value` is `host [":" port]`, with a host that is not empty (RFC 9110, section 7.2)."""
    match = _HOST.match(value)
    if match is None:
        return False
    if match[1] is not None:
        try:
            socket.inet_pton(socket.AF_INET6, match[1].decode("ascii"))
        except OSError:
            return False
    return True
