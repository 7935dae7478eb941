"""`--show-settings`: every effective value and where it comes from."""

from __future__ import annotations

from ostler.settings.declarations import declarations
from ostler.settings.sources import Configuration


def table(configuration: Configuration) -> str:
    """One line for each setting: its name, its value, its origin; what is not set is a dash."""
    settings, origins = configuration.settings, configuration.origins
    rows = [
        (name, _shown(declaration.kind.show(getattr(settings, name))), origins[name])
        for name, declaration in declarations().items()
    ]
    wide = max(len(name) for name, _, _ in rows)
    # One long value, a list of networks say, must not push every origin off the screen.
    values = [len(value) for _, value, _ in rows if len(value) <= 30]
    middle = max(values, default=0)
    return "".join(f"{name:<{wide}}  {value:<{middle}}  {origin}\n" for name, value, origin in rows)


def _shown(value: str) -> str:
    # On one line, whatever is in it.
    return value.encode("unicode_escape").decode("ascii") if not value.isprintable() else value or "-"
