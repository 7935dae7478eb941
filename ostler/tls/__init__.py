"""Whether TLS is asked for, and a look at whether it can be had; without it, nobody loads Python's ssl."""

from __future__ import annotations

from ostler.settings.declarations import Settings


def wanted(settings: Settings) -> bool:
    """Whether TLS is to be spoken at all."""
    return settings.ssl_certfile is not None or settings.ssl_context_factory is not None


def check(settings: Settings, directory: str) -> None:
    """Find what is wrong with keys and certificates before anybody is to serve with them.

    What a factory would make is not looked at: it may be the application's.

    Raises:
        SettingsError: as `ostler.tls.context.make_context`.
    """
    if wanted(settings) and settings.ssl_context_factory is None:
        from ostler.tls.context import make_context

        make_context(settings, directory)
