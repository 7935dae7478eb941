"""HTTP/1.1: one connection class, one request/response cycle, two parsers behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ostler.errors import SettingsError
from ostler.settings import Settings
from ostler.worker.http.connection import Connection, MakeParser
from ostler.worker.service import Service


def http_protocol(settings: Settings) -> Callable[[Service], asyncio.Protocol]:
    """Return what makes the protocol of one accepted connection, with the parser that the settings ask for.

    Raises:
        SettingsError: that parser is not installed.
    """
    return partial(Connection, make_parser=_parser(settings.http))


def _parser(name: str) -> MakeParser:
    # Imported here: each of the libraries may be absent, and an unused one should cost no memory.
    if name != "h11":
        try:
            from ostler.worker.http.httptools_parser import HttptoolsParser
        except ImportError:
            if name == "httptools":
                raise SettingsError(
                    "http is set to httptools, which is not installed: pip install httptools"
                ) from None
        else:
            return HttptoolsParser
    from ostler.worker.http.h11_parser import H11Parser

    return H11Parser
