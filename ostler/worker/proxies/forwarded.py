"""The Forwarded header field (RFC 7239), read from its right end. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ostler.settings.field_grammar import TOKEN_CHARACTERS

# Section 4, and what is widely sent although it is not valid: white space around ";", unquoted addresses with
# ports.
_PAIR = re.compile(
    rf"""[ \t]*([{TOKEN_CHARACTERS.decode()}]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;\\]+))[ \t]*(?:;|\Z)""",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_OBFUSCATED_PORT = re.compile(r":_[0-9A-Za-z._-]+\Z")  # section 6.3

ForwardedElement = dict[str, str]


def elements(values: Iterable[bytes]) -> Iterator[ForwardedElement | None]:
    """Yield each hop's element, the nearest first: values by lower-case name. Garbage is None, and ends it.

    The field is read from its right end, where the proxies append. A client that sends a single opening quote
    would make all of it garbage if it were read from the left, including what its proxy has appended.
    """
    pieces = b",".join(values).decode("latin-1").split(",")
    while pieces:
        # A comma separates elements unless it is quoted, and quotes come in pairs. The shortest piece with an
        # even number of quotes is the element: a cut within a quoted string would leave an odd number.
        taken = [pieces.pop()]
        quotes = _quotes(taken[0])
        while quotes % 2 and pieces:
            taken.append(pieces.pop())
            quotes += _quotes(taken[-1])
        text = ",".join(reversed(taken))
        if text.strip():
            element = _element(text)
            yield element
            if element is None:
                return


def node(element: ForwardedElement) -> str:
    """Return the value of `for`, without an obfuscated port; an empty string if there is none."""
    return _OBFUSCATED_PORT.sub("", element.get("for", ""))


def _quotes(piece: str) -> int:
    return _ESCAPED.sub("", piece).count('"') if "\\" in piece else piece.count('"')


def _element(text: str) -> ForwardedElement | None:
    found: ForwardedElement = {}
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _PAIR.match(text, at)
        if match is None:
            return None
        name, quoted, plain = match.groups()
        if name.lower() in found:
            return None  # section 4: each parameter once
        found[name.lower()] = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
        at = match.end()
    return found
