"""Parses `--access-log-format`: a template for Python's % operator, and the names of gunicorn's atoms in it.

Pure. `ostler.worker.http.access_format` fills in the values of a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "common": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s',
        "combined": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    }
)
"""Formats with a name, as in Apache; `combined` is gunicorn's default."""

NUMBERS = ("s", "B", "T", "M", "D")
TEXTS = ("h", "l", "u", "t", "r", "m", "U", "q", "H", "st", "b", "f", "a", "L", "p")
FIELDS = ("i", "o", "e")
"""The last letter of an atom such as `%({name}i)s`: request header, response header, environment variable."""

# Python's printf-style formatting: name, flags, width, precision, conversion.
_ITEM = re.compile(
    r"""%(?:
        (?P<percent>%)
      | \((?P<name>\{[^{}()]+\}[a-z]|[^{}()]*)\)(?P<how>[-+ #0]*\d*(?:\.\d+)?)(?P<conversion>[a-zA-Z])
    )?""",
    re.VERBOSE,
)


class WrongAtom(ValueError):
    """The format is wrong; the message says why."""


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """Parse an access log format.

    Args:
        text: the format, or one of the names in `FORMATS`.

    Returns:
        A template for Python's % operator and a tuple of values, and the names of the atoms in that order.

    Raises:
        WrongAtom: an atom does not exist, or a % begins no atom.
    """
    template: list[str] = []
    names: list[str] = []
    end = 0
    source = FORMATS.get(text.strip(), text)
    if any(c < " " or c == "\x7f" for c in source if c != "\t"):
        raise WrongAtom("a line cannot hold control characters")
    for item in _ITEM.finditer(source):
        template.append(source[end : item.start()])
        end = item.end()
        name = item["name"]
        if item["percent"]:
            template.append("%%")
            continue
        if name is None:
            raise WrongAtom(f"{source[item.start() : item.start() + 12]!r} begins no atom (a plain % is %%)")
        _refuse_wrong(name, item["conversion"], item[0])
        template.append(f"%{item['how']}{item['conversion']}")
        names.append(name)
    template.append(source[end:])
    return "".join(template), tuple(names)


def _refuse_wrong(name: str, conversion: str, shown: str) -> None:
    field = name.startswith("{") and name[-1] in FIELDS
    if name not in NUMBERS and name not in TEXTS and not field:
        raise WrongAtom(f"there is no atom {shown}")
    if conversion != "s" and not (conversion == "d" and name in NUMBERS):
        raise WrongAtom(f"{shown} cannot be written so: expected s at its end")
