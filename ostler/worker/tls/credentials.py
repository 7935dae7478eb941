"""Holds the SSLContext for a server's new connections, renews it, and logs the result."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from ostler.errors import OstlerError, StartupError
from ostler.settings.declarations import Settings
from ostler.tls import context as tls_context
from ostler.worker.importer import import_from_string
from ostler.worker.tls.half_close import HalfClosingSSLObject
from ostler.worker.tracebacks import one_line

logger = logging.getLogger("ostler.error.worker")


class Credentials:
    """Holds the current context. Existing connections keep the context that they started with."""

    def __init__(self, settings: Settings) -> None:
        """Make the context.

        Raises:
            SettingsError: a certificate, key or cipher is wrong.
            StartupError: the function that --ssl-context-factory names is not there, or fails.
        """
        self._settings = settings
        # The application may change the working directory before the files are read again.
        self._directory = os.getcwd()
        self.context = self._make()

    def renew(self) -> None:
        """Read the files again, or call the factory; log what came of it. A failure changes nothing else."""
        try:
            self.context = self._make()
        except OstlerError as error:
            logger.error(
                "SIGHUP: certificates not renewed, the server serves on with the old ones: %s", error
            )
        else:
            logger.info("SIGHUP: certificates read again, new connections get them")

    def _make(self) -> ssl.SSLContext:
        make_default = partial(tls_context.make_context, self._settings, self._directory)
        factory = self._settings.ssl_context_factory
        context = make_default() if factory is None else _call_factory(factory, self._settings, make_default)
        if context.sslobject_class is ssl.SSLObject:  # else the factory's, which has its reasons
            context.sslobject_class = HalfClosingSSLObject
        return context


def _call_factory(
    factory: str | Callable[..., Any], settings: Settings, make_default: Callable[[], ssl.SSLContext]
) -> ssl.SSLContext:
    name = f"ssl_context_factory {factory}"
    try:
        make = import_from_string(factory) if isinstance(factory, str) else factory
        context: object = make(settings, make_default)
    except OstlerError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        raise StartupError(f"{name} failed: {one_line(error)}") from error
    if not isinstance(context, ssl.SSLContext):
        raise StartupError(f"{name} returned {type(context).__name__}: expected an ssl.SSLContext")
    if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise StartupError(f"{name} returned a context for clients: expected one of ssl.PROTOCOL_TLS_SERVER")
    return context
