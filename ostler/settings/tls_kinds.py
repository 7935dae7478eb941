"""The kinds of the TLS settings' values. Numbers are accepted as in uvicorn, which takes those of `ssl`.

Pure, as `ostler.settings.kinds`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ostler.settings.kinds import ImportString, Kind, Text


class Secret(Text):
    """A text that is never shown where settings are printed or logged."""

    secret = True

    def show(self, value: Any) -> str:
        return "" if value is None else MASK


MASK = "***"
"""Is shown in place of a secret, whatever its length."""


class _Numbered(Kind):
    """One of a few words; each also has numbers that stand for it."""

    words: Mapping[str, str]

    def parse(self, text: str) -> Any:
        return self._find(text.strip())

    def check(self, value: object) -> Any:
        # The enumerations of the ssl module are ints. True is an int too, but a mistake here.
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError
        return self._find(value.strip() if isinstance(value, str) else str(int(value)))

    def _find(self, word: str) -> str:
        try:
            return self.words[word.lower()]
        except KeyError:
            raise ValueError from None


class TlsVersion(_Numbered):
    """The oldest version of TLS that the server accepts; versions before 1.2 are deprecated (RFC 8996)."""

    metavar = "VERSION"
    expected = (
        "TLSv1.2 or TLSv1.3, the oldest accepted version, "
        "or one of uvicorn's numbers for TLSv1.2: 17, 5, 4, 3 or 2"
    )
    # PROTOCOL_TLS is 2, PROTOCOL_TLSv1_2 is 5, PROTOCOL_TLS_SERVER is 17; 771 and 772 are ssl.TLSVersion's.
    words = MappingProxyType(
        dict.fromkeys(("tlsv1.2", "2", "3", "4", "5", "17", "771"), "TLSv1.2")
        | dict.fromkeys(("tlsv1.3", "772"), "TLSv1.3")
    )
    _deprecated = MappingProxyType({"3": "TLSv1", "4": "TLSv1.1"})  # PROTOCOL_TLSv1, PROTOCOL_TLSv1_1

    def note(self, given: object) -> str:
        number = (
            given.strip() if isinstance(given, str) else str(int(given)) if isinstance(given, int) else ""
        )
        if number not in self._deprecated:
            return ""
        return f"{self._deprecated[number]} is deprecated (RFC 8996), and not spoken: TLSv1.2 and newer are"


class CertificateDemand(_Numbered):
    """Whether a client must present a certificate."""

    metavar = "[none|optional|required]"
    expected = "none, optional or required, or as numbers 0, 1 or 2"
    words = MappingProxyType(
        {"none": "none", "0": "none", "optional": "optional", "1": "optional"}
        | {"required": "required", "2": "required"}
    )


class Hook(ImportString):
    """A function as module:attribute; code may pass the function itself."""

    metavar = "MODULE:ATTR"
    expected = "module:attribute, or from code a function"

    def take(self, value: object) -> Any:
        return _importable(value) if callable(value) else self.check(value)

    def show(self, value: Any) -> str:
        return super().show(value) if not callable(value) else repr(value)


def _importable(function: Callable[..., Any]) -> str | Callable[..., Any]:
    """Return the import string of `function`; the function itself if other processes cannot import it."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    # A worker does not run the parent's script, and so cannot import a function from it.
    if not module or not name or module == "__main__":
        return function
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function else function
