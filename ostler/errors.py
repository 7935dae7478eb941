"""The exceptions that reach a person: one line that says what and what to do, and an exit code.

Libraries raise these; only the cli turns one into a line on stderr and an exit.
"""

from __future__ import annotations


class OstlerError(Exception):
    """Base of everything that ends ostler with a line for a person; `exit_code` is the process's."""

    exit_code = 1


class SettingsError(OstlerError):
    """A setting is wrong, or its file cannot be read: bad usage or configuration."""

    exit_code = 2


class StartupError(OstlerError):
    """The application could not be imported, or its lifespan start-up failed."""

    exit_code = 3


class BindError(OstlerError):
    """A listening socket could not be bound or adopted."""

    exit_code = 4
