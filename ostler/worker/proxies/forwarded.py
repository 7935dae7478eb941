"""The Forwarded header field (RFC 7239), read from its right end. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# Section 4, and what is widely sent besides: white space around ";", addresses with ports left unquoted.
_PAIR = re.compile(
    r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;\\]+))[ \t]*(?:;|\Z)""", re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_OBFUSCATED_PORT = re.compile(r":_[0-9A-Za-z._-]+\Z")  # section 6.3

Element = dict[str, str]


def elements(values: Iterable[bytes]) -> Iterator[Element | None]:
    """Yield what each hop says, the nearest first: values by lower-case name; None, and the end, at garbage.

    From the right, for that end is the proxies'. A client that sends an opening quote alone would make all
    of it garbage to who reads from the left, what its proxy has appended included.
    """
    pieces = b",".join(values).decode("latin-1").split(",")
    while pieces:
        # A comma splits unless it is quoted, and quotes come in pairs. The shortest piece with pairs only is
        # the element: a cut within a quoted string leaves one quote without its other.
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


def node(element: Element) -> str:
    """Return who the element is for, with its port unless that is obfuscated; empty where it does not say."""
    return _OBFUSCATED_PORT.sub("", element.get("for", ""))


def _quotes(piece: str) -> int:
    return _ESCAPED.sub("", piece).count('"') if "\\" in piece else piece.count('"')


def _element(text: str) -> Element | None:
    found: Element = {}
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
