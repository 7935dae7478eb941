"""HTTP/1.1: one connection class, one request/response cycle, two parsers behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ostler import libraries
from ostler.settings import Settings
from ostler.worker.http.connection import Connection, MakeParser
from ostler.worker.middleware.proxy_headers import TrustedProxies
from ostler.worker.service import Service


def http_protocol(settings: Settings) -> Callable[[Service], asyncio.Protocol]:
    """Return what makes the protocol of one accepted connection, with the parser that the settings ask for.

    Raises:
        SettingsError: that parser is not installed.
    """
    make = http_connection(settings)
    if not settings.proxy_protocol:
        return make
    from ostler.worker.http.introduction import Introduction

    return partial(Introduction, make=make, peers=TrustedProxies(settings.forwarded_allow_ips))


def http_connection(settings: Settings) -> Callable[[Service], Connection]:
    """Return what makes a connection once everything that comes before HTTP has been seen to.

    Raises:
        SettingsError: the parser that the settings ask for is not installed.
    """
    return partial(Connection, make_parser=_parser(settings))


def _parser(settings: Settings) -> MakeParser:
    # Imported here: either library may be absent, and an unused one should cost no memory.
    if libraries.http_parser(settings) == "httptools":
        from ostler.worker.http.httptools_parser import HttptoolsParser

        return HttptoolsParser
    from ostler.worker.http.h11_parser import H11Parser

    return H11Parser
