"""`--show-settings`: a table of every setting, its effective value, and the source of the value."""

from __future__ import annotations

from ostler.settings.declarations import declarations
from ostler.settings.sources import Configuration


def table(configuration: Configuration) -> str:
    """Return one line for each setting: its name, its value or a dash, and its origin."""
    settings, origins = configuration.settings, configuration.origins
    rows = [
        (name, _shown(declaration.kind.show(getattr(settings, name))), origins[name])
        for name, declaration in declarations().items()
    ]
    wide = max(len(name) for name, _, _ in rows)
    # Long values, such as a list of networks, do not widen the column: origins stay on the screen.
    values = [len(value) for _, value, _ in rows if len(value) <= 30]
    middle = max(values, default=0)
    return "".join(f"{name:<{wide}}  {value:<{middle}}  {origin}\n" for name, value, origin in rows)


def _shown(value: str) -> str:
    # Line breaks and control characters are escaped: each setting is one line.
    return value.encode("unicode_escape").decode("ascii") if not value.isprintable() else value or "-"
