"""The exceptions of ostler: each has a one-line message, which says what to do, and an exit code.

Every part of ostler raises them. Only `ostler.cli` and `ostler.run()` turn one into a line on stderr and an
exit.
"""

from __future__ import annotations


class OstlerError(Exception):
    """The base class of all errors that end ostler."""

    exit_code = 1
    """The exit code of the process."""


class SettingsError(OstlerError):
    """A setting is wrong, or a file of settings cannot be read."""

    exit_code = 2


class StartupError(OstlerError):
    """The application could not be imported, or its lifespan start-up failed."""

    exit_code = 3


class BindError(OstlerError):
    """A listening socket could not be bound or adopted."""

    exit_code = 4
