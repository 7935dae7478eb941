"""The format of an access log line, in gunicorn's atoms: what is in one, without what fills it.

Pure. `ostler.worker.http.access_format` fills the atoms from a request.
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
"""Formats that have a name, after Apache's; `combined` is gunicorn's default."""

NUMBERS = ("s", "B", "T", "M", "D")
TEXTS = ("h", "l", "u", "t", "r", "m", "U", "q", "H", "st", "b", "f", "a", "L", "p")
FIELDS = ("i", "o", "e")
"""What `%({name}i)s` and its like end in: a request field, a response field, a variable."""

# printf's way, as Python has it: name, flags, width, precision, conversion.
_ITEM = re.compile(
    r"""%(?:
        (?P<percent>%)
      | \((?P<name>\{[^{}()]+\}[a-z]|[^{}()]*)\)(?P<how>[-+ #0]*\d*(?:\.\d+)?)(?P<conversion>[a-zA-Z])
    )?""",
    re.VERBOSE,
)


class WrongAtom(ValueError):
    """A format that cannot be filled; its text says why."""


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a template for Python's % with a tuple, and the names of the atoms that it takes, in order.

    Raises:
        WrongAtom: there is an atom that does not exist, or a % that begins none.
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
