"""The grammar of HTTP header fields: what a name and a value may hold, for settings and workers alike."""

from __future__ import annotations

import re

TOKEN_CHARACTERS = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
"""The characters of a token (RFC 9110, section 5.6.2), to stand between brackets in a regular expression."""
_TOKEN = re.compile(rb"[%b]+\Z" % TOKEN_CHARACTERS)

CONTROLS = bytes({*range(32), 127} - {9})
"""The characters that RFC 9110, section 5.5 forbids in a field value: all controls but the tab."""


def is_token(text: bytes) -> bool:
    """Return whether `text` may be a field name, or another token (RFC 9110, section 5.6.2)."""
    return _TOKEN.match(text) is not None


def is_field_value(text: bytes) -> bool:
    """Return whether `text` has no control character but the tab (RFC 9110, section 5.5)."""
    # To delete them takes a seventh of the time that a regular expression does.
    return len(text.translate(None, CONTROLS)) == len(text)
