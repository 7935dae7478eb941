"""Says whether the settings ask for TLS, and checks keys and certificates; imports `ssl` only for TLS."""

from __future__ import annotations

from ostler.settings.declarations import Settings


def wanted(settings: Settings) -> bool:
    """Return whether the server speaks TLS."""
    return settings.ssl_certfile is not None or settings.ssl_context_factory is not None


def check(settings: Settings, directory: str) -> None:
    """Check keys and certificates, so that a mistake is found before a worker starts with them.

    An `ssl_context_factory` is not called: its module may be the application's, which only workers import.

    Args:
        settings: the settings to check.
        directory: what relative paths in them are relative to.

    Raises:
        SettingsError: as `ostler.tls.context.make_context`.
    """
    if wanted(settings) and settings.ssl_context_factory is None:
        from ostler.tls.context import make_context

        make_context(settings, directory)
